//! Checks of interfaces, of the ways to pods, and of what else stands in the way of packets.

use std::collections::BTreeSet;

use super::{Finding, GatewayReading, InterfaceReading, PodReading, Reading, Way, judge::names};

/// Drivers known to have native XDP.
const NATIVE: [&str; 17] = [
    "atlantic",
    "bnxt_en",
    "dpaa2-eth",
    "ena",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mlx4_en",
    "mlx5_core",
    "nfp",
    "qede",
    "virtio_net",
];
/// Offloads that merge packets before XDP sees them.
const MERGING: [&str; 2] = ["large-receive-offload", "rx-gro-hw"];

pub(super) fn judge(reading: &Reading) -> Vec<Finding> {
    let mut findings = vec![forwarding(reading)];
    for name in &reading.absent {
        findings.push(Finding::fail(
            format!("interface {name}"),
            "there is no such interface",
            "name another one, or wait for it: the agent attaches when it is back",
        ));
    }
    for interface in &reading.interfaces {
        findings.extend([
            link(interface),
            reverse_path(reading, interface),
            xdp(interface),
            offloads(interface),
        ]);
    }
    findings.push(netfilter(reading));
    match &reading.gateway {
        None => findings.push(Finding::ok(
            "gateway",
            "nothing is pinned: no agent has run yet",
        )),
        Some(gateway) => {
            findings.extend([agent(gateway), links(reading, gateway)]);
            findings.push(ports(reading, gateway));
            findings.extend(ways(reading, gateway));
        }
    }
    findings
}

fn forwarding(reading: &Reading) -> Finding {
    let check = "ip_forward";
    let off: Vec<&str> = reading
        .interfaces
        .iter()
        .filter(|one| one.forwarding == Some(false))
        .map(|one| one.name.as_str())
        .collect();
    match (reading.ip_forward, off.is_empty()) {
        (None, _) => Finding::unknown(check, "net.ipv4.ip_forward cannot be read"),
        (Some(true), true) => Finding::ok(check, "net.ipv4.ip_forward = 1"),
        (Some(on), _) => Finding::warn(
            check,
            if on {
                format!("forwarding is off on {}", off.join(", "))
            } else {
                "net.ipv4.ip_forward = 0".to_owned()
            },
            "sysctl -w net.ipv4.ip_forward=1; without it packets that come before a next hop is known are dropped \
             (no_route)",
        ),
    }
}

fn link(interface: &InterfaceReading) -> Finding {
    let InterfaceReading { name, mtu, up, .. } = interface;
    let check = format!("interface {name}");
    if *up {
        return Finding::ok(check, format!("up, MTU {mtu}"));
    }
    Finding::fail(check, "it is down", format!("ip link set {name} up"))
}

/// The larger of the two values counts (ip-sysctl, `rp_filter`).
fn reverse_path(reading: &Reading, interface: &InterfaceReading) -> Finding {
    let name = &interface.name;
    let check = format!("rp_filter {name}");
    let (Some(all), Some(own)) = (reading.rp_filter, interface.rp_filter) else {
        return Finding::unknown(check, "net.ipv4.conf.*.rp_filter cannot be read");
    };
    if all.max(own) != 1 {
        return Finding::ok(check, format!("{} (0 off, 2 loose)", all.max(own)));
    }
    let key = if all == 1 { "all" } else { name };
    Finding::warn(
        check,
        format!(
            "strict (net.ipv4.conf.{key}.rp_filter = 1): what the proxy or the stack serves is dropped where packets \
                 do not come in by the route back"
        ),
        format!("sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.{name}.rp_filter=2"),
    )
}

