//! What clients asked, what they got, and whether they may.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::world::{Route, World};
use crate::timeline::Timeline;

/// At most so many failures of each kind are told one by one.
const TOLD: u64 = 20;

/// What clients of one kind met. A request is a message here, for WebSocket.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Kind {
    /// Connections that were opened.
    pub connections: u64,
    /// Requests, each counted once however often it was sent.
    pub asked: u64,
    /// Those that were answered, whole and right.
    pub answered: u64,
    /// Those that were not.
    pub failed: u64,
    /// Connections whose end was announced: `Connection: close`, GOAWAY, a closing frame.
    pub told: u64,
    /// Connections that the other side ended while nothing was under way.
    pub unused: u64,
    /// Requests that were sent again as a client must be ready to: over a connection that ended, unused, at the same
    /// moment (RFC 9110 section 9.2.2, GET alone), with a stream that was refused unread (RFC 9113 section 8.7), or to a
    /// WebSocket that had just said its last word (RFC 6455 section 5.5.1).
    pub retried: u64,
    /// WebSockets that ended without a closing frame, with nothing under way.
    pub cut: u64,
    /// The longest that one took.
    pub slowest_ms: u64,
}

/// One failure.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Seconds after the start.
    pub at: f64,
    /// Whose.
    pub kind: &'static str,
    /// What happened.
    pub what: String,
    /// The event that was done last before it.
    pub after: String,
}

#[derive(Debug)]
struct State {
    wanted: Timeline<World>,
    /// Certificates, DER.
    certificates: Timeline<Vec<u8>>,
    last: String,
    kinds: BTreeMap<&'static str, Kind>,
    failures: Vec<Failure>,
}

/// Shared by clients and events.
#[derive(Debug)]
pub(super) struct Ledger {
    began: Instant,
    state: Mutex<State>,
}

impl Ledger {
    /// Nothing has happened yet.
    pub(super) fn new(world: World, certificate: Vec<u8>) -> Self {
        Self {
            began: Instant::now(),
            state: Mutex::new(State {
                wanted: Timeline::new(world),
                certificates: Timeline::new(certificate),
                last: "start".to_owned(),
                kinds: BTreeMap::new(),
                failures: Vec::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, kind: &'static str, count: impl FnOnce(&mut Kind)) {
        count(self.state().kinds.entry(kind).or_default());
    }

    /// An event begins.
    pub(super) fn event(&self, what: String) {
        self.state().last = what;
    }

    /// From now on, once it is in force, this is wanted.
    pub(super) fn wanted(&self, world: World) {
        self.state().wanted.wanted(world);
    }

    /// From now on, once it is in force, this certificate is wanted.
    pub(super) fn certificate(&self, der: Vec<u8>) {
        self.state().certificates.wanted(der);
    }

    /// A connection was opened.
    pub(super) fn opened(&self, kind: &'static str) {
        self.count(kind, |it| it.connections += 1);
    }

    /// A handshake that began then was shown this certificate.
    pub(super) fn shown(&self, kind: &'static str, begun: Instant, der: &[u8]) {
        if !self.state().certificates.any(begun, |it| it == der) {
            self.failed(kind, "a certificate was shown that is not wanted".into());
        }
    }

    /// A request is about to be sent for the first time.
    pub(super) fn asked(&self, kind: &'static str) {
        self.count(kind, |it| it.asked += 1);
    }

    /// It was answered; `from` is when it was sent, or its tunnel opened.
    pub(super) fn answered(
        &self,
        kind: &'static str,
        sent: Instant,
        from: Instant,
        route: Route,
        pod: &str,
    ) {
        let right = self.state().wanted.any(from, |it| it.allowed(route, pod));
        if !right {
            self.failed(
                kind,
                format!("answered by {pod}, which is not wanted for {route:?}"),
            );
            return;
        }
        let ms = u64::try_from(sent.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.count(kind, |it| {
            it.answered += 1;
            it.slowest_ms = it.slowest_ms.max(ms);
        });
    }

    /// It was not, or not as it must be.
    pub(super) fn failed(&self, kind: &'static str, what: String) {
        let at = self.began.elapsed().as_secs_f64();
        let mut state = self.state();
        let counts = state.kinds.entry(kind).or_default();
        counts.failed += 1;
        if counts.failed <= TOLD {
            let after = state.last.clone();
            state.failures.push(Failure {
                at,
                kind,
                what,
                after,
            });
        }
    }

    /// The end of a connection was announced.
    pub(super) fn told(&self, kind: &'static str) {
        self.count(kind, |it| it.told += 1);
    }

    /// A connection was found to be over before anything was sent.
    pub(super) fn unused(&self, kind: &'static str) {
        self.count(kind, |it| it.unused += 1);
    }

    /// A request is sent again.
    pub(super) fn retried(&self, kind: &'static str) {
        self.count(kind, |it| it.retried += 1);
    }

    /// A tunnel ended without a word, with nothing under way.
    pub(super) fn cut(&self, kind: &'static str) {
        self.count(kind, |it| it.cut += 1);
    }

    /// Seconds after the start, of a moment.
    pub(super) fn at(&self, when: Instant) -> f64 {
        when.saturating_duration_since(self.began).as_secs_f64()
    }

    /// All of it.
    pub(super) fn close(self) -> (Duration, BTreeMap<&'static str, Kind>, Vec<Failure>) {
        let lasted = self.began.elapsed();
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        (lasted, state.kinds, state.failures)
    }
}
