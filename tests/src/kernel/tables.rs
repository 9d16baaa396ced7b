//! A world in kernel maps, and back.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    ops::AddAssign,
};

use anyhow::{Context, Result};
use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use gateway_common::{
    affinity::{Affinity, AffinityKey},
    backend::{Backend, NeighbourKey, NextHop, Snat},
    config::{Clock, Config},
    flow::{Flow, FlowKey},
    ports::Pool,
    service::{Service, ServiceKey},
    stats::{Count, Traffic},
    verdict::REASONS,
};

use crate::world::{AGE_STEP, Counters, Flows, World};

/// Room in the flow table of tests, in entries.
pub const FLOWS: u32 = 4096;

/// Protocol number of entries that only fill the flow table: no packet can carry it.
const FILLER: u32 = 0xffff_ffff;

/// The maps that tests read and write.
pub(super) struct Maps {
    flows: HashMap<MapData, FlowKey, Flow>,
    services: HashMap<MapData, ServiceKey, Service>,
    rings: Array<MapData, u32>,
    backends: Array<MapData, Backend>,
    hops: Array<MapData, NextHop>,
    neighbours: HashMap<MapData, NeighbourKey, u32>,
    snats: Array<MapData, Snat>,
    affinity: HashMap<MapData, AffinityKey, Affinity>,
    config: Array<MapData, Config>,
    clock: Array<MapData, Clock>,
    ports_swept: Array<MapData, u64>,
    /// Ports freed so far.
    frees: u64,
    service_stats: PerCpuArray<MapData, Traffic>,
    backend_stats: PerCpuArray<MapData, Traffic>,
    reason_stats: PerCpuArray<MapData, Count>,
    /// What was written last, so that it can be taken back.
    written: World,
    /// Counters that may not be zero, by id.
    used: (BTreeSet<u32>, BTreeSet<u32>),
    /// What the counters held when they were last told to start from something else.
    base: Counters,
    /// Size of the flow table, in entries.
    room: u32,
}

/// What packets change, to be put back.
#[derive(Clone, Debug)]
pub struct Saved {
    flows: Flows,
    counters: Counters,
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf, room: u32) -> Result<Self> {
        Ok(Self {
            flows: take(ebpf, "FLOWS")?,
            services: take(ebpf, "SERVICES")?,
            rings: take(ebpf, "RINGS")?,
            backends: take(ebpf, "BACKENDS")?,
            hops: take(ebpf, "HOPS")?,
            neighbours: take(ebpf, "NEIGHBOURS")?,
            snats: take(ebpf, "SNATS")?,
            affinity: take(ebpf, "AFFINITY")?,
            config: take(ebpf, "CONFIG")?,
            clock: take(ebpf, "CLOCK")?,
            ports_swept: take(ebpf, "PORTS_SWEPT")?,
            frees: 0,
            service_stats: take(ebpf, "SERVICE_STATS")?,
            backend_stats: take(ebpf, "BACKEND_STATS")?,
            reason_stats: take(ebpf, "REASON_STATS")?,
            written: World::default(),
            used: (BTreeSet::new(), BTreeSet::new()),
            base: Counters::default(),
            room,
        })
    }

    /// Empties flows and counters.
    pub(super) fn clear(&mut self) -> Result<()> {
        let keys: Vec<FlowKey> = self.flows.keys().collect::<Result<_, _>>()?;
        for key in keys {
            self.sweep(&key)?;
        }
        let clients: Vec<AffinityKey> = self.affinity.keys().collect::<Result<_, _>>()?;
        for client in clients {
            self.affinity.remove(&client).context("AFFINITY: remove")?;
        }
        let (services, backends) = std::mem::take(&mut self.used);
        for id in services {
            zero(&mut self.service_stats, id)?;
        }
        for id in backends {
            zero(&mut self.backend_stats, id)?;
        }
        for reason in 0..REASONS {
            zero(&mut self.reason_stats, reason)?;
        }
        self.base = Counters::default();
        Ok(())
    }

    /// Removes a flow entry and tells the programs that its source port is free again, as the agent does.
    pub(super) fn sweep(&mut self, key: &FlowKey) -> Result<()> {
        self.flows.remove(key).context("FLOWS: remove")?;
        self.frees += 1;
        let pool = Pool::of(self.written.config.seed, key);
        for area in pool.areas(key.dst_port.host()) {
            self.ports_swept
                .set(area.slot(), self.frees, 0)
                .context("PORTS_SWEPT")?;
        }
        Ok(())
    }

    /// Replaces everything that the agent writes.
    pub(super) fn write(&mut self, world: &World) -> Result<()> {
        let old = std::mem::replace(&mut self.written, world.clone());
        replace_keys(&mut self.services, &old.services, &world.services)?;
        replace_keys(&mut self.neighbours, &old.neighbours, &world.neighbours)?;
        replace_slots(&mut self.backends, &old.backends, &world.backends)?;
        replace_slots(&mut self.hops, &old.hops, &world.hops)?;
        let slots = |list: &[u32]| (0_u32..).zip(list.iter().copied()).collect();
        replace_slots(&mut self.rings, &slots(&old.rings), &slots(&world.rings))?;
        let slots = |list: &[Snat]| (0_u32..).zip(list.iter().copied()).collect();
        replace_slots(&mut self.snats, &slots(&old.snats), &slots(&world.snats))?;
        self.config.set(0, world.config, 0).context("CONFIG")?;
        self.used.0.extend(world.services.values().map(|s| s.id));
        self.used.1.extend(world.backends.keys().copied());
        Ok(())
    }

    /// Fills the flow table until this many entries are free.
    pub(super) fn leave_room(&mut self, entries: usize) -> Result<()> {
        for number in entries as u32..self.room {
            let key = FlowKey {
                proto: FILLER - number,
                ..FlowKey::default()
            };
            let flow = Flow::default();
            self.flows.insert(key, flow, 0).context("FLOWS: fill")?;
        }
        Ok(())
    }

    /// Makes all flows older.
    pub(super) fn age(&mut self, ticks: u32) -> Result<()> {
        if ticks == 0 {
            return Ok(());
        }
        for (key, mut flow) in self.real_flows()? {
            flow.life.last_seen = flow.life.last_seen.wrapping_sub(ticks);
            self.flows.insert(key, flow, 0).context("FLOWS: age")?;
        }
        let clients: Vec<(AffinityKey, Affinity)> =
            self.affinity.iter().collect::<Result<_, _>>()?;
        for (client, mut had) in clients {
            had.last = had.last.wrapping_sub(ticks);
            let aged = self.affinity.insert(client, had, 0);
            aged.context("AFFINITY: age")?;
        }
        Ok(())
    }

    pub(super) fn ticks(&self) -> Result<u32> {
        Ok(self.clock.get(&0, 0).context("CLOCK")?.ticks as u32)
    }

    /// All flow entries, in key order, with their ages.
    pub(super) fn flows(&self, now: u32) -> Result<Flows> {
        let mut flows = self.real_flows()?;
        for (_, flow) in &mut flows {
            flow.life.last_seen = now.wrapping_sub(flow.life.last_seen) / AGE_STEP;
        }
        flows.sort_unstable_by_key(|(key, _)| *key);
        Ok(flows)
    }

    fn real_flows(&self) -> Result<Flows> {
        let mut flows = Vec::new();
        for entry in self.flows.iter() {
            let (key, flow) = entry.context("FLOWS: iterate")?;
            if key.proto <= 0xff {
                flows.push((key, flow));
            }
        }
        Ok(flows)
    }

    pub(super) fn counters(&self) -> Result<Counters> {
        Ok(self.counted()?.minus(&self.base))
    }

    fn counted(&self) -> Result<Counters> {
        Ok(Counters {
            services: sums(&self.service_stats, &self.used.0)?,
            backends: sums(&self.backend_stats, &self.used.1)?,
            reasons: sums(&self.reason_stats, &(0..REASONS).collect())?,
        })
    }

    /// What packets change: flow entries as they lie in the map, and what counters tell.
    pub(super) fn save(&self) -> Result<Saved> {
        Ok(Saved {
            flows: self.real_flows()?,
            counters: self.counters()?,
        })
    }

    /// Puts back what packets have changed since.
    pub(super) fn restore(&mut self, saved: &Saved) -> Result<()> {
        let now = self.real_flows()?;
        for (key, _) in now.iter().filter(|entry| !saved.flows.contains(entry)) {
            self.flows.remove(key).context("FLOWS: remove")?;
        }
        for (key, flow) in saved.flows.iter().filter(|entry| !now.contains(entry)) {
            self.flows.insert(key, flow, 0).context("FLOWS: restore")?;
        }
        self.base = self.counted()?.minus(&saved.counters);
        Ok(())
    }
}

