//! What the agent knows beyond the maps, kept in a map: names, routes, problems, the plan.
//!
//! The CLI reads it with the agent down, and the next agent starts from it. It lies there in sheets, one for each
//! listener, group, service and so on, so that a change writes what it changes.

mod sheets;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use sheets::Recorder;

use super::{
    Error,
    pins::Pins,
    tables::{self, Metadata, Tables},
    upgrade::Shapes,
};
use crate::{
    ir::{Group, GroupName, Ir, Listener, ListenerName, Touched},
    plan::{Backend, Delta, Plan, Region, Replaced, Service, ServiceAddr, Source},
    problem::Problem,
};

/// One agent's view, whole.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Version of the agent that wrote this.
    pub version: String,
    /// Its process id; alive only if `/proc` says so.
    pub pid: u32,
    /// When it started, seconds since the epoch.
    pub started: u64,
    /// Counts configurations applied since the pins were made.
    pub generation: u64,
    /// When the last one was applied, seconds since the epoch.
    pub applied_at: u64,
    /// Addresses of listeners that name none.
    pub vips: Vec<IpAddr>,
    /// Which hook each interface got, and why.
    pub interfaces: Vec<InterfaceRecord>,
    /// Reserved source ports of node addresses: first and count; count 0 when a pool is used.
    pub node_ports: (u16, u16),
    /// The routing model.
    pub ir: Ir,
    /// What the maps hold; while `applying`, what they come to hold.
    pub plan: Plan,
    /// What the rings in the maps were computed from beyond the plan: `plan::ring_stamp`.
    pub rings: u64,
    /// Set while the plan is being applied: the maps hold a mix of it and what it replaces.
    pub applying: Option<Replaced>,
    /// Ids of next hops: (interface index, neighbour address, id).
    pub hops: Vec<(u32, IpAddr, u16)>,
    /// Everything that is wrong with the configuration.
    pub problems: Vec<Problem>,
    /// What did not fit, or cannot be reached.
    pub warnings: Vec<String>,
    /// Names of interfaces by index, for tables.
    pub interface_names: BTreeMap<u32, String>,
    /// Member clusters and how they are reached; empty without any.
    pub clusters: Vec<ClusterRecord>,
    /// Of records in maps of several layouts the one with the highest is true; 0: not yet, its maps are only being filled.
    pub term: u64,
    /// The other layout whose programs are attached everywhere too: an upgrade is half done.
    pub beside: Option<String>,
    /// Fields of the maps beside this record that any version may read.
    pub shapes: Shapes,
    /// The last time that maps of another layout were taken over.
    pub upgrade: Option<UpgradeRecord>,
}

/// What was taken over from maps of another layout.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpgradeRecord {
    /// Version of the agent that had written them.
    pub version: String,
    /// Their layout.
    pub layout: String,
    /// When, seconds since the epoch.
    pub at: u64,
    /// Flows that are in the new table.
    pub flows: u64,
    /// Clients with affinity that are in the new table.
    pub clients: u64,
    /// What was left, and why.
    pub left: Vec<String>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// How packets of one interface reach the programs.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct InterfaceRecord {
    /// Interface name.
    pub name: String,
    /// `tcx` or `clsact`, after `xdp native + `, `xdp native frags + ` or `xdp generic + ` where XDP is there too.
    pub hooks: String,
    /// Why not another one.
    pub reason: String,
}

/// A member cluster.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Its ID.
    pub id: String,
    /// `connected`, `lost` (it was listed once, by this agent or an earlier one, and is not followed now: its last pods
    /// serve on) or `unknown` (never listed).
    pub reach: String,
}

impl ClusterRecord {
    /// `reach` of a cluster that was never listed.
    pub const UNKNOWN: &str = "unknown";
    /// `reach` of a cluster that was listed once and is not followed now.
    pub const LOST: &str = "lost";

    /// Whether it was listed once.
    pub fn is_known(&self) -> bool {
        self.reach != Self::UNKNOWN
    }
}

