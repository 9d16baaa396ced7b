//! Slow start: a pod that joins gets a tenth of its share, then more, then all. Pure.

use std::{
    cell::Cell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Part of its share that a pod begins with.
const FIRST: f64 = 0.1;

/// The pods of a group that are not at their full share yet, by their place in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Warming {
    over: Duration,
    pods: BTreeMap<usize, Warm>,
}

#[derive(Clone, Debug)]
pub(super) struct Warm {
    since: Instant,
    /// Part of a turn that it has saved.
    credit: Cell<f64>,
}

impl Warm {
    pub(super) fn new(since: Instant) -> Self {
        // The first turn neither at once nor later than any other.
        Self {
            since,
            credit: Cell::new(0.5),
        }
    }

    /// The same, of a pod that joined then.
    pub(super) fn joined(self, since: Instant) -> Self {
        Self { since, ..self }
    }
}

impl Warming {
    pub(super) fn new(over: Duration, pods: BTreeMap<usize, Warm>) -> Self {
        Self { over, pods }
    }

    pub(super) fn get(&self, pod: usize) -> Option<Warm> {
        self.pods.get(&pod).cloned()
    }

    /// Which part of its weight a pod has, from a tenth to 1, in a straight line.
    pub(super) fn part(&self, pod: usize, now: Instant) -> f64 {
        let Some(warm) = self.pods.get(&pod) else {
            return 1.0;
        };
        let age = now.saturating_duration_since(warm.since);
        if age >= self.over {
            return 1.0;
        }
        FIRST + (1.0 - FIRST) * age.as_secs_f64() / self.over.as_secs_f64()
    }

    /// Forgets all once the last of them has its full share.
    pub(super) fn end(&mut self, now: Instant) {
        let warm = |it: &Warm| now.saturating_duration_since(it.since) < self.over;
        if !self.pods.is_empty() && !self.pods.values().any(warm) {
            self.pods.clear();
        }
    }

    /// Whether a pod must leave its turn to others. Of many turns of its own it keeps its part.
    pub(super) fn yields(&self, pod: usize, own: bool, now: Instant) -> bool {
        let part = self.part(pod, now);
        let Some(warm) = self.pods.get(&pod).filter(|_| part < 1.0) else {
            return false;
        };
        if !own {
            return true;
        }
        let credit = warm.credit.get() + part;
        if credit >= 1.0 {
            return false;
        }
        warm.credit.set(credit);
        true
    }

    /// Notes that a pod was picked.
    pub(super) fn took(&self, pod: usize, now: Instant) {
        if let Some(warm) = self.pods.get(&pod) {
            let left = warm.credit.get() + self.part(pod, now) - 1.0;
            warm.credit.set(left.max(0.0));
        }
    }
}