/// Takes a map out of the object.
fn take<M: TryFrom<Map>>(ebpf: &mut Ebpf, name: &str) -> Result<M>
where
    M::Error: std::error::Error + Send + Sync + 'static,
{
    let map = ebpf
        .take_map(name)
        .with_context(|| format!("the object has no map {name}"))?;
    M::try_from(map).with_context(|| format!("map {name} is of another type"))
}

fn replace_keys<K: Pod + Ord, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> Result<()> {
    for key in old.keys().filter(|key| !new.contains_key(key)) {
        map.remove(key).context("remove from a hash")?;
    }
    for (key, value) in new {
        map.insert(key, value, 0).context("insert into a hash")?;
    }
    Ok(())
}

fn replace_slots<V: Pod + Default + PartialEq>(
    map: &mut Array<MapData, V>,
    old: &BTreeMap<u32, V>,
    new: &BTreeMap<u32, V>,
) -> Result<()> {
    for at in old.keys().filter(|at| !new.contains_key(at)) {
        map.set(*at, V::default(), 0).context("clear a slot")?;
    }
    for (at, value) in new {
        if old.get(at) != Some(value) {
            map.set(*at, value.borrow() as &V, 0)
                .with_context(|| format!("set slot {at}"))?;
        }
    }
    Ok(())
}

fn zero<V: Pod + Default>(map: &mut PerCpuArray<MapData, V>, at: u32) -> Result<()> {
    let cpus = nr_cpus().map_err(|(_, error)| error).context("CPUs")?;
    let zeros = PerCpuValues::try_from(vec![V::default(); cpus]).context("a value for each CPU")?;
    map.set(at, zeros, 0).context("clear a counter")
}

fn sums<V: Pod + Default + PartialEq + AddAssign>(
    map: &PerCpuArray<MapData, V>,
    ids: &BTreeSet<u32>,
) -> Result<BTreeMap<u32, V>> {
    let mut all = BTreeMap::new();
    for id in ids {
        let mut sum = V::default();
        for value in map.get(id, 0).context("read a counter")?.iter() {
            sum += *value;
        }
        if sum != V::default() {
            all.insert(*id, sum);
        }
    }
    Ok(all)
}
