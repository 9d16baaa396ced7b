//! Runs the packet pipeline on one made-up packet, without touching any map.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use gateway_common::{
    addr::Addr,
    affinity::{Affinity, AffinityKey},
    backend::{Backend, NeighbourKey, NextHop, Snat},
    config::Config,
    datapath::{
        Answers, Claim, Tables, process,
        tables::{Frame, Memory},
    },
    flow::{Flow, FlowKey},
    limits::{Bucket, SourceKey},
    pod::Shared,
    service::{Service, ServiceKey},
    verdict::Verdict,
};

use crate::plan::Transport;

/// What the pipeline made of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Steered {
    /// Its verdict.
    pub verdict: Verdict,
    /// It opened a new flow.
    pub opened: bool,
    /// The slot of the ring slab it looked at.
    pub slot: Option<u32>,
    /// The flow that the packet belongs to now.
    pub flow: Option<Flow>,
}

/// Sends the first packet of `client -> service` through the pipeline: a SYN, or a UDP datagram.
///
/// `memory` holds everything but flows; those are looked up by `kernel` when the pipeline asks, so
/// that ports in use are in use here too. Nothing is written anywhere else.
pub fn steer(
    memory: Memory,
    kernel: &dyn Fn(&FlowKey) -> Option<Flow>,
    transport: Transport,
    client: SocketAddr,
    service: SocketAddr,
) -> Steered {
    let overlay = Overlay {
        memory,
        kernel,
        seen: RefCell::default(),
        opened: Cell::new(false),
        slot: Cell::new(None),
    };
    let mut frame = Frame {
        bytes: frame(transport, client, service),
        ifindex: 0,
    };
    let verdict = process(&mut frame, &overlay);
    let flow = overlay
        .flow(&flow_key(transport, client, service))
        .map(|flow| Flow {
            nat: flow.nat(),
            life: flow.life(),
        });
    Steered {
        verdict,
        opened: overlay.opened.get(),
        slot: overlay.slot.get(),
        flow,
    }
}

/// Key of the packets from a client.
pub fn flow_key(transport: Transport, client: SocketAddr, service: SocketAddr) -> FlowKey {
    use gateway_common::addr::Port;
    FlowKey {
        src: client.ip().into(),
        dst: service.ip().into(),
        src_port: Port::from_host(client.port()),
        dst_port: Port::from_host(service.port()),
        proto: transport.number(),
    }
}

/// Ethernet, IP of the listener's family, and the L4 header. Nobody reads its checksums, so they are left zero. Both
/// addresses are of one family.
fn frame(transport: Transport, client: SocketAddr, service: SocketAddr) -> Vec<u8> {
    const SYN: u8 = 0x02;
    const HOPS: u8 = 64;
    let l4: u16 = match transport {
        Transport::Tcp => 20,
        Transport::Udp => 8,
    };
    let proto = transport.number() as u8;
    let mut bytes = vec![0; 12];
    match service.ip() {
        IpAddr::V4(_) => {
            bytes.extend([0x08, 0x00, 0x45, 0]);
            bytes.extend((20 + l4).to_be_bytes());
            bytes.extend([0, 0, 0, 0, HOPS, proto, 0, 0]);
        }
        IpAddr::V6(_) => {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend(l4.to_be_bytes());
            bytes.extend([proto, HOPS]);
        }
    }
    for ip in [client.ip(), service.ip()] {
        match ip {
            IpAddr::V4(ip) => bytes.extend(ip.octets()),
            IpAddr::V6(ip) => bytes.extend(ip.octets()),
        }
    }
    let begin = bytes.len();
    bytes.resize(begin + usize::from(l4), 0);
    let header = &mut bytes[begin..];
    header[..2].copy_from_slice(&client.port().to_be_bytes());
    header[2..4].copy_from_slice(&service.port().to_be_bytes());
    match transport {
        Transport::Tcp => {
            header[12] = 5 << 4;
            header[13] = SYN;
        }
        Transport::Udp => header[4..6].copy_from_slice(&8_u16.to_be_bytes()),
    }
    bytes
}

