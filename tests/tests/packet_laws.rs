//! Laws that hold for any sequence of frames, on slices.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddrV4,
};

use fleetgate_tests::{
    packets::{self, Builder, ends, flags},
    row::translated,
    slices::Slices,
    world::{
        AGE_STEP, BACKEND, BACKEND_2, CLIENT, Counters, Hook, POD, POD_2, POD_UDP, SNAT, VIP,
        VIP_L7, VIP_UDP, World, world,
    },
};
use gateway_common::{
    flow::{FlowKey, flag},
    verdict::Action,
};
use proptest::prelude::*;

/// Source ports of the gateway.
const PORTS: u16 = 4;
/// Room in the flow table.
const ROOM: usize = 10;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    /// A frame comes in, with some bytes changed.
    Frame(Builder, Vec<(usize, u8)>, Option<usize>),
    /// Time passes, in [`AGE_STEP`]s.
    Wait(u32),
}

fn crowded() -> World {
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

fn event() -> impl Strategy<Value = Event> {
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

fn bytes(frame: &Builder, changes: &[(usize, u8)], cut: Option<usize>) -> Vec<u8> {
    let mut bytes = frame.bytes();
    for (at, value) in changes {
        if let Some(byte) = bytes.get_mut(*at) {
            *byte = *value;
        }
    }
    bytes.truncate(cut.unwrap_or(usize::MAX));
    bytes
}

/// Every forward entry has one reply entry that undoes it, and no reply entry is alone.
fn paired(slices: &Slices) {
    let flows: BTreeMap<FlowKey, _> = slices.memory.flows().into_iter().collect();
    assert!(flows.len() <= ROOM, "{} entries", flows.len());
    let mut answered = BTreeSet::new();
    for (key, flow) in &flows {
        let other = flow.nat.reverse_key(key.proto);
        let sibling = flows.get(&other).expect("every entry has its other half");
        assert_eq!(sibling.nat.reverse_key(key.proto), *key, "undone");
        assert_eq!(sibling.nat.backend, flow.nat.backend);
        assert_eq!(sibling.nat.service, flow.nat.service);
        assert_eq!(sibling.nat.addr_delta, !flow.nat.addr_delta);
        assert_eq!(sibling.nat.port_delta, !flow.nat.port_delta);
        assert_eq!(sibling.life.state, flow.life.state);
        let reply = flow.life.flags & flag::REPLY != 0;
        assert_ne!(reply, sibling.life.flags & flag::REPLY != 0);
        if !reply {
            assert!(answered.insert(other), "two flows share a reply key");
            let port = other.dst_port.host();
            assert!((SNAT.port()..SNAT.port() + PORTS).contains(&port), "{port}");
        }
    }
    assert_eq!(answered.len() * 2, flows.len());
}

/// Flows opened so far, over all services.
fn opened(counters: &Counters) -> u64 {
    counters.services.values().map(|count| count.flows).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_sequence_of_frames_keeps_frames_checksums_and_flows_in_order(
        events in prop::collection::vec(event(), 1..60),
        hook in prop::sample::select(vec![Hook::Xdp, Hook::Tc]),
    ) {
        let world = crowded();
        let mut slices = Slices::new(hook, &world);
        // Where each client's packets went, until its flow is opened anew.
        let mut homes = BTreeMap::new();
        for event in events {
            let frame = match event {
                Event::Wait(steps) => {
                    slices.wait(steps * AGE_STEP);
                    continue;
                }
                Event::Frame(frame, changes, cut) => bytes(&frame, &changes, cut),
            };
            let before = opened(&slices.counters());
            let (verdict, out) = slices.run(&frame, false);
            let from = ends(&frame);
            if opened(&slices.counters()) != before {
                // Anew, perhaps elsewhere, and perhaps by a frame that went no further.
                homes.remove(&from.map(|from| (from.src, from.dst, from.proto)));
            }
            if verdict.action() != Action::Forward {
                prop_assert_eq!(&out, &frame, "not sent, so untouched");
            } else {
                translated("law", &world, verdict.hop(), &frame, &out);
                let to = ends(&out).expect("what was sent can be read");
                if to.src.ip() == SNAT.ip() {
                    let key = from.map(|from| (from.src, from.dst, from.proto));
                    let home = (to.src, to.dst);
                    let old = *homes.entry(key).or_insert(home);
                    prop_assert_eq!(old, home, "a living flow moved");
                }
            }
            paired(&slices);
        }
    }

    #[test]
    fn noise_of_any_length_is_never_changed(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        for hook in [Hook::Xdp, Hook::Tc] {
            let slices = Slices::new(hook, &crowded());
            let (verdict, out) = slices.run(&noise, false);
            prop_assert_eq!(verdict.action(), Action::Pass);
            prop_assert_eq!(&out, &noise);
        }
    }
}
