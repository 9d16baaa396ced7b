//! Weighted rings: Maglev's lookup table, filled so that little else moves when a backend comes or goes.
//!
//! Sources: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4, for
//! the table and for backends that try slots in turn, each in an order of its own. Gale and Shapley, "College Admissions
//! and the Stability of Marriage", The American Mathematical Monthly 69, 1962, for how it is filled.
//!
//! In Maglev's own fill a backend whose slot is taken tries again at once. So who gets the last free slots depends on
//! everything before, and where one of many backends goes, several times its slots change hands. Here each try costs a
//! turn, a slot belongs to whoever tries it *earliest*, and a backend stops when it has as many slots as its weight says.
//! That is the one stable matching of backends and slots: it depends neither on who is asked first nor on what was before.
//! Tries are random slots, so that the race alone would give each backend its share but for chance; the number of slots
//! takes chance out. What that moves besides is little as long as the ring is long, see [`ring_len`].

use crate::hash;

/// Allowed ring lengths.
pub const LENGTHS: [u32; 5] = [1021, 4093, 16381, 65537, 131_071];

/// How rings are filled, as a number that changes with it: an agent writes those anew that an earlier release filled
/// otherwise, so that all nodes of one release have the same. 1 was Maglev's own fill.
pub const FILL: u64 = 2;

/// Slots per backend below which shares would get coarse.
const SLOTS_PER_BACKEND: u64 = 100;

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

/// The length for so many backends: [`least_len`], and at least three times the square of their number, up to the largest
/// allowed one.
///
/// The square, because the slots of one that goes fall to the others by chance. Evening that out moves some
/// `0.9 * sqrt(backends^2 / len)` more for each of them. Up to 209 backends that is 0.6 at most: one that comes or
/// goes moves no more than 1.6 times its slots (`cargo xtask bench ring`).
pub fn ring_len(backends: usize) -> u32 {
    let square = (backends as u64).saturating_mul(backends as u64);
    allowed(square.saturating_mul(3)).max(least_len(backends))
}

/// The shortest length whose shares are not coarse, for where room is short: at least 100 slots a backend;
/// the largest allowed length past 1 310 of them.
pub fn least_len(backends: usize) -> u32 {
    allowed((backends as u64).saturating_mul(SLOTS_PER_BACKEND))
}

fn allowed(wanted: u64) -> u32 {
    let mut lengths = LENGTHS.into_iter();
    let enough = lengths.find(|len| u64::from(*len) >= wanted);
    enough.unwrap_or(LENGTHS[LENGTHS.len() - 1])
}

/// Fills a ring of `len` slots (one of [`LENGTHS`]) with ids. No weight above zero gives no slots.
///
/// Each backend has its share of the slots, rounded up or down. The order of `entries` does not matter. Some ten tries a
/// slot, whatever the number of backends.
pub fn build(entries: &[Entry], len: u32, seed: u64) -> Vec<u32> {
    let weighted = entries.iter().filter(|e| e.weight > 0);
    let mut walkers: Vec<Walker> = weighted.map(|e| Walker::new(e, len, seed)).collect();
    // Identity order, so that the order of input does not matter.
    walkers.sort_unstable_by_key(|w| (w.identity, w.id));
    if walkers.is_empty() {
        return Vec::new();
    }
    share_out(&mut walkers, len);
    let mut ring = vec![Slot::FREE; len as usize];
    let mut short: Vec<u32> = (0..walkers.len() as u32).collect();
    while let Some(walker) = short.pop() {
        while walkers[walker as usize].missing > 0 {
            let (slot, time) = walkers[walker as usize].next_try();
            let slot = &mut ring[slot as usize];
            let had = *slot;
            let wants = Slot { time, walker };
            // What is its own already counts since its first try.
            if had.walker == walker || had < wants {
                continue;
            }
            *slot = wants;
            walkers[walker as usize].missing -= 1;
            if had != Slot::FREE {
                walkers[had.walker as usize].missing += 1;
                short.push(had.walker);
            }
        }
    }
    let id = |slot: &Slot| walkers[slot.walker as usize].id;
    ring.iter().map(id).collect()
}