/// A part of the record that is written by itself.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Part {
    /// All that is small.
    Head,
    /// Ids of next hops.
    Hops,
    /// What is wrong.
    Problems,
    /// Fields of the maps.
    Shapes,
    /// One listener of the routing model.
    Listener(ListenerName),
    /// One group of the routing model.
    Group(GroupName),
    /// One service of the plan.
    Service(ServiceAddr),
    /// Backends of the plan whose id, divided by [`PAGE`], is this.
    Backends(u32),
}

/// Ids of one sheet of backends.
const PAGE: u32 = 16;

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Head {
    version: String,
    pid: u32,
    started: u64,
    generation: u64,
    applied_at: u64,
    vips: Vec<IpAddr>,
    interfaces: Vec<InterfaceRecord>,
    node_ports: (u16, u16),
    rings: u64,
    applying: Option<Replaced>,
    warnings: Vec<String>,
    interface_names: BTreeMap<u32, String>,
    clusters: Vec<ClusterRecord>,
    term: u64,
    beside: Option<String>,
    upgrade: Option<UpgradeRecord>,
    sources: Vec<Source>,
    next_generation: u16,
    reserved: Vec<Region>,
    reserved_lists: Vec<u16>,
}

impl Part {
    /// The parts of a plan that a delta changes.
    pub fn of_delta(delta: &Delta) -> BTreeSet<Self> {
        let services = delta.services.keys().map(|address| Self::Service(*address));
        let pages = delta.backends.keys().map(|id| Self::Backends(id / PAGE));
        services.chain(pages).collect()
    }

    /// The parts of a routing model that differ.
    pub fn of_model(touched: &Touched) -> BTreeSet<Self> {
        let listeners = touched.listeners.iter().cloned().map(Self::Listener);
        let groups = touched.groups.iter().cloned().map(Self::Group);
        listeners.chain(groups).collect()
    }

    fn name(&self) -> String {
        match self {
            Self::Head => "head".to_owned(),
            Self::Hops => "hops".to_owned(),
            Self::Problems => "problems".to_owned(),
            Self::Shapes => "shapes".to_owned(),
            Self::Listener(name) => format!("listener {name}"),
            Self::Group(name) => format!("group {name}"),
            Self::Service(address) => format!("service {address}"),
            Self::Backends(page) => format!("backends {page}"),
        }
    }
}

impl Record {
    /// Reads the record, whole, also while an agent is writing; `None` if no agent has finished writing one.
    pub fn load(tables: &Tables) -> Result<Option<Self>, Error> {
        Self::read(&tables.metadata)
    }

    /// The same of maps whose layout may be another one; `None` also if there is no map.
    pub fn of_pins(pins: &Pins) -> Result<Option<Self>, Error> {
        let name = gateway_common::maps::METADATA.0;
        if !pins.map(name).exists() {
            return Ok(None);
        }
        Self::read(&tables::open(pins, name)?)
    }

    fn read(metadata: &Metadata) -> Result<Option<Self>, Error> {
        let Some(sheets) = sheets::read(metadata)? else {
            return Ok(None);
        };
        let mut record = Self::default();
        for (name, bytes) in sheets {
            record
                .take_up(&name, &bytes)
                .map_err(|why| Error::Record(format!("sheet {name}: {why}")))?;
        }
        Ok(Some(record))
    }

    /// Every part that there is.
    pub fn parts(&self) -> BTreeSet<Part> {
        let mut parts = BTreeSet::from([Part::Head, Part::Hops, Part::Problems, Part::Shapes]);
        parts.extend(self.ir.listeners.keys().cloned().map(Part::Listener));
        parts.extend(self.ir.groups.keys().cloned().map(Part::Group));
        parts.extend(self.plan.services.keys().map(|it| Part::Service(*it)));
        parts.extend(
            self.plan
                .backends
                .keys()
                .map(|id| Part::Backends(id / PAGE)),
        );
        parts
    }

