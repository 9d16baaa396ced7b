//! What is known of one API server, and what is to be said of it. Pure: time is an argument.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{access::Fault, connection::Failure, resource::Resource};
use crate::{
    manifest::Reach,
    problem::{ObjectRef, Problem},
};

/// Probes that must fail, one after the other, for a server to count as silent.
const MISSES: u32 = 2;

/// One API server as it stands.
#[derive(Debug)]
pub(super) struct Standing {
    follows: BTreeMap<Resource, Follow>,
    misses: u32,
    /// The reason that was there first, which does not change while it lasts: one trouble is one message.
    silent: Option<String>,
    fault: Option<Fault>,
    /// Nothing heard and not listed yet.
    failed: Option<String>,
    reach: Reach,
}

#[derive(Debug)]
struct Follow {
    /// The server cannot be served from without it.
    required: bool,
    listed: bool,
    /// No watch is open since then.
    closed: Option<Instant>,
    refused: Option<(u16, String)>,
}

impl Standing {
    pub(super) fn new(required: &[Resource], optional: &[Resource], now: Instant) -> Self {
        let follow = |required| {
            move |resource: &Resource| {
                let follow = Follow {
                    required,
                    listed: false,
                    closed: Some(now),
                    refused: None,
                };
                (*resource, follow)
            }
        };
        let required = required.iter().map(follow(true));
        Self {
            follows: required.chain(optional.iter().map(follow(false))).collect(),
            misses: 0,
            silent: None,
            fault: None,
            failed: None,
            reach: Reach::Unknown,
        }
    }

    /// The server does not answer: nothing but probes goes out.
    pub(super) fn silent(&self) -> bool {
        self.silent.is_some()
    }

    /// The last probe failed.
    pub(super) fn missing(&self) -> bool {
        self.misses > 0
    }

    pub(super) fn listed(&mut self, resource: Resource, now: Instant) {
        if let Some(follow) = self.follows.get_mut(&resource) {
            follow.listed = true;
            follow.refused = None;
            // What was just read is not stale.
            follow.closed = follow.closed.map(|_| now);
        }
        self.heard();
    }

    pub(super) fn opened(&mut self, resource: Resource) {
        if let Some(follow) = self.follows.get_mut(&resource) {
            follow.closed = None;
            follow.refused = None;
        }
        self.heard();
    }

    fn heard(&mut self) {
        self.failed = None;
        self.fault = None;
    }

    /// A watch ended, or could not be opened; or a list failed.
    pub(super) fn closed(&mut self, resource: Resource, failure: Option<&Failure>, now: Instant) {
        match failure {
            Some(Failure::Kubeconfig(fault)) => self.fault = Some(fault.clone()),
            Some(failure @ Failure::Unreachable(_)) if self.reach == Reach::Unknown => {
                self.failed.get_or_insert_with(|| failure.to_string());
            }
            _ => {}
        }
        let Some(follow) = self.follows.get_mut(&resource) else {
            return;
        };
        follow.closed.get_or_insert(now);
        match failure {
            Some(Failure::Refused { code, message, .. }) => {
                self.failed = None;
                // One message for one trouble.
                if follow.refused.as_ref().is_none_or(|(had, _)| had != code) {
                    follow.refused = Some((*code, message.clone()));
                }
            }
            Some(Failure::Malformed(message)) => {
                self.failed = None;
                follow.refused.get_or_insert((0, message.clone()));
            }
            _ => {}
        }
    }

    /// The server gave a sign of life. Whether it had missed a probe before.
    pub(super) fn answered(&mut self) -> bool {
        let missed = std::mem::take(&mut self.misses) > 0;
        self.fault = None;
        self.silent = None;
        missed
    }

    /// A probe failed. Whether the server counts as silent from now on.
    pub(super) fn missed(
        &mut self,
        failure: &Failure,
        heard: Duration,
        shortest: Duration,
    ) -> bool {
        if let Failure::Kubeconfig(fault) = failure {
            self.fault = Some(fault.clone());
        }
        self.misses = self.misses.saturating_add(1);
        // An API server that restarts refuses connections at once: give it the time that a frozen one gets.
        if self.silent() || self.misses < MISSES || heard < shortest {
            return false;
        }
        let first = self.failed.clone();
        self.silent = Some(first.unwrap_or_else(|| failure.to_string()));
        true
    }

    /// What to say of the server now.
    pub(super) fn reach(&mut self, now: Instant, stale: Duration) -> Reach {
        let mut required = self.follows.values().filter(|follow| follow.required);
        let listed = required.clone().all(|follow| follow.listed);
        let open = required.clone().all(|follow| follow.closed.is_none());
        let is_stale = required.any(|follow| {
            follow
                .closed
                .is_some_and(|since| now.saturating_duration_since(since) >= stale)
        });
        self.reach = match self.reach {
            Reach::Unknown if !listed => Reach::Unknown,
            _ if self.silent() || is_stale => Reach::Lost,
            Reach::Lost if !open => Reach::Lost,
            _ => Reach::Connected,
        };
        self.reach
    }

