//! Established connections whose flows must outlive the agent: what the client's kernel says beside `fleetgate flows`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::agent::{self, Flow};
use crate::{lab::topology, netns};

/// Everything known at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Established connections of the client, as `(its own address, peer)`.
    sockets: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Flows, by the same two addresses.
    flows: BTreeMap<(SocketAddr, SocketAddr), Flow>,
}

/// What became of the connections to one listener.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Survivors {
    /// Established connections of the client before.
    pub connections: usize,
    /// Those that are established still, with both directions of their flow known before and after, and the same pod,
    /// pod address and source port as before.
    pub kept: usize,
    /// What happened to each of the others, as sentences.
    pub lost: Vec<String>,
}

/// Looks at the client's connections and at the agent's flows now.
pub fn look() -> Result<Snapshot> {
    let table = netns::inside(topology::CLIENT, || {
        fs::read_to_string("/proc/thread-self/net/tcp")
    })?
    .context("cannot read the client's connections")?;
    let flows = agent::flows()?
        .into_iter()
        .map(|flow| ((flow.client, flow.service), flow));
    Ok(Snapshot {
        sockets: table.lines().filter_map(established).collect(),
        flows: flows.collect(),
    })
}

impl Snapshot {
    /// How many flows there are, in whatever state.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }
}

/// Follows the connections to a listener from one moment to a later one.
pub fn follow(listener: SocketAddr, before: &Snapshot, after: &Snapshot) -> Survivors {
    let mut found = Survivors::default();
    for key in before.sockets.iter().filter(|(_, peer)| *peer == listener) {
        found.connections += 1;
        match fate(key, before, after) {
            Ok(()) => found.kept += 1,
            Err(why) => found.lost.push(format!("{} -> {listener} {why}", key.0)),
        }
    }
    found
}

fn fate(key: &(SocketAddr, SocketAddr), before: &Snapshot, after: &Snapshot) -> Result<(), String> {
    let whole = |flows: &BTreeMap<_, Flow>, when: &str| match flows.get(key) {
        Some(flow) if flow.complete => Ok(flow.clone()),
        Some(_) => Err(format!("had one direction only {when}")),
        None => Err(format!("had no flow {when}")),
    };
    let old = whole(&before.flows, "before")?;
    let new = whole(&after.flows, "afterwards")?;
    if (old.backend, old.source, &old.cluster, &old.pod)
        != (new.backend, new.source, &new.cluster, &new.pod)
    {
        return Err(format!("went from {old} to {new}"));
    }
    if !after.sockets.contains(key) {
        return Err("is no longer established at the client".into());
    }
    Ok(())
}

/// A line of `/proc/net/tcp` (proc(5)), if it is an established connection.
fn established(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, peer, state) = (fields.next()?, fields.next()?, fields.next()?);
    // include/net/tcp_states.h: TCP_ESTABLISHED is 1.
    (state == "01").then_some((address(local)?, address(peer)?))
}

/// `0100007F:1F90`: the address is the big-endian number in memory printed as a native one, the port is plain.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    Some((ip, u16::from_str_radix(port, 16).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTENER: &str = "10.210.0.1:8001";

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn flow(port: u16) -> Flow {
        Flow {
            client: (topology::CLIENT_ADDRESS, port).into(),
            service: at(LISTENER),
            source: at("10.210.0.1:20000"),
            backend: at("10.221.1.11:8080"),
            cluster: "c1".into(),
            pod: "c1-p1".into(),
            complete: true,
        }
    }

    fn snapshot(flows: &[Flow]) -> Snapshot {
        let keyed = flows.iter().map(|f| ((f.client, f.service), f.clone()));
        Snapshot {
            sockets: flows.iter().map(|f| (f.client, f.service)).collect(),
            flows: keyed.collect(),
        }
    }

    /// Two connections before, the second with this flow afterwards.
    fn second_becomes(flow_after: &[Flow]) -> Survivors {
        let before = snapshot(&[flow(1), flow(2)]);
        let mut after = snapshot(&[flow(1)]);
        after.sockets = before.sockets.clone();
        after.flows.extend(
            flow_after
                .iter()
                .map(|f| ((f.client, f.service), f.clone())),
        );
        follow(at(LISTENER), &before, &after)
    }

    #[test]
    fn connections_with_the_same_pod_and_source_port_are_kept() {
        let found = second_becomes(&[flow(2)]);
        assert_eq!((found.connections, found.kept), (2, 2));
        assert!(found.lost.is_empty());
    }

    #[test]
    fn a_flow_that_is_gone_or_half_or_elsewhere_is_lost() {
        let half = Flow {
            complete: false,
            ..flow(2)
        };
        let moved = Flow {
            backend: at("10.221.1.12:8080"),
            ..flow(2)
        };
        let renumbered = Flow {
            source: at("10.210.0.1:20001"),
            ..flow(2)
        };
        let disowned = Flow {
            pod: String::new(),
            ..flow(2)
        };
        for after in [
            vec![],
            vec![half],
            vec![moved],
            vec![renumbered],
            vec![disowned],
        ] {
            let found = second_becomes(&after);
            assert_eq!((found.connections, found.kept), (2, 1), "{after:?}");
            assert!(found.lost[0].contains("10.210.0.2:2 "), "{found:?}");
        }
    }

    #[test]
    fn a_connection_the_client_no_longer_has_is_lost_though_its_flow_is_there() {
        let before = snapshot(&[flow(1)]);
        let mut after = before.clone();
        after.sockets.clear();
        assert_eq!(follow(at(LISTENER), &before, &after).kept, 0);
    }

    #[test]
    fn connections_to_other_listeners_are_not_counted() {
        let both = snapshot(&[flow(1)]);
        assert_eq!(follow(at("10.210.0.1:5201"), &both, &both).connections, 0);
    }

    #[test]
    fn only_established_lines_of_the_kernels_table_are_read() {
        let line = |state: &str| {
            let ip = |text: &str| {
                let ip: Ipv4Addr = text.parse().expect("an address");
                format!("{:08X}", u32::from_ne_bytes(ip.octets()))
            };
            let (local, peer) = (ip("10.210.0.2"), ip("10.210.0.1"));
            format!("   0: {local}:1F90 {peer}:1F41 {state} 00000000:00000000 00:00000000")
        };
        assert_eq!(
            established(&line("01")),
            Some((at("10.210.0.2:8080"), at("10.210.0.1:8001")))
        );
        assert_eq!(established(&line("06")), None);
        assert_eq!(
            established("  sl  local_address rem_address   st tx_queue"),
            None
        );
    }
}
