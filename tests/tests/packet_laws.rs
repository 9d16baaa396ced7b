//! Laws that hold for any sequence of frames, on slices.

#[path = "common/events.rs"]
mod events;

use std::collections::{BTreeMap, BTreeSet};

use events::{Event, PORTS, ROOM, bytes, crowded, event};
use fleetgate_tests::{
    packets::ends,
    row::translated,
    slices::Slices,
    world::{AGE_STEP, Counters, Hook, SNAT},
};
use gateway_common::{
    datapath::{parse, tables::Frame, touched},
    flow::{FlowKey, flag},
    verdict::Action,
};
use proptest::prelude::*;

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
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

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
            if verdict.action() == Action::Answer {
                // What answers look like is in the fixtures.
                prop_assert_ne!(&out, &frame, "answered");
            } else if verdict.action() != Action::Forward {
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
    fn what_is_touched_of_a_frame_is_all_that_its_parsing_and_rewriting_need(event in event()) {
        let Event::Frame(frame, changes, cut) = event else {
            return Ok(());
        };
        let mut frame = Frame { bytes: bytes(&frame, &changes, cut), ifindex: 1 };
        let Ok(head) = parse(&frame) else {
            return Ok(());
        };
        // Room for all headers with options is made where it does not say.
        let needed = touched(&frame).unwrap_or(92) as usize;
        prop_assert!(head.check + 2 <= needed, "{head:?} in {needed}");
        frame.bytes.truncate(needed);
        prop_assert_eq!(parse(&frame), Ok(head));
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
