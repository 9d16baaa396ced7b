//! What can be made to go wrong, while the server runs.

use std::{collections::BTreeSet, time::Duration};

use super::{journal::Verb, rbac::Rules, refusal::Refusal, resource::Resource};

/// How every watch of a resource is disturbed. The default is not at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct WatchFaults {
    /// Wait so long before each event.
    pub delay: Duration,
    /// Send every event twice.
    pub duplicate: bool,
    /// Send neighbouring events of two objects in the wrong order. Events of one object keep theirs.
    pub swap: bool,
    /// Behind the change of an object send the state before the change once more, as a stale replica would.
    pub older: Option<Older>,
}

/// What follows on an older state that was sent again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Older {
    /// Nothing: who does not compare versions keeps the old state.
    Last,
    /// The new state again.
    ThenNewer,
}

/// An answer given instead of doing what was asked.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// 429, 500, 503 ...
    pub code: u16,
    /// So many requests fail.
    pub count: u32,
    /// `Retry-After`, seconds.
    pub retry_after: Option<u32>,
    /// Only requests of this verb; none for all.
    pub verb: Option<Verb>,
    /// Only requests for this resource; none for all.
    pub resource: Option<Resource>,
}

impl Failure {
    /// The next `count` requests of any kind are answered with `code`.
    pub fn all(code: u16, count: u32) -> Self {
        Self {
            code,
            count,
            retry_after: None,
            verb: None,
            resource: None,
        }
    }

    fn refusal(&self) -> Refusal {
        let (reason, message) = match self.code {
            429 => (
                "TooManyRequests",
                "Too many requests, please try again later.",
            ),
            503 => (
                "ServiceUnavailable",
                "the server is currently unable to handle the request",
            ),
            504 => (
                "Timeout",
                "the server was unable to return a response in the time allotted",
            ),
            _ => (
                "InternalError",
                "Internal error occurred: etcdserver: request timed out",
            ),
        };
        let mut refusal = Refusal::new(self.code, reason, message);
        refusal.retry_after = self.retry_after;
        refusal
    }
}

/// What all watches of a resource are told to do at once; each number counts how often.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Signal {
    /// Break the connection.
    pub(super) cut: u64,
    /// End the answer as a timeout would.
    pub(super) end: u64,
    /// Send an ERROR event with 410, then end.
    pub(super) expire: u64,
}

/// The faults that are switched on.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) watches: [WatchFaults; Resource::COUNT],
    /// So many events are still to be torn in the middle.
    pub(super) torn: [u32; Resource::COUNT],
    pub(super) failures: Vec<Failure>,
    pub(super) forbidden: BTreeSet<(Verb, Resource)>,
    /// None: everything is allowed that is not forbidden.
    pub(super) rules: Option<Rules>,
    /// Lists that may be answered from a cache see this revision.
    pub(super) stale: Option<u64>,
    /// A watch from a version that is too old is answered with HTTP 410, not with an event.
    pub(super) gone_as_status: bool,
}

impl Faults {
    /// The failure that this request runs into, which is used up by one.
    pub(super) fn strike(&mut self, verb: Verb, resource: Resource) -> Option<Refusal> {
        let hit = self.failures.iter_mut().find(|failure| {
            failure.count > 0
                && failure.verb.is_none_or(|only| only == verb)
                && failure.resource.is_none_or(|only| only == resource)
        })?;
        hit.count -= 1;
        let refusal = hit.refusal();
        self.failures.retain(|failure| failure.count > 0);
        Some(refusal)
    }

    /// Whether the next event of this resource is to be torn; used up by one.
    pub(super) fn tear(&mut self, resource: Resource) -> bool {
        let left = &mut self.torn[resource.index()];
        let tear = *left > 0;
        *left = left.saturating_sub(1);
        tear
    }
}
