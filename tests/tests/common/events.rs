//! Random frames of a crowded world: few ports, little room, many collisions.

use std::net::SocketAddrV4;

use fleetgate_tests::{
    packets::{self, Builder, flags},
    world::{
        BACKEND, BACKEND_2, CLIENT, POD, POD_2, POD_UDP, SNAT, VIP, VIP_L7, VIP_UDP, World, world,
    },
};
use proptest::prelude::*;

/// Source ports of the gateway.
pub(crate) const PORTS: u16 = 4;
/// Room in the flow table.
pub(crate) const ROOM: usize = 10;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A frame comes in, with some bytes changed.
    Frame(Builder, Vec<(usize, u8)>, Option<usize>),
    /// Time passes, in [`AGE_STEP`]s.
    Wait(u32),
}

/// Two pods behind the TCP listener.
pub(crate) fn crowded() -> World {
    let mut world = world().ports(PORTS);
    world.max_flows = ROOM;
    world.ring(&[BACKEND, BACKEND_2]);
    world
}

fn frame() -> impl Strategy<Value = Builder> {
    let client = (0_u16..4).prop_map(|n| SocketAddrV4::new(*CLIENT.ip(), CLIENT.port() + n));
    let ours = (0..PORTS).prop_map(|n| SocketAddrV4::new(*SNAT.ip(), SNAT.port() + n));
    let pod = prop::sample::select(vec![POD, POD_2, POD_UDP]);
    let listener = prop::sample::select(vec![VIP, VIP_UDP, VIP_L7]);
    let pair = prop_oneof![3 => (client, listener), 2 => (pod, ours)];
    let flags = prop::sample::select(vec![
        flags::SYN,
        flags::SYN,
        flags::ACK,
        flags::SYN | flags::ACK,
        flags::FIN | flags::ACK,
        flags::RST,
    ]);
    let payload = prop::collection::vec(any::<u8>(), 0..40);
    (pair, flags, any::<bool>(), payload, 0_usize..4, 0_u8..40).prop_map(
        |((src, dst), flags, udp, payload, words, odd)| {
            let tcp = !(udp || src == POD_UDP || dst == VIP_UDP);
            let builder = if tcp {
                packets::tcp(src, dst, flags)
            } else {
                packets::udp(src, dst)
            };
            let builder = builder.payload(&payload).options(&vec![1; words * 4]);
            match odd {
                0 => builder.ttl(1),
                1 => builder.fragment(packets::MORE_FRAGMENTS),
                2 => builder.without_checksum(),
                3 => builder.vlan(3),
                _ => builder,
            }
        },
    )
}

/// Anything that may happen.
pub(crate) fn event() -> impl Strategy<Value = Event> {
    let changes = prop_oneof![
        4 => Just(Vec::new()),
        1 => prop::collection::vec((0_usize..80, any::<u8>()), 1..4),
    ];
    let cut = prop_oneof![9 => Just(None), 1 => (0_usize..80).prop_map(Some)];
    prop_oneof![
        12 => (frame(), changes, cut).prop_map(|(f, c, cut)| Event::Frame(f, c, cut)),
        1 => (1_u32..20).prop_map(Event::Wait),
    ]
}

/// A frame with bytes changed and its end cut off.
pub(crate) fn bytes(frame: &Builder, changes: &[(usize, u8)], cut: Option<usize>) -> Vec<u8> {
    let mut bytes = frame.bytes();
    for (at, value) in changes {
        if let Some(byte) = bytes.get_mut(*at) {
            *byte = *value;
        }
    }
    bytes.truncate(cut.unwrap_or(usize::MAX));
    bytes
}
