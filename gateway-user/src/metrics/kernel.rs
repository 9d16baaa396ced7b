//! Counters of the kernel programs, and what the configuration amounts to.

use std::{collections::BTreeMap, fmt};

use gateway_common::{stats::Traffic, verdict::Reason};
use prometheus_client::encoding::DescriptorEncoder;

use super::{Kind, Readings, family};
use crate::{dataplane::record::Record, problem::Severity};

/// What one scrape shows of the kernel and of the configuration in it.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// (listener, address) and traffic.
    services: Vec<(String, String, Traffic)>,
    /// Traffic by cluster and pod: several ports of a pod are added up.
    backends: BTreeMap<(String, String), Traffic>,
    /// (reason, family, packets).
    reasons: Vec<(&'static str, &'static str, u64)>,
    /// (cluster, pod, port), source ports in use and all of them.
    ports: BTreeMap<(String, String, String), (u64, u64)>,
    flow_entries: Option<u64>,
    flow_table_size: u64,
    generation: u64,
    errors: u64,
    warnings: u64,
}

const DROPPED: &str = "dropped_packets";
const PASSED: &str = "passed_packets";
const ANSWERED: &str = "answered_packets";

/// Family that packets of a reason are counted in.
fn fate(reason: Reason) -> &'static str {
    if reason.answered() {
        ANSWERED
    } else if reason.dropped() {
        DROPPED
    } else {
        PASSED
    }
}

impl Kernel {
    /// From the maps and the record. `flow_entries`: entries of the flow table, if somebody counted
    /// them lately; a scrape does not walk it.
    pub fn new(record: &Record, readings: &Readings, flow_entries: Option<u64>) -> Self {
        let mut backends: BTreeMap<_, Traffic> = BTreeMap::new();
        for (id, (_, traffic)) in &readings.backends {
            if let Some(known) = record.plan.backends.get(id) {
                let name = (known.key.cluster.to_string(), known.pod.to_string());
                *backends.entry(name).or_default() += *traffic;
            }
        }
        let services = readings.services.iter().map(|(address, (_, traffic))| {
            let planned = record.plan.services.get(address);
            let listener = planned.map_or_else(String::new, |s| s.listener.clone());
            (listener, address.to_string(), *traffic)
        });
        let of = |severity| {
            record
                .problems
                .iter()
                .filter(|p| p.severity == severity)
                .count() as u64
        };
        Self {
            services: services.collect(),
            backends,
            reasons: readings
                .reasons
                .iter()
                .map(|(reason, count)| (reason.name(), fate(*reason), count.packets))
                .collect(),
            ports: BTreeMap::new(),
            flow_entries,
            flow_table_size: readings.flow_table_size,
            generation: record.generation,
            errors: of(Severity::Error),
            warnings: of(Severity::Warning),
        }
    }

    /// Adds the source ports in use by backend id, as somebody counted them lately.
    #[must_use]
    pub fn with_ports(
        mut self,
        record: &Record,
        readings: &Readings,
        used: &BTreeMap<u32, u32>,
    ) -> Self {
        for (id, (backend, _)) in &readings.backends {
            let Some(known) = record.plan.backends.get(id) else {
                continue;
            };
            let name = (
                known.key.cluster.to_string(),
                known.pod.to_string(),
                known.key.address.port().to_string(),
            );
            let used = used.get(id).copied().map_or(0, u64::from);
            let ports = self.ports.entry(name).or_default();
            // An id that is on its way out may share its ports with the next one.
            *ports = (ports.0 + used, readings.source_ports(backend));
        }
        self
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        use Kind::{Counter, Gauge};
        self.traffic(
            encoder,
            ["service_packets", "service_bytes", "service_flows_opened"],
            || {
                self.services.iter().map(|(listener, address, traffic)| {
                    let labels = [
                        ("listener", listener.as_str()),
                        ("address", address.as_str()),
                    ];
                    (labels, traffic)
                })
            },
        )?;
        let refused = self.services.iter().map(|(listener, address, traffic)| {
            let labels = [
                ("listener", listener.as_str()),
                ("address", address.as_str()),
            ];
            (labels, traffic.refused)
        });
        let help = "Packets kept out by an access list or a budget";
        family(encoder, Counter, ("service_refused_packets", help), refused)?;
        self.traffic(
            encoder,
            ["backend_packets", "backend_bytes", "backend_flows_opened"],
            || {
                self.backends.iter().map(|((cluster, pod), traffic)| {
                    let labels = [("cluster", cluster.as_str()), ("pod", pod.as_str())];
                    (labels, traffic)
                })
            },
        )?;
        for (name, help) in [
            (DROPPED, "Packets dropped, by reason"),
            (PASSED, "Packets left to the node's own stack, by reason"),
            (
                ANSWERED,
                "Packets sent by the kernel programs: answers, and translated errors, by reason",
            ),
        ] {
            let counts = self.reasons.iter().filter(|(_, family, _)| *family == name);
            let counts = counts.map(|(reason, _, packets)| ([("reason", *reason)], *packets));
            family(encoder, Counter, (name, help), counts)?;
        }
        for (name, help, used) in [
            (
                "snat_ports_used",
                "Source ports in use towards a backend; without a free one new connections are dropped",
                true,
            ),
            (
                "snat_ports_capacity",
                "Source ports there are towards a backend",
                false,
            ),
        ] {
            let ports = self.ports.iter().map(|((cluster, pod, port), ports)| {
                let labels = [
                    ("cluster", cluster.as_str()),
                    ("pod", pod.as_str()),
                    ("port", port.as_str()),
                ];
                (labels, if used { ports.0 } else { ports.1 })
            });
            family(encoder, Gauge, (name, help), ports)?;
        }
        if let Some(entries) = self.flow_entries {
            let help = "Connections in the flow table, two entries each";
            family(encoder, Gauge, ("flows", help), [([], entries / 2)])?;
        }
        let single = [
            (
                "flow_table_size",
                "Most entries of the flow table",
                self.flow_table_size,
            ),
            (
                "config_generation",
                "Configurations applied since the pins were made",
                self.generation,
            ),
        ];
        for (name, help, value) in single {
            family(encoder, Gauge, (name, help), [([], value)])?;
        }
        let problems = [("error", self.errors), ("warning", self.warnings)];
        family(
            encoder,
            Gauge,
            ("config_problems", "Problems of the configured objects"),
            problems.map(|(severity, count)| ([("severity", severity)], count)),
        )
    }

