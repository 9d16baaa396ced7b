//! Names and identities that the server makes up.

/// Five characters as the real server appends to `generateName`; no two alike in a server's life.
pub(super) fn suffix(revision: u64) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rest = random() ^ revision;
    let mut out = String::new();
    for _ in 0..5 {
        let at = usize::try_from(rest % 27).unwrap_or_default();
        out.push(char::from(ALPHABET[at]));
        rest /= 27;
    }
    out
}

/// A UUID, version 4.
pub(super) fn uid(revision: u64) -> String {
    let (a, b) = (random(), random() ^ revision);
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    )
}

fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::time::SystemTime::now())
}
