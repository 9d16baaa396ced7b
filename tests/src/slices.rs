//! Runs the pipeline on slices and hash tables, with counters, as either hook.

use std::cell::RefCell;

use gateway_common::{
    affinity::{Affinity, AffinityKey},
    backend::{Backend, NeighbourKey, NextHop, Snat},
    config::Config,
    datapath::{
        Claim, Outside, Packet, Tables, process,
        tables::{Frame, Memory},
    },
    flow::{Flow, FlowKey},
    pod::{Pod, Shared},
    service::{Service, ServiceKey},
    verdict::{Action, Verdict},
};

use crate::{
    ledger::Books,
    row::{INGRESS, Row, Seen, judge},
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
struct Super(Frame, bool);

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
        memory.rings.clone_from(&world.rings);
        memory.backends = world.backends.clone().into_iter().collect();
        memory.hops = world.hops.clone().into_iter().collect();
        memory.neighbours = world.neighbours.clone().into_iter().collect();
        memory.snats.clone_from(&world.snats);
        memory.max_flows = world.max_flows;
    }

    /// Lets time pass, in ticks.
    pub fn wait(&mut self, ticks: u32) {
        self.memory.now = self.memory.now.wrapping_add(ticks);
    }

    /// Runs one frame; returns it as the pipeline left it.
    pub fn run(&self, frame: &[u8], segmented: bool) -> (Verdict, Vec<u8>) {
        let bytes = frame.to_vec();
        let mut packet = Super(
            Frame {
                bytes,
                ifindex: INGRESS,
            },
            segmented,
        );
        let verdict = match self.hook {
            Hook::Xdp => process(&mut packet, &At::<true>(self)),
            Hook::Tc => process(&mut packet, &At::<false>(self)),
        };
        if verdict.action() != Action::Forward && verdict.reason() != 0 {
            let mut counters = self.counters.borrow_mut();
            let count = counters.reasons.entry(verdict.reason()).or_default();
            count.packets += 1;
            count.bytes += frame.len() as u64;
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
        let (verdict, frame) = slices.run(&step.frame, step.segmented);
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

    fn forget(&self, key: &FlowKey) {
        self.0.memory.forget(key);
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

    fn segmented(&self) -> bool {
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
}
