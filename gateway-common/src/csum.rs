//! One's-complement sums of the Internet checksum (RFC 1071) and their update (RFC 1624).
//!
//! All words are taken as they lie in memory: the sum does not depend on byte order as long as
//! every word is read the same way.

/// Folds carries until 16 bits are left.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32 << 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// `~old + new` of a 32-bit field, to be added up and folded.
#[inline(always)]
pub const fn change32(old: u32, new: u32) -> u64 {
    !old as u64 + new as u64
}

/// `~old + new` of a 16-bit field, to be added up and folded.
#[inline(always)]
pub const fn change16(old: u16, new: u16) -> u64 {
    !old as u64 + new as u64
}

/// Checksum field after a change: equation 3 of RFC 1624, `~(~HC + delta)`.
#[inline(always)]
pub const fn patch(check: u16, delta: u64) -> u16 {
    !fold(!check as u64 + delta)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(words: &[u16]) -> u16 {
        !fold(words.iter().map(|w| u64::from(*w)).sum())
    }

    proptest! {
        #[test]
        fn a_patched_checksum_equals_one_summed_from_scratch(
            mut words in prop::collection::vec(any::<u16>(), 2..40),
            at in any::<prop::sample::Index>(),
            new in any::<u16>(),
        ) {
            // RFC 1624 section 3: eqn 3 agrees with a fresh sum unless all data is zero, which no
            // IP packet is.
            words[0] |= 1;
            let at = 1 + at.index(words.len() - 1);
            let before = sum(&words);
            let delta = change16(words[at], new);
            words[at] = new;
            prop_assert_eq!(patch(before, delta), sum(&words));
        }

        #[test]
        fn folding_keeps_the_value_modulo_65535(sum in any::<u64>()) {
            let folded = u64::from(fold(sum));
            prop_assert_eq!(folded % 0xffff, sum % 0xffff);
        }
    }
}
