//! What was allowed when, what clients met, and what of it counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{Report, world::World};
use crate::timeline::{SETTLED, Timeline};

/// At most so many failures are told one by one.
const TOLD: usize = 50;

/// One failure or wrong answer.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// Seconds after the start.
    pub at: f64,
    /// Which client: `held`, `transfer` or `short`.
    pub client: &'static str,
    /// Listener.
    pub port: u16,
    /// The pod at the other end, where it is known.
    pub pod: Option<String>,
    /// What happened.
    pub what: String,
    /// The event that was done last before it.
    pub after: String,
}

#[derive(Debug)]
struct State {
    /// Since when which pods may answer, by listener.
    allowed: Timeline<BTreeMap<u16, BTreeSet<String>>>,
    /// Pods that died, from when to when that excuses a failure.
    deaths: Vec<(String, Instant, Option<Instant>)>,
    last: String,
    report: Report,
}

/// Shared by clients and events.
#[derive(Debug)]
pub(super) struct Ledger {
    began: Instant,
    state: Mutex<State>,
}

impl Ledger {
    /// Nothing has happened yet.
    pub(super) fn new(world: &World) -> Self {
        let began = Instant::now();
        Self {
            began,
            state: Mutex::new(State {
                allowed: Timeline::new(world.allowed()),
                deaths: Vec::new(),
                last: "start".to_owned(),
                report: Report::default(),
            }),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// An event begins.
    pub(super) fn event(&self, what: String) {
        self.state().last = what;
    }

    /// From now on, once it is in force, this is wanted.
    pub(super) fn wanted(&self, world: &World) {
        self.state().allowed.wanted(world.allowed());
    }

    /// A pod dies now: connections to it end.
    pub(super) fn dies(&self, pod: &str) {
        self.state()
            .deaths
            .push((pod.to_owned(), Instant::now(), None));
    }

    /// The pod is not asked any more, or back.
    pub(super) fn buried(&self, pod: &str) {
        let now = Instant::now();
        let mut state = self.state();
        let open = |(name, _, until): &&mut (String, Instant, Option<Instant>)| {
            name == pod && until.is_none()
        };
        if let Some((_, _, until)) = state.deaths.iter_mut().find(open) {
            *until = Some(now);
        }
    }

    /// A held connection was answered.
    pub(super) fn held(&self, took: Duration) {
        let mut state = self.state();
        state.report.held_requests += 1;
        state.report.longest(took);
    }

    /// A transfer was read whole, and was right.
    pub(super) fn transferred(&self, bytes: u64) {
        self.state().report.transferred_bytes += bytes;
    }

    /// A short connection was answered by this pod.
    pub(super) fn short(&self, port: u16, begun: Instant, pod: String) {
        let now = Instant::now();
        let mut state = self.state();
        state.report.short_connections += 1;
        state.report.longest(now - begun);
        let wanted = |allowed: &BTreeMap<u16, BTreeSet<String>>| {
            allowed.get(&port).is_some_and(|it| it.contains(&pod))
        };
        let right = state.allowed.any(begun, wanted);
        if !right {
            let told = self.told(
                &state,
                "short",
                port,
                Some(pod),
                "answered by a pod that is not wanted".into(),
            );
            state.report.misrouted.push(told);
        }
    }

    /// An answer over a connection came from another pod, or was not what that pod sends.
    pub(super) fn wrong(&self, client: &'static str, port: u16, pod: &str, what: String) {
        let mut state = self.state();
        let told = self.told(&state, client, port, Some(pod.to_owned()), what);
        if state.report.misrouted.len() < TOLD {
            state.report.misrouted.push(told);
        }
    }

    /// A connection or a request failed; excused only if a pod that died explains it.
    pub(super) fn failed(
        &self,
        client: &'static str,
        port: u16,
        pod: Option<&str>,
        begun: Instant,
        what: String,
    ) {
        let mut state = self.state();
        let explains = |(name, from, until): &(String, Instant, Option<Instant>)| {
            let over = until.is_some_and(|until| until + SETTLED < begun);
            !over && *from <= Instant::now() && pod.is_none_or(|pod| pod.ends_with(name.as_str()))
        };
        // Of a held connection any death of its pod counts: it may not have been used since.
        if state.deaths.iter().any(explains) {
            state.report.excused += 1;
            return;
        }
        let told = self.told(&state, client, port, pod.map(str::to_owned), what);
        if state.report.resets.len() < TOLD {
            state.report.resets.push(told);
        }
    }

    /// All of it.
    pub(super) fn report(&self) -> Report {
        std::mem::take(&mut self.state().report)
    }

    fn told(
        &self,
        state: &State,
        client: &'static str,
        port: u16,
        pod: Option<String>,
        what: String,
    ) -> Told {
        Told {
            at: self.began.elapsed().as_secs_f64(),
            client,
            port,
            pod,
            what,
            after: state.last.clone(),
        }
    }
}

impl Report {
    fn longest(&mut self, took: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.longest_request_ms = self.longest_request_ms.max(ms);
    }
}
