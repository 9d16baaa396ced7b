//! All tables of the datapath as plain values, and a small world that most rows share.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
};

use gateway_common::{
    addr::{Addr, Port},
    backend::{self, Backend, NeighbourKey, NextHop, Snat},
    config::Config,
    flow::{Flow, FlowKey, TCP, UDP, state},
    limits::{AclKey, Bucket, SourceKey},
    service::{Service, ServiceKey, mode},
    stats::{Count, Traffic},
};

use crate::packets::Mac;

/// The hooks of the datapath.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    /// `fleetgate_xdp`.
    Xdp,
    /// `fleetgate_tc`.
    Tc,
}

/// What the agent writes into the maps; flows are what the datapath makes of it.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Services by address.
    pub services: BTreeMap<ServiceKey, Service>,
    /// Ring slab.
    pub rings: Vec<u32>,
    /// Backends by id.
    pub backends: BTreeMap<u32, Backend>,
    /// Next hops by id.
    pub hops: BTreeMap<u32, NextHop>,
    /// Next hop ids by neighbour.
    pub neighbours: BTreeMap<NeighbourKey, u32>,
    /// Source addresses.
    pub snats: Vec<Snat>,
    /// Networks of all access lists.
    pub acls: BTreeMap<AclKey, u32>,
    /// Budgets by service id.
    pub budgets: BTreeMap<u32, Bucket>,
    /// Budgets of clients.
    pub sources: BTreeMap<SourceKey, Bucket>,
    /// Configuration.
    pub config: Config,
    /// Room in the flow table, in entries.
    pub max_flows: usize,
}

/// Every counter that is not zero.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// By service id.
    pub services: BTreeMap<u32, Traffic>,
    /// By backend id.
    pub backends: BTreeMap<u32, Traffic>,
    /// By reason number.
    pub reasons: BTreeMap<u32, Count>,
}

impl Counters {
    /// What was counted since counters stood like this. Counters only grow.
    #[must_use]
    pub fn minus(&self, before: &Self) -> Self {
        fn each<V: Copy + Default + PartialEq>(
            now: &BTreeMap<u32, V>,
            before: &BTreeMap<u32, V>,
            minus: impl Fn(V, V) -> V,
        ) -> BTreeMap<u32, V> {
            let left = now.iter().map(|(id, count)| {
                let old = before.get(id).copied().unwrap_or_default();
                (*id, minus(*count, old))
            });
            left.filter(|(_, count)| *count != V::default()).collect()
        }
        let traffic = |mut now: Traffic, old: Traffic| {
            now.flows -= old.flows;
            now.in_packets -= old.in_packets;
            now.in_bytes -= old.in_bytes;
            now.out_packets -= old.out_packets;
            now.out_bytes -= old.out_bytes;
            now.refused -= old.refused;
            now
        };
        Self {
            services: each(&self.services, &before.services, traffic),
            backends: each(&self.backends, &before.backends, traffic),
            reasons: each(&self.reasons, &before.reasons, |now, old| Count {
                packets: now.packets - old.packets,
                bytes: now.bytes - old.bytes,
            }),
        }
    }
}

/// Flow entries in key order. `last_seen` holds the age instead, in whole [`AGE_STEP`]s: kernel
/// time cannot be repeated to the tick.
pub type Flows = Vec<(FlowKey, Flow)>;

/// Unit of ages, in ticks: far longer than any row takes to run, and all waits and timeouts are
/// whole multiples of it (a timeout is half a step off, so that no wait ends exactly on it).
pub const AGE_STEP: u32 = 100_000;

/// A client.
pub const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 50_001);
/// The same client's second connection.
pub const CLIENT_2: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 50_002);
/// Another client with the first one's port.
pub const STRANGER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 77), 50_001);
/// A TCP listener steered by the kernel.
pub const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 80);
/// A UDP listener steered by the kernel.
pub const VIP_UDP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 53);
/// A TCP listener of the proxy.
pub const VIP_L7: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 443);
/// A TCP listener without a ring.
pub const VIP_EMPTY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 81);
/// The one address and port that pods see.
pub const SNAT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 40_000);
/// Pod behind [`VIP`].
pub const POD: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 1), 8080);
/// Second pod: in the tables, in no ring until a row says so.
pub const POD_2: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, 9), 8081);
/// Pod behind [`VIP_UDP`].
pub const POD_UDP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 3), 5353);

/// Service ids.
pub const SERVICE_TCP: u32 = 1;
/// See [`SERVICE_TCP`].
pub const SERVICE_UDP: u32 = 2;
/// See [`SERVICE_TCP`].
pub const SERVICE_L7: u32 = 3;
/// See [`SERVICE_TCP`].
pub const SERVICE_EMPTY: u32 = 4;
/// Backend id of [`POD`].
pub const BACKEND: u32 = 1;
/// Backend id of [`POD_2`].
pub const BACKEND_2: u32 = 2;
/// Backend id of [`POD_UDP`].
pub const BACKEND_UDP: u32 = 3;
/// Hop to all pods, out of another interface than the frames come in.
pub const HOP_PODS: u32 = 1;
/// Hop back to clients, out of the interface the frames come in.
pub const HOP_CLIENTS: u32 = 2;
/// Interface all frames come in on: the loopback device, which test runs use.
pub const IFINDEX: u32 = 1;
/// MAC address of the router that clients are behind.
pub const ROUTER: Mac = [2, 0, 0, 0, 0, 1];
/// Largest IP packet of both hops, in bytes.
pub const MTU: u16 = 200;

