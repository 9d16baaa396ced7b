//! The picture for people.

use super::rates::{Rates, TopView};
use crate::cli::{
    output::View,
    table::{Cell, Paint, Table, Tone},
    units,
};

/// Rows of one table; JSON has all.
const ROWS: usize = 15;

impl View for TopView {
    fn text(&self, paint: Paint) -> String {
        let mut out = String::new();
        let mut listeners = Table::new(&[
            "LISTENER",
            "REQ/s>",
            "5xx/s>",
            "p50>",
            "p99>",
            "CONNS>",
            "OPENED/s>",
            "IN/s>",
            "OUT/s>",
        ]);
        listeners.row(row("all", &self.total));
        for it in self.listeners.iter().take(ROWS) {
            listeners.row(row(&it.listener, &it.rates));
        }
        out += &listeners.render(paint);
        more(&mut out, self.listeners.len(), paint);
        out += &format!(
            "\nto backends: {} opened/s, {} reused/s, {} retries/s\n",
            rate(self.upstream_opened_per_second),
            rate(self.upstream_reused_per_second),
            rate(self.retries_per_second),
        );
        let mut clusters = Table::new(&["CLUSTER", "RESPONSES/s>", "p50>", "p99>"]);
        for it in self.clusters.iter().take(ROWS) {
            clusters.row([
                it.cluster.as_str().into(),
                rate(it.responses_per_second).into(),
                time(it.p50_us).into(),
                time(it.p99_us).into(),
            ]);
        }
        part(&mut out, &clusters, self.clusters.len(), paint);
        let mut services = Table::new(&["SERVICE", "REQ/s>", "PODS BUSY>"]);
        for it in self.services.iter().take(ROWS) {
            services.row([
                it.service.as_str().into(),
                rate(it.requests_per_second).into(),
                it.backends.to_string().into(),
            ]);
        }
        part(&mut out, &services, self.services.len(), paint);
        let mut backends = Table::new(&["BACKEND", "CLUSTER", "SERVICE", "REQ/s>"]);
        for it in self.backends.iter().take(ROWS) {
            backends.row([
                it.backend.to_string().into(),
                it.cluster.as_str().into(),
                it.service.as_str().into(),
                rate(it.requests_per_second).into(),
            ]);
        }
        part(&mut out, &backends, self.backends.len(), paint);
        let mut reasons = Table::new(&["ANSWERED BY THE PROXY", "PER SECOND>"]);
        for it in &self.reasons {
            let per_second = Cell::toned(Tone::Bad, rate(it.per_second));
            reasons.row([it.reason.as_str().into(), per_second]);
        }
        part(&mut out, &reasons, 0, paint);
        out
    }
}

/// A table with its blank line, if it has rows.
fn part(out: &mut String, table: &Table, all: usize, paint: Paint) {
    if !table.is_empty() {
        out.push('\n');
        *out += &table.render(paint);
        more(out, all, paint);
    }
}

fn more(out: &mut String, all: usize, paint: Paint) {
    if all > ROWS {
        let text = format!("... and {} more", all - ROWS);
        *out += &paint.paint(Tone::Faint, &text);
        out.push('\n');
    }
}

fn row(name: &str, rates: &Rates) -> [Cell; 9] {
    let errors = rate(rates.errors_per_second);
    let bytes = |rate: f64| units::bytes(rate as u64).into();
    [
        name.into(),
        rate(rates.requests_per_second).into(),
        if rates.errors_per_second > 0.0 {
            Cell::toned(Tone::Bad, errors)
        } else {
            errors.into()
        },
        time(rates.p50_us).into(),
        time(rates.p99_us).into(),
        units::count(rates.active_connections).into(),
        rate(rates.connections_per_second).into(),
        bytes(rates.received_bytes_per_second),
        bytes(rates.sent_bytes_per_second),
    ]
}

/// Whole from ten on: no more digits are true of one interval.
fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 9.95 {
        format!("{rate:.1}")
    } else {
        units::count(rate.round() as u64)
    }
}

