//! Where packets go: backends, next hops and source addresses.

use crate::{
    addr::{Addr, Port},
    shape,
};

/// One pod address and port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Backend {
    /// Pod address.
    pub addr: Addr,
    /// Target port.
    pub port: Port,
    /// One of the `state` numbers.
    pub state: u8,
    /// Always zero.
    pub zero: u8,
    /// Always zero.
    pub spare: u32,
    /// Next hop towards the pod; 0 means not resolved.
    pub hop: u16,
    /// Changes each time the id is given to another pod.
    pub generation: u16,
    /// First entry of its source addresses in the SNAT table.
    pub snat_first: u16,
    /// How many source addresses it may use.
    pub snat_count: u16,
}

/// Life of a backend. Append-only.
pub mod state {
    /// Takes new flows.
    pub const ACTIVE: u8 = 1;
    /// Keeps its flows, takes no new ones.
    pub const DRAINING: u8 = 2;
    /// Gone: UDP flows move at once, TCP flows are left to end.
    pub const DOWN: u8 = 3;
    /// Fails its health checks: takes no new flows; UDP flows move at once, and so do connections that it has not
    /// answered yet; others are kept.
    pub const QUARANTINED: u8 = 4;
    /// Name for people, by state number.
    pub const NAMES: [&str; 5] = ["none", "active", "draining", "down", "quarantined"];
}

/// Layer 2 destination of one direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NextHop {
    /// Interface to send on; 0 is no next hop.
    pub ifindex: u32,
    /// MAC address of the neighbour.
    pub dmac: [u8; 6],
    /// MAC address of our interface.
    pub smac: [u8; 6],
    /// Largest IP packet the interface sends, in bytes.
    pub mtu: u16,
    /// [`XDP`], or nothing.
    pub flags: u16,
}

/// Flag of a next hop: its interface takes frames that XDP redirects.
pub const XDP: u16 = 1;

/// Key of the neighbour table: who handed us a frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NeighbourKey {
    /// Interface the frame came in on.
    pub ifindex: u32,
    /// Source MAC address of the frame, as three words in memory order.
    pub mac: [u16; 3],
    /// Always zero.
    pub zero: u16,
}

/// One source address with the ports that belong to the gateway.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Snat {
    /// Source address that pods see.
    pub addr: Addr,
    /// First port, in host order.
    pub port_first: u16,
    /// Number of ports.
    pub port_count: u16,
}

const _: () = assert!(size_of::<Backend>() == 32 && size_of::<NextHop>() == 20);
const _: () = assert!(size_of::<NeighbourKey>() == 12 && size_of::<Snat>() == 20);

shape!(Backend {
    addr,
    port,
    state,
    zero,
    spare,
    hop,
    generation,
    snat_first,
    snat_count,
});
shape!(NextHop {
    ifindex,
    dmac,
    smac,
    mtu,
    flags,
});
shape!(NeighbourKey { ifindex, mac, zero });
shape!(Snat {
    addr,
    port_first,
    port_count,
});
