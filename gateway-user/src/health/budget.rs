//! How many probes may begin per second. Pure.

use std::time::{Duration, Instant};

/// Spaces events evenly over time, and forgives a little unevenness.
/// Source: generic cell rate algorithm (ITU-T I.371, annex A).
#[derive(Debug)]
pub(super) struct Budget {
    each: Duration,
    slack: Duration,
    /// When the next event would be, were all of them even.
    next: Instant,
}

impl Budget {
    /// `rate` events per second (at least 1), of which `burst` may come at once.
    pub(super) fn new(rate: u32, burst: u32, now: Instant) -> Self {
        let each = Duration::from_secs(1) / rate.max(1);
        Self {
            each,
            slack: each * burst.saturating_sub(1),
            next: now,
        }
    }

    /// Takes one; when it may be tried again, if none is left.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let earliest = self.next.checked_sub(self.slack).unwrap_or(now);
        if earliest > now {
            return Err(earliest);
        }
        self.next = self.next.max(now) + self.each;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_sees_more_than_the_rate_and_one_burst() {
        let start = Instant::now();
        let mut budget = Budget::new(100, 10, start);
        let tries = (0..5_000).map(|step| start + Duration::from_micros(step * 500));
        let taken: Vec<Instant> = tries.filter(|now| budget.take(*now).is_ok()).collect();
        assert!((255..=260).contains(&taken.len()), "{}", taken.len());
        let within = |from: Instant| {
            let end = from + Duration::from_secs(1);
            taken.iter().filter(|at| (from..end).contains(*at)).count()
        };
        assert!(taken.iter().all(|from| within(*from) <= 110));
    }
}