/// Says how many slots each walker is to have: its share, rounded down, and one of the slots that are left over for those
/// with most of a slot left. A fixed random part is added to that, so that it is not everybody's turn at once when all
/// shares change a little.
fn share_out(walkers: &mut [Walker], len: u32) {
    let total: u64 = walkers.iter().map(|w| u64::from(w.weight)).sum();
    let mut left = len;
    let mut claims: Vec<(u64, usize)> = Vec::with_capacity(walkers.len());
    for (at, walker) in walkers.iter_mut().enumerate() {
        let share = u64::from(len) * u64::from(walker.weight);
        walker.missing = (share / total) as u32;
        left -= walker.missing;
        let part = (u128::from(share % total) << 32) / u128::from(total);
        claims.push((part as u64 + (hash::mix64(walker.identity) >> 32), at));
    }
    claims.sort_unstable_by(|a, b| b.cmp(a));
    for (_, at) in claims.into_iter().take(left as usize) {
        walkers[at].missing += 1;
    }
}

/// Who has a slot, and since when; the earlier is the lesser, and of two at once the first by identity.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
struct Slot {
    time: u64,
    /// Index into the walkers.
    walker: u32,
}

impl Slot {
    const FREE: Self = Self {
        time: u64::MAX,
        walker: u32::MAX,
    };
}

/// A backend on its way through the slots.
struct Walker {
    id: u32,
    identity: u64,
    weight: u32,
    len: u32,
    /// Slots that it should have and has not.
    missing: u32,
    tries: u32,
}

impl Walker {
    /// Tries at random for each slot of the ring before they go on in order. Never reached but by the worst of luck: the
    /// last free slot is found with so many but for a chance of e^-32.
    const RANDOM: u32 = 32;

    fn new(entry: &Entry, len: u32, seed: u64) -> Self {
        Self {
            id: entry.id,
            identity: hash::name(seed, &entry.identity.to_le_bytes()),
            weight: entry.weight,
            len,
            missing: 0,
            tries: 0,
        }
    }

    /// The next slot that it tries, and when. A turn is worth 2^36 divided by the weight; below 2^23 tries it fits.
    fn next_try(&mut self) -> (u32, u64) {
        let number = u64::from(self.tries);
        let random = hash::mix64(
            self.identity
                .wrapping_add((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        );
        let slot = if self.tries < self.len * Self::RANDOM {
            hash::scale((random >> 32) as u32, self.len)
        } else {
            self.tries % self.len
        };
        // Not all begin at once.
        let begin = self.identity >> 28;
        self.tries += 1;
        (slot, ((number << 36) + begin) / u64::from(self.weight))
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
    fn removing_one_backend_of_two_hundred_moves_at_most_1_6_times_the_ideal() {
        let all = entries(&[1; 200]);
        let before = build(&all, ring_len(200), 1);
        let after = build(&all[1..], ring_len(200), 1);
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
    fn a_ring_has_a_hundred_slots_a_backend_and_more_where_there_are_many() {
        let lengths = |backends| (least_len(backends), ring_len(backends));
        assert_eq!(lengths(0), (1021, 1021));
        assert_eq!(lengths(10), (1021, 1021));
        assert_eq!(lengths(11), (4093, 4093));
        assert_eq!(lengths(73), (16381, 16381));
        assert_eq!(lengths(74), (16381, 65537));
        assert_eq!(lengths(147), (16381, 65537));
        assert_eq!(lengths(209), (65537, 131_071));
        assert_eq!(lengths(usize::MAX), (131_071, 131_071));
    }

    #[test]
    fn a_ring_of_one_backend_is_its_own() {
        assert_eq!(build(&entries(&[7]), 1021, 1), [1; 1021]);
    }

    #[test]
    fn the_ring_is_the_same_on_every_machine_and_in_every_release() {
        // Another ring would move every client of every service when a node is upgraded.
        let ring = build(&entries(&[60, 30, 10]), 1021, 1);
        let sum = ring
            .iter()
            .fold(0, |sum: u64, id| hash::mix64(sum ^ u64::from(*id)));
        assert_eq!(sum, 6_734_375_955_103_796_038);
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
        fn each_backend_has_its_share_rounded_up_or_down(
            weights in prop::collection::vec(0..=u32::MAX, 1..40),
            seed in any::<u64>(),
        ) {
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            prop_assume!(total > 0);
            let ring = build(&entries(&weights), 4093, seed);
            for (id, weight) in (1..).zip(&weights) {
                let got = ring.iter().filter(|it| **it == id).count() as u64;
                let least = 4093 * u64::from(*weight) / total;
                prop_assert!(got == least || got == least + 1, "{id}: {got}, {least}");
            }
        }

        #[test]
        fn more_backends_than_slots_are_no_trouble(count in 1021_usize..1100, seed in any::<u64>()) {
            let ring = build(&entries(&vec![1; count]), 1021, seed);
            prop_assert_eq!(shares(&ring).len(), 1021);
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
