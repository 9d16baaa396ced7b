//! One client, one host of pods, and between them a gateway for each contender, each with cables of its own: nothing is
//! rebuilt between two rounds.
//!
//! ```text
//! fg-bench-client c<k> 10.40.<k>.2 --- 10.40.<k>.1 cl0 fg-bench-<name> up0 10.41.<k>.1 --- 10.41.<k>.2 p<k> fg-bench-pods
//! ```

use std::{fs, net::Ipv4Addr, num::NonZero, path::Path, process::Command, thread};

use anyhow::{Context, Result};
use gateway_common::bench::Addresses;
use xtask::{
    lab::topology::{self, Role},
    netns, process,
};

use crate::stage::SCRATCH;

pub(crate) use xtask::bench::stage::{quiet, set};

/// Namespace of the client.
pub(crate) const CLIENT: &str = "fg-bench-client";
/// Namespace of the pods.
pub(crate) const PODS: &str = "fg-bench-pods";

/// Who stands in the middle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Contender {
    /// The kernel's routing, to the pod's own address.
    Routed,
    /// nftables: DNAT and masquerade.
    Nftables,
    /// HAProxy in TCP mode.
    Haproxy,
    /// Fleetgate's agent with manifests; TC, as always on virtual links.
    Agent,
    /// Fleetgate's TC program on tables written by this program.
    Tc,
    /// Fleetgate's XDP program on such tables.
    Xdp,
}

impl Contender {
    /// Name in results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Routed => "routed",
            Self::Nftables => "nftables",
            Self::Haproxy => "haproxy",
            Self::Agent => "fleetgate",
            Self::Tc => "fleetgate_tc",
            Self::Xdp => "fleetgate_xdp",
        }
    }

    /// Its number in addresses and device names.
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    /// Its gateway's namespace.
    pub(crate) fn namespace(self) -> String {
        format!("fg-bench-{}", self.name().replace('_', "-"))
    }

    /// Where the client connects.
    pub(crate) const fn target(self) -> Ipv4Addr {
        match self {
            Self::Routed => self.pod(),
            _ => self.vip(),
        }
    }

    /// The gateway's address on the client's side.
    pub(crate) const fn vip(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 40, self.number(), 1)
    }

    /// The pod.
    pub(crate) const fn pod(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 41, self.number(), 2)
    }

    /// The client's device.
    pub(crate) fn client_device(self) -> String {
        format!("c{}", self.number())
    }

    /// The pods' device.
    pub(crate) fn pod_device(self) -> String {
        format!("p{}", self.number())
    }

    /// MAC address of an end: 1 client, 2 and 3 gateway, 4 pods.
    pub(crate) const fn mac(self, end: u8) -> [u8; 6] {
        [2, 0, 0, 0, self.number(), end]
    }

    /// Flows of generated frames.
    pub(crate) fn plan(self) -> Addresses {
        Addresses {
            client: Ipv4Addr::new(10, 45, self.number(), 1).to_bits(),
            vip: self.vip().to_bits(),
            snat: Ipv4Addr::new(10, 46, self.number(), 1).to_bits(),
            pod: self.pod().to_bits(),
            pod_mask: 0,
            vip_port: 53,
            pod_port: 5353,
        }
    }

    fn wires(self) -> Vec<String> {
        let mac = |end| {
            let bytes = self.mac(end).map(|byte| format!("{byte:02x}"));
            bytes.join(":")
        };
        let (gateway, c, p) = (self.namespace(), self.client_device(), self.pod_device());
        // As network cards have them: a queue for each CPU.
        let cpus = thread::available_parallelism().map_or(1, NonZero::get);
        let cable = |near: &str, at: &str, one: u8, far: &str, there: &str, other: u8| {
            format!(
                "link add {near} address {} numtxqueues {cpus} numrxqueues {cpus} netns {at} type veth peer name {far} \
                 address {} numtxqueues {cpus} numrxqueues {cpus} netns {there}",
                mac(one),
                mac(other)
            )
        };
        vec![
            cable(&c, CLIENT, 1, "cl0", &gateway, 2),
            cable("up0", &gateway, 3, &p, PODS, 4),
        ]
    }

    fn lines(self) -> [(String, Vec<String>); 3] {
        let k = self.number();
        let (c, p) = (self.client_device(), self.pod_device());
        let mac = |end| self.mac(end).map(|byte| format!("{byte:02x}")).join(":");
        let neigh = |ip: String, end, device: &str| {
            format!(
                "neigh add {ip} lladdr {} dev {device} nud permanent",
                mac(end)
            )
        };
        [
            (
                CLIENT.to_owned(),
                vec![
                    format!("addr add 10.40.{k}.2/24 dev {c}"),
                    format!("link set {c} up"),
                    neigh(format!("10.40.{k}.1"), 2, &c),
                    format!("route add 10.41.{k}.0/24 via 10.40.{k}.1"),
                ],
            ),
            (
                self.namespace(),
                vec![
                    "link set lo up".into(),
                    format!("addr add 10.40.{k}.1/24 dev cl0"),
                    format!("addr add 10.41.{k}.1/24 dev up0"),
                    "link set cl0 up".into(),
                    "link set up0 up".into(),
                    neigh(format!("10.40.{k}.2"), 1, "cl0"),
                    // Clients of generated frames.
                    format!("route add 10.45.{k}.0/24 via 10.40.{k}.2"),
                    neigh(format!("10.41.{k}.2"), 4, "up0"),
                ],
            ),
            (
                PODS.to_owned(),
                vec![
                    format!("addr add 10.41.{k}.2/24 dev {p}"),
                    format!("link set {p} up"),
                    neigh(format!("10.41.{k}.1"), 3, &p),
                    format!("route add 10.40.{k}.0/24 via 10.41.{k}.1"),
                    format!("route add 10.47.{k}.0/24 via 10.41.{k}.1"),
                ],
            ),
        ]
    }
}