    /// What is wrong with the server, as it shows in its object.
    pub(super) fn problems(&self, about: &ObjectRef, url: Option<&str>) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(fault) = &self.fault {
            problems.push(Problem::error(
                about,
                fault.field.clone(),
                fault.message.clone(),
                fault.remedy,
            ));
        }
        if let Some(what) = self
            .silent
            .as_ref()
            .or(self.failed.as_ref())
            .filter(|_| self.fault.is_none())
        {
            let server = url.unwrap_or("of its kubeconfig");
            problems.push(Problem::warning(
                about,
                "server",
                format!("the API server does not answer: {what}"),
                format!("see that {server} runs and can be reached from this node; what it said last stands until then"),
            ));
        }
        for (resource, follow) in &self.follows {
            let Some((code, message)) = &follow.refused else {
                continue;
            };
            let plural = resource.plural();
            let remedy = match code {
                401 => "renew the credentials".to_owned(),
                403 => format!("let the account of the agent list and watch {plural}"),
                404 => format!("install the definition of {plural} in this cluster"),
                _ => "see the log of the API server; it is tried again by itself".to_owned(),
            };
            let message = match code {
                0 => format!("{plural} cannot be read: {message}"),
                _ => format!("{plural} cannot be read, the API server answers {code}: {message}"),
            };
            problems.push(Problem::warning(about, plural, message, remedy));
        }
        problems
    }

    /// The last trouble, in one sentence; `None` if there is none.
    pub(super) fn trouble(&self) -> Option<String> {
        let refused = || {
            let mut refused = self
                .follows
                .values()
                .filter_map(|follow| follow.refused.as_ref());
            refused
                .next()
                .map(|(code, message)| format!("answers {code}: {message}"))
        };
        let fault = self.fault.as_ref().map(ToString::to_string);
        fault
            .or_else(|| self.silent.clone())
            .or_else(|| self.failed.clone())
            .or_else(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Duration = Duration::from_secs(5);
    const SHORTEST: Duration = Duration::from_secs(2);
    const LONG: Duration = Duration::from_secs(3);

    fn unreachable() -> Failure {
        Failure::Unreachable("connection refused".into())
    }

    fn member(now: Instant) -> Standing {
        Standing::new(&Resource::MEMBER, &[], now)
    }

    fn connected(now: Instant) -> Standing {
        let mut standing = member(now);
        for resource in Resource::MEMBER {
            standing.listed(resource, now);
            standing.opened(resource);
        }
        assert_eq!(standing.reach(now, STALE), Reach::Connected);
        standing
    }

    #[test]
    fn a_member_is_unknown_until_all_of_it_was_listed() {
        let now = Instant::now();
        let mut standing = member(now);
        standing.listed(Resource::Services, now);
        standing.missed(&unreachable(), LONG, SHORTEST);
        standing.missed(&unreachable(), LONG, SHORTEST);
        assert_eq!(standing.reach(now + STALE, STALE), Reach::Unknown);
        standing.answered();
        standing.listed(Resource::EndpointSlices, now);
        assert_eq!(standing.reach(now, STALE), Reach::Connected);
    }

    #[test]
    fn a_server_is_lost_after_two_misses_and_back_when_all_is_followed() {
        let now = Instant::now();
        let mut standing = connected(now);
        assert!(!standing.missed(&unreachable(), LONG, SHORTEST));
        assert_eq!(standing.reach(now, STALE), Reach::Connected);
        assert!(standing.missed(&unreachable(), LONG, SHORTEST));
        for resource in Resource::MEMBER {
            standing.closed(resource, None, now);
        }
        assert_eq!(standing.reach(now, STALE), Reach::Lost);
        assert!(standing.answered());
        assert_eq!(standing.reach(now, STALE), Reach::Lost);
        standing.opened(Resource::Services);
        assert_eq!(standing.reach(now, STALE), Reach::Lost);
        standing.opened(Resource::EndpointSlices);
        assert_eq!(standing.reach(now, STALE), Reach::Connected);
    }

    #[test]
    fn a_server_that_only_restarts_is_not_lost() {
        let now = Instant::now();
        let mut standing = connected(now);
        for _ in 0..10 {
            assert!(!standing.missed(&unreachable(), Duration::from_secs(1), SHORTEST));
        }
        assert_eq!(standing.reach(now, STALE), Reach::Connected);
    }

    #[test]
    fn a_server_that_answers_but_lets_nobody_watch_is_lost_in_time() {
        let now = Instant::now();
        let mut standing = connected(now);
        let failure = Failure::Refused {
            code: 500,
            message: "etcd".into(),
            retry_after: None,
        };
        standing.closed(Resource::Services, Some(&failure), now);
        assert_eq!(standing.reach(now + STALE / 2, STALE), Reach::Connected);
        assert_eq!(standing.reach(now + STALE, STALE), Reach::Lost);
    }

    #[test]
    fn one_trouble_is_one_message_and_goes_with_it() {
        let now = Instant::now();
        let about = ObjectRef::default();
        let mut standing = member(now);
        standing.closed(Resource::Services, Some(&unreachable()), now);
        let first = standing.problems(&about, None);
        assert_eq!(first.len(), 1);
        standing.closed(
            Resource::EndpointSlices,
            Some(&Failure::Unreachable("timed out".into())),
            now,
        );
        assert_eq!(standing.problems(&about, None), first);
        assert!(standing.trouble().is_some());
        standing.listed(Resource::Services, now);
        assert_eq!(standing.problems(&about, None), []);
        assert_eq!(standing.trouble(), None);
    }

    #[test]
    fn a_withheld_list_names_what_to_allow() {
        let now = Instant::now();
        let mut standing = Standing::new(&Resource::FLEET, &[Resource::Certificates], now);
        let failure = Failure::Refused {
            code: 403,
            message: "forbidden".into(),
            retry_after: None,
        };
        standing.closed(Resource::Certificates, Some(&failure), now);
        let problems = standing.problems(&ObjectRef::default(), None);
        assert_eq!(problems[0].field, "secrets");
        assert!(
            problems[0].remedy.contains("list and watch secrets"),
            "{}",
            problems[0]
        );
        for resource in Resource::FLEET {
            standing.listed(resource, now);
        }
        assert_eq!(
            standing.reach(now, STALE),
            Reach::Connected,
            "Secrets may be withheld"
        );
    }
}
