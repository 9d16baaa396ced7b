//! Counters of the L7 proxy.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{Kind, family};
use crate::proxy::latency::{BOUNDS_US, HistogramSnapshot, LatencySnapshot};

/// What the proxy counted since the agent started.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ProxyCounters {
    /// Client connections taken.
    pub connections: u64,
    /// Client connections open now.
    pub active_connections: u64,
    /// Requests whose head was well-formed.
    pub requests: u64,
    /// Responses by class, 1xx to 5xx.
    pub responses: [u64; 5],
    /// Replies made by the proxy itself, by reason.
    pub failures: Vec<(&'static str, u64)>,
    /// Bytes read from clients.
    pub received_bytes: u64,
    /// Bytes written to clients.
    pub sent_bytes: u64,
    /// Connections opened to backends.
    pub upstream_connections: u64,
    /// Requests sent on a connection that was open already.
    pub upstream_reused: u64,
    /// Requests that were tried again.
    pub retries: u64,
    /// Connections that left HTTP for another protocol.
    pub upgrades: u64,
    /// Lines of the access log that were written, and that were lost.
    pub access_log_lines: (u64, u64),
    /// Spans of requests that a collector took, and that were lost.
    pub spans: (u64, u64),
    /// Durations, and what each listener carries.
    pub latencies: LatencySnapshot,
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl ProxyCounters {
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        use Kind::{Counter, Gauge};
        let single = [
            (
                Counter,
                "proxy_connections",
                "Client connections taken",
                self.connections,
            ),
            (
                Gauge,
                "proxy_active_connections",
                "Client connections open",
                self.active_connections,
            ),
            (
                Counter,
                "proxy_requests",
                "Requests with a well-formed head",
                self.requests,
            ),
            (
                Counter,
                "proxy_received_bytes",
                "Bytes read from clients",
                self.received_bytes,
            ),
            (
                Counter,
                "proxy_sent_bytes",
                "Bytes written to clients",
                self.sent_bytes,
            ),
            (
                Counter,
                "proxy_upstream_connections",
                "Connections opened to backends",
                self.upstream_connections,
            ),
            (
                Counter,
                "proxy_upstream_reused",
                "Requests sent on a connection that was open already",
                self.upstream_reused,
            ),
            (
                Counter,
                "proxy_retries",
                "Requests that were tried again",
                self.retries,
            ),
            (
                Counter,
                "proxy_upgrades",
                "Connections that left HTTP for another protocol",
                self.upgrades,
            ),
        ];
        for (kind, name, help, value) in single {
            family(encoder, kind, (name, help), [([], value)])?;
        }
        let classes = CLASSES.into_iter().zip(self.responses);
        family(
            encoder,
            Counter,
            ("proxy_responses", "Responses by class"),
            classes.map(|(class, count)| ([("class", class)], count)),
        )?;
        let failures = self.failures.iter();
        family(
            encoder,
            Counter,
            (
                "proxy_failures",
                "Requests that the proxy answered itself, by reason",
            ),
            failures.map(|(reason, count)| ([("reason", *reason)], *count)),
        )?;
        let (written, lost) = self.access_log_lines;
        family(
            encoder,
            Counter,
            (
                "proxy_access_log_lines",
                "Lines of the access log, by what became of them",
            ),
            [
                ([("outcome", "written")], written),
                ([("outcome", "lost")], lost),
            ],
        )?;
        let (sent, lost) = self.spans;
        family(
            encoder,
            Counter,
            (
                "proxy_spans",
                "Recorded spans of requests, by what became of them",
            ),
            [([("outcome", "sent")], sent), ([("outcome", "lost")], lost)],
        )?;
        self.durations(encoder)
    }

    /// Series that nothing was observed of are left out.
    fn durations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let listeners = self.latencies.listeners.iter();
        let requests = listeners.flat_map(|(listener, it)| {
            let classes = CLASSES.into_iter().zip(&it.durations);
            classes.map(move |(code, durations)| {
                ([("listener", listener.as_str()), ("code", code)], durations)
            })
        });
        histograms(
            encoder,
            (
                "proxy_request_duration_seconds",
                "From the first byte of a request to the last of its response",
            ),
            requests,
        )?;
        let upstreams = self.latencies.upstreams.iter();
        histograms(
            encoder,
            (
                "proxy_upstream_response_seconds",
                "From a request sent to the first byte of the response, by member cluster",
            ),
            upstreams.map(|(cluster, it)| ([("cluster", cluster.as_str())], it)),
        )
    }
}

fn histograms<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    all: impl Iterator<Item = ([(&'static str, &'a str); N], &'a HistogramSnapshot)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, it) in all.filter(|(_, it)| it.count() > 0) {
        let bounds = BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6);
        let bounds = bounds.chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(it.buckets).collect();
        metric
            .encode_family(&labels)?
            .encode_histogram::<NoLabelSet>(it.sum_us as f64 / 1e6, it.count(), &buckets, None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{
        metrics::{Metrics, ProxyCounters, Scrape},
        proxy::latency::{Latencies, LatencySnapshot},
    };

    #[test]
    fn durations_are_shown_by_listener_and_class_and_by_cluster() {
        let worker = Latencies::default();
        let demo = worker.listener("demo:80/HTTP");
        demo.observe(200, Duration::from_millis(3));
        demo.observe(200, Duration::from_secs(90));
        worker.upstream("c1").observe(Duration::from_millis(2));
        let text = Metrics::new(move || Scrape {
            proxy: ProxyCounters {
                latencies: LatencySnapshot::of([&worker]),
                access_log_lines: (7, 2),
                spans: (5, 3),
                ..ProxyCounters::default()
            },
            ..Scrape::default()
        })
        .text()
        .unwrap();
        for line in [
            "# TYPE fleetgate_proxy_request_duration_seconds histogram",
            "fleetgate_proxy_request_duration_seconds_sum{listener=\"demo:80/HTTP\",code=\"2xx\"} 90.003",
            "fleetgate_proxy_request_duration_seconds_count{listener=\"demo:80/HTTP\",code=\"2xx\"} 2",
            "fleetgate_proxy_request_duration_seconds_bucket{le=\"0.0025\",listener=\"demo:80/HTTP\",code=\"2xx\"} 0",
            "fleetgate_proxy_request_duration_seconds_bucket{le=\"0.005\",listener=\"demo:80/HTTP\",code=\"2xx\"} 1",
            "fleetgate_proxy_request_duration_seconds_bucket{le=\"+Inf\",listener=\"demo:80/HTTP\",code=\"2xx\"} 2",
            "fleetgate_proxy_upstream_response_seconds_count{cluster=\"c1\"} 1",
            "fleetgate_proxy_access_log_lines_total{outcome=\"lost\"} 2",
            "fleetgate_proxy_spans_total{outcome=\"sent\"} 5",
            "fleetgate_proxy_spans_total{outcome=\"lost\"} 3",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
        }
        assert!(!text.contains("code=\"5xx\""));
    }
}
