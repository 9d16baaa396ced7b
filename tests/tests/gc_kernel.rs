//! The sweeper on a real flow table.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Instant,
};

use fleetgate_tests::{
    kernel::{self, Kernel, code},
    packets::{self, flags},
    world::{
        AGE_STEP, BACKEND, BACKEND_UDP, Hook, POD, SERVICE_TCP, SNAT, VIP, VIP_UDP, World,
        flow_key, world,
    },
};
use gateway_common::{
    backend::{self, Snat},
    config::Admission,
    flow::{FlowKey, TCP, flag, state},
    verdict::{Action, Reason},
};
use gateway_user::dataplane::{
    gc::{Remover, Sweep, sweep},
    pins::Pins,
    tables::Tables,
};

/// More entries than two slices of the sweeper.
const FLOWS: u32 = 5_000;

/// A gateway's maps and programs, and a sweeper on them.
struct Gateway {
    kernel: Kernel,
    pins: Pins,
    tables: Tables,
    remover: Remover,
    world: World,
}

impl Gateway {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        kernel::own_network().unwrap();
        let number = NUMBER.fetch_add(1, Relaxed);
        let pins = Pins::new(format!("/sys/fs/bpf/fg-gc-{}-{number}", std::process::id()));
        let mut kernel = Kernel::load_pinned(4 * FLOWS, Some(&pins)).unwrap();
        let mut world = world();
        world.max_flows = 4 * FLOWS as usize;
        world.snats[0] = Snat {
            port_first: 1_024,
            port_count: 60_000,
            ..world.snats[0]
        };
        kernel.reset(&world).unwrap();
        Self {
            tables: Tables::open(&pins).unwrap(),
            remover: Remover::open(&pins).unwrap(),
            kernel,
            pins,
            world,
        }
    }

    fn sweep(&mut self) -> Sweep {
        let now = self.kernel.ticks().unwrap();
        let timeouts = self.world.config.timeout_ticks;
        sweep(
            &self.tables,
            &mut self.remover,
            Instant::now(),
            now,
            &timeouts,
        )
        .unwrap()
    }

    fn send(&mut self, frame: &packets::Builder) -> u32 {
        let ran = self.kernel.run(Hook::Tc, &frame.bytes(), false).unwrap();
        ran.unwrap().code
    }

    fn open(&mut self, number: u32) -> bool {
        let sent = self.send(&packets::tcp(client(number), VIP, flags::SYN));
        sent == code(Hook::Tc, Action::Forward, false)
    }

    fn ask(&mut self, number: u32) -> bool {
        let sent = self.send(&packets::udp(client(number), VIP_UDP));
        sent == code(Hook::Tc, Action::Forward, false)
    }

    /// Key of the reply entry of a client's connection.
    fn reply(&self, number: u32) -> FlowKey {
        let request = flow_key(client(number), VIP, TCP);
        let flow = self.tables.flows.get(&request, 0).unwrap();
        flow.nat.reverse_key(TCP)
    }

    fn has(&self, key: &FlowKey) -> bool {
        self.tables.flows.get(key, 0).is_ok()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.pins.root());
    }
}

fn client(number: u32) -> SocketAddrV4 {
    let ip = u32::from(Ipv4Addr::new(100, 64, 0, 0)) + number;
    SocketAddrV4::new(ip.into(), 30_000)
}

#[test]
fn a_sweep_removes_what_is_silent_in_both_directions_and_nothing_else() {
    let mut gateway = Gateway::new();
    for number in 0..FLOWS {
        assert!(gateway.open(number));
    }
    let first = gateway.sweep();
    assert_eq!((first.seen, first.removed), (2 * u64::from(FLOWS), 0));
    assert_eq!(first.busy, [BACKEND].into());
    assert_eq!(first.ports, [(BACKEND, FLOWS)].into());
    gateway.kernel.wait(10 * AGE_STEP).unwrap();
    // One is renewed by its client, one by its pod.
    let (renewed, answered) = (7, 4_321);
    let answer = gateway.reply(answered);
    for key in [flow_key(client(renewed), VIP, TCP), answer] {
        let mut flow = gateway.tables.flows.get(&key, 0).unwrap();
        flow.life.last_seen = gateway.kernel.ticks().unwrap();
        gateway.tables.flows.insert(key, flow, 0).unwrap();
    }
    let second = gateway.sweep();
    eprintln!("{} entries swept in {:?}", second.seen, second.took);
    assert_eq!(second.removed, 2 * u64::from(FLOWS) - 4);
    assert_eq!(second.busy, [BACKEND].into());
    assert!(gateway.has(&gateway.reply(renewed)) && gateway.has(&answer));
    assert_eq!(gateway.kernel.flows().unwrap().len(), 4);
    assert_eq!(gateway.kernel.live(0).unwrap(), 2);
    assert_eq!(gateway.kernel.live(SERVICE_TCP).unwrap(), 2);
    gateway.kernel.wait(10 * AGE_STEP).unwrap();
    gateway.sweep();
    let last = gateway.sweep();
    assert_eq!((last.seen, last.busy.len()), (0, 0));
    assert_eq!(gateway.kernel.live(0).unwrap(), 0);
}

