//! How long to wait before a request is tried again.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    time::Duration,
};

/// Waits that double, each shortened by chance, so that the nodes of a fleet do not come back together.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// From about `first` to about `longest`.
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// The wait after one more failure; `chance` is any number.
    pub(super) fn failed(&mut self, chance: u64) -> Duration {
        let whole = self
            .first
            .saturating_mul(1 << self.failures.min(16))
            .min(self.longest);
        self.failures = self.failures.saturating_add(1);
        // From half of it to all of it.
        whole / 2 + (whole / 2).mul_f64((chance % 1024) as f64 / 1024.0)
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Some number, another one each time and in each process. Not for secrets.
pub(super) fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_anew_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for chance in [0, 1023] {
            let waits: Vec<u128> = (0..80)
                .map(|_| backoff.failed(chance).as_millis())
                .collect();
            let full = [100, 200, 400, 800, 1600, 3200, 5000, 5000];
            for (wait, full) in waits.iter().zip(full) {
                assert!((full / 2..=full).contains(wait), "{wait} of {full}");
            }
            assert!(waits[79] >= 2500);
            backoff.reset();
        }
    }
}
