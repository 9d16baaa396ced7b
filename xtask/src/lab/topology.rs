//! What the lab looks like. Addresses are the same on every run, so that they can be written down.
//!
//! ```text
//! fg-client eth0 --- cl0 fg-gw c1 --- up0 fg-c1 p1.. --- eth0 fg-c1-p1, fg-c1-p2
//!                             c2 --- up0 fg-c2 p1.. --- eth0 fg-c2-p1 .. fg-c2-p3
//! ```

use std::net::Ipv4Addr;

use crate::member::Endpoint;

/// Every namespace of the lab begins with this.
pub const PREFIX: &str = "fg-";
/// The client's namespace.
pub const CLIENT: &str = "fg-client";
/// The gateway node's namespace; its devices are `cl0` (to the client), `c1` and `c2` (to the clusters).
pub const GATEWAY: &str = "fg-gw";
/// The client's address.
pub const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 210, 0, 2);
/// The gateway's address on the client's link: the VIP when nothing else is asked for.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 210, 0, 1);
/// Where each pod answers HTTP.
pub const HTTP_PORT: u16 = 8080;
/// Where each pod runs `iperf3 -s`.
pub const IPERF_PORT: u16 = 5201;
/// Members: cluster number and how many pods it has.
pub const CLUSTERS: [(u8, u8); 2] = [(1, 2), (2, 3)];

/// One pod of one cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pod {
    /// Cluster ID: `c1` or `c2`.
    pub cluster: String,
    /// Pod name, e.g. `c1-p2`.
    pub name: String,
    /// Its network namespace, e.g. `fg-c1-p2`.
    pub namespace: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The router's device that leads to it.
    pub device: String,
}

impl Pod {
    /// It, in an EndpointSlice.
    pub fn endpoint(&self, ready: bool) -> Endpoint {
        Endpoint {
            address: self.address.into(),
            name: self.name.clone(),
            ready,
        }
    }
}

/// Every pod, by cluster and number.
pub fn pods() -> Vec<Pod> {
    CLUSTERS
        .iter()
        .flat_map(|(cluster, count)| pods_of(*cluster, *count))
        .collect()
}

fn pods_of(cluster: u8, count: u8) -> impl Iterator<Item = Pod> {
    (1..=count).map(move |n| Pod {
        cluster: format!("c{cluster}"),
        name: format!("c{cluster}-p{n}"),
        namespace: format!("{PREFIX}c{cluster}-p{n}"),
        address: Ipv4Addr::new(10, 221, cluster, 10 + n),
        device: format!("p{n}"),
    })
}

/// Whether packets pass through a namespace, or only begin and end there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// A node that sends and receives.
    Host,
    /// A node that forwards.
    Router,
}

/// One namespace and the `ip` lines that furnish it once its devices exist.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Name, with the prefix.
    pub name: String,
    /// Whether it forwards.
    pub role: Role,
    /// Lines for `ip -batch`, run inside.
    pub lines: Vec<String>,
}

