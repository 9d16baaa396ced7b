//! What a kernel that holds nothing would be given: services with their rings, by pod. Ids and slots are left out.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use gateway_user::{
    ir::Ir,
    plan::{self, BackendState, Inputs, Mode, Plan, Ring},
};

use super::line;

/// The node's only VIP.
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// What every pod sees.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));

pub(super) fn text(ir: &Ir) -> String {
    let inputs = Inputs {
        vips: &[VIP],
        pool: &[SOURCE],
        routes: &BTreeMap::new(),
        node_ports: (10_000, 20_000),
        busy: None,
    };
    let (plan, left_out) = plan::build(ir, &inputs, &Plan::default());
    let mut text = String::new();
    for (address, service) in &plan.services {
        let listener = &service.listener;
        match &service.mode {
            Mode::Request => line(
                &mut text,
                format_args!("plan {address} ({listener}) to the proxy"),
            ),
            Mode::Empty => line(
                &mut text,
                format_args!("plan {address} ({listener}) to nobody"),
            ),
            Mode::Connection(ring) => {
                let affinity = if service.client_affinity {
                    ", by client address"
                } else {
                    ""
                };
                line(
                    &mut text,
                    format_args!("plan {address} ({listener}) by a ring of{affinity}"),
                );
                members(&plan, ring, &mut text);
            }
        }
    }
    let draining = plan
        .backends
        .values()
        .filter(|it| it.state == BackendState::Draining);
    let draining: Vec<_> = draining
        .map(|it| format!("{}/{}", it.key.cluster, it.pod))
        .collect();
    if !draining.is_empty() {
        line(
            &mut text,
            format_args!("plan: no new flows to {}", draining.join(" ")),
        );
    }
    for what in left_out {
        line(&mut text, format_args!("plan leaves out {what}"));
    }
    text
}

fn members(plan: &Plan, ring: &Ring, text: &mut String) {
    let mut by_weight: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for member in ring.members.iter() {
        let pod = match plan.backends.get(&member.backend) {
            Some(backend) => format!("{}/{}", backend.key.cluster, backend.pod),
            None => format!("backend {} that is nowhere", member.backend),
        };
        by_weight.entry(member.weight).or_default().push(pod);
    }
    for (weight, mut pods) in by_weight.into_iter().rev() {
        pods.sort();
        line(text, format_args!("  {weight}: {}", pods.join(" ")));
    }
}
