//! Weighted Maglev rings.
//!
//! Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4. Weights by cumulated turns ("V2" fill): in every round each backend gains its
//! weight, and takes a slot when the gain reaches the largest weight.

use crate::hash;

/// Allowed ring lengths: primes, so that every skip walks the whole ring.
pub const LENGTHS: [u32; 5] = [1021, 4093, 16381, 65537, 131_071];

/// Slots per backend below which shares would get coarse.
const SLOTS_PER_BACKEND: u32 = 100;

/// One backend of a ring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// What the slots hold.
    pub id: u32,
    /// Hash of the backend's stable identity (cluster, address, port), not of its id: every node
    /// and every restart computes the same ring.
    pub identity: u64,
    /// Relative weight; 0 takes no slots.
    pub weight: u32,
}

/// Smallest allowed length with at least 100 slots a backend; the largest one past 1 310 backends.
pub fn ring_len(backends: usize) -> u32 {
    let wanted = (backends as u32).saturating_mul(SLOTS_PER_BACKEND);
    LENGTHS
        .into_iter()
        .find(|len| *len >= wanted)
        .unwrap_or(LENGTHS[LENGTHS.len() - 1])
}

/// Fills a ring of `len` slots (one of [`LENGTHS`]) with ids. No weight above zero gives no slots.
///
/// The order of `entries` does not matter. O(len x backends) at worst, O(len) typically.
pub fn build(entries: &[Entry], len: u32, seed: u64) -> Vec<u32> {
    let mut walkers: Vec<Walker> = entries
        .iter()
        .filter(|e| e.weight > 0)
        .map(|e| Walker::new(e, len, seed))
        .collect();
    // Identity order, so that the order of input does not matter.
    walkers.sort_unstable_by_key(|w| (w.identity, w.id));
    let Some(largest) = walkers.iter().map(|w| u64::from(w.weight)).max() else {
        return Vec::new();
    };
    let mut ring = vec![None; len as usize];
    let mut free = len;
    while free > 0 {
        for walker in &mut walkers {
            walker.gain += u64::from(walker.weight);
            if walker.gain < largest {
                continue;
            }
            walker.gain -= largest;
            let slot = walker.next_free(&ring, len);
            ring[slot] = Some(walker.id);
            free -= 1;
            if free == 0 {
                break;
            }
        }
    }
    ring.into_iter().flatten().collect()
}

/// A backend walking its own permutation of the slots.
struct Walker {
    id: u32,
    identity: u64,
    weight: u32,
    gain: u64,
    at: u64,
    skip: u64,
}

impl Walker {
    fn new(entry: &Entry, len: u32, seed: u64) -> Self {
        let identity = hash::name(seed, &entry.identity.to_le_bytes());
        let len = u64::from(len);
        Self {
            id: entry.id,
            identity,
            weight: entry.weight,
            gain: 0,
            at: (identity >> 32) % len,
            skip: (identity & 0xffff_ffff) % (len - 1) + 1,
        }
    }

    fn next_free(&mut self, ring: &[Option<u32>], len: u32) -> usize {
        loop {
            let slot = self.at as usize;
            self.at = (self.at + self.skip) % u64::from(len);
            if ring[slot].is_none() {
                return slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn entries(weights: &[u32]) -> Vec<Entry> {
        weights
            .iter()
            .enumerate()
            .map(|(i, weight)| Entry {
                id: i as u32 + 1,
                identity: hash::name(0, format!("c{i}/10.0.0.{i}:80").as_bytes()),
                weight: *weight,
            })
            .collect()
    }

    fn shares(ring: &[u32]) -> HashMap<u32, f64> {
        let mut count: HashMap<u32, f64> = HashMap::new();
        for id in ring {
            *count.entry(*id).or_default() += 1.0 / ring.len() as f64;
        }
        count
    }

    #[test]
    fn shares_are_within_two_permille_of_the_weights_at_65537() {
        let weights = [60, 60, 40, 40, 40, 7, 1];
        let total: u32 = weights.iter().sum();
        let shares = shares(&build(&entries(&weights), 65537, 1));
        for (i, weight) in weights.iter().enumerate() {
            let want = f64::from(*weight) / f64::from(total);
            let got = shares[&(i as u32 + 1)];
            assert!((got - want).abs() <= 0.002, "backend {i}: {got} for {want}");
        }
    }

    #[test]
    fn removing_one_backend_of_fifty_moves_at_most_1_6_times_the_ideal() {
        let all = entries(&[1; 50]);
        let before = build(&all, 65537, 1);
        let after = build(&all[1..], 65537, 1);
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count() as f64;
        let ideal = before.iter().filter(|id| **id == 1).count() as f64;
        assert!(moved / ideal <= 1.6, "moved {moved} slots, ideal {ideal}");
    }

    #[test]
    fn a_ring_without_weight_has_no_slots() {
        assert!(build(&entries(&[0, 0]), 1021, 1).is_empty());
        assert!(build(&[], 1021, 1).is_empty());
    }

    #[test]
    fn a_ring_has_a_hundred_slots_a_backend() {
        assert_eq!(ring_len(0), 1021);
        assert_eq!(ring_len(10), 1021);
        assert_eq!(ring_len(11), 4093);
        assert_eq!(ring_len(1_000_000), 131_071);
    }

    proptest! {
        #[test]
        fn the_order_of_backends_does_not_matter(
            weights in prop::collection::vec(0..1000_u32, 1..20),
            seed in any::<u64>(),
        ) {
            let forward = entries(&weights);
            let mut backward = forward.clone();
            backward.reverse();
            prop_assert_eq!(build(&forward, 1021, seed), build(&backward, 1021, seed));
        }

        #[test]
        fn only_backends_with_weight_get_slots_and_each_slot_is_filled(
            weights in prop::collection::vec(0..3_u32, 1..20),
        ) {
            let entries = entries(&weights);
            let ring = build(&entries, 1021, 0);
            let any = weights.iter().any(|w| *w > 0);
            prop_assert_eq!(ring.len(), if any { 1021 } else { 0 });
            for id in ring {
                prop_assert!(entries[id as usize - 1].weight > 0);
            }
        }
    }
}
