//! What the command line decides about a running gateway.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use crate::{
    dataplane::attach::{TcChoice, XdpChoice},
    ir::SteeringWish,
    proxy::{access_log, trace::export::Collector},
    source::kubernetes,
};

/// Where objects come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Directory with `fleet/` and `clusters/<id>/`.
    Manifests(PathBuf),
    /// A fleet and its members, with status written back.
    Kubernetes(Box<Fleet>),
}

/// A fleet of Kubernetes clusters.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// API servers.
    pub servers: kubernetes::Options,
    /// Gateways are named `<AlbConfig>.<suffix>` in their status; `None`: by their addresses.
    pub dns_suffix: Option<String>,
    /// Of all nodes only the holder of a Lease writes status; otherwise this one does.
    pub leader_elect: bool,
    /// Name of this node.
    pub node: String,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifests(directory) => directory.display().fmt(f),
            Self::Kubernetes(_) => f.write_str("the fleet"),
        }
    }
}

/// Options of `fleetgate run`.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where objects come from.
    pub source: Source,
    /// Interfaces that packets of clients and pods come in on; the first gives the VIPs.
    pub interfaces: Vec<String>,
    /// Addresses to serve; empty: those of the first interface.
    pub vips: Vec<IpAddr>,
    /// Dedicated source addresses; empty: the node's own, with `snat_ports`.
    pub snat: Vec<IpAddr>,
    /// First and last reserved port of the node's own addresses.
    pub snat_ports: (u16, u16),
    /// Steering of listeners without a wish of their own.
    pub steering: SteeringWish,
    /// Which XDP.
    pub xdp: XdpChoice,
    /// How TC is attached.
    pub tc: TcChoice,
    /// Where everything is pinned.
    pub pin_dir: PathBuf,
    /// Flow entries, two for each connection, of a table made anew.
    pub max_flows: u32,
    /// One packet in this many is logged; 0: none.
    pub sample_every: u32,
    /// Where the proxy logs requests.
    pub access_log: access_log::Target,
    /// Who gets spans of requests; `None`: there are none.
    pub collector: Option<Collector>,
    /// Shared by nodes that must compute the same rings.
    pub ring_secret: String,
    /// Threads of the proxy; 0: one for each CPU.
    pub proxy_workers: usize,
    /// How long what is under way in the proxy may go on when the agent stops, or its listener goes.
    pub drain_timeout: Duration,
}
