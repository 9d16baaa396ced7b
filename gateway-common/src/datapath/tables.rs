//! The pipeline on slices and hash tables: for tests, fuzzers and `fleetgate trace`.

use std::{cell::RefCell, collections::HashMap};

use super::{Claim, Outside, Packet, Tables, patched_l4};
use crate::{
    affinity::{Affinity, AffinityKey},
    backend::{Backend, NeighbourKey, NextHop, Snat},
    config::Config,
    flow::{Flow, FlowKey},
    pod::{Pod, Shared},
    service::{Service, ServiceKey},
};

/// A frame in memory.
#[derive(Clone, Debug)]
pub struct Frame {
    /// All bytes from the Ethernet header on.
    pub bytes: Vec<u8>,
    /// Interface it came in on.
    pub ifindex: u32,
}

impl Packet for Frame {
    fn frame_len(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn segmented(&self) -> bool {
        false
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    #[allow(unsafe_code, reason = "reads plain old data at any alignment")]
    fn load<T: Pod>(&self, at: usize) -> Result<T, Outside> {
        let end = at.checked_add(size_of::<T>()).ok_or(Outside)?;
        let bytes = self.bytes.get(at..end).ok_or(Outside)?;
        // SAFETY: the slice holds size_of::<T>() bytes and every bit pattern is a valid `Pod`.
        Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    #[allow(unsafe_code, reason = "writes plain old data at any alignment")]
    fn store<T: Pod>(&mut self, at: usize, value: T) -> Result<(), Outside> {
        let end = at.checked_add(size_of::<T>()).ok_or(Outside)?;
        let bytes = self.bytes.get_mut(at..end).ok_or(Outside)?;
        // SAFETY: the slice holds size_of::<T>() bytes and a `Pod` has no padding.
        unsafe { bytes.as_mut_ptr().cast::<T>().write_unaligned(value) };
        Ok(())
    }

    fn patch_l4(&mut self, at: usize, addrs: u16, ports: u16, udp: bool) -> Result<(), Outside> {
        let check = self.load(at)?;
        self.store(at, patched_l4(check, addrs, ports, udp))
    }
}

/// All tables in memory. Flows are boxed and never freed while borrowed tables live: a forgotten
/// flow moves to a graveyard, as a map element stays readable while a program runs.
#[derive(Default)]
pub struct Memory {
    /// Configuration.
    pub config: Config,
    /// Current tick.
    pub now: u32,
    /// Services.
    pub services: HashMap<ServiceKey, Service>,
    /// Ring slab.
    pub rings: Vec<u32>,
    /// Backends by id.
    pub backends: HashMap<u32, Backend>,
    /// Next hops by id.
    pub hops: HashMap<u32, NextHop>,
    /// Neighbours.
    pub neighbours: HashMap<NeighbourKey, u32>,
    /// Source addresses by index.
    pub snats: Vec<Snat>,
    /// Most flow entries.
    pub max_flows: usize,
    /// Clients that had a backend.
    pub affinity: RefCell<HashMap<AffinityKey, &'static Shared<Affinity>>>,
    flows: RefCell<HashMap<FlowKey, usize>>,
    slab: RefCell<Vec<&'static Shared<Flow>>>,
}

impl Memory {
    /// All flow entries, sorted by key.
    pub fn flows(&self) -> Vec<(FlowKey, Flow)> {
        let slab = self.slab.borrow();
        let mut all: Vec<_> = self
            .flows
            .borrow()
            .iter()
            .map(|(key, at)| {
                (
                    *key,
                    Flow {
                        nat: slab[*at].nat(),
                        life: slab[*at].life(),
                    },
                )
            })
            .collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }

    /// The same tables once more, with flows of their own: what happens to one is not seen in the other.
    pub fn fork(&self) -> Self {
        let fork = Self {
            config: self.config,
            now: self.now,
            services: self.services.clone(),
            rings: self.rings.clone(),
            backends: self.backends.clone(),
            hops: self.hops.clone(),
            neighbours: self.neighbours.clone(),
            snats: self.snats.clone(),
            max_flows: self.max_flows,
            affinity: RefCell::default(),
            flows: RefCell::default(),
            slab: RefCell::default(),
        };
        for (key, flow) in self.flows() {
            fork.insert_flow(key, flow);
        }
        for (key, affinity) in self.affinity.borrow().iter() {
            fork.remember(key, &affinity.read());
        }
        fork
    }

    /// Puts a flow entry in, as read from a kernel map.
    pub fn insert_flow(&self, key: FlowKey, flow: Flow) {
        let mut slab = self.slab.borrow_mut();
        // Leaked on purpose: these tables live as long as a test or one `trace` command.
        slab.push(Box::leak(Box::new(Shared::new(flow))));
        self.flows.borrow_mut().insert(key, slab.len() - 1);
    }
}

impl Tables for Memory {
    const NEEDS_HOP: bool = false;

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn now(&self) -> u32 {
        self.now
    }

    fn flow(&self, key: &FlowKey) -> Option<&Shared<Flow>> {
        let at = *self.flows.borrow().get(key)?;
        Some(self.slab.borrow()[at])
    }

    fn claim(&self, key: &FlowKey, flow: &Flow) -> Claim {
        if self.flows.borrow().contains_key(key) {
            return Claim::Taken;
        }
        if self.flows.borrow().len() >= self.max_flows {
            return Claim::Full;
        }
        self.insert_flow(*key, *flow);
        Claim::Done
    }

    fn forget(&self, key: &FlowKey) {
        self.flows.borrow_mut().remove(key);
    }

    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key)
    }

    fn slot(&self, index: u32) -> Option<u32> {
        self.rings.get(index as usize).copied()
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(&id)
    }

    fn hop(&self, id: u32) -> Option<&NextHop> {
        self.hops.get(&id)
    }

    fn neighbour(&self, key: &NeighbourKey) -> u32 {
        self.neighbours.get(key).copied().unwrap_or(0)
    }

    fn snat(&self, index: u32) -> Option<&Snat> {
        self.snats.get(index as usize)
    }

    fn affinity(&self, key: &AffinityKey) -> Option<&Shared<Affinity>> {
        self.affinity.borrow().get(key).copied()
    }

    fn remember(&self, key: &AffinityKey, affinity: &Affinity) {
        // Leaked on purpose, as flows are.
        let entry: &'static _ = Box::leak(Box::new(Shared::new(*affinity)));
        self.affinity.borrow_mut().insert(*key, entry);
    }

    fn count_traffic(&self, _service: u32, _backend: u32, _reply: bool, _bytes: u32) {}

    fn count_opened(&self, _service: u32, _backend: u32) {}
}