    /// The three families of a service or a backend.
    fn traffic<'a, I>(
        &'a self,
        encoder: &mut DescriptorEncoder<'_>,
        [packets, bytes, opened]: [&str; 3],
        all: impl Fn() -> I,
    ) -> fmt::Result
    where
        I: Iterator<Item = ([(&'static str, &'a str); 2], &'a Traffic)>,
    {
        let directed = |pick: fn(&Traffic) -> [u64; 2]| {
            all().flat_map(move |([one, two], traffic)| {
                let labels = move |direction| [one, two, ("direction", direction)];
                let [to_pod, to_client] = pick(traffic);
                [(labels("in"), to_pod), (labels("out"), to_client)]
            })
        };
        family(
            encoder,
            Kind::Counter,
            (packets, "Packets forwarded; in is from clients"),
            directed(|t| [t.in_packets, t.out_packets]),
        )?;
        family(
            encoder,
            Kind::Counter,
            (bytes, "Frame bytes forwarded; in is from clients"),
            directed(|t| [t.in_bytes, t.out_bytes]),
        )?;
        family(
            encoder,
            Kind::Counter,
            (opened, "Connections opened"),
            all().map(|(labels, traffic)| (labels, traffic.flows)),
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        cli::views::sample,
        metrics::{Kernel, Metrics, ProxyCounters, Scrape},
    };

    fn text() -> String {
        let metrics = Metrics::new(|| Scrape {
            kernel: Some(
                Kernel::new(&sample::record(), &sample::readings(), Some(6)).with_ports(
                    &sample::record(),
                    &sample::readings(),
                    &[(1, 7)].into(),
                ),
            ),
            proxy: ProxyCounters {
                active_connections: 2,
                responses: [0, 9, 0, 1, 0],
                failures: vec![("no-rule", 1)],
                ..ProxyCounters::default()
            },
            ..Scrape::default()
        });
        metrics.text().unwrap()
    }

    #[test]
    fn every_documented_metric_is_exposed() {
        let text = text();
        for line in [
            "fleetgate_service_packets_total{listener=\"demo:80/HTTP\",address=\"tcp/10.0.0.1:80\",direction=\"in\"} 1000",
            "fleetgate_service_bytes_total{listener=\"demo:80/HTTP\",address=\"tcp/10.0.0.1:80\",direction=\"out\"} 1048576",
            "fleetgate_service_flows_opened_total{listener=\"demo:80/HTTP\",address=\"tcp/10.0.0.1:80\"} 5",
            "fleetgate_service_refused_packets_total{listener=\"demo:80/HTTP\",address=\"tcp/10.0.0.1:80\"} 0",
            "fleetgate_backend_bytes_total{cluster=\"c1\",pod=\"web-a\",direction=\"in\"} 1024",
            "fleetgate_backend_flows_opened_total{cluster=\"c1\",pod=\"web-a\"} 3",
            "fleetgate_dropped_packets_total{reason=\"no_backend\"} 4",
            "fleetgate_passed_packets_total{reason=\"proxy\"} 1500",
            "fleetgate_snat_ports_used{cluster=\"c1\",pod=\"web-a\",port=\"80\"} 7",
            "fleetgate_flows 3",
            "fleetgate_flow_table_size 1048576",
            "fleetgate_config_generation 7",
            "fleetgate_config_problems{severity=\"error\"} 1",
            "fleetgate_proxy_active_connections 2",
            "fleetgate_proxy_requests_total 0",
            "fleetgate_proxy_responses_total{class=\"2xx\"} 9",
            "fleetgate_proxy_failures_total{reason=\"no-rule\"} 1",
            "# EOF",
        ] {
            assert!(
                text.lines().any(|l| l == line),
                "{line} is missing in\n{text}"
            );
        }
    }

    #[test]
    fn a_scrape_without_maps_still_shows_the_proxy() {
        let metrics = Metrics::new(Scrape::default);
        let text = metrics.text().unwrap();
        assert!(text.contains("fleetgate_proxy_requests_total 0"));
        assert!(!text.contains("fleetgate_service"));
    }
}
