//! `fleetgate doctor`: whether this node can be, or is, a good gateway, and what to change.
//!
//! `io | pure`: [`read`](fn@read::read) takes one [`Reading`], [`judge`] says what it means. What could not be read is
//! unknown, never fine.

mod judge;
mod kernel;
mod network;
pub mod read;

use std::net::IpAddr;

use serde::Serialize;

pub use judge::judge;

/// How a check ended.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Could not be read.
    Unknown,
    /// Works, but not as well as it could, or not for all.
    Warn,
    /// Packets are lost, or the agent cannot run.
    Fail,
}

/// One check.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What was read.
    pub read: String,
    /// What to do; empty where there is nothing to.
    #[serde(rename = "do")]
    pub remedy: String,
}

impl Finding {
    fn ok(check: impl Into<String>, read: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, read, "")
    }

    fn unknown(check: impl Into<String>, read: impl Into<String>) -> Self {
        Self::new(check, Verdict::Unknown, read, "")
    }

    fn warn(check: impl Into<String>, read: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warn, read, remedy)
    }

    fn fail(check: impl Into<String>, read: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Verdict::Fail, read, remedy)
    }

    fn new(
        check: impl Into<String>,
        verdict: Verdict,
        read: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            check: check.into(),
            verdict,
            read: read.into(),
            remedy: remedy.into(),
        }
    }
}

/// All that is looked at. `None` is what could not be read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// `uname -r`.
    pub release: String,
    /// Its first two numbers.
    pub version: Option<(u32, u32)>,
    /// `/sys/kernel/btf/vmlinux` is there.
    pub btf: bool,
    /// `net.core.bpf_jit_enable`.
    pub jit: Option<u32>,
    /// Whether the file system of the pins is a BPF one.
    pub bpffs: bool,
    /// Effective capabilities of this process (capabilities(7)), a bit each.
    pub capabilities: Option<u64>,
    /// Memory limit of the agent's cgroup, or of ours, in bytes; `u64::MAX` is none.
    pub memory_limit: Option<u64>,
    /// `net.ipv4.ip_forward`.
    pub ip_forward: Option<bool>,
    /// `net.ipv4.conf.all.rp_filter`.
    pub rp_filter: Option<u32>,
    /// `net.ipv4.ip_local_reserved_ports`, as it is written.
    pub reserved_ports: Option<String>,
    /// Interfaces of the gateway, in its order.
    pub interfaces: Vec<InterfaceReading>,
    /// Interfaces that were asked for and are not there.
    pub absent: Vec<String>,
    /// Netfilter tables of this namespace.
    pub filters: Filters,
    /// What is pinned; nothing on a node that has not been a gateway yet.
    pub gateway: Option<GatewayReading>,
}

/// One interface.
#[derive(Clone, Debug, Default)]
pub struct InterfaceReading {
    /// Its name.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Kind of a virtual link.
    pub kind: Option<String>,
    /// Name of its driver.
    pub driver: Option<String>,
    /// `net.ipv4.conf.<name>.rp_filter`.
    pub rp_filter: Option<u32>,
    /// `net.ipv4.conf.<name>.forwarding`.
    pub forwarding: Option<bool>,
    /// Offloads that are on (ethtool's names).
    pub offloads: Option<Vec<String>>,
    /// Hooks of the record, as `status` shows them; empty when nothing was attached.
    pub hooks: String,
}

/// Netfilter.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Filters {
    /// Rules that drop or reject, as far as they could be listed.
    pub dropping: Option<usize>,
    /// Connections are tracked in this namespace.
    pub conntrack: bool,
}

/// What the record and the pins tell.
#[derive(Clone, Debug, Default)]
pub struct GatewayReading {
    /// Why the record could not be read.
    pub unreadable: Option<String>,
    /// The agent runs.
    pub alive: bool,
    /// Pinned links.
    pub links: Vec<String>,
    /// Reserved ports of the node's addresses: first and count.
    pub node_ports: (u16, u16),
    /// Pods, and how they are reached.
    pub pods: Vec<PodReading>,
    /// Pods beyond those.
    pub pods_not_looked_at: usize,
}

/// The way to one pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodReading {
    /// `cluster/pod`.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// The way.
    pub way: Way,
}

/// How a pod is reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Way {
    /// The kernel gave no answer.
    Unknown,
    /// No route.
    None,
    /// By a next hop.
    Hop {
        /// Name of the interface.
        interface: String,
        /// Its MTU, in bytes; 0 if unknown.
        mtu: u32,
        /// Gateway, or the pod itself.
        neighbour: IpAddr,
        /// Whether it answers (ARP); `None`: that could not be found out.
        answers: Option<bool>,
    },
}
