//! The pinned maps, typed. Agent and CLI read the same ones.

use std::{borrow::BorrowMut, net::IpAddr};

use aya::{
    Pod,
    maps::{
        Array, HashMap, Map, MapData, MapError, MapInfo, PerCpuArray, SockMap, lpm_trie::LpmTrie,
    },
};
use gateway_common::{
    affinity::{Affinity, AffinityKey},
    backend::{Backend, NeighbourKey, NextHop, Snat},
    config::{Admission, Clock, Config},
    flow::{Flow, FlowKey},
    limits::{AclNet, Bucket},
    maps,
    monitor::{Scratch, Switch},
    service::{Service, ServiceKey},
    stats::{Count, Traffic},
    vip::VipKey,
};

use super::{Error, pins::Pins};
use crate::plan::{ServiceAddr, Transport};

/// Every map of one gateway.
pub struct Tables {
    /// Entries the flow table has room for.
    pub flow_table_size: u32,
    /// Flows, two entries for each connection.
    pub flows: HashMap<MapData, FlowKey, Flow>,
    /// The same map, for reading many entries at once.
    pub(super) flow_slab: MapData,
    /// Who may open flows in a table that is nearly full.
    pub admission: Array<MapData, Admission>,
    /// Listeners.
    pub services: HashMap<MapData, ServiceKey, Service>,
    /// Addresses of listeners.
    pub vips: HashMap<MapData, VipKey, u32>,
    /// Slab of all rings.
    pub rings: Array<MapData, u32>,
    /// The same map, for writing many slots at once.
    pub(super) ring_slab: MapData,
    /// Backends by id.
    pub backends: Array<MapData, Backend>,
    /// Next hops by id.
    pub hops: Array<MapData, NextHop>,
    /// Next hop of whoever hands us frames.
    pub neighbours: HashMap<MapData, NeighbourKey, u32>,
    /// Source addresses by id.
    pub snats: Array<MapData, Snat>,
    /// The backend that clients had last, where they stay with it.
    pub affinity: HashMap<MapData, AffinityKey, Affinity>,
    /// One configuration.
    pub config: Array<MapData, Config>,
    /// One pair of clock readings.
    pub clock: Array<MapData, Clock>,
    /// Traffic by service id.
    pub service_stats: PerCpuArray<MapData, Traffic>,
    /// Traffic by backend id.
    pub backend_stats: PerCpuArray<MapData, Traffic>,
    /// Packets by reason.
    pub reason_stats: PerCpuArray<MapData, Count>,
    /// Networks of all access lists.
    pub acls: LpmTrie<MapData, AclNet, u32>,
    /// Budgets of new flows by service id.
    pub budgets: Array<MapData, Bucket>,
    /// What the monitor wants to see.
    pub monitor: Array<MapData, Switch>,
    /// How many events the monitor missed.
    pub monitor_scratch: PerCpuArray<MapData, Scratch>,
    /// Sockets of the proxy.
    pub sockets: SockMap<MapData>,
    /// Chunks of the record.
    pub metadata: Metadata,
}

/// Chunks of a record. Of every layout the same: see [`maps::METADATA`].
pub type Metadata = HashMap<MapData, u32, [u8; maps::METADATA_CHUNK]>;

