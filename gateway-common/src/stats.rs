//! Counters, per CPU; readers add the CPUs up.

use crate::shape;

/// Traffic of a service or a backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    /// Counts nothing: the feature is for tests of upgrades.
    #[cfg(feature = "other-layout")]
    pub added: u64,
    /// Flows opened.
    pub flows: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Frame bytes from clients.
    pub in_bytes: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Frame bytes to clients.
    pub out_bytes: u64,
    /// Packets that the limits of a service have kept out; of a backend always zero.
    pub refused: u64,
}

/// Packets and bytes that met one reason.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Frame bytes.
    pub bytes: u64,
}

#[cfg(not(feature = "other-layout"))]
shape!(Traffic {
    flows,
    in_packets,
    in_bytes,
    out_packets,
    out_bytes,
    refused,
});
#[cfg(feature = "other-layout")]
shape!(Traffic {
    added,
    flows,
    in_packets,
    in_bytes,
    out_packets,
    out_bytes,
    refused,
});
shape!(Count { packets, bytes });

impl core::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.flows += other.flows;
        self.in_packets += other.in_packets;
        self.in_bytes += other.in_bytes;
        self.out_packets += other.out_packets;
        self.out_bytes += other.out_bytes;
        self.refused += other.refused;
    }
}

impl core::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}
