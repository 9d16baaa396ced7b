//! A packet without a known next hop takes the kernel's routes.

use std::process::Command;

use fleetgate_tests::{
    kernel::{self, Kernel, code},
    packets::{self, flags},
    world::{BACKEND, CLIENT, Hook, POD, VIP, world},
};
use gateway_common::verdict::Action;

/// Runs `ip` in this thread's network namespace.
fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .expect("the ip command (package iproute2) is installed");
    assert!(status.success(), "ip {arguments}");
}

#[test]
fn without_a_next_hop_tc_sends_by_the_kernels_routes_and_neighbours() {
    kernel::own_network().unwrap();
    ip("link set lo up");
    ip("link add fg-out type veth peer name fg-far");
    ip("link set fg-out address 02:00:00:00:0e:01 up");
    ip("link set fg-far up");
    ip("address add 10.99.0.1/24 dev fg-out");
    ip("route add 10.1.0.0/16 via 10.99.0.2");
    // The routes are asked as for a packet that is forwarded from the interface it came in on.
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();

    let mut kernel = Kernel::load().unwrap();
    let mut world = world();
    world.backend(BACKEND).hop = 0;
    kernel.reset(&world).unwrap();
    let syn = packets::tcp(CLIENT, VIP, flags::SYN).bytes();

    // The kernel's stack will ask for the neighbour's address, so the program leaves it alone.
    let ran = kernel.run(Hook::Tc, &syn, false).unwrap().unwrap();
    assert_eq!(ran.code, code(Hook::Tc, Action::Forward, false));
    assert_eq!(packets::ends(&ran.frame).unwrap().dst, POD);
    assert_eq!(ran.frame[..12], syn[..12]);

    ip("neighbour add 10.99.0.2 lladdr 02:00:00:00:0e:02 dev fg-out");
    let ran = kernel.run(Hook::Tc, &syn, false).unwrap().unwrap();
    assert_eq!(ran.code, code(Hook::Tc, Action::Forward, false));
    assert_eq!(packets::ends(&ran.frame).unwrap().dst, POD);
    assert_eq!(ran.frame[..6], [2, 0, 0, 0, 0xe, 2], "to the neighbour");
    assert_eq!(ran.frame[6..12], [2, 0, 0, 0, 0xe, 1], "from the interface");
}
