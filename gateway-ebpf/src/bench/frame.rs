//! Writes a whole frame of IPv4, in words of eight bytes: a generator must cost less than what it measures.

use gateway_common::{
    csum,
    flow::{TCP, UDP},
};

/// Bytes of every frame: the shortest that Ethernet carries.
pub const LEN: usize = 60;
/// Halves (two bytes) of a frame behind the IPv4 header.
pub const L4: usize = (LEN - 34) / 2;

/// What stands before the transport header.
pub struct Head {
    /// Destination MAC address.
    pub dmac: [u16; 3],
    /// Source MAC address.
    pub smac: [u16; 3],
    /// Source address as it is sent.
    pub src: u32,
    /// Destination address as it is sent.
    pub dst: u32,
    /// Identification.
    pub id: u16,
    /// IANA protocol number: TCP or UDP.
    pub proto: u32,
    /// Bytes behind the IPv4 header.
    pub len: u16,
}

/// Four halves as they lie in memory.
#[inline(always)]
fn word(a: u16, b: u16, c: u16, d: u16) -> u64 {
    (a as u64 | (b as u64) << 16 | (c as u64) << 32 | (d as u64) << 48).to_le()
}

/// Writes every byte of a frame. `l4` is header and payload with a checksum of zero, whose place gets the right one.
///
/// # Safety
/// The [`LEN`] bytes from `start` on must be a frame's.
#[inline(always)]
pub unsafe fn write(start: usize, head: &Head, mut l4: [u16; L4]) {
    let total = 20 + head.len;
    let addresses = [
        head.src as u16,
        (head.src >> 16) as u16,
        head.dst as u16,
        (head.dst >> 16) as u16,
    ];
    let add = |words: &[u16]| words.iter().map(|word| *word as u64).sum::<u64>();
    let ip = [
        0x4500_u16.to_be(),
        total.to_be(),
        head.id,
        0x4000_u16.to_be(),
        (64 << 8 | head.proto as u16).to_be(),
    ];
    let ip_sum = !csum::fold(add(&ip) + add(&addresses));
    let pseudo = add(&addresses) + (head.proto as u16).to_be() as u64 + head.len.to_be() as u64;
    let sum = !csum::fold(pseudo + add(&l4));
    match head.proto {
        TCP => l4[8] = sum,
        // RFC 768: a computed zero is sent as all ones.
        UDP => l4[3] = if sum == 0 { 0xffff } else { sum },
        _ => {}
    }
    let [d, s] = [head.dmac, head.smac];
    let a = addresses;
    let words = [
        word(d[0], d[1], d[2], s[0]),
        word(s[1], s[2], 0x0800_u16.to_be(), ip[0]),
        word(ip[1], ip[2], ip[3], ip[4]),
        word(ip_sum, a[0], a[1], a[2]),
        word(a[3], l4[0], l4[1], l4[2]),
        word(l4[3], l4[4], l4[5], l4[6]),
        word(l4[7], l4[8], l4[9], l4[10]),
    ];
    // SAFETY: 7 words of 8 bytes and one of 4 are the 60 bytes that the caller vouches for.
    unsafe {
        for (at, word) in words.into_iter().enumerate() {
            ((start + 8 * at) as *mut u64).write_unaligned(word);
        }
        let last = word(l4[11], l4[12], 0, 0) as u32;
        ((start + 56) as *mut u32).write_unaligned(last);
    }
}
