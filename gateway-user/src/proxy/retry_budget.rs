//! How many requests of a group may be sent once more. Pure; one per worker and group.
//!
//! Retries that are a share of the traffic cannot multiply it when everything fails.
//! Source: Google, "Site Reliability Engineering", chapter 21, "Handling Overload".

use std::time::Instant;

/// Seconds that are looked back on, each counted for itself.
const SECONDS: usize = 10;
/// One retry for so many requests.
const REQUESTS_PER_RETRY: u64 = 5;
/// Retries within that time that are always allowed: 3 a second.
const ALWAYS: u64 = 3 * SECONDS as u64;

/// Requests and retries of the last ten seconds.
#[derive(Clone, Debug)]
pub(super) struct RetryBudget {
    begun: Instant,
    /// Seconds since then that the counts have reached.
    second: u64,
    requests: [u64; SECONDS],
    retries: [u64; SECONDS],
    active: u64,
}

impl RetryBudget {
    /// Nothing was sent yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            second: 0,
            requests: [0; SECONDS],
            retries: [0; SECONDS],
            active: 0,
        }
    }

    /// A request begins; its retries are part of it.
    pub(super) fn begin(&mut self, now: Instant) {
        let slot = self.slot(now);
        self.requests[slot] += 1;
        self.active += 1;
    }

    /// It has ended.
    pub(super) fn end(&mut self) {
        self.active = self.active.saturating_sub(1);
    }

    /// Whether a request may be sent once more; counts it if so.
    pub(super) fn retry(&mut self, now: Instant) -> bool {
        let slot = self.slot(now);
        // Those of the last seconds may be under way still: whichever are more count, none of them twice.
        let recent: u64 = self.requests.iter().sum();
        let allowed = (recent.max(self.active) / REQUESTS_PER_RETRY).max(ALWAYS);
        let retries: u64 = self.retries.iter().sum();
        if retries >= allowed {
            return false;
        }
        self.retries[slot] += 1;
        true
    }

    /// The slot of this second; those since the last one are empty.
    fn slot(&mut self, now: Instant) -> usize {
        let second = now.saturating_duration_since(self.begun).as_secs();
        let passed = second.saturating_sub(self.second).min(SECONDS as u64);
        self.second = self.second.max(second);
        for back in 0..passed {
            let slot = ((self.second - back) % SECONDS as u64) as usize;
            (self.requests[slot], self.retries[slot]) = (0, 0);
        }
        (self.second % SECONDS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fifth_of_many_requests_and_three_a_second_of_few() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        let granted =
            |budget: &mut RetryBudget, now| (0..1000).filter(|_| budget.retry(now)).count();
        assert_eq!(granted(&mut budget, now), 30);
        (0..1000).for_each(|_| budget.begin(now));
        assert_eq!(granted(&mut budget, now), 170);
        // Old, but still under way; the retries are forgotten.
        let later = now + Duration::from_secs(10);
        assert_eq!(granted(&mut budget, later), 200);
        (0..1000).for_each(|_| budget.end());
        assert_eq!(granted(&mut budget, later + Duration::from_secs(60)), 30);
    }

    proptest! {
        #[test]
        fn retries_of_ten_seconds_are_a_fifth_of_the_requests_or_three_a_second(
            events in prop::collection::vec((0_u64..400, 0_u8..3), 0..600),
        ) {
            let start = Instant::now();
            let mut budget = RetryBudget::new(start);
            let (mut requests, mut retries, mut ms) = (Vec::new(), Vec::new(), 0);
            for (pause, kind) in events {
                // Pauses are rare, so that there is much traffic, too.
                ms += if pause < 380 { 0 } else { pause * 5 };
                let now = start + Duration::from_millis(ms);
                if kind == 0 {
                    budget.begin(now);
                    budget.end();
                    requests.push(ms / 1000);
                }
                let within = |all: &[u64]| all.iter().filter(|it| **it + 10 > ms / 1000).count();
                let allowed = (within(&requests) / 5).max(30);
                let expected = within(&retries) < allowed;
                prop_assert_eq!(budget.retry(now), expected);
                if expected {
                    retries.push(ms / 1000);
                }
            }
        }
    }
}
