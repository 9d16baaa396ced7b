//! `fleetgate backends`: pods as the kernel knows them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use gateway_common::{
    backend::{NextHop, state},
    stats::Traffic,
};
use serde::Serialize;

use super::services::TrafficView;
use crate::{
    cli::{
        live::{FlowCount, Rings, Slots},
        output::View,
        table::{Cell, Paint, Table, Tone},
        units,
    },
    dataplane::record::Record,
    ir::ClusterId,
    metrics::Readings,
};

/// One element for each backend, by id.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct BackendsView(pub Vec<BackendView>);

/// One backend.
#[derive(Clone, Debug, Serialize)]
pub struct BackendView {
    /// Index in the kernel's table.
    pub id: u32,
    /// Member cluster.
    pub cluster: String,
    /// Pod.
    pub pod: String,
    /// Pod address and port, as the kernel's table holds them.
    pub address: SocketAddr,
    /// `active`, `draining`, `down`, `quarantined`, or `none` if the kernel has no entry.
    pub state: &'static str,
    /// Why it is in that state, as far as it is not told by the objects: failed health checks, by Ingress.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
    /// Changes each time the id is given to another pod.
    pub generation: u16,
    /// Where its packets go; null if the kernel's own routing decides packet by packet.
    pub next_hop: Option<HopView>,
    /// Source addresses that it sees.
    pub sources: Vec<IpAddr>,
    /// Its part of the rings it is in.
    pub rings: Vec<RingShare>,
    /// Flows of it in the table now.
    pub live_flows: u64,
    /// What it did so far.
    pub traffic: TrafficView,
}

/// Layer 2 destination.
#[derive(Clone, Debug, Serialize)]
pub struct HopView {
    /// Interface name, or its number if the record has no name for it.
    pub interface: String,
    /// MAC address of the neighbour.
    pub mac: String,
}

/// Slots of one backend in one ring.
#[derive(Clone, Debug, Serialize)]
pub struct RingShare {
    /// `tcp/10.0.0.1:80`.
    pub service: String,
    /// Slots of this backend.
    pub slots: u32,
    /// Fraction of the ring, 0 to 1.
    pub share: f64,
}

/// Joins the kernel's table with the record, the rings and the flows.
pub fn backends(
    record: &Record,
    readings: &Readings,
    rings: &Rings,
    flows: &FlowCount,
) -> BackendsView {
    let mut failing: BTreeMap<(&ClusterId, SocketAddr), Vec<String>> = BTreeMap::new();
    for group in record.ir.groups.values() {
        let open = if group.is_open() {
            ", as do all its pods, so they serve"
        } else {
            ""
        };
        let (namespace, ingress) = (&group.name.namespace, &group.name.ingress);
        for it in &group.failing {
            let place = (&it.backend.cluster, it.backend.address);
            let why = format!("fails for {namespace}/{ingress}: {}{open}", it.why);
            failing.entry(place).or_default().push(why);
        }
    }
    let one = |(id, (entry, traffic)): (&u32, &(gateway_common::backend::Backend, Traffic))| {
        let known = super::backend(record, *id);
        BackendView {
            id: *id,
            cluster: known.map_or_else(String::new, |b| b.key.cluster.to_string()),
            pod: known.map_or_else(String::new, |b| b.pod.to_string()),
            address: SocketAddr::new(entry.addr.into(), entry.port.host()),
            state: state::NAMES.get(entry.state as usize).unwrap_or(&"?"),
            why: known
                .and_then(|it| failing.get(&(&it.key.cluster, it.key.address)))
                .cloned()
                .unwrap_or_default(),
            generation: entry.generation,
            next_hop: readings
                .hops
                .get(&entry.hop)
                .and_then(|hop| next_hop(record, hop)),
            sources: readings.source_addresses(entry),
            rings: rings
                .iter()
                .filter_map(|(service, slots)| {
                    let mine = *slots.get(id)?;
                    Some(RingShare {
                        service: service.to_string(),
                        slots: mine,
                        share: units::fraction(u64::from(mine), total(slots)),
                    })
                })
                .collect(),
            live_flows: flows.by_backend.get(id).copied().unwrap_or(0),
            traffic: (*traffic).into(),
        }
    };
    BackendsView(readings.backends.iter().map(one).collect())
}

fn total(slots: &Slots) -> u64 {
    slots.values().map(|n| u64::from(*n)).sum()
}

