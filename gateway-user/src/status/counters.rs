//! What the status room has done, for metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Written {
    /// Status of an AlbConfig.
    AlbConfig,
    /// Status of an Ingress.
    Ingress,
    /// An Event.
    Event,
    /// The Lease.
    Lease,
}

impl Written {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::AlbConfig, Self::Ingress, Self::Event, Self::Lease];

    /// For labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AlbConfig => "albconfig",
            Self::Ingress => "ingress",
            Self::Event => "event",
            Self::Lease => "lease",
        }
    }
}

/// What became of a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Done.
    Done,
    /// An Event that another leader has written before.
    Known,
    /// Somebody else had written there.
    Conflict,
    /// The object is gone.
    Gone,
    /// RBAC does not allow it.
    Forbidden,
    /// The API server does not take the content.
    Refused,
    /// The API server could not be reached, or could not do it now.
    Unavailable,
    /// No answer in time.
    TimedOut,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::Known,
        Self::Conflict,
        Self::Gone,
        Self::Forbidden,
        Self::Refused,
        Self::Unavailable,
        Self::TimedOut,
    ];

    /// For labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Known => "known",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::Forbidden => "forbidden",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timed_out",
        }
    }
}

/// Counts since the start, and what is so now. Read them whenever you like.
#[derive(Debug, Default)]
pub struct Counters {
    writes: [[AtomicU64; Outcome::ALL.len()]; Written::ALL.len()],
    is_leader: AtomicBool,
    terms: AtomicU64,
    statuses_waiting: AtomicU64,
    events_waiting: AtomicU64,
    events_dropped: AtomicU64,
    conflicts: AtomicU64,
}

impl Counters {
    /// Writes of a kind that ended in a way.
    pub fn writes(&self, what: Written, outcome: Outcome) -> u64 {
        self.writes[what as usize][outcome as usize].load(Relaxed)
    }

    /// Whether this node holds the Lease, or needs none.
    pub fn is_leader(&self) -> bool {
        self.is_leader.load(Relaxed)
    }

    /// How often this node became leader.
    pub fn terms(&self) -> u64 {
        self.terms.load(Relaxed)
    }

    /// Statuses that are not yet written as they should be.
    pub fn statuses_waiting(&self) -> u64 {
        self.statuses_waiting.load(Relaxed)
    }

    /// Events that wait for their budget, or for the API server.
    pub fn events_waiting(&self) -> u64 {
        self.events_waiting.load(Relaxed)
    }

    /// Events with good news that were not written because there were too many.
    pub fn events_dropped(&self) -> u64 {
        self.events_dropped.load(Relaxed)
    }

    /// Objects, seen since this node leads, whose status somebody else writes.
    pub fn conflicts(&self) -> u64 {
        self.conflicts.load(Relaxed)
    }

    pub(super) fn count(&self, what: Written, outcome: Outcome) {
        self.writes[what as usize][outcome as usize].fetch_add(1, Relaxed);
    }

    /// `term` counts the times this node became leader; `None` while it is not.
    pub(super) fn lead(&self, term: Option<u64>) {
        self.is_leader.store(term.is_some(), Relaxed);
        if let Some(number) = term {
            self.terms.store(number, Relaxed);
        }
    }

    pub(super) fn waiting(&self, statuses: usize, events: usize, dropped: u64, conflicts: usize) {
        self.statuses_waiting.store(statuses as u64, Relaxed);
        self.events_waiting.store(events as u64, Relaxed);
        self.events_dropped.fetch_add(dropped, Relaxed);
        self.conflicts.store(conflicts as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_outcome_has_a_number_of_its_own() {
        let counters = Counters::default();
        for (row, what) in Written::ALL.into_iter().enumerate() {
            for (column, outcome) in Outcome::ALL.into_iter().enumerate() {
                for _ in 0..10 * row + column {
                    counters.count(what, outcome);
                }
            }
        }
        for (row, what) in Written::ALL.into_iter().enumerate() {
            for (column, outcome) in Outcome::ALL.into_iter().enumerate() {
                assert_eq!(counters.writes(what, outcome), (10 * row + column) as u64);
            }
        }
    }
}