fn time(us: Option<f64>) -> String {
    us.map_or_else(|| "-".to_owned(), units::micros)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        cli::top::{rates::rates, reading::Reading},
        ir::{ClusterId, ServiceName},
        proxy::{
            BackendKey,
            latency::{Latencies, LatencySnapshot},
        },
    };

    fn key(cluster: &str, pod: &str) -> BackendKey {
        BackendKey {
            service: ServiceName {
                namespace: "shop".into(),
                name: "web".into(),
                port: "80".into(),
            },
            cluster: ClusterId::new(cluster).unwrap(),
            backend: pod.parse().unwrap(),
        }
    }

    fn readings() -> (Reading, Reading) {
        let worker = Latencies::default();
        let (demo, idle) = (
            worker.listener("demo:80/HTTP"),
            worker.listener("a:81/HTTP"),
        );
        demo.observe(200, Duration::from_secs(20));
        let before = Reading {
            requests: 1,
            backends: vec![(key("c1", "10.1.0.1:80"), 7)],
            latencies: LatencySnapshot::of([&worker]),
            ..Reading::default()
        };
        for _ in 0..98 {
            demo.observe(200, Duration::from_micros(800));
        }
        demo.observe(504, Duration::from_millis(70));
        demo.observe(504, Duration::from_millis(70));
        demo.active_connections.add(3);
        demo.sent_bytes.add(4096);
        idle.active_connections.add(1);
        worker.upstream("c1").observe(Duration::from_micros(700));
        let after = Reading {
            requests: 101,
            active_connections: 4,
            accepted_connections: 2,
            responses: [0, 98, 0, 0, 2],
            reasons: vec![("timeout".into(), 2), ("no-rule".into(), 0)],
            downstream_sent_bytes: 4096,
            upstream_opened: 1,
            upstream_reused: 99,
            backends: vec![
                (key("c1", "10.1.0.1:80"), 17),
                (key("c2", "10.2.0.1:80"), 90),
            ],
            latencies: LatencySnapshot::of([&worker]),
            ..Reading::default()
        };
        (before, after)
    }

    #[test]
    fn only_what_happened_in_the_interval_is_shown() {
        let (before, after) = readings();
        let text = rates(&before, &after, 2.0).text(Paint::Plain);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "LISTENER      REQ/s  5xx/s     p50      p99  CONNS  OPENED/s  IN/s    OUT/s",
                "all              50    1.0  755 us  75.0 ms      4       1.0   0 B  2.0 KiB",
                "demo:80/HTTP     50    1.0  755 us  75.0 ms      3         0   0 B  2.0 KiB",
                "a:81/HTTP         0      0       -        -      1         0   0 B      0 B",
                "",
                "to backends: 0.5 opened/s, 50 reused/s, 0 retries/s",
                "",
                "CLUSTER  RESPONSES/s     p50     p99",
                "c1               0.5  750 us  995 us",
                "",
                "SERVICE      REQ/s  PODS BUSY",
                "shop/web:80     50          2",
                "",
                "BACKEND      CLUSTER  SERVICE      REQ/s",
                "10.2.0.1:80  c2       shop/web:80     45",
                "10.1.0.1:80  c1       shop/web:80    5.0",
                "",
                "ANSWERED BY THE PROXY  PER SECOND",
                "timeout                       1.0",
            ]
        );
    }

    #[test]
    fn an_agent_that_began_anew_has_no_negative_rates() {
        let (before, after) = readings();
        let view = rates(&after, &before, 1.0);
        assert_eq!(view.total.requests_per_second, 0.0);
        assert!(
            view.listeners
                .iter()
                .all(|it| it.rates.errors_per_second == 0.0)
        );
    }

    #[test]
    fn a_snapshot_is_one_line_of_json() {
        let (before, after) = readings();
        let json = serde_json::to_string(&rates(&before, &after, 1.0)).unwrap();
        assert!(!json.contains('\n'));
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["listeners"][0]["listener"], "demo:80/HTTP");
        assert_eq!(read["listeners"][0]["errors_per_second"], 2.0);
    }
}
