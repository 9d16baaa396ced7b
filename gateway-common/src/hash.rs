//! Hashes: a fast one for packets, a strong-enough one for seeds of rings.

/// Hash of a few words, for slot and port choice. Source: MurmurHash3 x86_32 by Austin Appleby
/// (public domain), body and finalizer.
#[inline(always)]
pub fn words<const N: usize>(seed: u32, input: [u32; N]) -> u32 {
    let mut h = seed;
    for word in input {
        let k = word
            .wrapping_mul(0xcc9e_2d51)
            .rotate_left(15)
            .wrapping_mul(0x1b87_3593);
        h = (h ^ k)
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
    }
    mix(h ^ (N as u32 * 4))
}

/// Spreads every input bit over all output bits.
#[inline(always)]
pub const fn mix(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ h >> 16
}

/// The same for 64 bits. Source: finalizer of SplitMix64, Steele et al., "Fast splittable pseudorandom number
/// generators", OOPSLA 2014.
#[inline(always)]
pub const fn mix64(mut h: u64) -> u64 {
    h = (h ^ h >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ h >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ h >> 31
}

/// Maps a hash onto `0..len` without a division, evenly.
#[inline(always)]
pub const fn scale(hash: u32, len: u32) -> u32 {
    ((hash as u64 * len as u64) >> 32) as u32
}

/// 64-bit hash of a name: FNV-1a with the finalizer of SplitMix64. Source: draft-eastlake-fnv;
/// Steele et al., "Fast splittable pseudorandom number generators", OOPSLA 2014.
pub fn name(seed: u64, bytes: &[u8]) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325 ^ seed;
    for byte in bytes {
        h = (h ^ *byte as u64).wrapping_mul(0x0000_0100_0000_01b3);
    }
    h = (h ^ h >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ h >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ h >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_consecutive_clients_are_spread_evenly() {
        let mut counts = [0_u32; 10];
        for port in 0..100_000 {
            counts[scale(words(1, [0, 0, 7, port]), 10) as usize] += 1;
        }
        assert!(
            counts.iter().all(|n| (9_500..10_500).contains(n)),
            "{counts:?}"
        );
    }
}
