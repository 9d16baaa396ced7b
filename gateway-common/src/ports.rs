//! What is known of full port ranges, so that nobody searches them again before a port is free.
//!
//! A source port is taken by the reply entry in the flow table and by nothing else. What is here are notes about it,
//! which may be missing or out of date on the safe side: each says "everything here was taken when these ports had
//! been freed so and so often". A freed port changes the number, and so ends the note.

#![allow(unsafe_code, reason = "volatile access to shared map memory, see pod")]

use crate::{
    flow::FlowKey,
    hash::{mix64, words},
    maps,
    pod::Shared,
    shape, shared_read,
};

/// Ports of one block, aligned to this number.
pub const BLOCK: u32 = 128;

/// Note about the areas that share one slot. Areas that meet in a slot cost each other searches, nothing else: a note
/// names its area.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mark {
    /// How often a port of these areas was freed.
    pub freed: u64,
    /// [`Area::stamp`] of an area that was found full.
    pub full: u64,
}

const _: () = assert!(size_of::<Mark>() == 16);
shape!(Mark { freed, full });
const _: () = assert!(maps::PORT_MARKS.1.is_power_of_two());

/// All ports of one source address towards one backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pool(pub u64);

/// A pool, or a block of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Area(u64);

impl Pool {
    /// The pool of a reply entry, whatever its port.
    #[inline(always)]
    pub fn of(seed: u32, reply: &FlowKey) -> Self {
        let [s0, s1, s2, s3] = reply.src.0;
        let [d0, d1, d2, d3] = reply.dst.0;
        let ends = reply.proto << 16 | reply.src_port.0 as u32;
        let all = [s0, s1, s2, s3, d0, d1, d2, d3, ends];
        let high = words(seed, all) as u64;
        let low = words(!seed, all) as u64;
        Self(high << 32 | low)
    }

    /// The whole of it.
    #[inline(always)]
    pub const fn whole(self) -> Area {
        Area(mix64(self.0))
    }

    /// The block with this number.
    #[inline(always)]
    pub const fn block(self, number: u32) -> Area {
        Area(mix64(self.0 ^ (number as u64 + 1)))
    }

    /// The areas that a port is in.
    #[inline(always)]
    pub const fn areas(self, port: u16) -> [Area; 2] {
        [self.whole(), self.block(port as u32 / BLOCK)]
    }
}

impl Area {
    /// Index of its slot.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        self.0 as u32 & (maps::PORT_MARKS.1 - 1)
    }

    /// What [`Mark::full`] holds if, of the ports from `first` to `last`, all in the area were taken when `freed`
    /// was the number of ports freed. Another range under the same address is another stamp.
    #[inline(always)]
    pub const fn stamp(self, freed: u64, first: u32, last: u32) -> u64 {
        let range = (first as u64) << 32 | last as u64;
        self.0
            .wrapping_add(freed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .wrapping_add(range.wrapping_mul(0xd1b5_4a32_d192_ed03))
    }
}

impl Shared<Mark> {
    /// How often a port was freed.
    #[inline(always)]
    pub fn freed(&self) -> u64 {
        shared_read!(self, freed)
    }

    /// The stamp of an area that was full.
    #[inline(always)]
    pub fn full(&self) -> u64 {
        shared_read!(self, full)
    }

    /// Notes that an area is full.
    #[inline(always)]
    pub fn set_full(&self, stamp: u64) {
        let at = self.as_ptr();
        // SAFETY: as in `shared_read!`; of two racing writes the last stays, and each is true.
        unsafe { (&raw mut (*at).full).write_volatile(stamp) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Port;

    fn key(port: u16) -> FlowKey {
        FlowKey {
            dst_port: Port::from_host(port),
            proto: 6,
            ..FlowKey::default()
        }
    }

    #[test]
    fn the_ports_of_a_pool_share_it_and_their_block_whatever_their_own_number() {
        assert_eq!(Pool::of(1, &key(2000)), Pool::of(1, &key(3000)));
        let pool = Pool::of(1, &key(0));
        assert_eq!(pool.areas(1024), pool.areas(1151));
        assert_ne!(pool.areas(1151)[1], pool.areas(1152)[1]);
        assert_ne!(pool.whole(), pool.block(0));
    }

    #[test]
    fn a_stamp_ends_with_a_freed_port_and_with_another_range() {
        let area = Pool::of(1, &key(0)).whole();
        assert_ne!(area.stamp(7, 1024, 1123), area.stamp(8, 1024, 1123));
        assert_ne!(area.stamp(7, 1024, 1123), area.stamp(7, 1024, 1124));
    }
}
