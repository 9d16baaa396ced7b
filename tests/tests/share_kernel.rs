//! Shares and source ports of many flows in the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use fleetgate_tests::{
    kernel::{Kernel, code},
    packets::{self, flags},
    world::{BACKEND, BACKEND_2, Hook, VIP, World, world},
};
use gateway_common::{
    backend::Snat,
    hash,
    maglev::{self, Entry},
    verdict::Action,
};

/// Connections, each of its own client.
const CONNECTIONS: u32 = 20_000;

#[test]
fn connections_of_many_clients_keep_the_weights_and_have_their_own_source_ports() {
    let world = sixty_forty();
    let mut kernel = Kernel::load_with(2 * CONNECTIONS).unwrap();
    for hook in [Hook::Xdp, Hook::Tc] {
        kernel.reset(&world).unwrap();
        let mut pods: BTreeMap<SocketAddrV4, BTreeSet<SocketAddrV4>> = BTreeMap::new();
        for number in 0..CONNECTIONS {
            let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 0)) + number);
            let client = SocketAddrV4::new(ip, 30_000 + (number % 7) as u16);
            let frame = packets::tcp(client, VIP, flags::SYN).bytes();
            let ran = kernel.run(hook, &frame, false).unwrap().unwrap();
            assert_eq!(
                ran.code,
                code(hook, Action::Forward, false),
                "flow {number}"
            );
            let ends = packets::ends(&ran.frame).unwrap();
            let fresh = pods.entry(ends.dst).or_default().insert(ends.src);
            assert!(fresh, "{} was given to two flows of {}", ends.src, ends.dst);
        }
        for (pod, share) in [
            (fleetgate_tests::world::POD, 60.0),
            (fleetgate_tests::world::POD_2, 40.0),
        ] {
            let got = pods[&pod].len() as f64 * 100.0 / f64::from(CONNECTIONS);
            eprintln!("{hook:?}: {pod} has {got:.2} %, asked for {share} %");
            assert!((got - share).abs() < 1.0, "{pod}: {got} %");
        }
        assert_eq!(kernel.flows().unwrap().len(), 2 * CONNECTIONS as usize);
    }
}

fn sixty_forty() -> World {
    let mut world = world();
    world.max_flows = 2 * CONNECTIONS as usize;
    world.snats = vec![Snat {
        port_first: 20_000,
        port_count: 40_000,
        ..world.snats[0]
    }];
    let entry = |id, name: &[u8], weight| Entry {
        id,
        identity: hash::name(1, name),
        weight,
    };
    let entries = [
        entry(BACKEND, b"c1/10.1.0.1:8080", 60),
        entry(BACKEND_2, b"c2/10.2.0.9:8081", 40),
    ];
    world.ring(&maglev::build(&entries, maglev::ring_len(entries.len()), 1));
    world
}