impl Tables {
    /// Opens the maps that a gateway has pinned.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        if !pins.maps().is_dir() {
            return Err(super::upgrade::missing(pins));
        }
        let flows = MapInfo::from_pin(pins.map(maps::FLOWS.0));
        Ok(Self {
            flow_table_size: flows.map_or(maps::FLOWS.1, |info| info.max_entries()),
            flows: open(pins, maps::FLOWS.0)?,
            flow_slab: data(pins, maps::FLOWS.0)?,
            admission: open(pins, maps::ADMISSION.0)?,
            services: open(pins, maps::SERVICES.0)?,
            vips: open(pins, maps::VIPS.0)?,
            rings: open(pins, maps::RINGS.0)?,
            ring_slab: data(pins, maps::RINGS.0)?,
            backends: open(pins, maps::BACKENDS.0)?,
            hops: open(pins, maps::HOPS.0)?,
            neighbours: open(pins, maps::NEIGHBOURS.0)?,
            snats: open(pins, maps::SNATS.0)?,
            affinity: open(pins, maps::AFFINITY.0)?,
            config: open(pins, maps::CONFIG.0)?,
            clock: open(pins, maps::CLOCK.0)?,
            service_stats: open(pins, maps::SERVICE_STATS.0)?,
            backend_stats: open(pins, maps::BACKEND_STATS.0)?,
            reason_stats: open(pins, maps::REASON_STATS.0)?,
            acls: open(pins, maps::ACLS.0)?,
            budgets: open(pins, maps::BUDGETS.0)?,
            monitor: open(pins, maps::MONITOR.0)?,
            monitor_scratch: open(pins, maps::MONITOR_SCRATCH.0)?,
            sockets: open(pins, maps::SOCKETS.0)?,
            metadata: open(pins, maps::METADATA.0)?,
        })
    }

    /// Traffic of one service, all CPUs together.
    pub fn service_traffic(&self, id: u32) -> Result<Traffic, Error> {
        traffic(&self.service_stats, id, maps::SERVICE_STATS.0)
    }

    /// Traffic of one backend, all CPUs together.
    pub fn backend_traffic(&self, id: u32) -> Result<Traffic, Error> {
        traffic(&self.backend_stats, id, maps::BACKEND_STATS.0)
    }

    /// Packets and bytes under one reason number, all CPUs together.
    pub fn reason_count(&self, reason: u32) -> Result<Count, Error> {
        let values = self
            .reason_stats
            .get(&reason, 0)
            .map_err(failed(maps::REASON_STATS.0))?;
        let mut sum = Count::default();
        values.iter().for_each(|value| sum += *value);
        Ok(sum)
    }

    /// All flow entries. Entries that come and go meanwhile may be missing or seen twice; a walk
    /// that deletions send back to the start ends after twice the table.
    pub fn flow_entries(&self) -> impl Iterator<Item = (FlowKey, Flow)> + '_ {
        let most = 2 * self.flow_table_size as usize;
        self.flows.iter().take(most).filter_map(Result::ok)
    }
}

fn traffic(
    stats: &PerCpuArray<MapData, Traffic>,
    id: u32,
    name: &'static str,
) -> Result<Traffic, Error> {
    let values = stats.get(&id, 0).map_err(failed(name))?;
    let mut sum = Traffic::default();
    values.iter().for_each(|value| sum += *value);
    Ok(sum)
}

pub(super) fn open<M: TryFrom<Map, Error = MapError>>(
    pins: &Pins,
    name: &'static str,
) -> Result<M, Error> {
    let path = pins.map(name);
    let data = data(pins, name)?;
    let map = Map::from_map_data(data).map_err(|e| Error::Pin(path.clone(), e.to_string()))?;
    M::try_from(map).map_err(|e| Error::Pin(path, e.to_string()))
}

fn data(pins: &Pins, name: &'static str) -> Result<MapData, Error> {
    let path = pins.map(name);
    MapData::from_pin(&path).map_err(|e| Error::Pin(path, e.to_string()))
}

/// Turns a map's error into ours.
pub(super) fn failed<E: std::fmt::Display>(name: &'static str) -> impl Fn(E) -> Error {
    move |cause| Error::Map(name, cause.to_string())
}

/// Replaces one entry of an array.
pub(super) fn set<T: BorrowMut<MapData>, V: Pod>(
    array: &mut Array<T, V>,
    name: &'static str,
    index: u32,
    value: V,
) -> Result<(), Error> {
    array.set(index, value, 0).map_err(failed(name))
}

/// Map key of a listener address.
pub fn service_key(address: &ServiceAddr) -> ServiceKey {
    ServiceKey {
        addr: address.address.ip().into(),
        port: gateway_common::addr::Port::from_host(address.address.port()),
        proto: address.transport.number() as u16,
        zero: 0,
    }
}

/// Listener address of a map key; `None` for a protocol that is neither TCP nor UDP.
pub fn service_addr(key: &ServiceKey) -> Option<ServiceAddr> {
    let transport = match u32::from(key.proto) {
        gateway_common::flow::TCP => Transport::Tcp,
        gateway_common::flow::UDP => Transport::Udp,
        _ => return None,
    };
    let address = (IpAddr::from(key.addr), key.port.host()).into();
    Some(ServiceAddr { transport, address })
}
