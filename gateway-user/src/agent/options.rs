//! What the command line decides about a running gateway.

use std::{net::IpAddr, path::PathBuf};

use crate::{dataplane::attach::XdpChoice, ir::SteeringWish};

/// Options of `fleetgate run`.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory with `fleet/` and `clusters/<id>/`.
    pub manifests: PathBuf,
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
    /// Where everything is pinned.
    pub pin_dir: PathBuf,
    /// Flow entries, two for each connection, of a table made anew.
    pub max_flows: u32,
    /// One packet in this many is logged; 0: none.
    pub sample_every: u32,
    /// Shared by nodes that must compute the same rings.
    pub ring_secret: String,
}
