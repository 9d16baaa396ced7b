//! Who may open flows, and how many: access lists and budgets of services.

#![allow(unsafe_code, reason = "volatile access to shared map memory, see pod")]

use crate::{addr::Addr, pod::Shared, shape, shared_read};

/// Value of an access list's entry: clients in this network are let in.
pub const ALLOW: u32 = 1;
/// Value of an access list's entry: clients in this network are kept out.
pub const DENY: u32 = 2;

/// Bits of an [`AclNet`] before its address.
pub const ACL_BITS: u32 = 32;
/// Bits of a whole [`AclNet`].
pub const ACL_WHOLE: u32 = ACL_BITS + 128;
/// Bits of a v4-mapped address before the IPv4 address.
pub const MAPPED_BITS: u32 = 96;

/// Network of one access list, as the trie matches it bit by bit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AclNet {
    /// The list. Always matched whole.
    pub acl: u32,
    /// First address of the network.
    pub addr: Addr,
}

/// Key of the trie (`struct bpf_lpm_trie_key`, uapi/linux/bpf.h). Aligned like
/// [`crate::flow::FlowKey`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AclKey {
    /// Bits that count, of list and address together.
    pub prefix: u32,
    /// List and network.
    pub net: AclNet,
}

/// One client of one service.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SourceKey {
    /// Client.
    pub addr: Addr,
    /// Service id.
    pub service: u32,
    /// Always zero.
    pub zero: u32,
}

/// Token bucket, kept as the time until which its tokens are spent (the generic cell rate algorithm
/// of ITU-T I.371, Annex A). It holds one second's worth.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bucket {
    /// Nanoseconds; in the past for a full bucket.
    pub spent_until: u64,
}

const _: () = assert!(size_of::<AclKey>() == 24 && size_of::<AclNet>() == 20);
const _: () = assert!(size_of::<SourceKey>() == 24 && size_of::<Bucket>() == 8);

shape!(AclKey {
    prefix,
    net.acl,
    net.addr,
});
shape!(SourceKey {
    addr,
    service,
    zero,
});
shape!(Bucket { spent_until });

/// Nanoseconds that a full bucket holds.
const BURST: u64 = 1_000_000_000;

/// Nanoseconds that one new flow costs at a rate above zero per second.
#[inline(always)]
pub const fn cost(rate: u32) -> u64 {
    BURST / rate as u64
}

impl AclKey {
    /// Key that asks what a list says of a client.
    #[inline(always)]
    pub const fn of(acl: u16, client: &Addr) -> Self {
        Self {
            prefix: ACL_WHOLE,
            net: AclNet {
                acl: acl as u32,
                addr: *client,
            },
        }
    }

    /// Key of the network of `prefix` bits (those of the list counted) that an address lies in.
    #[cfg(any(test, feature = "user"))]
    pub fn network(acl: u16, addr: &Addr, prefix: u32) -> Self {
        let bits = prefix.saturating_sub(ACL_BITS);
        let mut key = Self {
            prefix,
            ..Self::of(acl, addr)
        };
        for (word, first) in key.net.addr.0.iter_mut().zip((0_u32..).step_by(32)) {
            let kept = bits.saturating_sub(first).min(32);
            let mask = u32::MAX.checked_shl(32 - kept).unwrap_or(0);
            *word &= mask.to_be();
        }
        key
    }
}

impl Bucket {
    /// A bucket of which one flow was taken just now.
    #[inline(always)]
    pub const fn begun(now: u64, cost: u64) -> Self {
        Self {
            spent_until: now.wrapping_add(cost),
        }
    }
}

impl Shared<Bucket> {
    /// See [`Bucket::spent_until`].
    #[inline(always)]
    pub fn spent_until(&self) -> u64 {
        shared_read!(self, spent_until)
    }

    /// Replaces [`Bucket::spent_until`].
    #[inline(always)]
    pub fn set(&self, spent_until: u64) {
        let at = self.as_ptr();
        // SAFETY: as in `shared_read!`; of two racing writes the last stays.
        unsafe { (&raw mut (*at).spent_until).write_volatile(spent_until) }
    }

    /// Nanoseconds that are spent ahead of `now`, if there is room for `cost` more.
    #[inline(always)]
    pub fn room(&self, now: u64, cost: u64) -> Option<u64> {
        let ahead = self.spent_until().saturating_sub(now);
        if ahead.saturating_add(cost) <= BURST {
            Some(ahead)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flows admitted of those that come every `step` ns for `seconds`.
    fn admitted(rate: u32, step: u64, seconds: u64) -> u64 {
        let bucket = Shared::new(Bucket::default());
        // Not at the beginning of time: a fresh bucket is full whenever it is met.
        let start = 77 * BURST;
        let mut count = 0;
        for now in (start..start + seconds * BURST).step_by(step as usize) {
            if let Some(ahead) = bucket.room(now, cost(rate)) {
                bucket.set(now + ahead + cost(rate));
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_flood_gets_one_seconds_burst_and_then_the_rate() {
        assert_eq!(admitted(1, 1_000_000, 3), 3);
        // The last token of the third second is due at its very end.
        assert!((399..=400).contains(&admitted(100, 100_000, 3)));
        assert!((3_999..=4_001).contains(&admitted(1_000, 10_000, 3)));
    }

    #[test]
    fn who_stays_below_the_rate_is_never_refused() {
        assert_eq!(admitted(10, BURST / 10, 20), 200);
    }

    #[test]
    fn a_bucket_never_holds_more_than_one_second() {
        let bucket = Shared::new(Bucket::begun(0, cost(5)));
        let now = 1_000 * BURST;
        let mut count = 0;
        while let Some(ahead) = bucket.room(now, cost(5)) {
            bucket.set(now + ahead + cost(5));
            count += 1;
        }
        assert_eq!(count, 5);
    }

    #[test]
    fn a_network_keeps_the_bits_of_its_prefix_across_words() {
        let client = Addr([u32::MAX; 4]);
        let bytes = |prefix| {
            let words = AclKey::network(1, &client, ACL_BITS + prefix).net.addr.0;
            words.map(u32::from_be)
        };
        assert_eq!(bytes(0), [0; 4]);
        assert_eq!(bytes(1), [0x8000_0000, 0, 0, 0]);
        assert_eq!(bytes(40), [u32::MAX, 0xff00_0000, 0, 0]);
        assert_eq!(bytes(128), [u32::MAX; 4]);
    }
}
