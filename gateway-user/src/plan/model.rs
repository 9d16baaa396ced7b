//! The values of a plan.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use gateway_common::maglev;
use serde::{Deserialize, Serialize};

use super::access::Access;
pub use crate::ir::Transport;
use crate::ir::{ClusterId, Limits};

/// Everything the kernel programs need, by stable id.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Listeners by address.
    pub services: BTreeMap<ServiceAddr, Service>,
    /// Backends by id, from 1.
    pub backends: BTreeMap<u32, Backend>,
    /// Source addresses; the position is the id.
    pub sources: Vec<Source>,
    /// Given to the next new backend.
    pub next_generation: u16,
    /// Ring regions of an interrupted apply: never written until it is over.
    #[serde(default)]
    pub reserved: Vec<Region>,
    /// The same of access lists, by id.
    #[serde(default)]
    pub reserved_lists: Vec<u16>,
}

/// What clients connect to. Written `tcp/10.0.0.1:80`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServiceAddr {
    /// Transport protocol.
    pub transport: Transport,
    /// VIP and port.
    pub address: SocketAddr,
}

impl fmt::Display for ServiceAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        write!(f, "{transport}/{}", self.address)
    }
}

impl Serialize for ServiceAddr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServiceAddr {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = text.split_once('/').and_then(|(transport, address)| {
            let transport = match transport {
                "tcp" => Transport::Tcp,
                "udp" => Transport::Udp,
                _ => return None,
            };
            Some(Self {
                transport,
                address: address.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| serde::de::Error::custom(format!("no service address: {text}")))
    }
}

/// One listener address.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Index of its statistics, from 1.
    pub id: u32,
    /// Name of the listener in the routing model.
    pub listener: String,
    /// The Service behind it; empty for the proxy's listeners.
    pub group: String,
    /// Who steers.
    pub mode: Mode,
    /// Connections of one client address stay together.
    pub client_affinity: bool,
    /// For so long after it opened its last one, whatever becomes of the ring.
    #[serde(default)]
    pub affinity_seconds: u32,
    /// Counts replacements of the entry.
    pub epoch: u32,
    /// Of a listener of protocol TCP or UDP: the proxy never gets a connection.
    #[serde(default)]
    pub l4: bool,
    /// Who may connect; `None`: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// How many new flows it takes.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
}

/// Who steers a service.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The kernel, by this ring.
    Connection(Ring),
    /// The proxy.
    Request,
    /// Nobody: no backend takes flows, and the proxy does not speak for it.
    Empty,
}

impl Mode {
    /// The ring, where there is one.
    pub fn ring(&self) -> Option<&Ring> {
        match self {
            Self::Connection(ring) => Some(ring),
            Self::Request | Self::Empty => None,
        }
    }
}

/// A ring: its region of the slab and what it is computed from.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Ring {
    /// Where its slots are.
    pub region: Region,
    /// Members, sorted by backend id.
    pub members: Arc<Vec<Member>>,
}

/// Weight of one backend in a ring.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Backend id.
    pub backend: u32,
    /// Relative weight, above zero.
    pub weight: u32,
}

/// Part of the ring slab.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Region {
    /// First slot.
    pub offset: u32,
    /// Number of slots.
    pub len: u32,
}

/// Stable identity of a backend.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct BackendKey {
    /// Cluster that runs the pod.
    pub cluster: ClusterId,
    /// Pod address and target port.
    pub address: SocketAddr,
}

/// One pod as the kernel knows it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// Identity.
    pub key: BackendKey,
    /// Pod name.
    pub pod: Arc<str>,
    /// Whether it takes new flows.
    pub state: BackendState,
    /// Changes each time the id is given to another pod.
    pub generation: u16,
    /// First of its sources in [`Plan::sources`].
    pub source_first: u16,
    /// How many sources it may use.
    pub source_count: u16,
}

/// Life of a backend.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// Takes new flows.
    Active,
    /// Has no weight, or is not ready: keeps the flows it has.
    Draining,
    /// Fails its health checks: keeps the TCP flows it has, UDP flows move at once.
    Quarantined,
    /// Its pod is gone: UDP flows move at once, TCP flows are left to end.
    Down,
}

/// One source address with the ports that belong to the gateway.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Source {
    /// Address that pods see.
    pub address: IpAddr,
    /// First port.
    pub port_first: u16,
    /// Number of ports.
    pub port_count: u16,
}

/// Seed of the rings from a secret that all nodes share.
pub fn ring_seed(secret: &str) -> u64 {
    /// The word `fleetgat` as a number: any constant would do, a changed one moves every flow.
    const SEED: u64 = 0x666c_6565_7467_6174;
    gateway_common::hash::name(SEED, secret.as_bytes())
}

/// What the content of rings follows from besides the plan: the seed, and how this release fills them.
pub fn ring_stamp(seed: u64) -> u64 {
    gateway_common::hash::mix64(seed ^ maglev::FILL)
}

impl Plan {
    /// Ring regions in use.
    pub fn regions(&self) -> Vec<Region> {
        let rings = self
            .services
            .values()
            .filter_map(|service| service.mode.ring());
        rings.map(|ring| ring.region).collect()
    }

    /// Ring slots, computed anew: equal on every node that knows the same pods and the same seed.
    pub fn slots(&self, ring: &Ring, seed: u64) -> Vec<u32> {
        let entries: Vec<maglev::Entry> = ring
            .members
            .iter()
            .filter_map(|member| {
                let backend = self.backends.get(&member.backend)?;
                let name = format!("{}/{}", backend.key.cluster, backend.key.address);
                Some(maglev::Entry {
                    id: member.backend,
                    identity: gateway_common::hash::name(0, name.as_bytes()),
                    weight: member.weight,
                })
            })
            .collect();
        maglev::build(&entries, ring.region.len, seed)
    }
}
