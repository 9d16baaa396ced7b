//! Runs the pipeline on slices and hash tables, with counters, as either hook.

use std::cell::RefCell;

use gateway_common::{
    addr::Addr,
    affinity::{Affinity, AffinityKey},
    backend::{Backend, NeighbourKey, NextHop, Snat},
    config::Config,
    datapath::{
        Answers, Claim, Outside, Packet, Tables, process,
        tables::{Frame, Memory},
    },
    flow::{Flow, FlowKey},
    limits::{Bucket, SourceKey},
    pod::{Pod, Shared},
    service::{Service, ServiceKey},
    verdict::Verdict,
};

use crate::{
    ledger::Books,
    row::{INGRESS, Row, SEGMENT, Seen, judge},
    world::{AGE_STEP, Counters, Flows, Hook, World},
};

/// The pipeline in memory.
pub struct Slices {
    hook: Hook,
    /// Its tables.
    pub memory: Memory,
    counters: RefCell<Counters>,
}

/// Tables as one hook sees them.
struct At<'a, const XDP: bool>(&'a Slices);

/// A frame that may be a super-packet.
struct Super(Frame, u32);

impl Slices {
    /// Empty flow table in a world.
    pub fn new(hook: Hook, world: &World) -> Self {
        let mut slices = Self {
            hook,
            memory: Memory::default(),
            counters: RefCell::default(),
        };
        // Not zero, and soon past the end of the 32 bits that are compared.
        slices.memory.now = u32::MAX - 2 * AGE_STEP;
        slices.apply(world);
        slices
    }

    /// The same state once more: what happens to one is not seen in the other.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            hook: self.hook,
            memory: self.memory.fork(),
            counters: self.counters.clone(),
        }
    }

    /// Replaces all tables but the flows.
    pub fn apply(&mut self, world: &World) {
        let memory = &mut self.memory;
        memory.config = world.config;
        memory.services = world.services.clone().into_iter().collect();
        memory.vips = world.services.keys().map(|key| key.addr).collect();
        memory.rings.clone_from(&world.rings);
        memory.backends = world.backends.clone().into_iter().collect();
        memory.hops = world.hops.clone().into_iter().collect();
        memory.neighbours = world.neighbours.clone().into_iter().collect();
        memory.snats.clone_from(&world.snats);
        memory.acls.clone_from(&world.acls);
        memory.nanoseconds = 1_000_000_000_000;
        let budgets = world.budgets.iter();
        memory.budgets = budgets.map(|(id, it)| (*id, Shared::new(*it))).collect();
        memory.sources.borrow_mut().clear();
        for (key, bucket) in &world.sources {
            memory.add_source(key, bucket);
        }
        memory.max_flows = world.max_flows;
    }

    /// Lets time pass, in ticks.
    pub fn wait(&mut self, ticks: u32) {
        self.memory.now = self.memory.now.wrapping_add(ticks);
    }

    /// Runs one frame; returns it as the pipeline left it.
    pub fn run(&self, frame: &[u8], segmented: bool) -> (Verdict, Vec<u8>) {
        self.run_cut(frame, if segmented { SEGMENT } else { 0 })
    }

    /// The same with a super-packet of segments this long; 0 is an ordinary frame.
    pub fn run_cut(&self, frame: &[u8], segment: u32) -> (Verdict, Vec<u8>) {
        let bytes = frame.to_vec();
        let mut packet = Super(
            Frame {
                bytes,
                ifindex: INGRESS,
            },
            segment,
        );
        // Frames of a row come in one after the other, each in a tick of its own.
        self.memory.answers.replace([0; 3]);
        let verdict = match self.hook {
            Hook::Xdp => process(&mut packet, &At::<true>(self)),
            Hook::Tc => process(&mut packet, &At::<false>(self)),
        };
        if verdict.reason() != 0 {
            let mut counters = self.counters.borrow_mut();
            let count = counters.reasons.entry(verdict.reason()).or_default();
            count.packets += 1;
            count.bytes += packet.0.bytes.len() as u64;
        }
        (verdict, packet.0.bytes)
    }

    /// Flow entries with their ages.
    pub fn flows(&self) -> Flows {
        let mut flows = self.memory.flows();
        for (_, flow) in &mut flows {
            flow.life.last_seen = self.memory.now.wrapping_sub(flow.life.last_seen) / AGE_STEP;
        }
        flows
    }

    /// All counters.
    pub fn counters(&self) -> Counters {
        self.counters.borrow().clone()
    }
}

