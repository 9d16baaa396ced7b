//! The table of live flows that generated frames belong to, and what packets of them read.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, PerCpuArray},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use gateway_common::{
    backend::{self, Backend, NeighbourKey, NextHop, Snat},
    bench::{Addresses, entry},
    config::{Clock, Config},
    flow::{Flow, FlowKey, Life, TCP, flag, state},
    service::{Service, ServiceKey, mode},
    stats::Traffic,
};

use crate::stage;

/// Service id of all flows.
const SERVICE: u32 = 1;
/// Slots of the ring.
const RING: u32 = 1024;
/// Source addresses of new flows.
const SNATS: u32 = 1;
/// Next hop of requests.
pub(crate) const FORTH: u32 = 1;
/// Next hop of replies.
pub(crate) const BACK: u32 = 2;

/// Maps of the programs under test.
pub(crate) struct Tables {
    flows: HashMap<MapData, FlowKey, Flow>,
    hops: Array<MapData, NextHop>,
    traffic: PerCpuArray<MapData, Traffic>,
    services: HashMap<MapData, ServiceKey, Service>,
    neighbours: HashMap<MapData, NeighbourKey, u32>,
    plan: Addresses,
    now: u32,
}

impl Tables {
    /// Takes the maps and writes backends, hops and configuration.
    pub(crate) fn take(ebpf: &mut Ebpf, plan: Addresses) -> Result<Self> {
        let now = ticks(ebpf)?;
        let mut backends: Array<_, Backend> = stage::array(ebpf, "BACKENDS")?;
        for pod in 0..=plan.pod_mask {
            let (addr, port) = plan.ends(pod).pod;
            let backend = Backend {
                addr,
                port,
                state: backend::state::ACTIVE,
                hop: FORTH as u16,
                generation: 1,
                snat_count: SNATS as u16,
                ..Backend::default()
            };
            backends.set(backend_of(pod), backend, 0)?;
        }
        let mut rings: Array<_, u32> = stage::array(ebpf, "RINGS")?;
        for slot in 0..RING {
            rings.set(slot, backend_of(slot & plan.pod_mask), 0)?;
        }
        let mut snats: Array<_, Snat> = stage::array(ebpf, "SNATS")?;
        for at in 0..SNATS {
            let snat = Snat {
                addr: plan.ends(0).snat.0,
                port_first: 1024,
                port_count: 64_512,
            };
            snats.set(at, snat, 0)?;
        }
        // Nothing expires during a run, but the age of every packet's flow is looked at.
        let config = Config {
            timeout_ticks: [u32::MAX / 4; state::COUNT],
            ..Config::default()
        };
        stage::array::<Config>(ebpf, "CONFIG")?.set(0, config, 0)?;
        Ok(Self {
            flows: stage::hash(ebpf, "FLOWS")?,
            hops: stage::array(ebpf, "HOPS")?,
            traffic: stage::per_cpu(ebpf, "SERVICE_STATS")?,
            services: stage::hash(ebpf, "SERVICES")?,
            neighbours: stage::hash(ebpf, "NEIGHBOURS")?,
            plan,
            now,
        })
    }

    /// Sets where requests or replies go.
    pub(crate) fn hop(
        &mut self,
        id: u32,
        ifindex: u32,
        dmac: [u8; 6],
        smac: [u8; 6],
    ) -> Result<()> {
        let hop = NextHop {
            ifindex,
            dmac,
            smac,
            mtu: 1500,
            flags: backend::XDP,
        };
        Ok(self.hops.set(id, hop, 0)?)
    }

    /// Puts the listener in place, so that frames without a flow open one, and the way back to who sends them.
    pub(crate) fn listen(&mut self, proto: u32, ifindex: u32, smac: [u16; 3]) -> Result<()> {
        let (addr, port) = self.plan.ends(0).vip;
        let key = ServiceKey {
            addr,
            port,
            proto: proto as u16,
            zero: 0,
        };
        let service = Service {
            id: SERVICE,
            ring_len: RING,
            mode: mode::NAT,
            ..Service::default()
        };
        self.services.insert(key, service, 0)?;
        let neighbour = NeighbourKey {
            ifindex,
            mac: smac,
            zero: 0,
        };
        Ok(self.neighbours.insert(neighbour, BACK, 0)?)
    }

