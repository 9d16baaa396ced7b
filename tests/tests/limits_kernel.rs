//! The kernel's trie of access lists says what looking through the list says.

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
};

use fleetgate_tests::{
    kernel::{self, Kernel, code},
    packets::{flags, tcp},
    world::{Hook, VIP_L7, World, listener, world},
};
use gateway_common::{flow::TCP, verdict::Action};
use gateway_user::{
    ir::{AccessList, Network},
    plan::entries,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

/// Few octets, so that networks nest and clients are in some of them.
fn address() -> impl Strategy<Value = Ipv4Addr> {
    any::<[bool; 4]>().prop_map(|bits| Ipv4Addr::from(bits.map(|bit| if bit { 203 } else { 10 })))
}

fn network() -> impl Strategy<Value = Network> {
    let v4 = (address(), 0_u8..=32)
        .prop_map(|(address, prefix)| Network::new(IpAddr::V4(address), prefix));
    // Also those that hold all mapped addresses.
    let v6 = (address(), 0_u8..=95)
        .prop_map(|(address, prefix)| Network::new(IpAddr::V6(address.to_ipv6_mapped()), prefix));
    prop_oneof![3 => v4, 1 => v6].prop_map(|network| network.expect("prefixes that fit"))
}

fn with(id: u16, list: &AccessList) -> World {
    let mut world = world();
    world.acls = entries(id, list);
    if let Some(service) = world.services.get_mut(&listener(VIP_L7, TCP)) {
        service.acl = id;
    }
    world
}

#[test]
fn the_kernels_trie_says_what_looking_through_the_list_says() {
    kernel::own_network().expect("root");
    let kernel = RefCell::new(Kernel::load().expect("the kernel object, and root"));
    let counts = RefCell::new([0_u32; 2]);
    let mut runner = TestRunner::new(Config {
        cases: 100,
        failure_persistence: None,
        ..Config::default()
    });
    let lists = (
        any::<bool>(),
        prop::collection::vec(network(), 1..20),
        1_u16..=u16::MAX,
        prop::collection::vec(address(), 1..10),
        prop::sample::select(vec![Hook::Xdp, Hook::Tc]),
    );
    runner
        .run(&lists, |(allow, networks, id, clients, hook)| {
            let list = AccessList { allow, networks };
            let mut kernel = kernel.borrow_mut();
            kernel
                .apply(&with(id, &list))
                .expect("the kernel takes the list");
            for client in clients {
                let frame = tcp(SocketAddrV4::new(client, 50_000), VIP_L7, flags::SYN).bytes();
                let ran = kernel.run(hook, &frame, false).expect("a test run");
                let ran = ran.expect("a whole frame");
                let address = IpAddr::V4(client);
                let listed = list.networks.iter().any(|it| it.contains(address));
                let let_in = listed == allow;
                let action = if let_in { Action::Pass } else { Action::Drop };
                prop_assert_eq!(
                    ran.code,
                    code(hook, action, false),
                    "{} of {:?}",
                    client,
                    &list
                );
                counts.borrow_mut()[usize::from(let_in)] += 1;
            }
            Ok(())
        })
        .expect("the law holds");
    let [kept_out, let_in] = *counts.borrow();
    assert!(
        kept_out > 50 && let_in > 50,
        "{kept_out} kept out, {let_in} let in: that tests nothing"
    );
}
