//! Random ids, of one worker.

use std::hash::{BuildHasher, RandomState};

use super::{SpanId, TraceId};

/// A generator that its worker owns; not for secrets.
///
/// Source: Blackman and Vigna, "Scrambled Linear Pseudorandom Number Generators", ACM TOMS 2021, xoshiro256++. Its state of
/// 256 bits keeps the workers of all nodes from ever meeting.
#[derive(Clone, Debug)]
pub struct Ids {
    state: [u64; 4],
}

impl Ids {
    /// Seeded by the operating system.
    pub fn from_os() -> Self {
        // Keys of hash maps are the random numbers of the operating system that the standard library gives out.
        let seed = |_| RandomState::new().hash_one(0_u8);
        Self::new([0, 1, 2, 3].map(seed))
    }

    /// The sequence of one seed.
    pub fn new(seed: [u64; 4]) -> Self {
        // All zeroes would stay so.
        let state = if seed == [0; 4] { [1; 4] } else { seed };
        Self { state }
    }

    /// A new trace id.
    pub fn trace(&mut self) -> TraceId {
        let high = u128::from(self.next());
        TraceId((high << 64 | u128::from(self.next())).max(1))
    }

    /// A new span id.
    pub fn span(&mut self) -> SpanId {
        SpanId(self.next().max(1))
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let drawn = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        drawn
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_sequence_is_that_of_the_published_generator() {
        let mut ids = Ids::new([1, 2, 3, 4]);
        let drawn = [(); 4].map(|()| ids.next());
        assert_eq!(
            drawn,
            [
                41_943_041,
                58_720_359,
                3_588_806_011_781_223,
                3_591_011_842_654_386
            ]
        );
    }

    #[test]
    fn workers_draw_different_ids_and_none_is_zero() {
        let mut seen = HashSet::new();
        for _ in 0..4 {
            let mut ids = Ids::from_os();
            for _ in 0..1000 {
                assert!(seen.insert(ids.trace().0) && ids.span().0 != 0);
            }
        }
        let mut zero = Ids::new([0; 4]);
        assert_ne!(zero.span(), zero.span());
    }
}
