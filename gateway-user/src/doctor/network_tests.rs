//! Every check of the network, good and bad.

use super::*;
use crate::doctor::{Filters, Verdict};

fn interface(name: &str) -> InterfaceReading {
    InterfaceReading {
        name: name.into(),
        up: true,
        mtu: 1500,
        driver: Some("mlx5_core".into()),
        rp_filter: Some(0),
        forwarding: Some(true),
        offloads: Some(vec!["generic-receive-offload".into()]),
        hooks: "xdp native + tcx".into(),
        ..InterfaceReading::default()
    }
}

fn pod(name: &str, way: Way) -> PodReading {
    PodReading {
        name: name.into(),
        address: [10, 0, 0, 1].into(),
        way,
    }
}

fn hop(interface: &str, mtu: u32, answers: Option<bool>) -> Way {
    Way::Hop {
        interface: interface.into(),
        mtu,
        neighbour: [10, 0, 0, 9].into(),
        answers,
    }
}

fn good() -> Reading {
    Reading {
        ip_forward: Some(true),
        rp_filter: Some(0),
        reserved_ports: Some("8080,10000-29999\n".into()),
        interfaces: vec![interface("eth0"), interface("eth1")],
        filters: Filters {
            dropping: Some(0),
            conntrack: false,
        },
        gateway: Some(GatewayReading {
            alive: true,
            links: ["sk_lookup", "tc-eth0", "tc-eth1"]
                .map(str::to_owned)
                .to_vec(),
            node_ports: (10_000, 20_000),
            pods: vec![pod("c1/a", hop("eth1", 1500, Some(true)))],
            ..GatewayReading::default()
        }),
        ..Reading::default()
    }
}

/// The one check that is not fine.
fn only(reading: &Reading) -> Finding {
    let mut all = judge(reading);
    all.retain(|one| one.verdict != Verdict::Ok);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

fn with_pods(pods: Vec<PodReading>) -> Reading {
    let mut reading = good();
    if let Some(gateway) = &mut reading.gateway {
        gateway.pods = pods;
    }
    reading
}

#[test]
fn a_good_node_has_nothing_to_mend_with_and_without_a_gateway() {
    let all = judge(&good());
    assert!(all.iter().all(|one| one.verdict == Verdict::Ok), "{all:#?}");
    let mut fresh = good();
    fresh.gateway = None;
    assert!(judge(&fresh).iter().all(|one| one.verdict == Verdict::Ok));
}

#[test]
fn strict_reverse_path_filtering_is_named_whichever_key_sets_it() {
    let mut reading = good();
    reading.interfaces[1].rp_filter = Some(1);
    let finding = only(&reading);
    assert_eq!(
        (finding.check.as_str(), finding.verdict),
        ("rp_filter eth1", Verdict::Warn)
    );
    assert!(finding.remedy.contains("eth1.rp_filter=2"), "{finding:?}");
    // Loose for all makes the strict one loose: the larger counts.
    reading.rp_filter = Some(2);
    assert!(judge(&reading).iter().all(|one| one.verdict == Verdict::Ok));
}

#[test]
fn pods_without_a_route_or_a_next_hop_that_answers_fail() {
    let all = (0..7)
        .map(|n| pod(&format!("c1/p{n}"), Way::None))
        .collect();
    let finding = only(&with_pods(all));
    assert_eq!(
        (finding.check.as_str(), finding.verdict),
        ("routes", Verdict::Fail)
    );
    assert!(
        finding.read.contains("7 pods") && finding.read.ends_with("and 2 more"),
        "{finding:?}"
    );
    let finding = only(&with_pods(vec![pod(
        "c1/a",
        hop("eth1", 1500, Some(false)),
    )]));
    assert_eq!(
        (finding.check.as_str(), finding.verdict),
        ("neighbours", Verdict::Fail)
    );
    assert!(finding.read.contains("10.0.0.9 on eth1"), "{finding:?}");
    let finding = only(&with_pods(vec![pod("c1/a", Way::Unknown)]));
    assert_eq!(finding.verdict, Verdict::Unknown);
}

#[test]
fn pods_by_other_interfaces_and_by_narrow_ones_are_warned_of() {
    let finding = only(&with_pods(vec![pod("c1/a", hop("eth7", 1500, Some(true)))]));
    assert!(finding.remedy.contains("--interface eth7"), "{finding:?}");
    let finding = only(&with_pods(vec![pod("c1/a", hop("eth1", 1400, Some(true)))]));
    assert_eq!(finding.check, "mtu");
}

#[test]
fn reserved_ports_that_were_given_back_fail() {
    let mut reading = good();
    reading.reserved_ports = Some("10000-20000".into());
    assert_eq!(only(&reading).check, "ports");
    reading.reserved_ports = None;
    assert_eq!(only(&reading).verdict, Verdict::Unknown);
}

#[test]
fn links_and_interfaces_that_are_gone_fail() {
    let mut reading = good();
    if let Some(gateway) = &mut reading.gateway {
        gateway.links.retain(|link| link != "tc-eth1");
    }
    assert!(only(&reading).read.contains("tc-eth1"));
    let mut reading = good();
    reading.absent.push("eth9".into());
    assert_eq!(only(&reading).check, "interface eth9");
    let mut reading = good();
    reading.interfaces[0].up = false;
    assert_eq!(only(&reading).remedy, "ip link set eth0 up");
}

#[test]
fn xdp_and_offloads_are_judged_by_what_the_link_is() {
    let mut reading = good();
    reading.interfaces[0].offloads = Some(vec!["large-receive-offload".into()]);
    assert_eq!(only(&reading).check, "offloads eth0");
    reading = good();
    reading.interfaces[0].kind = Some("veth".into());
    assert!(only(&reading).read.contains("partial checksums"));
    reading.interfaces[0].hooks = "tcx".into();
    assert!(judge(&reading).iter().all(|one| one.verdict == Verdict::Ok));
    reading.interfaces[0].kind = None;
    assert!(only(&reading).read.contains("mlx5_core has native XDP"));
    reading.interfaces[0].hooks = "xdp generic + tcx".into();
    assert!(only(&reading).remedy.contains("--xdp auto"));
}

#[test]
fn forwarding_and_filters_are_told() {
    let mut reading = good();
    reading.ip_forward = Some(false);
    assert_eq!(only(&reading).check, "ip_forward");
    reading = good();
    reading.interfaces[1].forwarding = Some(false);
    assert!(only(&reading).read.contains("eth1"));
    reading = good();
    reading.filters.dropping = Some(2);
    assert_eq!(only(&reading).check, "netfilter");
}
