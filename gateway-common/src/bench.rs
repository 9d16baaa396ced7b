//! The flows of `cargo xtask bench l4`, computed from their numbers: the generator in the kernel and the table it is
//! measured on agree without a list, so that making a frame touches no memory that would push the flow table out of the
//! caches.

use crate::{
    addr::{Addr, Port},
    csum,
    flow::{FlowKey, Nat},
};

/// What the generator sends, and its counter.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Generator {
    /// When the first frame was made, ns of the monotonic clock; 0 before. Written by the program.
    pub begun: u64,
    /// Interface whose peer receives the frames.
    pub ifindex: u32,
    /// Number of flows.
    pub flows: u32,
    /// 0: each frame picks one at random; 1: one after the other.
    pub in_turn: u32,
    /// IANA protocol number: UDP, or TCP (a segment with ACK alone).
    pub proto: u32,
    /// One of the `way` numbers.
    pub way: u32,
    /// Frames made so far.
    pub made: u32,
    /// Destination MAC address.
    pub dmac: [u16; 3],
    /// Source MAC address.
    pub smac: [u16; 3],
    /// Addresses of the flows.
    pub plan: Addresses,
}

/// What arrived on one CPU. The clock is read for one frame in [`Arrivals::EVERY`]: it must not cost what is measured.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Arrivals {
    /// Frames so far.
    pub count: u64,
    /// How many they were when the clock was last read.
    pub stamped: u64,
    /// What it said, ns of the monotonic clock.
    pub at: u64,
}

impl Arrivals {
    /// Frames between two looks at the clock.
    pub const EVERY: u64 = 1024;
}

/// Short connections between the two ends of `ends.rs`, and what became of them. The kernel counts atomically.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Talk {
    /// When the last was over, ns of the monotonic clock; 0 before.
    pub end: u64,
    /// How many were begun; may run past `wanted`.
    pub opened: u64,
    /// How many were closed by both ends.
    pub over: u64,
    /// How often the client read what the server says.
    pub greeted: u64,
    /// How often the client was sent a reset.
    pub resets: u64,
    /// How many are wanted.
    pub wanted: u32,
    /// Number of the first one's flow.
    pub first: u32,
    /// Interface of the client.
    pub ifindex: u32,
    /// Destination MAC address of what the client sends.
    pub dmac: [u16; 3],
    /// Source MAC address.
    pub smac: [u16; 3],
    /// Addresses of the flows.
    pub plan: Addresses,
    /// Always 0.
    pub rest: u32,
}

const _: () = assert!(size_of::<Talk>() == 96);

/// Directions of generated frames.
pub mod way {
    /// Client to listener.
    pub const REQUEST: u32 = 0;
    /// Pod to gateway.
    pub const REPLY: u32 = 1;
    /// Client to pod, for those who only route.
    pub const DIRECT: u32 = 2;
}

/// First addresses of each kind, in host order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Addresses {
    /// Clients: one for every 16 384 flows.
    pub client: u32,
    /// The listener.
    pub vip: u32,
    /// What pods see: one for every 16 384 flows.
    pub snat: u32,
    /// Pods.
    pub pod: u32,
    /// Number of pods less one; the number is a power of two.
    pub pod_mask: u32,
    /// Port of the listener.
    pub vip_port: u32,
    /// Port of the pods.
    pub pod_port: u32,
}

/// Flows of one client address.
const PORTS: u32 = 1 << 14;
/// First port of clients, and of what pods see.
const FIRST_PORT: u32 = 16_384;

/// The four ends of one flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ends {
    /// Client address and port.
    pub client: (Addr, Port),
    /// Listener.
    pub vip: (Addr, Port),
    /// What the pod sees as its client.
    pub snat: (Addr, Port),
    /// The pod.
    pub pod: (Addr, Port),
}

#[inline(always)]
const fn end(addr: u32, port: u32) -> (Addr, Port) {
    (Addr::v4(addr.to_be()), Port::from_host(port as u16))
}

impl Addresses {
    /// Ends of a flow.
    #[inline(always)]
    pub const fn ends(&self, flow: u32) -> Ends {
        let (host, port) = (flow / PORTS, FIRST_PORT + flow % PORTS);
        Ends {
            client: end(self.client + host, port),
            vip: end(self.vip, self.vip_port),
            snat: end(self.snat + host, port),
            pod: end(self.pod + self.pod(flow), self.pod_port),
        }
    }

    /// Number of the pod that serves a flow.
    #[inline(always)]
    pub const fn pod(&self, flow: u32) -> u32 {
        flow & self.pod_mask
    }
}

/// Key and translation of one direction: `from` sends to `to`, and becomes `src` sending to `dst`. Ids and hop are left
/// to the caller.
pub fn entry(
    from: (Addr, Port),
    to: (Addr, Port),
    src: (Addr, Port),
    dst: (Addr, Port),
    proto: u32,
) -> (FlowKey, Nat) {
    let word = |old: Addr, new: Addr| csum::change32(old.v4_word(), new.v4_word());
    let port = |old: Port, new: Port| csum::change16(old.0, new.0);
    let key = FlowKey {
        src: from.0,
        dst: to.0,
        src_port: from.1,
        dst_port: to.1,
        proto,
    };
    let nat = Nat {
        src: src.0,
        dst: dst.0,
        src_port: src.1,
        dst_port: dst.1,
        addr_delta: csum::fold(word(from.0, src.0) + word(to.0, dst.0)),
        port_delta: csum::fold(port(from.1, src.1) + port(to.1, dst.1)),
        ..Nat::default()
    };
    (key, nat)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_flows_of_a_million_share_a_tuple_on_either_side() {
        let plan = Addresses {
            client: 0x0a80_0000,
            vip: 1,
            snat: 0x0a90_0000,
            pod: 0x0aa0_0000,
            pod_mask: 63,
            vip_port: 53,
            pod_port: 5353,
        };
        let mut seen = HashSet::new();
        for flow in 0..1_000_000 {
            let ends = plan.ends(flow);
            assert!(seen.insert((ends.client, ends.vip)));
            assert!(seen.insert((ends.snat, ends.pod)));
        }
    }
}