/// Runs all steps of a row and checks each.
///
/// # Panics
/// When one is not as expected.
pub fn run_row(row: &Row, hook: Hook) -> Vec<Seen> {
    let mut world = row.world.clone();
    let mut slices = Slices::new(hook, &world);
    let mut all: Vec<Seen> = Vec::new();
    for (at, step) in row.steps.iter().enumerate() {
        if let Some(change) = step.change {
            change(&mut world);
            slices.apply(&world);
        }
        slices.wait(step.wait * AGE_STEP);
        let before = slices.counters();
        let books = Books::of(&slices);
        let (verdict, frame) = slices.run_cut(&step.frame, step.segment());
        let seen = Seen {
            action: verdict.action(),
            frame,
            flows: slices.flows(),
            counters: slices.counters(),
        };
        judge(row, at, &world, hook, &before, &seen);
        let place = format!("row \"{}\", step {}, {hook:?}", row.name, at + 1);
        books.balance(&place, &step.frame, seen.action, &Books::of(&slices));
        all.push(seen);
    }
    if let Some(law) = row.law {
        law(&all);
    }
    all
}

impl<const XDP: bool> Tables for At<'_, XDP> {
    const NEEDS_HOP: bool = XDP;

    fn config(&self) -> Option<&Config> {
        self.0.memory.config()
    }

    fn now(&self) -> u32 {
        self.0.memory.now()
    }

    fn flow(&self, key: &FlowKey) -> Option<&Shared<Flow>> {
        self.0.memory.flow(key)
    }

    fn claim(&self, key: &FlowKey, flow: &Flow) -> Claim {
        self.0.memory.claim(key, flow)
    }

    fn forget(&self, key: &FlowKey) -> bool {
        self.0.memory.forget(key)
    }

    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.0.memory.service(key)
    }

    fn slot(&self, index: u32) -> Option<u32> {
        self.0.memory.slot(index)
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        self.0.memory.backend(id)
    }

    fn hop(&self, id: u32) -> Option<&NextHop> {
        self.0.memory.hop(id)
    }

    fn neighbour(&self, key: &NeighbourKey) -> u32 {
        self.0.memory.neighbour(key)
    }

    fn snat(&self, index: u32) -> Option<&Snat> {
        self.0.memory.snat(index)
    }

    fn affinity(&self, key: &AffinityKey) -> Option<&Shared<Affinity>> {
        self.0.memory.affinity(key)
    }

    fn remember(&self, key: &AffinityKey, affinity: &Affinity) {
        self.0.memory.remember(key, affinity);
    }

    fn vip(&self, addr: &Addr) -> bool {
        self.0.memory.vip(addr)
    }

    fn may_answer(&self, kind: Answers) -> bool {
        self.0.memory.may_answer(kind)
    }

    fn nanoseconds(&self) -> u64 {
        self.0.memory.nanoseconds()
    }

    fn allowed(&self, acl: u16, client: &Addr) -> bool {
        self.0.memory.allowed(acl, client)
    }

    fn budget(&self, service: u32) -> Option<&Shared<Bucket>> {
        self.0.memory.budget(service)
    }

    fn source(&self, key: &SourceKey) -> Option<&Shared<Bucket>> {
        self.0.memory.source(key)
    }

    fn add_source(&self, key: &SourceKey, bucket: &Bucket) {
        self.0.memory.add_source(key, bucket);
    }

    fn spend(&self, bucket: &Shared<Bucket>, nanoseconds: u64) {
        self.0.memory.spend(bucket, nanoseconds);
    }

    fn count_traffic(&self, service: u32, backend: u32, reply: bool, bytes: u32) {
        let mut counters = self.0.counters.borrow_mut();
        let Counters {
            services, backends, ..
        } = &mut *counters;
        for count in [
            services.entry(service).or_default(),
            backends.entry(backend).or_default(),
        ] {
            if reply {
                count.out_packets += 1;
                count.out_bytes += u64::from(bytes);
            } else {
                count.in_packets += 1;
                count.in_bytes += u64::from(bytes);
            }
        }
    }

    fn count_refused(&self, service: u32) {
        let mut counters = self.0.counters.borrow_mut();
        counters.services.entry(service).or_default().refused += 1;
    }

    fn count_opened(&self, service: u32, backend: u32) {
        let mut counters = self.0.counters.borrow_mut();
        counters.services.entry(service).or_default().flows += 1;
        counters.backends.entry(backend).or_default().flows += 1;
    }
}

impl Packet for Super {
    fn frame_len(&self) -> u32 {
        self.0.frame_len()
    }

    fn segment(&self) -> u32 {
        self.1
    }

    fn ifindex(&self) -> u32 {
        self.0.ifindex()
    }

    fn load<T: Pod>(&self, at: usize) -> Result<T, Outside> {
        self.0.load(at)
    }

    fn store<T: Pod>(&mut self, at: usize, value: T) -> Result<(), Outside> {
        self.0.store(at, value)
    }

    fn patch_l4(&mut self, at: usize, addrs: u16, ports: u16, udp: bool) -> Result<(), Outside> {
        self.0.patch_l4(at, addrs, ports, udp)
    }

    fn make_room(&mut self, front: usize, len: usize) -> Result<(), Outside> {
        self.0.make_room(front, len)
    }
}
