//! Hashes that nobody can foretell without the key. Pure.

use std::hash::Hasher;

/// A key of 128 bits.
#[derive(Clone, Copy)]
pub(super) struct Key(pub(super) u64, pub(super) u64);

/// Never shown.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// From a secret of any length that all nodes share, for one use of it: other uses have other keys.
    pub(super) fn of(secret: &[u8], purpose: &str) -> Self {
        // As much of the secret as there is counts, without a key the hash still takes it all in.
        let half = |number: u64| Self(number, !number).hash([purpose.as_bytes(), secret]);
        Self(half(1), half(2))
    }

    /// Of several parts: where one ends and the next begins counts, too.
    ///
    /// SipHash-2-4. Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", INDOCRYPT 2012.
    pub(super) fn hash<'a>(self, parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
        // Deprecated in favour of a hasher whose algorithm may change; cookies must outlive a release.
        #[expect(deprecated)]
        let mut hasher = std::hash::SipHasher::new_with_keys(self.0, self.1);
        for part in parts {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part);
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_same_on_every_node_and_in_every_release() {
        // The paper's key, and 15 bytes: a length of 8 bytes and 7 more.
        let key = Key(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        let by_hand = |bytes: &[u8]| siphash(key, bytes);
        let message: Vec<u8> = (0..15).collect();
        assert_eq!(by_hand(&message), 0xa129_ca61_49be_45e5, "appendix A");
        let mut framed = 7_u64.to_le_bytes().to_vec();
        framed.extend(b"backend");
        assert_eq!(key.hash([b"backend".as_slice()]), by_hand(&framed));
    }

    /// As the paper has it, for messages below 16 bytes.
    fn siphash(key: Key, message: &[u8]) -> u64 {
        let mut v = [
            key.0 ^ 0x736f_6d65_7073_6575,
            key.1 ^ 0x646f_7261_6e64_6f6d,
            key.0 ^ 0x6c79_6765_6e65_7261,
            key.1 ^ 0x7465_6462_7974_6573,
        ];
        let round = |v: &mut [u64; 4]| {
            v[0] = v[0].wrapping_add(v[1]);
            v[2] = v[2].wrapping_add(v[3]);
            v[1] = v[1].rotate_left(13) ^ v[0];
            v[3] = v[3].rotate_left(16) ^ v[2];
            v[0] = v[0].rotate_left(32);
            v[2] = v[2].wrapping_add(v[1]);
            v[0] = v[0].wrapping_add(v[3]);
            v[1] = v[1].rotate_left(17) ^ v[2];
            v[3] = v[3].rotate_left(21) ^ v[0];
            v[2] = v[2].rotate_left(32);
        };
        let mut bytes = message.to_vec();
        bytes.resize(15, 0);
        bytes.push(message.len() as u8);
        for word in bytes.chunks_exact(8) {
            let word = u64::from_le_bytes(word.try_into().expect("8 bytes"));
            v[3] ^= word;
            round(&mut v);
            round(&mut v);
            v[0] ^= word;
        }
        v[2] ^= 0xff;
        for _ in 0..4 {
            round(&mut v);
        }
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }

    #[test]
    fn parts_do_not_run_into_each_other_and_purposes_have_keys_of_their_own() {
        let key = Key::of(b"secret", "a");
        assert_ne!(
            key.hash([b"ab".as_slice(), b"c"]),
            key.hash([b"a".as_slice(), b"bc"])
        );
        let other = Key::of(b"secret", "b");
        assert_ne!((key.0, key.1), (other.0, other.1));
    }
}
