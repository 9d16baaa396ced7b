//! What packets are addressed to.

use crate::{
    addr::{Addr, Port},
    shape,
};

/// Address, port and protocol of a listener. Aligned like [`crate::flow::FlowKey`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServiceKey {
    /// VIP.
    pub addr: Addr,
    /// Port.
    pub port: Port,
    /// IANA protocol number.
    pub proto: u16,
    /// Always zero.
    pub zero: u32,
}

/// How packets to a service are steered. One map update replaces the whole entry; a packet that read
/// one reads it again before it counts, see `datapath::opening`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Service {
    /// Index of its statistics; 0 is no service.
    pub id: u32,
    /// First slot of its ring in the ring slab.
    pub ring_off: u32,
    /// Slots in its ring.
    pub ring_len: u32,
    /// Counts replacements of this entry.
    pub epoch: u32,
    /// One of the `mode` numbers.
    pub mode: u8,
    /// 1: the slot is chosen by the client address alone.
    pub affinity: u8,
    /// Access list that clients must pass; 0 is none.
    pub acl: u16,
    /// With `affinity`: ticks for which a client keeps its backend after its last flow was opened; 0: for as long as the
    /// ring gives it the same.
    pub affinity_ticks: u32,
    /// New flows per second that all clients together may open; 0 is no limit.
    pub flow_rate: u32,
    /// New flows per second that one client address may open; 0 is no limit.
    pub source_rate: u32,
}

impl Service {
    /// Whether new flows must pass `datapath::guard`.
    #[inline(always)]
    pub const fn limited(&self) -> bool {
        self.acl as u32 | self.flow_rate | self.source_rate != 0
    }
}

const _: () = assert!(size_of::<ServiceKey>() == 24 && size_of::<Service>() == 32);

shape!(ServiceKey {
    addr,
    port,
    proto,
    zero,
});
shape!(Service {
    id,
    ring_off,
    ring_len,
    epoch,
    mode,
    affinity,
    acl,
    affinity_ticks,
    flow_rate,
    source_rate,
});

/// Steering of a service. Append-only; 2 is kept for direct server return.
pub mod mode {
    /// Full NAT to a backend of the ring. What reaches the stack all the same is the proxy's.
    pub const NAT: u8 = 1;
    /// The proxy's: counted, passed, and delivered by `sk_lookup`.
    pub const L7: u8 = 3;
    /// Full NAT of a listener of protocol TCP or UDP: what reaches the stack is refused, never the proxy's.
    pub const L4: u8 = 4;
}