/// A key's address.
pub fn addr(ip: Ipv4Addr) -> Addr {
    Addr::from(IpAddr::V4(ip))
}

/// Key of a listener.
pub fn listener(at: SocketAddrV4, proto: u32) -> ServiceKey {
    ServiceKey {
        addr: addr(*at.ip()),
        port: Port::from_host(at.port()),
        proto: proto as u16,
        zero: 0,
    }
}

/// Key of a flow as its packets carry it.
pub fn flow_key(src: SocketAddrV4, dst: SocketAddrV4, proto: u32) -> FlowKey {
    FlowKey {
        src: addr(*src.ip()),
        dst: addr(*dst.ip()),
        src_port: Port::from_host(src.port()),
        dst_port: Port::from_host(dst.port()),
        proto,
    }
}

/// An active backend on the first source address.
pub fn active(pod: SocketAddrV4, hop: u32) -> Backend {
    Backend {
        addr: addr(*pod.ip()),
        port: Port::from_host(pod.port()),
        state: backend::state::ACTIVE,
        spare: 0,
        hop: hop as u16,
        generation: 1,
        snat_first: 0,
        snat_count: 1,
        ..Backend::default()
    }
}

/// A kernel-steered service.
pub fn nat(id: u32, ring_off: u32, ring_len: u32) -> Service {
    Service {
        id,
        ring_off,
        ring_len,
        epoch: 1,
        mode: mode::NAT,
        ..Service::default()
    }
}

/// One TCP and one UDP service with one pod each, a listener of the proxy, one without backends; one
/// source address with one port, so that every translation is known beforehand.
pub fn world() -> World {
    let mut timeout_ticks = [0; state::COUNT];
    for (state, steps) in [
        (state::TCP_OPENING, 3),
        (state::TCP_ESTABLISHED, 70),
        (state::TCP_CLOSING, 12),
        (state::TCP_CLOSED, 1),
        (state::UDP_OPENING, 3),
        (state::UDP_ESTABLISHED, 18),
    ] {
        timeout_ticks[state as usize] = steps * AGE_STEP + AGE_STEP / 2;
    }
    let hop = |ifindex, last| NextHop {
        ifindex,
        dmac: [2, 0, 0, 0, 0xd, last],
        smac: [2, 0, 0, 0, 0x5, last],
        mtu: MTU,
        flags: backend::XDP,
    };
    let l7 = Service {
        mode: mode::L7,
        ..nat(SERVICE_L7, 0, 0)
    };
    World {
        services: BTreeMap::from([
            (listener(VIP, TCP), nat(SERVICE_TCP, 0, 1)),
            (listener(VIP_UDP, UDP), nat(SERVICE_UDP, 1, 1)),
            (listener(VIP_L7, TCP), l7),
            (listener(VIP_EMPTY, TCP), nat(SERVICE_EMPTY, 0, 0)),
        ]),
        rings: vec![BACKEND, BACKEND_UDP],
        backends: BTreeMap::from([
            (BACKEND, active(POD, HOP_PODS)),
            (BACKEND_2, active(POD_2, HOP_PODS)),
            (BACKEND_UDP, active(POD_UDP, HOP_PODS)),
        ]),
        hops: BTreeMap::from([
            (HOP_PODS, hop(2, HOP_PODS as u8)),
            (HOP_CLIENTS, hop(IFINDEX, HOP_CLIENTS as u8)),
        ]),
        neighbours: BTreeMap::from([(neighbour(ROUTER), HOP_CLIENTS)]),
        snats: vec![Snat {
            addr: addr(*SNAT.ip()),
            port_first: SNAT.port(),
            port_count: 1,
        }],
        acls: BTreeMap::new(),
        budgets: BTreeMap::new(),
        sources: BTreeMap::new(),
        config: Config {
            seed: 0x5eed,
            sample_every: 0,
            timeout_ticks,
        },
        max_flows: 4096,
    }
}

/// Key of a neighbour on [`IFINDEX`].
pub fn neighbour(mac: Mac) -> NeighbourKey {
    NeighbourKey {
        ifindex: IFINDEX,
        mac: [0, 2, 4].map(|at| u16::from_ne_bytes([mac[at], mac[at + 1]])),
        zero: 0,
    }
}

impl World {
    /// Changes one backend.
    pub fn backend(&mut self, id: u32) -> &mut Backend {
        self.backends.entry(id).or_default()
    }

    /// Gives the source address this many ports.
    #[must_use]
    pub fn ports(mut self, count: u16) -> Self {
        self.snats[0].port_count = count;
        self
    }

    /// Gives the TCP service a ring with these backends.
    pub fn ring(&mut self, ids: &[u32]) {
        let off = self.rings.len() as u32;
        self.rings.extend_from_slice(ids);
        if let Some(service) = self.services.get_mut(&listener(VIP, TCP)) {
            service.ring_off = off;
            service.ring_len = ids.len() as u32;
        }
    }
}