/// Builds everything for these contenders.
pub(crate) fn build(contenders: &[Contender]) -> Result<()> {
    let gateways: Vec<String> = contenders.iter().map(|one| one.namespace()).collect();
    let all = || gateways.iter().map(String::as_str).chain([CLIENT, PODS]);
    let add: Vec<String> = all().map(|name| format!("netns add {name}")).collect();
    netns::ip_batch(None, &add)?;
    for name in all() {
        quiet(name)?;
        let role = if name == CLIENT || name == PODS {
            Role::Host
        } else {
            Role::Router
        };
        for (key, value) in topology::settings(role) {
            set(name, key, value)?;
        }
        // A stream that had to wait for its turn does not begin anew.
        set(name, "ipv4/tcp_slow_start_after_idle", "0")?;
    }
    for one in contenders {
        netns::ip_batch(None, &one.wires())?;
        for (name, lines) in one.lines() {
            netns::ip_batch(Some(&name), &lines)?;
        }
        for device in ["cl0", "up0"] {
            // As on network cards. XDP frames are sent into a veth only if its peer polls (NAPI), which this turns on as
            // well as a program.
            offload(&one.namespace(), device, &["gro", "on"])?;
        }
        match one {
            Contender::Nftables => nftables(*one)?,
            // Its own connections to the pod, as many as the client's.
            Contender::Haproxy => {
                set(&one.namespace(), "ipv4/ip_local_port_range", "1024 65535")?;
                set(&one.namespace(), "ipv4/tcp_tw_reuse", "1")?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The kernel's own NAT, as it comes. One address has not enough ports for the generated flows.
fn nftables(one: Contender) -> Result<()> {
    let rules = format!(
        "table ip bench {{
  chain pre {{ type nat hook prerouting priority dstnat; policy accept;
    udp dport 53 dnat to {pod}:5353; tcp dport 80 dnat to {pod}:8080; tcp dport 5201 dnat to {pod}:5201;
    tcp dport 5202 dnat to {pod}:5202; }}
  chain post {{ type nat hook postrouting priority srcnat; policy accept; oifname \"up0\" meta l4proto udp snat to 10.47.{k}.1-10.47.{k}.8;
    oifname \"up0\" masquerade; }}
}}\n",
        pod = one.pod(),
        k = one.number()
    );
    let file = format!("{}.nft", one.namespace());
    let path = Path::new(SCRATCH).join(file);
    fs::write(&path, rules)?;
    let done = process::output(netns::command(&one.namespace(), "nft").arg("-f").arg(&path));
    done.context("nftables")?;
    // Flows of generated frames are never answered, and must live as long as they are measured.
    set(
        &one.namespace(),
        "netfilter/nf_conntrack_udp_timeout",
        "600",
    )?;
    // As many connections as here are over within two minutes would take every port of the one address.
    set(
        &one.namespace(),
        "netfilter/nf_conntrack_tcp_timeout_time_wait",
        "1",
    )
}

/// Changes offloads of a device.
pub(crate) fn offload(namespace: &str, device: &str, what: &[&str]) -> Result<()> {
    let mut command: Command = netns::command(namespace, "ethtool");
    process::output(command.args(["-K", device]).args(what)).map(drop)
}
