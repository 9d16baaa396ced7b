//! Source ports in the kernel when few are left, and when none is.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::{collections::BTreeSet, net::SocketAddrV4, time::Instant};

use fleetgate_tests::{
    kernel::{self, Kernel, code},
    packets::{self, flags},
    world::{BACKEND, Hook, POD, SNAT, VIP, VIP_UDP, World, addr, flow_key, world},
};
use gateway_common::{
    backend::Snat,
    flow::{TCP, flag},
    verdict::{Action, Reason},
};

/// Ports of each of the two source addresses: several blocks, the outer ones cut.
const PORTS: u16 = 2_000;
/// Connections that exhaust both.
const ALL: u32 = 2 * PORTS as u32;

#[test]
fn every_claim_finds_a_port_while_any_is_free_and_none_is_given_twice() {
    kernel::own_network().unwrap();
    let world = two_addresses();
    let mut kernel = Kernel::load_with(4 * ALL).unwrap();
    for hook in [Hook::Xdp, Hook::Tc] {
        kernel.reset(&world).unwrap();
        let mut used = BTreeSet::new();
        for number in 0..ALL {
            let source = open(&mut kernel, hook, number)
                .unwrap_or_else(|| panic!("flow {number} of {ALL} found no port"));
            assert!(used.insert(source), "{source} was given to two flows");
        }
        let before = kernel.counters().unwrap();
        for number in ALL..ALL + 100 {
            assert_eq!(open(&mut kernel, hook, number), None);
        }
        let after = kernel.counters().unwrap();
        let drops = |counters: &fleetgate_tests::world::Counters| {
            let count = counters.reasons.get(&(Reason::SnatExhausted as u32));
            count.map_or(0, |count| count.packets)
        };
        assert_eq!(drops(&after) - drops(&before), 100);

        // Open connections go on, and another service of the same source addresses takes new ones.
        let ack = packets::tcp(client(0), VIP, flags::ACK).bytes();
        let ran = kernel.run(hook, &ack, false).unwrap().unwrap();
        assert_eq!(ran.code, code(hook, Action::Forward, false));
        let ask = packets::udp(client(0), VIP_UDP).bytes();
        let ran = kernel.run(hook, &ask, false).unwrap().unwrap();
        assert_eq!(ran.code, code(hook, Action::Forward, false));
    }
}

#[test]
fn a_freed_port_is_found_at_once_by_the_next_flow() {
    kernel::own_network().unwrap();
    let world = two_addresses();
    let mut kernel = Kernel::load_with(4 * ALL).unwrap();
    let hook = Hook::Tc;
    kernel.reset(&world).unwrap();
    let sources: Vec<SocketAddrV4> = (0..ALL)
        .map(|number| open(&mut kernel, hook, number).unwrap())
        .collect();
    assert_eq!(open(&mut kernel, hook, ALL), None, "all ports are taken");
    for (round, source) in sources.iter().step_by(397).enumerate() {
        let stranger = ALL + 1 + round as u32;
        assert_eq!(open(&mut kernel, hook, stranger), None);
        kernel.sweep(&flow_key(POD, *source, TCP)).unwrap();
        assert_eq!(open(&mut kernel, hook, stranger), Some(*source));
    }
    // A client that closes and comes again from the same port frees its own, by the programs alone.
    for number in [1, 2, 3] {
        let rst = packets::tcp(client(number), VIP, flags::RST).bytes();
        kernel.run(hook, &rst, false).unwrap().unwrap();
        assert!(open(&mut kernel, hook, number).is_some());
    }
    let flows = kernel.flows().unwrap();
    let replies: BTreeSet<_> = flows
        .iter()
        .filter(|(_, flow)| flow.life.flags & flag::REPLY != 0)
        .map(|(key, _)| *key)
        .collect();
    assert_eq!(replies.len(), ALL as usize);
}

#[test]
fn ports_added_to_a_full_range_are_found() {
    kernel::own_network().unwrap();
    let mut world = two_addresses();
    world.backend(BACKEND).snat_count = 1;
    let mut kernel = Kernel::load_with(4 * ALL).unwrap();
    kernel.reset(&world).unwrap();
    for number in 0..u32::from(PORTS) {
        open(&mut kernel, Hook::Xdp, number).unwrap();
    }
    let next = u32::from(PORTS);
    assert_eq!(open(&mut kernel, Hook::Xdp, next), None);
    world.snats[0].port_count += 1;
    kernel.apply(&world).unwrap();
    let added = open(&mut kernel, Hook::Xdp, next).unwrap();
    assert_eq!(added.port(), SNAT.port() + PORTS);
    assert_eq!(open(&mut kernel, Hook::Xdp, next + 1), None);
    world.backend(BACKEND).snat_count = 2;
    kernel.apply(&world).unwrap();
    let other = open(&mut kernel, Hook::Xdp, next + 1).unwrap();
    assert_ne!(other.ip(), SNAT.ip());
}

#[test]
fn what_a_new_flow_costs_at_each_fill_is_told() {
    kernel::own_network().unwrap();
    let mut world = two_addresses();
    let ports = 64_512;
    world.snats[0].port_first = 1024;
    world.snats[0].port_count = ports;
    world.backend(BACKEND).snat_count = 1;
    world.max_flows = 1 << 18;
    let mut kernel = Kernel::load_with(1 << 18).unwrap();
    kernel.reset(&world).unwrap();
    let ports = u32::from(ports);
    let mut slowest = 0;
    let mut mark = (Instant::now(), 0);
    let mut opened = BTreeSet::new();
    for number in 0..ports {
        let one = Instant::now();
        opened.insert(open(&mut kernel, Hook::Xdp, number).unwrap());
        slowest = slowest.max(one.elapsed().as_micros());
        let done = number + 1;
        if [ports / 2, ports / 10 * 9, ports / 100 * 99, ports].contains(&done) {
            let each = mark.0.elapsed().as_nanos() / u128::from(done - mark.1);
            eprintln!(
                "up to {done} of {ports} ports: {each} ns a new flow with the test's call, slowest {slowest} us"
            );
            (mark, slowest) = ((Instant::now(), done), 0);
        }
    }
    assert_eq!(opened.len(), ports as usize);
    let full = Instant::now();
    for number in ports..ports + 1000 {
        assert_eq!(open(&mut kernel, Hook::Xdp, number), None);
    }
    eprintln!(
        "full: {} ns a refused flow with the test's call",
        full.elapsed().as_nanos() / 1000
    );
}

/// Opens a connection of the client with this number; the source the pod sees.
fn open(kernel: &mut Kernel, hook: Hook, number: u32) -> Option<SocketAddrV4> {
    let frame = packets::tcp(client(number), VIP, flags::SYN).bytes();
    let ran = kernel.run(hook, &frame, false).unwrap().unwrap();
    if ran.code == code(hook, Action::Drop, false) {
        return None;
    }
    assert_eq!(ran.code, code(hook, Action::Forward, false));
    Some(packets::ends(&ran.frame).unwrap().src)
}

fn client(number: u32) -> SocketAddrV4 {
    let ip = u32::from(std::net::Ipv4Addr::new(100, 64, 0, 0)) + number;
    SocketAddrV4::new(ip.into(), 30_000)
}

fn two_addresses() -> World {
    let mut world = world();
    world.max_flows = 4 * ALL as usize;
    world.snats = vec![
        Snat {
            port_count: PORTS,
            ..world.snats[0]
        },
        Snat {
            addr: addr([198, 51, 100, 2].into()),
            port_first: 1_100,
            port_count: PORTS,
        },
    ];
    world.backend(BACKEND).snat_count = 2;
    world
}