    /// Removes every flow.
    pub(crate) fn empty(&mut self) -> Result<()> {
        let keys: Vec<FlowKey> = self.flows.keys().collect::<Result<_, _>>()?;
        for key in keys {
            self.flows.remove(&key)?;
        }
        Ok(())
    }

    /// Flows that were opened so far.
    pub(crate) fn opened(&self) -> Result<u64> {
        Ok(self
            .traffic
            .get(&SERVICE, 0)?
            .iter()
            .map(|cpu| cpu.flows)
            .sum())
    }

    /// Takes the listener away: from here a frame without a flow is not translated.
    pub(crate) fn close(&mut self, proto: u32) -> Result<()> {
        let (addr, port) = self.plan.ends(0).vip;
        let key = ServiceKey {
            addr,
            port,
            proto: proto as u16,
            zero: 0,
        };
        Ok(self.services.remove(&key)?)
    }

    /// Adds established flows by number, both entries of each.
    pub(crate) fn fill(&mut self, flows: std::ops::Range<u32>, proto: u32) -> Result<()> {
        for flow in flows {
            for (key, value) in self.entries(flow, proto) {
                self.flows
                    .insert(key, value, 0)
                    .with_context(|| format!("flow {flow}"))?;
            }
        }
        Ok(())
    }

    /// Removes flows by number.
    pub(crate) fn clear(&mut self, flows: std::ops::Range<u32>, proto: u32) -> Result<()> {
        for flow in flows {
            for (key, _) in self.entries(flow, proto) {
                self.flows.remove(&key)?;
            }
        }
        Ok(())
    }

    fn entries(&self, flow: u32, proto: u32) -> [(FlowKey, Flow); 2] {
        let ends = self.plan.ends(flow);
        let life = Life {
            last_seen: self.now,
            state: if proto == TCP {
                state::TCP_ESTABLISHED
            } else {
                state::UDP_ESTABLISHED
            },
            generation: 1,
            ..Life::default()
        };
        let whole = |(key, mut nat): (FlowKey, gateway_common::flow::Nat), hop: u32, flags| {
            nat.backend = backend_of(self.plan.pod(flow));
            nat.service = SERVICE as u16;
            nat.hop = hop as u16;
            let life = Life { flags, ..life };
            (key, Flow { nat, life })
        };
        [
            whole(
                entry(ends.client, ends.vip, ends.snat, ends.pod, proto),
                FORTH,
                0,
            ),
            whole(
                entry(ends.pod, ends.snat, ends.vip, ends.client, proto),
                BACK,
                flag::REPLY,
            ),
        ]
    }

    /// Packets that were translated so far, by direction.
    pub(crate) fn translated(&self) -> Result<u64> {
        let all = self.traffic.get(&SERVICE, 0)?;
        Ok(all.iter().map(|cpu| cpu.in_packets + cpu.out_packets).sum())
    }
}

/// Bytes of kernel memory that a pinned map takes, as the kernel tells.
pub(crate) fn memory(pin: &Path) -> Result<u64> {
    let map = MapData::from_pin(pin)?;
    let fd = map.fd().as_fd().as_raw_fd();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    let bytes = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(bytes
        .context("this kernel does not tell the size of maps")?
        .trim()
        .parse()?)
}

const fn backend_of(pod: u32) -> u32 {
    pod + 1
}

/// The kernel's tick counter, as the agent reads it.
fn ticks(ebpf: &mut Ebpf) -> Result<u32> {
    let program: &mut SchedClassifier = ebpf
        .program_mut("fleetgate_clock")
        .context("no clock")?
        .try_into()?;
    program.test_run(TestRunOptions {
        data_in: Some(&[0; 64]),
        ..TestRunOptions::new()
    })?;
    Ok(stage::array::<Clock>(ebpf, "CLOCK")?.get(&0, 0)?.ticks as u32)
}