fn xdp(interface: &InterfaceReading) -> Finding {
    let InterfaceReading { name, hooks, .. } = interface;
    let check = format!("xdp {name}");
    if hooks.contains("xdp generic") {
        return Finding::warn(
            check,
            format!("{hooks}: XDP in the stack is slower than TC"),
            "run the agent with --xdp auto",
        );
    }
    match (&interface.kind, &interface.driver) {
        (Some(kind), _) if hooks.contains("xdp native") => Finding::warn(
            check,
            format!(
                "{hooks} on {kind}, a virtual link: frames with partial checksums lose them when XDP sends them on"
            ),
            "run the agent with --xdp auto, or turn checksum offload off at every sender behind it (ethtool -K DEV tx off)",
        ),
        (Some(kind), _) => Finding::ok(check, format!("{kind}, a virtual link: TC alone is right")),
        (None, _) if hooks.contains("xdp native") => Finding::ok(check, hooks.clone()),
        (None, Some(driver)) if NATIVE.contains(&driver.as_str()) && !hooks.is_empty() => {
            Finding::warn(
                check,
                format!("{driver} has native XDP, attached is {hooks}"),
                "see `fleetgate status` for why; often the MTU or the number of queues (ethtool -L)",
            )
        }
        (None, Some(driver)) if NATIVE.contains(&driver.as_str()) => {
            Finding::ok(check, format!("{driver} has native XDP"))
        }
        (None, Some(driver)) => Finding::unknown(
            check,
            format!("whether {driver} has native XDP shows when the agent attaches"),
        ),
        (None, None) => Finding::unknown(check, "the driver is unknown (ethtool tells it)"),
    }
}

fn offloads(interface: &InterfaceReading) -> Finding {
    let name = &interface.name;
    let check = format!("offloads {name}");
    let Some(on) = &interface.offloads else {
        return Finding::unknown(
            check,
            "ethtool is not installed, or does not know the interface",
        );
    };
    let merging: Vec<&str> = MERGING
        .into_iter()
        .filter(|one| on.iter().any(|on| on == one))
        .collect();
    if merging.is_empty() || interface.kind.is_some() {
        return Finding::ok(check, "none that merges packets before XDP");
    }
    Finding::warn(
        check,
        format!(
            "{} on: with XDP packets are merged before it, or the driver refuses it",
            merging.join(", ")
        ),
        format!("ethtool -K {name} lro off rx-gro-hw off"),
    )
}

fn netfilter(reading: &Reading) -> Finding {
    let check = "netfilter";
    let tracked = if reading.filters.conntrack {
        "; connections are tracked"
    } else {
        ""
    };
    match reading.filters.dropping {
        None => Finding::unknown(check, format!("rules cannot be listed (nft){tracked}")),
        Some(0) => Finding::ok(check, format!("no rule drops or rejects{tracked}")),
        Some(count) => Finding::warn(
            check,
            format!("{count} rules or policies drop or reject{tracked}"),
            "what the kernel steers passes before netfilter; see that clients reach listeners of the proxy, and the proxy \
             its pods (nft list ruleset)",
        ),
    }
}

fn agent(gateway: &GatewayReading) -> Finding {
    if let Some(why) = &gateway.unreadable {
        return Finding::fail(
            "gateway",
            why.clone(),
            "see the message; `fleetgate unload` clears the pins",
        );
    }
    if gateway.alive {
        return Finding::ok("gateway", "the agent runs");
    }
    Finding::warn(
        "gateway",
        "no agent runs: the kernel steers on as last configured, requests are refused",
        "start it: fleetgate run",
    )
}

fn links(reading: &Reading, gateway: &GatewayReading) -> Finding {
    let missing: Vec<String> = reading
        .interfaces
        .iter()
        .filter(|one| one.hooks.ends_with("tcx"))
        .map(|one| format!("tc-{}", one.name))
        .chain(gateway.unreadable.is_none().then(|| "sk_lookup".to_owned()))
        .filter(|link| !gateway.links.contains(link))
        .collect();
    if missing.is_empty() {
        return Finding::ok("links", format!("{} pinned", gateway.links.len()));
    }
    Finding::fail(
        "links",
        format!("not pinned: {}", missing.join(", ")),
        "restart the agent, which attaches anew",
    )
}

fn ports(reading: &Reading, gateway: &GatewayReading) -> Finding {
    let check = "ports";
    let (first, count) = gateway.node_ports;
    if count == 0 {
        return Finding::ok(check, "a pool of its own: no port of the node is used");
    }
    let last = first.saturating_add(count - 1);
    let Some(text) = &reading.reserved_ports else {
        return Finding::unknown(check, "net.ipv4.ip_local_reserved_ports cannot be read");
    };
    let covered = text.trim().split(',').any(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u16>().ok();
        number(from)
            .zip(number(to))
            .is_some_and(|(from, to)| from <= first && to >= last)
    });
    if covered {
        return Finding::ok(check, format!("{first}-{last} are reserved"));
    }
    Finding::fail(
        check,
        format!(
            "{first}-{last} are not reserved any more (net.ipv4.ip_local_reserved_ports): connections of the node may \
                 take the ports of flows"
        ),
        "restart the agent, and keep sysctl.d from setting this key",
    )
}

