//! A token bucket: how often something may happen.

use std::time::{Duration, Instant};

/// Holds tokens that come back with time; each event takes one.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// Time in which one token comes back.
    each: Duration,
    most: u32,
    /// When the bucket would have been empty; the tokens are the time since, at most `most` of them.
    empty_at: Instant,
}

impl Bucket {
    /// A full bucket of `most` tokens (at least 1), one of which comes back in `each`.
    pub(super) fn new(most: u32, each: Duration, now: Instant) -> Self {
        let most = most.max(1);
        Self {
            each,
            most,
            empty_at: now.checked_sub(each * most).unwrap_or(now),
        }
    }

    /// Tokens in it when it is full.
    pub(super) fn most(&self) -> u32 {
        self.most
    }

    /// Whole tokens in it.
    pub(super) fn tokens(&self, now: Instant) -> u32 {
        let nanos = self.each.as_nanos().max(1);
        let tokens = now.saturating_duration_since(self.empty_at).as_nanos() / nanos;
        u32::try_from(tokens).unwrap_or(u32::MAX).min(self.most)
    }

    /// Takes one; `false` leaves the bucket as it is.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        if self.tokens(now) == 0 {
            return false;
        }
        let full = now.checked_sub(self.each * self.most).unwrap_or(now);
        self.empty_at = self.empty_at.max(full) + self.each;
        true
    }

    /// When there will be `tokens`.
    pub(super) fn when(&self, tokens: u32) -> Instant {
        self.empty_at + self.each * tokens.min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Duration = Duration::from_millis(50);

    #[test]
    fn a_burst_is_bounded_and_the_rate_after_it_too() {
        let start = Instant::now() + Duration::from_secs(3600);
        let mut bucket = Bucket::new(3, EACH, start);
        let mut taken = 0;
        for millisecond in 0..1000 {
            taken += u32::from(bucket.take(start + Duration::from_millis(millisecond)));
        }
        assert_eq!(taken, 3 + 19);
    }

    #[test]
    fn an_idle_bucket_does_not_grow_over_its_size() {
        let start = Instant::now() + Duration::from_secs(3600);
        let mut bucket = Bucket::new(2, EACH, start);
        let later = start + Duration::from_secs(60);
        assert_eq!(bucket.tokens(later), 2);
        assert!(bucket.take(later) && bucket.take(later) && !bucket.take(later));
        assert_eq!(bucket.when(1), later + EACH);
        assert!(bucket.take(bucket.when(1)));
    }
}