/// Tables in memory over the kernel's flow table, which is read and never written.
struct Overlay<'a> {
    memory: Memory,
    kernel: &'a dyn Fn(&FlowKey) -> Option<Flow>,
    /// Keys that were asked of the kernel: from then on, memory knows better.
    seen: RefCell<HashSet<FlowKey>>,
    opened: Cell<bool>,
    slot: Cell<Option<u32>>,
}

impl Overlay<'_> {
    fn fetch(&self, key: &FlowKey) {
        if self.seen.borrow_mut().insert(*key)
            && let Some(flow) = (self.kernel)(key)
        {
            self.memory.insert_flow(*key, flow);
        }
    }
}

impl Tables for Overlay<'_> {
    const NEEDS_HOP: bool = false;

    fn config(&self) -> Option<&Config> {
        self.memory.config()
    }

    fn now(&self) -> u32 {
        self.memory.now()
    }

    fn flow(&self, key: &FlowKey) -> Option<&Shared<Flow>> {
        self.fetch(key);
        self.memory.flow(key)
    }

    fn claim(&self, key: &FlowKey, flow: &Flow) -> Claim {
        self.fetch(key);
        self.memory.claim(key, flow)
    }

    fn forget(&self, key: &FlowKey) -> bool {
        self.seen.borrow_mut().insert(*key);
        self.memory.forget(key)
    }

    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.memory.service(key)
    }

    fn slot(&self, index: u32) -> Option<u32> {
        self.slot.set(Some(index));
        self.memory.slot(index)
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        self.memory.backend(id)
    }

    fn hop(&self, id: u32) -> Option<&NextHop> {
        self.memory.hop(id)
    }

    fn neighbour(&self, key: &NeighbourKey) -> u32 {
        self.memory.neighbour(key)
    }

    fn snat(&self, index: u32) -> Option<&Snat> {
        self.memory.snat(index)
    }

    fn affinity(&self, key: &AffinityKey) -> Option<&Shared<Affinity>> {
        self.memory.affinity(key)
    }

    fn remember(&self, key: &AffinityKey, affinity: &Affinity) {
        self.memory.remember(key, affinity);
    }

    fn vip(&self, addr: &Addr) -> bool {
        self.memory.vip(addr)
    }

    fn may_answer(&self, kind: Answers) -> bool {
        self.memory.may_answer(kind)
    }

    fn nanoseconds(&self) -> u64 {
        self.memory.nanoseconds()
    }

    fn allowed(&self, acl: u16, client: &Addr) -> bool {
        self.memory.allowed(acl, client)
    }

    fn budget(&self, service: u32) -> Option<&Shared<Bucket>> {
        self.memory.budget(service)
    }

    fn source(&self, key: &SourceKey) -> Option<&Shared<Bucket>> {
        self.memory.source(key)
    }

    fn add_source(&self, key: &SourceKey, bucket: &Bucket) {
        self.memory.add_source(key, bucket);
    }

    fn spend(&self, bucket: &Shared<Bucket>, nanoseconds: u64) {
        self.memory.spend(bucket, nanoseconds);
    }

    fn count_traffic(&self, _service: u32, _backend: u32, _reply: bool, _bytes: u32) {}

    fn count_refused(&self, _service: u32) {}

    fn count_opened(&self, _service: u32, _backend: u32) {
        self.opened.set(true);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use gateway_common::verdict::{Action, Reason};

    use super::*;
    use crate::cli::{trace::scene, views::sample};

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn run(client: &str, flows: &HashMap<FlowKey, Flow>) -> Steered {
        let memory = scene(&sample::readings(), &sample::region());
        let look = |key: &FlowKey| flows.get(key).copied();
        let (client, service) = (socket(client), socket("10.0.0.1:80"));
        steer(memory, &look, Transport::Tcp, client, service)
    }

    /// The same service, pods and source addresses in IPv6; every pod takes new flows.
    fn six() -> Memory {
        let mut memory = scene(&sample::readings(), &sample::region());
        let mapped = |addr: Addr| match IpAddr::from(addr) {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets().map(u16::from);
                IpAddr::from([0x2001, 0xdb8, 0, 0, a, b, c, d]).into()
            }
            IpAddr::V6(_) => addr,
        };
        let services = std::mem::take(&mut memory.services).into_iter();
        memory.services = services
            .map(|(key, service)| {
                let addr = mapped(key.addr);
                (ServiceKey { addr, ..key }, service)
            })
            .collect();
        for backend in memory.backends.values_mut() {
            backend.addr = mapped(backend.addr);
            backend.state = gateway_common::backend::state::ACTIVE;
        }
        for snat in &mut memory.snats {
            snat.addr = mapped(snat.addr);
        }
        memory
    }

    #[test]
    fn a_new_ipv6_client_opens_a_flow_by_the_slot_of_its_tuple() {
        let service = socket("[2001:db8::a:0:0:1]:80");
        let clients = ["[2001:db8:1::9]:1234", "[2001:db8:1::9]:1235"].map(socket);
        let slots = clients.map(|client| {
            let steered = steer(six(), &|_| None, Transport::Tcp, client, service);
            assert_eq!(
                steered.verdict.action(),
                Action::Forward,
                "{:?}",
                steered.verdict.reason()
            );
            assert!(steered.opened);
            let (slot, flow) = (steered.slot.unwrap(), steered.flow.unwrap());
            assert_eq!(flow.nat.backend, sample::region()[slot as usize - 100]);
            assert!(IpAddr::from(flow.nat.src).is_ipv6() && IpAddr::from(flow.nat.dst).is_ipv6());
            slot
        });
        assert_ne!(slots[0], slots[1]);
    }

    #[test]
    fn an_ipv6_packet_to_no_listener_is_left_to_the_stack() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let client = socket("[2001:db8:1::9]:1234");
            let service = socket("[2001:db8::a:0:0:2]:80");
            let steered = steer(six(), &|_| None, transport, client, service);
            assert_eq!(steered.verdict, Verdict::PASS);
        }
    }

    #[test]
    fn a_new_client_opens_a_flow_by_the_slot_of_its_tuple() {
        let steered = run("198.51.100.9:1234", &HashMap::new());
        assert_eq!(steered.verdict.action(), Action::Forward);
        assert!(steered.opened);
        let slot = steered.slot.unwrap();
        assert!((100..1121).contains(&slot), "{slot}");
        let flow = steered.flow.unwrap();
        assert_eq!(flow.nat.backend, sample::region()[slot as usize - 100]);
    }

    #[test]
    fn a_known_client_stays_with_its_flow() {
        let flows: HashMap<_, _> = sample::flows().into_iter().collect();
        let steered = run("198.51.100.7:4000", &flows);
        assert_eq!(steered.verdict.action(), Action::Forward);
        assert!(!steered.opened && steered.slot.is_none());
        assert_eq!(steered.flow.unwrap().nat.backend, 1);
    }

    #[test]
    fn source_ports_that_the_kernel_has_given_away_are_not_given_again() {
        let flow = sample::flows()[0].1;
        let memory = scene(&sample::readings(), &sample::region());
        let taken = |key: &FlowKey| (key.src.v4_word() != flow_key_word()).then_some(flow);
        let steered = steer(
            memory,
            &taken,
            Transport::Tcp,
            socket("198.51.100.9:1234"),
            socket("10.0.0.1:80"),
        );
        assert_eq!(steered.verdict.reason(), Reason::SnatExhausted as u32);
    }

    /// The client's address: only keys of pods are taken in the test above.
    fn flow_key_word() -> u32 {
        u32::from_ne_bytes([198, 51, 100, 9])
    }
}