    /// A part as it is written; `None` for one that is no more.
    fn sheet(&self, part: &Part) -> Result<Option<Vec<u8>>, serde_json::Error> {
        fn some<T: Serialize>(value: &T) -> Result<Option<Vec<u8>>, serde_json::Error> {
            serde_json::to_vec(value).map(Some)
        }
        match part {
            Part::Head => some(&self.head()),
            Part::Hops => some(&self.hops),
            Part::Problems => some(&self.problems),
            Part::Shapes => some(&self.shapes),
            Part::Listener(name) => self.ir.listeners.get(name).map_or(Ok(None), some),
            Part::Group(name) => self.ir.groups.get(name).map_or(Ok(None), some),
            Part::Service(address) => match self.plan.services.get(address) {
                Some(service) => some(&(address, service)),
                None => Ok(None),
            },
            Part::Backends(page) => {
                let ids = page * PAGE..(page + 1) * PAGE;
                let backends: BTreeMap<_, _> = self.plan.backends.range(ids).collect();
                if backends.is_empty() {
                    return Ok(None);
                }
                some(&backends)
            }
        }
    }

    fn head(&self) -> Head {
        Head {
            version: self.version.clone(),
            pid: self.pid,
            started: self.started,
            generation: self.generation,
            applied_at: self.applied_at,
            vips: self.vips.clone(),
            interfaces: self.interfaces.clone(),
            node_ports: self.node_ports,
            rings: self.rings,
            applying: self.applying.clone(),
            warnings: self.warnings.clone(),
            interface_names: self.interface_names.clone(),
            clusters: self.clusters.clone(),
            term: self.term,
            beside: self.beside.clone(),
            upgrade: self.upgrade.clone(),
            sources: self.plan.sources.clone(),
            next_generation: self.plan.next_generation,
            reserved: self.plan.reserved.clone(),
            reserved_lists: self.plan.reserved_lists.clone(),
        }
    }

    fn take_up(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        fn value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
            serde_json::from_slice(bytes).map_err(|error| error.to_string())
        }
        match name.split(' ').next().unwrap_or_default() {
            "head" => {
                let Head {
                    version,
                    pid,
                    started,
                    generation,
                    applied_at,
                    vips,
                    interfaces,
                    node_ports,
                    rings,
                    applying,
                    warnings,
                    interface_names,
                    clusters,
                    term,
                    beside,
                    upgrade,
                    sources,
                    next_generation,
                    reserved,
                    reserved_lists,
                } = value(bytes)?;
                *self = Self {
                    version,
                    pid,
                    started,
                    generation,
                    applied_at,
                    vips,
                    interfaces,
                    node_ports,
                    rings,
                    applying,
                    warnings,
                    interface_names,
                    clusters,
                    term,
                    beside,
                    upgrade,
                    ..std::mem::take(self)
                };
                self.plan.sources = sources;
                self.plan.next_generation = next_generation;
                self.plan.reserved = reserved;
                self.plan.reserved_lists = reserved_lists;
            }
            "hops" => self.hops = value(bytes)?,
            "problems" => self.problems = value(bytes)?,
            "shapes" => self.shapes = value(bytes)?,
            "listener" => {
                let listener: Arc<Listener> = value(bytes)?;
                self.ir.listeners.insert(listener.name.clone(), listener);
            }
            "group" => {
                let group: Arc<Group> = value(bytes)?;
                self.ir.groups.insert(group.name.clone(), group);
            }
            "service" => {
                let (address, service): (ServiceAddr, Service) = value(bytes)?;
                self.plan.services.insert(address, service);
            }
            "backends" => {
                let backends: BTreeMap<String, Backend> = value(bytes)?;
                for (id, backend) in backends {
                    let id = u32::from_str(&id).map_err(|error| error.to_string())?;
                    self.plan.backends.insert(id, backend);
                }
            }
            // Of a newer agent: what it means is not known here, and nothing depends on it.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_version_may_have_more_and_less() {
        let mut record = Record::default();
        let head = br#"{"generation": 7, "of_a_later_version": {"x": [1]}}"#;
        record.take_up("head", head).unwrap();
        record
            .take_up("shapes", br#"{"FLOWS": {"key": {}}}"#)
            .unwrap();
        record.take_up("moons 3", b"whatever").unwrap();
        assert_eq!((record.generation, record.term), (7, 0));
        assert_eq!(record.shapes.0["FLOWS"].value.size, 0);
        assert!(record.take_up("hops", b"{}").is_err());
    }
}
