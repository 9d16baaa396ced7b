//! Takes a [`Reading`]: files of `/proc` and `/sys`, rtnetlink, the pinned record, `ethtool` and `nft` where they are
//! installed. Changes nothing; has the kernel ask for neighbours it does not know.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::Path,
    process::Command,
    time::Duration,
};

use tokio::runtime;

use super::{Filters, GatewayReading, InterfaceReading, PodReading, Reading, Way};
use crate::{
    cli::live::alive,
    dataplane::{
        load,
        pins::{self, Pins},
        record::Record,
        tables::Tables,
    },
    network::{Interface, Network, Paths},
};

/// Pods looked at: each costs a question to the kernel.
const PODS: usize = 4096;
/// Next hops asked for at once.
const PROBES: usize = 256;
/// How long a neighbour may take to answer: the kernel asks three times, a second apart.
const ANSWER: Duration = Duration::from_millis(3200);
/// Between two looks at the neighbours.
const PAUSE: Duration = Duration::from_millis(100);

/// Reads the node. `wanted`: interfaces to look at where no gateway tells them.
pub fn read(pins: &Pins, wanted: &[String]) -> Reading {
    let (release, version) = load::release();
    let (record, gateway) = gateway(pins);
    let mut reading = Reading {
        release,
        version,
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        jit: number("/proc/sys/net/core/bpf_jit_enable"),
        bpffs: pins::holds(pins.root()),
        capabilities: capabilities(),
        memory_limit: memory_limit(record.as_ref().filter(|record| alive(record))),
        ip_forward: number("/proc/sys/net/ipv4/ip_forward").map(|n| n != 0),
        rp_filter: number("/proc/sys/net/ipv4/conf/all/rp_filter"),
        reserved_ports: fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").ok(),
        filters: filters(),
        gateway,
        ..Reading::default()
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    if let Ok(runtime) = runtime {
        runtime.block_on(network(&mut reading, record.as_ref(), wanted));
    }
    reading
}

/// The record, and what it and the pins tell without the network.
fn gateway(pins: &Pins) -> (Option<Record>, Option<GatewayReading>) {
    if !pins.maps().is_dir() && pins.others().is_empty() {
        return (None, None);
    }
    let mut gateway = GatewayReading {
        links: pins.links(),
        ..GatewayReading::default()
    };
    match Tables::open(pins).and_then(|tables| Record::load(&tables)) {
        Ok(Some(record)) => {
            gateway.alive = alive(&record);
            gateway.node_ports = record.node_ports;
            (Some(record), Some(gateway))
        }
        Ok(None) => {
            gateway.unreadable = Some("no agent has finished writing its record".to_owned());
            (None, Some(gateway))
        }
        Err(error) => {
            gateway.unreadable = Some(error.to_string());
            (None, Some(gateway))
        }
    }
}

async fn network(reading: &mut Reading, record: Option<&Record>, wanted: &[String]) {
    let Ok((network, _changes)) = Network::connect() else {
        return;
    };
    let links = network.interfaces().await.unwrap_or_default();
    let mut names: Vec<String> = wanted.to_vec();
    let hooks: BTreeMap<&str, &str> = record
        .map(|record| record.interfaces.as_slice())
        .unwrap_or_default()
        .iter()
        .map(|one| (one.name.as_str(), one.hooks.as_str()))
        .collect();
    if names.is_empty() {
        let recorded = record
            .map(|record| &record.interfaces)
            .into_iter()
            .flatten();
        names = recorded.map(|one| one.name.clone()).collect();
    }
    if names.is_empty() {
        // Not a gateway yet: what could become one.
        let candidates = links
            .iter()
            .filter(|link| !link.addresses.is_empty() && link.name != "lo");
        names = candidates.map(|link| link.name.clone()).collect();
    }
    for name in names {
        match links.iter().find(|link| link.name == name) {
            Some(link) => {
                let hooks = hooks.get(name.as_str()).copied().unwrap_or_default();
                reading.interfaces.push(interface(link, hooks));
            }
            None => reading.absent.push(name),
        }
    }
    if let (Some(gateway), Some(record)) = (&mut reading.gateway, record) {
        let (pods, more) = pods(record);
        gateway.pods_not_looked_at = more;
        gateway.pods = ways(&network, &links, pods).await;
    }
}

/// Pods that the kernel steers to, each address once.
fn pods(record: &Record) -> (BTreeMap<IpAddr, String>, usize) {
    let backends = record.plan.backends.values();
    let all: BTreeMap<IpAddr, String> = backends
        .map(|one| {
            (
                one.key.address.ip(),
                format!("{}/{}", one.key.cluster, one.pod),
            )
        })
        .collect();
    let more = all.len().saturating_sub(PODS);
    (all.into_iter().take(PODS).collect(), more)
}

async fn ways(
    network: &Network,
    links: &[Interface],
    pods: BTreeMap<IpAddr, String>,
) -> Vec<PodReading> {
    let paths = network.paths(pods.keys().copied()).await;
    let hops: BTreeSet<(u32, IpAddr)> = paths
        .found
        .values()
        .map(|path| (path.ifindex, path.neighbour))
        .collect();
    let answers = answers(network, &hops).await;
    pods.into_iter()
        .map(|(address, name)| PodReading {
            way: way(address, &paths, links, &answers),
            name,
            address,
        })
        .collect()
}

/// Next hops and whether they answer; one that was not asked is not in it.
type Answers = BTreeMap<(u32, IpAddr), bool>;

async fn answers(network: &Network, hops: &BTreeSet<(u32, IpAddr)>) -> Answers {
    let mut left: BTreeSet<(u32, IpAddr)> = hops.iter().take(PROBES).copied().collect();
    let mut answers = Answers::new();
    let give_up = tokio::time::Instant::now() + ANSWER;
    let mut probed = false;
    while !left.is_empty() {
        let Ok(known) = network.neighbours().await else {
            return answers;
        };
        for neighbour in known {
            let hop = (neighbour.ifindex, neighbour.address);
            if left.remove(&hop) {
                answers.insert(hop, true);
            }
        }
        if tokio::time::Instant::now() > give_up {
            break;
        }
        if !probed {
            network.probe(left.iter().copied()).await;
            probed = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
    answers.extend(left.into_iter().map(|hop| (hop, false)));
    answers
}

fn way(address: IpAddr, paths: &Paths, links: &[Interface], answers: &Answers) -> Way {
    if paths.unknown.contains(&address) {
        return Way::Unknown;
    }
    let Some(path) = paths.found.get(&address) else {
        return Way::None;
    };
    let link = links.iter().find(|link| link.index == path.ifindex);
    Way::Hop {
        interface: link.map_or_else(|| path.ifindex.to_string(), |link| link.name.clone()),
        mtu: link.map_or(0, |link| link.mtu),
        neighbour: path.neighbour,
        answers: answers.get(&(path.ifindex, path.neighbour)).copied(),
    }
}

fn interface(link: &Interface, hooks: &str) -> InterfaceReading {
    // A `.` in a name is a `/` for sysctl(8), but the files below /proc/sys are named as the interface is.
    let setting = |key: &str| number(&format!("/proc/sys/net/ipv4/conf/{}/{key}", link.name));
    InterfaceReading {
        name: link.name.clone(),
        up: link.up,
        mtu: link.mtu,
        kind: link.kind.clone(),
        driver: ethtool(&["-i", &link.name]).and_then(|text| field(&text, "driver")),
        rp_filter: setting("rp_filter"),
        forwarding: setting("forwarding").map(|n| n != 0),
        offloads: ethtool(&["-k", &link.name]).map(|text| switched_on(&text)),
        hooks: hooks.to_owned(),
    }
}

fn ethtool(arguments: &[&str]) -> Option<String> {
    run("ethtool", arguments)
}

/// Output of a program that is installed and content.
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let places = ["", "/usr/sbin/", "/sbin/"];
    let out = places.iter().find_map(|place| {
        Command::new(format!("{place}{program}"))
            .args(arguments)
            .output()
            .ok()
    })?;
    let text = out.status.success().then_some(out.stdout)?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Value of a line `key: value`.
fn field(text: &str, key: &str) -> Option<String> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
}

/// Names of the features that `ethtool -k` shows as on.
fn switched_on(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().split_once(": "))
        .filter(|(_, state)| state.starts_with("on"))
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn number(path: &str) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// `CapEff` of `/proc/self/status` (proc(5)), hexadecimal.
fn capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    u64::from_str_radix(&field(&status, "CapEff")?, 16).ok()
}

/// The smallest `memory.max` from the cgroup (version 2) upwards, of the agent if it runs, else ours.
fn memory_limit(agent: Option<&Record>) -> Option<u64> {
    let process = agent.map_or_else(|| "self".to_owned(), |record| record.pid.to_string());
    let text = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    root.join("cgroup.controllers").exists().then_some(())?;
    let own = root.join(path);
    let limits = own
        .ancestors()
        .take_while(|dir| dir.starts_with(root))
        .filter_map(|dir| {
            let text = fs::read_to_string(dir.join("memory.max")).ok()?;
            text.trim().parse().ok()
        });
    Some(limits.min().unwrap_or(u64::MAX))
}

fn filters() -> Filters {
    Filters {
        dropping: run("nft", &["list", "ruleset"]).map(|text| dropping(&text)),
        conntrack: number("/proc/sys/net/netfilter/nf_conntrack_count").is_some_and(|n| n > 0),
    }
}

/// Rules and policies of a ruleset that drop or reject.
fn dropping(ruleset: &str) -> usize {
    let words = |line: &str| -> bool {
        line.split([' ', ';', '\t'])
            .any(|word| matches!(word, "drop" | "reject"))
    };
    ruleset.lines().filter(|line| words(line)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ethtool_and_nft_print_is_read() {
        let text = "Features for eth0:\nrx-checksumming: on\nlarge-receive-offload: off [fixed]\nrx-gro-hw: on [fixed]\n";
        assert_eq!(switched_on(text), ["rx-checksumming", "rx-gro-hw"]);
        assert_eq!(
            field("driver: veth\nversion: 1\n", "driver").as_deref(),
            Some("veth")
        );
        assert_eq!(field("driver:\n", "driver"), None);
        let rules = "table ip filter {\n chain INPUT {\n  type filter hook input priority 0; policy drop;\n  \
                     tcp dport 22 accept\n  ip saddr 10.0.0.1 counter reject\n }\n}\n";
        assert_eq!(dropping(rules), 2);
    }

    #[test]
    fn this_machine_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let reading = read(
            &Pins::new(dir.path()),
            &["lo".to_owned(), "fg-none".to_owned()],
        );
        assert!(reading.version.is_some() && reading.capabilities.is_some());
        assert!(!reading.bpffs && reading.gateway.is_none());
        assert_eq!(reading.absent, ["fg-none"]);
        assert_eq!(reading.interfaces[0].name, "lo");
    }
}
