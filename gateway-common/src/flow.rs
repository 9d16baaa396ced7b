//! One tracked connection: two entries of the same shape, one for each direction.

#![allow(unsafe_code, reason = "volatile access to shared map memory, see pod")]

use crate::{
    addr::{Addr, Port},
    pod::Shared,
    shape, shared_read,
};

/// IANA protocol number of TCP.
pub const TCP: u32 = 6;
/// IANA protocol number of UDP.
pub const UDP: u32 = 17;

/// One direction of a flow as its packets carry it. Map key, so every byte is named.
///
/// Aligned to 8: the compiler may join two words into one store, and the kernel refuses a store to
/// its stack that is not aligned.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FlowKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port.
    pub src_port: Port,
    /// Destination port.
    pub dst_port: Port,
    /// IANA protocol number; a whole word, because the kernel hashes padding too.
    pub proto: u32,
}

/// What packets of one direction become.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Nat {
    /// New source address.
    pub src: Addr,
    /// New destination address.
    pub dst: Addr,
    /// New source port.
    pub src_port: Port,
    /// New destination port.
    pub dst_port: Port,
    /// Folded one's-complement sum of `~old + new` over the addresses (RFC 1624).
    pub addr_delta: u16,
    /// The same over the ports.
    pub port_delta: u16,
    /// Backend that serves this flow.
    pub backend: u32,
    /// Service it was addressed to.
    pub service: u16,
    /// Next hop of this direction; 0 means not resolved.
    pub hop: u16,
}

/// What changes during the life of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Life {
    /// Low 32 bits of the kernel's tick counter when a packet of this direction was last forwarded.
    pub last_seen: u32,
    /// One of the `state` numbers; the same in both directions.
    pub state: u8,
    /// `flag` bits of this direction.
    pub flags: u8,
    /// [`crate::backend::Backend::generation`] when the flow was opened.
    pub generation: u16,
    /// Frame bytes forwarded in this direction.
    pub bytes: u64,
}

/// Value of the flow table: 64 bytes, one cache line beside its key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Flow {
    /// The same field as below, elsewhere: the feature is for tests of upgrades.
    #[cfg(feature = "other-layout")]
    pub life: Life,
    /// Written once, before the entry can be found.
    pub nat: Nat,
    /// Written by every packet.
    #[cfg(not(feature = "other-layout"))]
    pub life: Life,
}

const _: () = assert!(size_of::<FlowKey>() == 40 && align_of::<FlowKey>() == 8);
const _: () = assert!(size_of::<Flow>() == 64 && align_of::<Flow>() == 8);

shape!(FlowKey {
    src,
    dst,
    src_port,
    dst_port,
    proto,
});
shape!(Flow {
    nat.src,
    nat.dst,
    nat.src_port,
    nat.dst_port,
    nat.addr_delta,
    nat.port_delta,
    nat.backend,
    nat.service,
    nat.hop,
    life.last_seen,
    life.state,
    life.flags,
    life.generation,
    life.bytes,
});

/// Life of a flow. Append-only: the numbers are in the pinned flow table.
pub mod state {
    /// TCP: SYN forwarded; the client has not confirmed the pod's answer yet.
    pub const TCP_OPENING: u8 = 1;
    /// TCP: both sides have spoken.
    pub const TCP_ESTABLISHED: u8 = 2;
    /// TCP: one side has sent FIN.
    pub const TCP_CLOSING: u8 = 3;
    /// TCP: both have sent FIN, or one RST. Holds the SNAT port in quarantine.
    pub const TCP_CLOSED: u8 = 4;
    /// UDP: no answer yet.
    pub const UDP_OPENING: u8 = 5;
    /// UDP: both sides have spoken.
    pub const UDP_ESTABLISHED: u8 = 6;
    /// Size of a table indexed by state.
    pub const COUNT: usize = 8;

    /// Name for people, by state number.
    pub const NAMES: [&str; COUNT] = [
        "none",
        "syn-sent",
        "established",
        "fin-wait",
        "closed",
        "unreplied",
        "replied",
        "?",
    ];
}

/// Bits of [`Life::flags`].
pub mod flag {
    /// This entry translates replies (pod to client); without it, client to pod.
    pub const REPLY: u8 = 1;
    /// This direction has sent FIN.
    pub const FIN: u8 = 2;
    /// A direction of this flow was opened without a next hop; kept in the entry of requests.
    pub const UNRESOLVED: u8 = 4;
    /// The pod has answered this client's SYN; kept in the entry of requests.
    pub const ANSWERED: u8 = 8;
}