/// Names of a next hop; `None` if it is not resolved.
pub(in crate::cli) fn next_hop(record: &Record, hop: &NextHop) -> Option<HopView> {
    (hop.ifindex != 0).then(|| HopView {
        interface: record
            .interface_names
            .get(&hop.ifindex)
            .cloned()
            .unwrap_or_else(|| format!("#{}", hop.ifindex)),
        mac: hop.dmac.map(|byte| format!("{byte:02x}")).join(":"),
    })
}

impl View for BackendsView {
    fn text(&self, paint: Paint) -> String {
        if self.0.is_empty() {
            return "no backends in the kernel\n".to_owned();
        }
        let mut headings = vec![
            "ID>",
            "CLUSTER",
            "POD",
            "ADDRESS",
            "STATE",
            "GEN>",
            "NEXT HOP",
            "SEEN FROM",
            "RING",
            "SLOTS>",
            "SHARE>",
            "FLOWS>",
            "OPENED>",
            "IN>",
            "OUT>",
        ];
        if self.0.iter().any(|backend| !backend.why.is_empty()) {
            headings.push("WHY");
        }
        let mut table = Table::new(&headings);
        for backend in &self.0 {
            let traffic = backend.traffic;
            let first = backend.rings.first();
            table.row([
                backend.id.to_string().into(),
                super::or_dash(backend.cluster.clone()).into(),
                super::or_dash(backend.pod.clone()).into(),
                backend.address.to_string().into(),
                Cell::toned(tone(backend.state), backend.state),
                backend.generation.to_string().into(),
                match &backend.next_hop {
                    Some(hop) => format!("{} {}", hop.interface, hop.mac).into(),
                    None => Cell::toned(Tone::Warn, "unresolved"),
                },
                sources(&backend.sources).into(),
                first.map_or("-", |ring| ring.service.as_str()).into(),
                slots(first),
                share(first),
                units::count(backend.live_flows).into(),
                units::count(traffic.flows_opened).into(),
                units::bytes(traffic.in_bytes).into(),
                units::bytes(traffic.out_bytes).into(),
                Cell::toned(Tone::Bad, backend.why.join("; ")),
            ]);
            for ring in backend.rings.iter().skip(1) {
                let mut row: [Cell; 11] = Default::default();
                row[8] = ring.service.as_str().into();
                row[9] = slots(Some(ring));
                row[10] = share(Some(ring));
                table.row(row);
            }
        }
        table.render(paint)
    }
}

fn slots(ring: Option<&RingShare>) -> Cell {
    ring.map_or_else(Cell::default, |r| units::count(u64::from(r.slots)).into())
}

fn share(ring: Option<&RingShare>) -> Cell {
    ring.map_or_else(Cell::default, |r| units::percent(r.share).into())
}

fn sources(sources: &[IpAddr]) -> String {
    match sources {
        [] => "-".to_owned(),
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} +{}", rest.len()),
    }
}

fn tone(state: &str) -> Tone {
    match state {
        "active" => Tone::Good,
        "draining" => Tone::Warn,
        _ => Tone::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::views::sample;

    fn view() -> BackendsView {
        let flows = FlowCount::of(&sample::flows());
        backends(
            &sample::record(),
            &sample::readings(),
            &sample::rings(),
            &flows,
        )
    }

    #[test]
    fn each_pod_shows_its_way_its_share_and_its_flows() {
        let text = view().text(Paint::Plain);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "ID  CLUSTER  POD    ADDRESS      STATE     GEN  NEXT HOP                SEEN FROM    RING             SLOTS   SHARE  FLOWS  OPENED       IN      OUT",
                " 1  c1       web-a  10.1.0.1:80  active      1  eth0 02:00:00:00:00:01  10.9.0.1 +1  tcp/10.0.0.1:80    306  30.0 %      1       3  1.0 KiB  5.0 KiB",
                " 2  c1       web-b  10.1.0.2:80  active      1  unresolved              10.9.0.1 +1  tcp/10.0.0.1:80    306  30.0 %      0       0      0 B      0 B",
                " 3  c2       web-c  10.2.0.1:80  draining    2  unresolved              10.9.0.1 +1  tcp/10.0.0.1:80    409  40.1 %      1       0      0 B      0 B",
            ]
        );
    }

    #[test]
    fn shares_of_one_ring_add_up_to_one() {
        let sum: f64 = view()
            .0
            .iter()
            .flat_map(|b| &b.rings)
            .map(|r| r.share)
            .sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }
}
