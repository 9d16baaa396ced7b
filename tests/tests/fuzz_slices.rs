//! The pipeline on slices, fed with noise and with the fixture table tampered with.
//!
//! `FLEETGATE_FUZZ_SECONDS=600` makes each property run for that long.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "common/fuzz.rs"]
mod fuzz;
#[path = "common/mutants.rs"]
mod mutants;

use std::{cell::Cell, net::SocketAddrV4};

use fleetgate_tests::{
    fixtures,
    ledger::Books,
    packets::{self, Ends, ends, flags},
    row::translated,
    slices::Slices,
    world::{AGE_STEP, CLIENT, Hook, POD, SNAT, VIP, VIP_UDP, World, flow_key, world},
};
use fuzz::fuzz;
use gateway_common::{
    flow::{TCP, flag},
    verdict::{Action, Reason, Verdict},
};
use mutants::mutant;
use proptest::prelude::*;

/// Sends a frame and checks all that holds for any frame in any state. Returns what became of it.
fn check(place: &str, slices: &Slices, world: &World, frame: &[u8], segmented: bool) -> Verdict {
    let books = Books::of(slices);
    let (verdict, out) = slices.run(frame, segmented);
    books.balance(place, frame, verdict.action(), &Books::of(slices));
    assert_eq!(out.len(), frame.len(), "{place}: no frame grows or shrinks");
    if verdict.action() != Action::Forward {
        assert_eq!(out, frame, "{place}: not sent, so untouched");
        return verdict;
    }
    // The judge of single frames reads IPv4 alone.
    let Some(from) = ends(frame) else {
        return verdict;
    };
    // Every other byte as it came; sums as right as they were, which is right where they were right.
    translated(place, world, verdict.hop(), frame, &out);
    let to = ends(&out).unwrap();
    let key = flow_key(from.src, from.dst, u32::from(from.proto));
    let flows = slices.memory.flows();
    let entry = flows.iter().find(|(at, _)| *at == key);
    let (_, flow) = entry.unwrap_or_else(|| panic!("{place}: sent without a flow"));
    if flow.life.flags & flag::REPLY == 0 {
        comes_back(place, slices, from, to);
    }
    verdict
}

/// An answer to what was sent reaches whoever sent it, as from whom it was sent to.
fn comes_back(place: &str, slices: &Slices, from: Ends, to: Ends) {
    let answer = if u32::from(from.proto) == TCP {
        packets::tcp(to.dst, to.src, flags::ACK)
    } else {
        packets::udp(to.dst, to.src)
    };
    let fork = slices.fork();
    let (verdict, out) = fork.run(&answer.bytes(), false);
    match verdict.action() {
        Action::Forward => {
            let back = ends(&out).unwrap();
            assert_eq!(
                (back.src, back.dst),
                (from.dst, from.src),
                "{place}: answer"
            );
            assert_eq!(
                (packets::ip_residue(&out), packets::l4_residue(&out)),
                (Some(0), Some(0)),
                "{place}: sums of the answer"
            );
        }
        // The way back may be unknown to XDP, or too narrow.
        _ => {
            let reasons = [Reason::NextHop as u32, Reason::OverMtu as u32];
            assert!(
                reasons.contains(&verdict.reason()),
                "{place}: the answer from {} is lost: {verdict:?}",
                to.dst
            );
        }
    }
}

#[test]
fn rows_that_are_tampered_with_break_no_law() {
    let table = fixtures::table();
    let sent = Cell::new(0_u64);
    fuzz("mutants", 2000, &mutant(), |mutant| {
        let row = mutant.base(&table);
        let mut world = row.world.clone();
        let mut slices = Slices::new(mutant.hook, &world);
        for (at, step) in mutant.steps(row).into_iter().enumerate() {
            if let Some(change) = step.change {
                change(&mut world);
                slices.apply(&world);
            }
            slices.wait(step.wait * AGE_STEP);
            let place = format!("row \"{}\", step {}", row.name, at + 1);
            let verdict = check(&place, &slices, &world, &step.frame, step.segmented);
            sent.set(sent.get() + u64::from(verdict.action() == Action::Forward));
        }
        Ok(())
    });
    eprintln!("{} frames sent", sent.get());
    assert!(sent.get() > 2000, "tampering leaves too little to test");
}

#[test]
fn noise_of_any_length_breaks_no_law() {
    let noise = prop::collection::vec(any::<u8>(), 0..1600);
    fuzz("noise", 500, &noise, |noise| {
        for hook in [Hook::Xdp, Hook::Tc] {
            let world = world();
            let slices = Slices::new(hook, &world);
            check("noise", &slices, &world, &noise, false);
        }
        Ok(())
    });
}

/// Noise behind an EtherType, and perhaps the addresses of a listener or of a flow: it gets further than pure noise.
fn dressed() -> impl Strategy<Value = Vec<u8>> {
    let ether_type = prop_oneof![
        6 => Just(0x0800_u16),
        2 => Just(0x86dd),
        1 => Just(0x8100),
        1 => any::<u16>(),
    ];
    let first = prop_oneof![4 => 0x45_u8..=0x4f, 1 => Just(0x60), 1 => any::<u8>()];
    let proto =
        prop_oneof![3 => Just(6_u8), 3 => Just(17), 1 => Just(1), 1 => Just(58), 1 => any::<u8>()];
    let noise = prop::collection::vec(any::<u8>(), 14..200);
    (ether_type, first, proto, any::<u8>(), noise).prop_map(
        |(ether_type, first, proto, kind, mut frame)| {
            frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
            if frame.len() < 34 {
                return frame;
            }
            frame[14] = first;
            frame[23] = proto;
            // Most are no fragments.
            frame[20] &= 0x40;
            frame[21] = 0;
            let listener = if proto == 17 { VIP_UDP } else { VIP };
            match kind % 8 {
                0 => {}
                1 => dress(&mut frame, POD, SNAT),
                _ => dress(&mut frame, CLIENT, listener),
            }
            frame
        },
    )
}

/// Writes the ends of a packet, as far as it has room for them.
fn dress(frame: &mut [u8], src: SocketAddrV4, dst: SocketAddrV4) {
    frame[26..30].copy_from_slice(&src.ip().octets());
    frame[30..34].copy_from_slice(&dst.ip().octets());
    let l4 = 14 + usize::from(frame[14] & 0x0f) * 4;
    if let Some(ports) = frame.get_mut(l4..l4 + 4) {
        ports[..2].copy_from_slice(&src.port().to_be_bytes());
        ports[2..].copy_from_slice(&dst.port().to_be_bytes());
    }
}

#[test]
fn noise_behind_a_good_beginning_breaks_no_law() {
    let frames = prop::collection::vec(dressed(), 1..12);
    let sent = Cell::new(0_u64);
    let inputs = (frames, prop::sample::select(vec![Hook::Xdp, Hook::Tc]));
    fuzz("dressed noise", 1000, &inputs, |(frames, hook)| {
        let mut world = world().ports(4);
        for (mac, hop) in [([0; 6], 1), ([2; 6], 2)] {
            world
                .neighbours
                .insert(fleetgate_tests::world::neighbour(mac), hop);
        }
        let slices = Slices::new(hook, &world);
        for frame in frames {
            let verdict = check("dressed noise", &slices, &world, &frame, false);
            sent.set(sent.get() + u64::from(verdict.action() == Action::Forward));
        }
        Ok(())
    });
    eprintln!("{} frames sent", sent.get());
    assert!(sent.get() > 100, "{} frames sent", sent.get());
}
