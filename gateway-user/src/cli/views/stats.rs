//! `fleetgate stats`: counters.

use gateway_common::stats::Traffic;
use serde::Serialize;

use super::services::TrafficView;
use crate::{
    cli::{
        output::View,
        table::{Cell, Paint, Table, Tone},
        units,
    },
    dataplane::record::Record,
    metrics::Readings,
};

/// Counters since the maps were made.
#[derive(Clone, Debug, Serialize)]
pub struct StatsView {
    /// Packets that were not forwarded, by reason.
    pub reasons: Vec<ReasonView>,
    /// Forwarded traffic of all listener addresses.
    pub forwarded: TrafficView,
    /// By listener address.
    pub services: Vec<NamedTraffic>,
    /// By pod.
    pub backends: Vec<NamedTraffic>,
}

/// One reason.
#[derive(Clone, Debug, Serialize)]
pub struct ReasonView {
    /// As in metrics.
    pub reason: &'static str,
    /// Dropped; otherwise passed to the node's own stack.
    pub dropped: bool,
    /// Something was sent because of them: an answer, or their translation.
    pub answered: bool,
    /// Packets.
    pub packets: u64,
    /// Frame bytes.
    pub bytes: u64,
}

/// Traffic of something with a name.
#[derive(Clone, Debug, Serialize)]
pub struct NamedTraffic {
    /// `tcp/10.0.0.1:80`, or `cluster/pod`.
    pub name: String,
    /// Its traffic.
    #[serde(flatten)]
    pub traffic: TrafficView,
}

/// Sums and lists the counters.
pub fn stats(record: &Record, readings: &Readings) -> StatsView {
    let mut forwarded = Traffic::default();
    for (_, traffic) in readings.services.values() {
        forwarded += *traffic;
    }
    StatsView {
        reasons: readings
            .reasons
            .iter()
            .map(|(reason, count)| ReasonView {
                reason: reason.name(),
                dropped: reason.dropped(),
                answered: reason.answered(),
                packets: count.packets,
                bytes: count.bytes,
            })
            .collect(),
        forwarded: forwarded.into(),
        services: readings
            .services
            .iter()
            .map(|(address, (_, traffic))| NamedTraffic {
                name: address.to_string(),
                traffic: (*traffic).into(),
            })
            .collect(),
        backends: readings
            .backends
            .iter()
            .map(|(id, (_, traffic))| NamedTraffic {
                name: super::backend(record, *id).map_or_else(
                    || format!("#{id}"),
                    |b| format!("{}/{} {}", b.key.cluster, b.pod, b.key.address),
                ),
                traffic: (*traffic).into(),
            })
            .collect(),
    }
}

impl View for StatsView {
    fn text(&self, paint: Paint) -> String {
        let mut reasons = Table::new(&["REASON", "VERDICT", "PACKETS>", "BYTES>"]);
        for reason in &self.reasons {
            let verdict = match (reason.dropped, reason.packets) {
                _ if reason.answered => "answered".into(),
                (false, _) => "passed".into(),
                (true, 0) => "dropped".into(),
                (true, _) => Cell::toned(Tone::Bad, "dropped"),
            };
            reasons.row([
                reason.reason.into(),
                verdict,
                units::count(reason.packets).into(),
                units::bytes(reason.bytes).into(),
            ]);
        }
        let mut out = reasons.render(paint);
        let mut traffic = Table::new(&["FORWARDED", "OPENED>", "IN>", "BYTES>", "OUT>", "BYTES>"]);
        traffic.row(row("all listeners", &self.forwarded));
        for part in self.services.iter().chain(&self.backends) {
            traffic.row(row(&part.name, &part.traffic));
        }
        out.push('\n');
        out.push_str(&traffic.render(paint));
        out
    }
}

fn row(name: &str, traffic: &TrafficView) -> [Cell; 6] {
    [
        name.into(),
        units::count(traffic.flows_opened).into(),
        units::count(traffic.in_packets).into(),
        units::bytes(traffic.in_bytes).into(),
        units::count(traffic.out_packets).into(),
        units::bytes(traffic.out_bytes).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::views::sample;

    #[test]
    fn reasons_come_first_then_traffic_by_listener_and_pod() {
        let text = stats(&sample::record(), &sample::readings()).text(Paint::Plain);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "REASON      VERDICT  PACKETS    BYTES",
                "no_backend  dropped        4  4.0 KiB",
                "proxy       passed     1 500  1.0 MiB",
                "",
                "FORWARDED             OPENED     IN    BYTES  OUT    BYTES",
                "all listeners              5  1 000  2.0 KiB  900  1.0 MiB",
                "tcp/10.0.0.1:80            5  1 000  2.0 KiB  900  1.0 MiB",
                "tcp/10.0.0.1:8080          0      0      0 B    0      0 B",
                "c1/web-a 10.1.0.1:80       3     10  1.0 KiB   20  5.0 KiB",
                "c1/web-b 10.1.0.2:80       0      0      0 B    0      0 B",
                "c2/web-c 10.2.0.1:80       0      0      0 B    0      0 B",
            ]
        );
    }
}