impl FlowKey {
    /// Words and ports for [`crate::hash::words`].
    #[inline(always)]
    pub fn words(&self) -> [u32; 10] {
        let [s0, s1, s2, s3] = self.src.0;
        let [d0, d1, d2, d3] = self.dst.0;
        let ports = (self.src_port.0 as u32) << 16 | self.dst_port.0 as u32;
        [s0, s1, s2, s3, d0, d1, d2, d3, ports, self.proto]
    }
}

impl Life {
    /// Whether this direction has been silent for more ticks than `timeout`; 0 never ends.
    ///
    /// Tick counters wrap, and `now` may have been read before another CPU's last packet: the age
    /// is signed, and a packet from the future is no silence.
    #[inline(always)]
    pub const fn silent(&self, now: u32, timeout: u32) -> bool {
        let age = now.wrapping_sub(self.last_seen) as i32;
        timeout != 0 && age > 0 && age as u32 > timeout
    }
}

impl Nat {
    /// Key of the other direction: the answer to a packet that this translation made.
    #[inline(always)]
    pub const fn reverse_key(&self, proto: u32) -> FlowKey {
        FlowKey {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            proto,
        }
    }
}

impl Shared<Flow> {
    /// The translation.
    #[inline(always)]
    pub fn nat(&self) -> Nat {
        shared_read!(self, nat)
    }

    /// Sets [`Nat::port_delta`], the one part of a translation that is known after the claim.
    #[inline(always)]
    pub fn set_port_delta(&self, delta: u16) {
        let at = self.as_ptr();
        // SAFETY: as in `shared_read!`; of two racing writes the last stays.
        unsafe { (&raw mut (*at).nat.port_delta).write_volatile(delta) }
    }

    /// Sets [`Nat::hop`], once it is known.
    #[inline(always)]
    pub fn set_hop(&self, hop: u16) {
        let at = self.as_ptr();
        // SAFETY: as in `shared_read!`; of two racing writes the last stays.
        unsafe { (&raw mut (*at).nat.hop).write_volatile(hop) }
    }

    /// The changing part.
    #[inline(always)]
    pub fn life(&self) -> Life {
        shared_read!(self, life)
    }

    /// A packet of this direction was forwarded. Writes nothing that says what the flow is: another
    /// CPU may have moved it on, or given the element to another flow.
    #[inline(always)]
    pub fn touch(&self, now: u32, bytes: u64) {
        let at = self.as_ptr();
        // SAFETY: as in `shared_read!`; of two racing writes the last stays.
        unsafe {
            (&raw mut (*at).life.last_seen).write_volatile(now);
            (&raw mut (*at).life.bytes).write_volatile(bytes);
        }
    }

    /// Moves this direction to another state.
    #[inline(always)]
    pub fn set_state(&self, state: u8) {
        let at = self.as_ptr();
        // SAFETY: as in `shared_read!`; of two racing writes the last stays.
        unsafe { (&raw mut (*at).life.state).write_volatile(state) }
    }

    /// Replaces the flags of this direction.
    #[inline(always)]
    pub fn set_flags(&self, flags: u8) {
        let at = self.as_ptr();
        // SAFETY: as in `shared_read!`; of two racing writes the last stays.
        unsafe { (&raw mut (*at).life.flags).write_volatile(flags) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(last_seen: u32) -> Life {
        Life {
            last_seen,
            ..Life::default()
        }
    }

    #[test]
    fn silence_ends_a_flow_only_after_its_timeout() {
        assert!(!life(100).silent(110, 10));
        assert!(life(100).silent(111, 10));
        assert!(!life(100).silent(1_000_000, 0));
    }

    #[test]
    fn a_packet_newer_than_the_clock_that_was_read_is_no_silence() {
        assert!(!life(101).silent(100, 10));
        assert!(!life(5).silent(u32::MAX, 10));
    }

    #[test]
    fn silence_is_measured_across_the_wrap_of_the_tick_counter() {
        assert!(!life(u32::MAX - 4).silent(5, 10));
        assert!(life(u32::MAX - 4).silent(6, 10));
    }
}
