//! Laws of sums and hashes, against sums made from scratch.

use gateway_common::{csum, datapath::patched_l4, hash};
use proptest::prelude::*;

/// Words at which carries begin and end, and any others.
fn word() -> impl Strategy<Value = u16> {
    let corners = vec![0, 1, 0x00ff, 0x0100, 0x7fff, 0x8000, 0xff00, 0xfffe, 0xffff];
    prop_oneof![2 => prop::sample::select(corners), 1 => any::<u16>()]
}

/// RFC 1071 as it is written: add up, then add the carries until there is none.
fn checksum(words: impl IntoIterator<Item = u16>) -> u16 {
    let mut sum: u64 = words.into_iter().map(u64::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Words of two addresses and two ports, in the order of a pseudo header.
type Ends = [u16; 6];

fn ends() -> impl Strategy<Value = Ends> {
    prop::array::uniform6(word())
}

/// A 32-bit field as it lies in memory: two words.
fn pair(words: &[u16]) -> u32 {
    u32::from(words[0]) | u32::from(words[1]) << 16
}

/// The two differences that a flow entry holds.
fn deltas(old: &Ends, new: &Ends) -> (u16, u16) {
    let addrs = csum::change32(pair(&old[0..2]), pair(&new[0..2]))
        + csum::change32(pair(&old[2..4]), pair(&new[2..4]));
    let ports = csum::change16(old[4], new[4]) + csum::change16(old[5], new[5]);
    (csum::fold(addrs), csum::fold(ports))
}

/// Both zeros of one's complement are one.
fn same(a: u16, b: u16) -> bool {
    a % 0xffff == b % 0xffff
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_translated_sum_equals_one_from_scratch(
        old in ends(),
        new in ends(),
        rest in prop::collection::vec(word(), 1..40),
    ) {
        let whole = |ends: &Ends| checksum(ends.iter().chain(&rest).copied());
        let (addrs, ports) = deltas(&old, &new);
        let patched = patched_l4(whole(&old), addrs, ports, false);
        // RFC 1624 section 3: the same but for the sign of zero, which only data of all zeros has.
        prop_assert!(same(patched, whole(&new)), "{patched:04x} for {:04x}", whole(&new));
        // A receiver adds everything up, the sum included, and wants all ones.
        let received = checksum(new.iter().chain(&rest).copied().chain([patched]));
        prop_assert!(same(received, 0), "{received:04x}");
    }

    #[test]
    fn the_complement_of_a_difference_undoes_it(old in ends(), new in ends(), check in word()) {
        let (addrs, ports) = deltas(&old, &new);
        let there = patched_l4(check, addrs, ports, false);
        let back = patched_l4(there, !addrs, !ports, false);
        prop_assert!(same(back, check), "{back:04x} for {check:04x}");
    }

    #[test]
    fn a_udp_sum_is_never_sent_as_none_and_none_is_never_made_one(
        old in ends(),
        new in ends(),
        check in word(),
    ) {
        let (addrs, ports) = deltas(&old, &new);
        let patched = patched_l4(check, addrs, ports, true);
        prop_assert_eq!(patched == 0, check == 0);
        if check != 0 {
            prop_assert!(same(patched, patched_l4(check, addrs, ports, false)));
        }
    }

    #[test]
    fn differences_add_up_in_any_grouping(words in prop::collection::vec((word(), word()), 1..20)) {
        let all: u64 = words.iter().map(|(old, new)| csum::change16(*old, *new)).sum();
        let folded: u64 = words
            .iter()
            .map(|(old, new)| u64::from(csum::fold(csum::change16(*old, *new))))
            .sum();
        prop_assert!(same(csum::fold(all), csum::fold(folded)));
    }

    #[test]
    fn folding_ends_in_16_bits_for_any_sum(sum in prop_oneof![any::<u64>(), Just(u64::MAX), (0_u64..70_000)]) {
        let folded = u64::from(csum::fold(sum));
        prop_assert_eq!(folded % 0xffff, sum % 0xffff);
        // Zero only from zero: else a sum of all ones would look like none.
        prop_assert_eq!(folded == 0, sum == 0);
    }

    #[test]
    fn a_scaled_hash_is_in_its_range_and_in_order(hash in any::<u32>(), len in 1_u32..=u32::MAX) {
        let at = hash::scale(hash, len);
        prop_assert!(at < len);
        prop_assert!(hash::scale(hash.saturating_add(1), len) >= at);
        prop_assert_eq!(hash::scale(0, len), 0);
        prop_assert_eq!(hash::scale(u32::MAX, len), len - 1);
    }

    #[test]
    fn every_place_has_as_many_hashes_as_any_other_but_for_one(len in 1_u32..100_000, at in any::<prop::sample::Index>()) {
        // The hashes of a place are a run: from the first that scales to it to the first of the next.
        let first = |at: u32| (u64::from(at) << 32).div_ceil(u64::from(len));
        let at = at.index(len as usize) as u32;
        let (from, to) = (first(at), first(at + 1));
        prop_assert_eq!(hash::scale(from as u32, len), at);
        prop_assert_eq!(hash::scale((to - 1) as u32, len), at);
        let even = (1_u64 << 32) / u64::from(len);
        prop_assert!(to - from == even || to - from == even + 1);
    }
}

#[test]
fn nothing_is_scaled_to_a_place_of_an_empty_range() {
    assert_eq!(hash::scale(u32::MAX, 0), 0);
}
