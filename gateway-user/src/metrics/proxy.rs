//! Counters of the L7 proxy.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::{Kind, family};

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
        )
    }
}