/// Every namespace.
pub fn namespaces() -> Vec<Namespace> {
    let mut all = vec![host(
        CLIENT.into(),
        vec![
            format!("addr add {CLIENT_ADDRESS}/24 dev eth0"),
            "link set eth0 up".into(),
            format!("route add default via {VIP}"),
        ],
    )];
    let mut gateway = vec![
        format!("addr add {VIP}/24 dev cl0"),
        "link set cl0 up".into(),
    ];
    for (cluster, count) in CLUSTERS {
        gateway.push(format!("addr add 10.211.{cluster}.1/24 dev c{cluster}"));
        gateway.push(format!("link set c{cluster} up"));
        gateway.push(format!(
            "route add 10.221.{cluster}.0/24 via 10.211.{cluster}.2"
        ));
        let mut router = vec![
            format!("addr add 10.211.{cluster}.2/24 dev up0"),
            "link set up0 up".into(),
            format!("route add default via 10.211.{cluster}.1"),
        ];
        for pod in pods_of(cluster, count) {
            // One routed link for each pod: the router answers as 10.221.N.1 on all of them.
            router.push(format!("addr add 10.221.{cluster}.1/32 dev {}", pod.device));
            router.push(format!("link set {} up", pod.device));
            router.push(format!("route add {}/32 dev {}", pod.address, pod.device));
            all.push(host(
                pod.namespace,
                vec![
                    format!("addr add {}/32 dev eth0", pod.address),
                    "link set eth0 up".into(),
                    format!("route add 10.221.{cluster}.1/32 dev eth0"),
                    format!("route add default via 10.221.{cluster}.1"),
                ],
            ));
        }
        all.push(furnished(
            format!("{PREFIX}c{cluster}"),
            Role::Router,
            router,
        ));
    }
    all.push(furnished(GATEWAY.into(), Role::Router, gateway));
    all
}

/// Lines for `ip -batch` that lay the cables, run in the machine's own namespace.
pub fn cables() -> Vec<String> {
    let cable = |near: &str, near_ns: &str, far: &str, far_ns: &str| {
        format!("link add {near} netns {near_ns} type veth peer name {far} netns {far_ns}")
    };
    let mut lines = vec![cable("cl0", GATEWAY, "eth0", CLIENT)];
    for (cluster, count) in CLUSTERS {
        let router = format!("{PREFIX}c{cluster}");
        lines.push(cable(&format!("c{cluster}"), GATEWAY, "up0", &router));
        lines.extend(
            pods_of(cluster, count).map(|pod| cable(&pod.device, &router, "eth0", &pod.namespace)),
        );
    }
    lines
}

/// Kernel settings of a namespace, below `/proc/sys/net`. Set before its devices appear, which take them over.
pub fn settings(role: Role) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        // No router solicitations and no generated addresses: the lab's wires carry only what a test sends.
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/addr_gen_mode", "1"),
        // Ten thousand short connections from one client to one address and port, several times a minute.
        ("ipv4/ip_local_port_range", "1024 65535"),
        ("ipv4/tcp_tw_reuse", "1"),
        ("core/somaxconn", "4096"),
        ("ipv4/tcp_max_syn_backlog", "4096"),
        // What sends as fast as the path takes it, whatever this machine is set to: BBR would send as fast as its timers
        // say. Every kernel has this one.
        ("ipv4/tcp_congestion_control", "reno"),
    ];
    if role == Role::Router {
        all.extend([
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
        ]);
        // The gateway's own ports are the agent's affair: it must find the kernel's defaults.
        all.retain(|(key, _)| !matches!(*key, "ipv4/ip_local_port_range" | "ipv4/tcp_tw_reuse"));
    }
    all
}

fn host(name: String, lines: Vec<String>) -> Namespace {
    furnished(name, Role::Host, lines)
}

fn furnished(name: String, role: Role, mut lines: Vec<String>) -> Namespace {
    lines.insert(0, "link set lo up".into());
    Namespace { name, role, lines }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn cluster_one_has_two_pods_and_cluster_two_has_three() {
        let names: Vec<String> = pods().into_iter().map(|pod| pod.name).collect();
        assert_eq!(names, ["c1-p1", "c1-p2", "c2-p1", "c2-p2", "c2-p3"]);
    }

    #[test]
    fn every_namespace_is_named_once_and_begins_with_the_prefix() {
        let all: Vec<String> = namespaces().into_iter().map(|one| one.name).collect();
        assert!(all.iter().all(|name| name.starts_with(PREFIX)));
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(all.len(), 9);
    }

    #[test]
    fn device_names_fit_the_kernel() {
        for cable in cables() {
            for word in cable.split(' ').filter(|word| !word.starts_with(PREFIX)) {
                assert!(word.len() < 16, "{word}");
            }
        }
    }
}
