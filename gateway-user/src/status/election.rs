//! Who may write: a state machine over one Lease.
//!
//! Pure: requests and clocks are arguments. Two nodes never compare their clocks. A leader counts from the moment it
//! *sent* a renewal that succeeded, and stops writing after two thirds of the lease; a follower counts a whole lease
//! from the moment it *saw* the last renewal, which is later. Each change names the version it replaces, so of two
//! nodes that take a free Lease one is refused.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

/// A Lease that claims to last longer is taken over after this long: nobody can lock the others out for days.
const LONGEST_LEASE: Duration = Duration::from_secs(60);

/// What a Lease says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Record {
    /// Empty: nobody's.
    pub(super) holder: String,
    /// How long the holder keeps it without renewing it.
    pub(super) duration: Duration,
    /// By the holder's clock; only compared for equality.
    pub(super) acquired: Option<Timestamp>,
    /// By the holder's clock; only compared for equality.
    pub(super) renewed: Option<Timestamp>,
    /// How often the holder changed.
    pub(super) transitions: i32,
}

/// What to do next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Move {
    /// Nothing, until then.
    Wait(Instant),
    /// Read the Lease.
    Read,
    /// Make the Lease.
    Create(Record),
    /// Replace the Lease, if it still has this version.
    Replace(Record, String),
}

/// Until when this node may write. A write that is on the wire when the node is cut off may arrive later all the same;
/// the next leader finds it when it looks at the fleet again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Term {
    /// Counts the times this node became leader.
    pub(super) number: u64,
    /// No write begins after this; `None` without an election.
    pub(super) until: Option<Instant>,
    /// No write lasts longer than this.
    pub(super) end: Option<Instant>,
}

impl Term {
    /// For a node that is alone.
    pub(super) const ENDLESS: Self = Self {
        number: 1,
        until: None,
        end: None,
    };

    /// How long a write that begins now may take, at most `longest`; `None` if none may begin.
    pub(super) fn allows(&self, now: Instant, longest: Duration) -> Option<Duration> {
        match (self.until, self.end) {
            (Some(until), _) if now >= until => None,
            (_, Some(end)) => Some(longest.min(end.saturating_duration_since(now))),
            (_, None) => Some(longest),
        }
    }
}

/// What was read of the Lease.
#[derive(Clone, Debug)]
enum Seen {
    /// Nothing, or it has changed since.
    Unknown,
    /// There is none.
    Absent,
    There {
        record: Record,
        version: String,
    },
}

/// One node's part in the election.
#[derive(Debug)]
pub(super) struct Election {
    identity: String,
    lease: Duration,
    seen: Seen,
    /// The last record that was read or written, and since when it has been the same.
    watched: Option<(Record, Instant)>,
    /// While leading: when the last renewal that succeeded was sent.
    held_since: Option<Instant>,
    terms: u64,
    /// The next request is made then.
    due: Instant,
}

impl Election {
    /// A node that has not looked yet. `identity` is its own and of no other process, also of none before it.
    pub(super) fn new(identity: String, lease: Duration, now: Instant) -> Self {
        Self {
            identity,
            lease,
            seen: Seen::Unknown,
            watched: None,
            held_since: None,
            terms: 0,
            due: now,
        }
    }

    /// What to do now. `wall` is what others are told of the time.
    pub(super) fn next(&mut self, now: Instant, wall: Timestamp) -> Move {
        self.step_down_in_time(now);
        if now < self.due {
            return Move::Wait(self.until().map_or(self.due, |until| self.due.min(until)));
        }
        match &self.seen {
            Seen::Unknown => Move::Read,
            Seen::Absent => Move::Create(self.claim(None, wall)),
            Seen::There { record, version } => {
                Move::Replace(self.claim(Some(record), wall), version.clone())
            }
        }
    }

    /// The Lease was read at `now`: `None` if there is none.
    pub(super) fn observed(&mut self, lease: Option<(Record, String)>, now: Instant) {
        let Some((record, version)) = lease else {
            // Somebody deleted it. Whoever makes it anew holds it.
            self.held_since = None;
            self.watched = None;
            self.seen = Seen::Absent;
            return;
        };
        let since = match &self.watched {
            // Also what somebody wrote to its metadata gives the Lease a new version, so that is no sign of life.
            Some((known, since)) if *known == record => *since,
            _ => now,
        };
        self.watched = Some((record.clone(), since));
        let ours = record.holder == self.identity;
        if !ours {
            self.held_since = None;
        }
        let lasts = record
            .duration
            .clamp(self.lease, self.lease.max(LONGEST_LEASE));
        let expires = since + lasts;
        if ours || record.holder.is_empty() || expires <= now {
            self.seen = Seen::There { record, version };
        } else {
            self.seen = Seen::Unknown;
            self.due = expires.min(now + self.lease / 5);
        }
    }

    /// The Lease now holds `record`, which was sent at `sent`.
    pub(super) fn written(&mut self, record: Record, version: String, sent: Instant) {
        if self.held_since.is_none() {
            self.terms += 1;
        }
        self.held_since = Some(sent);
        self.watched = Some((record.clone(), sent));
        self.seen = Seen::There { record, version };
        self.due = sent + self.lease / 3;
    }

    /// Somebody else was faster: what was read is no longer so.
    pub(super) fn refused(&mut self) {
        self.seen = Seen::Unknown;
    }

    /// A request got no answer, or one that says nothing of the Lease. It may have been carried out all the same.
    pub(super) fn unanswered(&mut self, now: Instant) {
        self.seen = Seen::Unknown;
        self.due = now + self.lease / 15;
    }

    /// The right to write, if this node has it.
    pub(super) fn term(&self, now: Instant) -> Option<Term> {
        let until = self.until()?;
        (now < until).then(|| Term {
            number: self.terms,
            until: Some(until),
            end: self.held_since.map(|sent| sent + self.lease),
        })
    }

    /// Gives the Lease back, if it is ours; what to write over which version.
    pub(super) fn release(&mut self, wall: Timestamp) -> Option<(Record, String)> {
        self.held_since.take()?;
        match std::mem::replace(&mut self.seen, Seen::Unknown) {
            Seen::There { record, version } if record.holder == self.identity => {
                let free = Record {
                    holder: String::new(),
                    renewed: Some(wall),
                    ..record
                };
                Some((free, version))
            }
            _ => None,
        }
    }

    fn until(&self) -> Option<Instant> {
        self.held_since.map(|sent| sent + self.lease * 2 / 3)
    }

    fn step_down_in_time(&mut self, now: Instant) {
        if self.until().is_some_and(|until| until <= now) {
            self.held_since = None;
        }
    }

    fn claim(&self, before: Option<&Record>, wall: Timestamp) -> Record {
        let ours = before.filter(|record| record.holder == self.identity);
        let transitions = before.map_or(0, |record| record.transitions);
        Record {
            holder: self.identity.clone(),
            duration: self.lease,
            acquired: ours.map_or(Some(wall), |record| record.acquired),
            renewed: Some(wall),
            transitions: match ours {
                None if before.is_some() => transitions.saturating_add(1),
                _ => transitions,
            },
        }
    }
}

#[cfg(test)]
mod tests;
