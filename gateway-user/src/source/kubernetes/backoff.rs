//! How long to wait before trying again.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// Waits that double.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// What went wrong is over.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    /// The wait before the next try, without jitter.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        wait
    }
}

/// Between half of a time and all of it: agents that lost the same server must not come back together.
pub(super) fn jittered(time: Duration) -> Duration {
    let half = time / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    half + Duration::from_nanos(random() % nanos.max(1))
}

/// Good enough to spread clients; says nothing about secrets.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_start_anew() {
        let millis = Duration::from_millis;
        let mut backoff = Backoff::new(millis(100), millis(350));
        let waits: Vec<_> = (0..4).map(|_| backoff.next()).collect();
        assert_eq!(waits, [millis(100), millis(200), millis(350), millis(350)]);
        backoff.reset();
        assert_eq!(backoff.next(), millis(100));
    }

    #[test]
    fn jitter_shortens_by_at_most_half() {
        let second = Duration::from_secs(1);
        let times: Vec<_> = (0..100).map(|_| jittered(second)).collect();
        assert!(
            times
                .iter()
                .all(|time| (second / 2..=second).contains(time))
        );
        assert!(times.iter().any(|time| *time != times[0]));
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
    }
}