#[test]
fn of_a_backend_that_is_gone_datagrams_and_half_open_connections_go_at_once() {
    let mut gateway = Gateway::new();
    for number in 0..100 {
        assert!(gateway.open(number) && gateway.ask(number));
    }
    // One connection is open: answered, and confirmed.
    let reply = gateway.reply(5);
    let snat = SocketAddrV4::new(*SNAT.ip(), reply.dst_port.host());
    gateway.send(&packets::tcp(POD, snat, flags::SYN | flags::ACK));
    gateway.send(&packets::tcp(client(5), VIP, flags::ACK));
    for id in [BACKEND, BACKEND_UDP] {
        gateway.world.backend(id).state = backend::state::DOWN;
    }
    let world = gateway.world.clone();
    gateway.kernel.apply(&world).unwrap();
    let swept = gateway.sweep();
    assert_eq!(swept.removed, 2 * 199);
    // An id is free only after a pass that saw none of its flows.
    assert_eq!(swept.busy, [BACKEND, BACKEND_UDP].into());
    assert_eq!(gateway.sweep().busy, [BACKEND].into());
    let flows = gateway.kernel.flows().unwrap();
    assert_eq!(flows.len(), 2);
    assert!(
        flows
            .iter()
            .all(|(_, flow)| flow.life.state == state::TCP_ESTABLISHED)
    );
}

#[test]
fn halves_of_flows_go_when_they_are_silent_and_take_nobody_with_them() {
    let mut gateway = Gateway::new();
    gateway.world.snats[0].port_count = 2;
    let world = gateway.world.clone();
    gateway.kernel.apply(&world).unwrap();
    assert!(gateway.open(1) && gateway.open(2) && !gateway.open(3));
    // The request entry of one is lost, and the reply entry of the other.
    let (first, second) = (gateway.reply(1), gateway.reply(2));
    gateway.kernel.lose(&flow_key(client(1), VIP, TCP)).unwrap();
    gateway.kernel.lose(&second).unwrap();
    assert_eq!(gateway.sweep().removed, 0, "they may still be wanted");
    // Another flow takes the free port; the half that once had it must not take it along.
    gateway.world.snats[0].port_count = 3;
    let world = gateway.world.clone();
    gateway.kernel.apply(&world).unwrap();
    let orphan = flow_key(client(2), VIP, TCP);
    let mut other = 4;
    loop {
        assert!(gateway.open(other));
        if gateway.has(&second) {
            break;
        }
        let reply = gateway.reply(other);
        gateway.kernel.lose(&reply).unwrap();
        let request = flow_key(client(other), VIP, TCP);
        gateway.kernel.lose(&request).unwrap();
        other += 1;
    }
    for key in [first, orphan] {
        gateway.kernel.age(&key, 100 * AGE_STEP).unwrap();
    }
    assert_eq!(gateway.sweep().removed, 2);
    assert!(gateway.has(&second) && gateway.has(&flow_key(client(other), VIP, TCP)));
    let replies = gateway.kernel.flows().unwrap();
    let replies = replies
        .iter()
        .filter(|(_, flow)| flow.life.flags & flag::REPLY != 0);
    assert_eq!(replies.count(), 1);
}

#[test]
fn above_the_high_water_a_large_service_opens_nothing_and_a_small_one_does() {
    let mut gateway = Gateway::new();
    let admission = Admission {
        high: 100,
        share: 40,
    };
    gateway.kernel.admit(admission).unwrap();
    let opened = (0..200).filter(|number| gateway.open(*number)).count();
    assert_eq!(opened, 101);
    let asked = (0..100).filter(|number| gateway.ask(*number)).count();
    assert_eq!(asked, 41);
    let counters = gateway.kernel.counters().unwrap();
    let dropped = counters.reasons[&(Reason::HighWater as u32)].packets;
    assert_eq!(dropped, 99 + 59);
    let sent = gateway.send(&packets::tcp(client(0), VIP, flags::ACK));
    assert_eq!(
        sent,
        code(Hook::Tc, Action::Forward, false),
        "open connections go on"
    );
    // Below it again, all may open.
    gateway.kernel.wait(10 * AGE_STEP).unwrap();
    gateway.sweep();
    assert!(gateway.open(1_000));
}
