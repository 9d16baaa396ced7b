//! `fleetgate services`: listener addresses as the kernel knows them.

use std::collections::BTreeSet;

use gateway_common::{service::Service as Entry, service::mode, stats::Traffic};
use serde::Serialize;

use crate::{
    cli::{
        output::View,
        table::{Cell, Paint, Table, Tone},
        units,
    },
    dataplane::record::Record,
    ir::Affinity,
    metrics::Readings,
    plan::{self, Mode, ServiceAddr},
};

/// One element for each listener address.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct ServicesView(pub Vec<ServiceView>);

/// One listener address.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceView {
    /// `tcp/10.0.0.1:80`.
    pub address: String,
    /// Listener in the routing model; empty if the record does not know it.
    pub listener: String,
    /// Service behind it; empty for listeners of the proxy.
    pub service: String,
    /// Index of its statistics.
    pub id: u32,
    /// `connection` (kernel), `request` (proxy), `none` (the kernel has no entry) or `unknown`.
    pub mode: &'static str,
    /// Slots of its ring.
    pub ring_length: u32,
    /// Whether connections of one client stay together.
    pub affinity: Affinity,
    /// Counts replacements of the entry.
    pub epoch: u32,
    /// What it did so far.
    pub traffic: TrafficView,
    /// The record and the kernel's map say the same.
    pub agrees: bool,
}

/// Counters of a service or a backend.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TrafficView {
    /// Flows opened.
    pub flows_opened: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Frame bytes from clients.
    pub in_bytes: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Frame bytes to clients.
    pub out_bytes: u64,
}

impl From<Traffic> for TrafficView {
    fn from(traffic: Traffic) -> Self {
        Self {
            flows_opened: traffic.flows,
            in_packets: traffic.in_packets,
            in_bytes: traffic.in_bytes,
            out_packets: traffic.out_packets,
            out_bytes: traffic.out_bytes,
        }
    }
}

/// Joins the map with the record; what only one of them knows is shown too.
pub fn services(record: &Record, readings: &Readings) -> ServicesView {
    let planned = record.plan.services.keys();
    let addresses: BTreeSet<&ServiceAddr> = planned.chain(readings.services.keys()).collect();
    ServicesView(
        addresses
            .into_iter()
            .map(|address| {
                let planned = record.plan.services.get(address);
                let (entry, traffic) = readings.services.get(address).copied().unwrap_or_default();
                ServiceView {
                    address: address.to_string(),
                    listener: planned.map_or_else(String::new, |s| s.listener.clone()),
                    service: planned.map_or_else(String::new, |s| s.group.clone()),
                    id: entry.id,
                    mode: match entry.mode {
                        mode::NAT | mode::L4 => "connection",
                        mode::L7 => "request",
                        0 => "none",
                        _ => "unknown",
                    },
                    ring_length: entry.ring_len,
                    affinity: match entry.affinity {
                        0 => Affinity::None,
                        _ => Affinity::ClientIp,
                    },
                    epoch: entry.epoch,
                    traffic: traffic.into(),
                    agrees: planned.is_some_and(|planned| agrees(planned, &entry)),
                }
            })
            .collect(),
    )
}

fn agrees(planned: &plan::Service, entry: &Entry) -> bool {
    let nat = if planned.l4 { mode::L4 } else { mode::NAT };
    let steering = match &planned.mode {
        Mode::Connection(ring) => {
            entry.mode == nat
                && entry.ring_off == ring.region.offset
                && entry.ring_len == ring.region.len
                && (entry.affinity != 0) == planned.client_affinity
        }
        Mode::Request => entry.mode == mode::L7,
        Mode::Empty => entry.mode == nat && entry.ring_len == 0,
    };
    steering && entry.id == planned.id && entry.epoch == planned.epoch
}

impl View for ServicesView {
    fn text(&self, paint: Paint) -> String {
        if self.0.is_empty() {
            return "no listener addresses\n".to_owned();
        }
        let mut table = Table::new(&[
            "ADDRESS", "LISTENER", "SERVICE", "MODE", "ID>", "RING>", "AFFINITY", "EPOCH>",
            "OPENED>", "IN>", "BYTES>", "OUT>", "BYTES>", "RECORD",
        ]);
        for service in &self.0 {
            let traffic = service.traffic;
            table.row([
                service.address.as_str().into(),
                super::or_dash(service.listener.clone()).into(),
                super::or_dash(service.service.clone()).into(),
                service.mode.into(),
                service.id.to_string().into(),
                units::count(u64::from(service.ring_length)).into(),
                match service.affinity {
                    Affinity::None => "none",
                    Affinity::ClientIp => "client-ip",
                }
                .into(),
                service.epoch.to_string().into(),
                units::count(traffic.flows_opened).into(),
                units::count(traffic.in_packets).into(),
                units::bytes(traffic.in_bytes).into(),
                units::count(traffic.out_packets).into(),
                units::bytes(traffic.out_bytes).into(),
                if service.agrees {
                    Cell::toned(Tone::Good, "agrees")
                } else {
                    Cell::toned(Tone::Bad, "differs")
                },
            ]);
        }
        table.render(paint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::views::sample;

    #[test]
    fn the_table_joins_the_kernels_entry_with_the_name() {
        let text = services(&sample::record(), &sample::readings()).text(Paint::Plain);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "ADDRESS            LISTENER        SERVICE      MODE        ID   RING  AFFINITY  EPOCH  OPENED     IN    BYTES  OUT    BYTES  RECORD",
                "tcp/10.0.0.1:80    demo:80/HTTP    demo/web:80  connection   1  1 021  none          3       5  1 000  2.0 KiB  900  1.0 MiB  agrees",
                "tcp/10.0.0.1:8080  demo:8080/HTTP  -            request      2      0  none          1       0      0      0 B    0      0 B  agrees",
            ]
        );
    }

    #[test]
    fn an_entry_that_the_record_does_not_know_is_shown_and_differs() {
        let mut record = sample::record();
        record.plan.services.clear();
        let view = services(&record, &sample::readings());
        assert_eq!(view.0.len(), 2);
        assert!(view.0.iter().all(|s| !s.agrees && s.listener.is_empty()));
    }

    #[test]
    fn a_planned_listener_that_the_kernel_lacks_differs() {
        let mut readings = sample::readings();
        readings.services.clear();
        let view = services(&sample::record(), &readings);
        assert!(view.0.iter().all(|s| !s.agrees && s.mode == "none"));
    }
}