fn ways(reading: &Reading, gateway: &GatewayReading) -> Vec<Finding> {
    let pods = &gateway.pods;
    let mut findings = vec![routes(gateway), neighbours(pods)];
    let ours: BTreeSet<&str> = reading
        .interfaces
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    let hop = |pod: &PodReading| match &pod.way {
        Way::Hop { interface, mtu, .. } => Some((interface.clone(), *mtu)),
        _ => None,
    };
    let hops: BTreeSet<(String, u32)> = pods.iter().filter_map(hop).collect();
    let elsewhere: Vec<&str> = hops
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| !ours.contains(name))
        .collect();
    findings.push(if elsewhere.is_empty() {
        Finding::ok(
            "ways",
            "every pod is reached by an interface of the gateway",
        )
    } else {
        Finding::warn(
            "ways",
            format!(
                "pods are reached by {}, where no program sees their answers",
                elsewhere.join(", ")
            ),
            format!(
                "run the agent with --interface {} too",
                elsewhere.join(" --interface ")
            ),
        )
    });
    findings.push(mtu(reading, &hops));
    findings
}

fn routes(gateway: &GatewayReading) -> Finding {
    let without = gateway.pods.iter().filter(|pod| pod.way == Way::None);
    let without: Vec<String> = without
        .map(|pod| format!("{} ({})", pod.name, pod.address))
        .collect();
    let unknown = gateway
        .pods
        .iter()
        .filter(|pod| pod.way == Way::Unknown)
        .count();
    if !without.is_empty() {
        return Finding::fail(
            "routes",
            format!(
                "no route to {} pods: {}",
                without.len(),
                names(without.iter().map(String::as_str))
            ),
            "ip route add POD-NETWORK via NODE (and the way back, from the pods' nodes)",
        );
    }
    let more = match gateway.pods_not_looked_at {
        0 => String::new(),
        more => format!("; {more} more were not looked at"),
    };
    if unknown > 0 {
        return Finding::unknown(
            "routes",
            format!("the kernel did not answer about {unknown} pods"),
        );
    }
    Finding::ok(
        "routes",
        format!("a route to each of {} pods{more}", gateway.pods.len()),
    )
}

fn neighbours(pods: &[PodReading]) -> Finding {
    let mut silent: BTreeSet<String> = BTreeSet::new();
    let (mut known, mut unknown) = (0, 0);
    for pod in pods {
        if let Way::Hop {
            interface,
            neighbour,
            answers,
            ..
        } = &pod.way
        {
            match answers {
                Some(true) => known += 1,
                Some(false) => drop(silent.insert(format!("{neighbour} on {interface}"))),
                None => unknown += 1,
            }
        }
    }
    if !silent.is_empty() {
        return Finding::fail(
            "neighbours",
            format!(
                "no answer from {}",
                names(silent.iter().map(String::as_str))
            ),
            "see that the next hop is up and on that link (ip neigh, ip route get POD)",
        );
    }
    if unknown > 0 {
        return Finding::unknown(
            "neighbours",
            format!("the next hops of {unknown} pods were not found out"),
        );
    }
    Finding::ok(
        "neighbours",
        format!("the next hops of {known} pods are known"),
    )
}

fn mtu(reading: &Reading, hops: &BTreeSet<(String, u32)>) -> Finding {
    let Some(clients) = reading.interfaces.first() else {
        return Finding::unknown("mtu", "no interface of the gateway was read");
    };
    let narrow: Vec<String> = hops
        .iter()
        .filter(|(_, mtu)| *mtu != 0 && *mtu < clients.mtu)
        .map(|(name, mtu)| format!("{name} ({mtu})"))
        .collect();
    if narrow.is_empty() {
        return Finding::ok(
            "mtu",
            format!(
                "{} of {} fits the ways to the pods",
                clients.mtu, clients.name
            ),
        );
    }
    Finding::warn(
        "mtu",
        format!(
            "{} takes packets of {} bytes, the way to pods fewer: {}",
            clients.name,
            clients.mtu,
            narrow.join(", ")
        ),
        "raise the MTU towards the pods, or lower the clients' side; connections agree on a size, datagrams do not",
    )
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
