//! The scenarios: what is asked for, what came back, and whether that is close enough.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bars::Bars;
use crate::{client::Tally, lab::topology};

/// Who steers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The kernel, one pick for each connection.
    Connection,
    /// The proxy, one pick for each request.
    Request,
}

impl Mode {
    /// As `fleetgate routes` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Request => "request",
        }
    }
}

/// The part of the Ingress that differs between scenarios.
#[derive(Clone, Debug)]
pub enum Rules {
    /// `cluster-weight.<id>` annotations; none means by replica count.
    Weights(Vec<(&'static str, u8)>),
    /// Requests with the header go to one cluster, the others to another.
    Header {
        /// Field name.
        name: &'static str,
        /// Field value.
        value: &'static str,
        /// Cluster of requests that carry it.
        to: &'static str,
        /// Cluster of all others.
        otherwise: &'static str,
    },
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Name in the report.
    pub name: &'static str,
    /// Name of the Ingress, which several measurements may share.
    pub ingress: String,
    /// Who must steer.
    pub mode: Mode,
    /// What the Ingress says.
    pub rules: Rules,
    /// Header to send.
    pub header: Option<(&'static str, &'static str)>,
    /// Percent of the answers each cluster should give.
    pub requested: BTreeMap<String, f64>,
}

/// Every measurement, in the order they run.
pub fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    for mode in [Mode::Connection, Mode::Request] {
        all.push(weights("default", mode, &[], [40.0, 60.0]));
        all.push(weights(
            "single-cluster",
            mode,
            &[("c1", 100)],
            [100.0, 0.0],
        ));
        all.push(weights(
            "weighted",
            mode,
            &[("c1", 60), ("c2", 40)],
            [60.0, 40.0],
        ));
    }
    let gray = |name, header, requested| Scenario {
        name,
        ingress: "web-header".into(),
        mode: Mode::Request,
        rules: Rules::Header {
            name: "stage",
            value: "gray",
            to: "c2",
            otherwise: "c1",
        },
        header,
        requested: shares(requested),
    };
    all.push(gray("header", Some(("stage", "gray")), [0.0, 100.0]));
    all.push(gray("header-absent", None, [100.0, 0.0]));
    all
}

/// A scenario by weights; `requested` is for c1 and c2.
pub fn weights(
    name: &'static str,
    mode: Mode,
    weights: &[(&'static str, u8)],
    requested: [f64; 2],
) -> Scenario {
    Scenario {
        name,
        ingress: format!("web-{name}-{}", mode.as_str()),
        mode,
        rules: Rules::Weights(weights.to_vec()),
        header: None,
        requested: shares(requested),
    }
}

fn shares([c1, c2]: [f64; 2]) -> BTreeMap<String, f64> {
    BTreeMap::from([("c1".into(), c1), ("c2".into(), c2)])
}

/// What one measurement found.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Scenario.
    pub name: String,
    /// Who steered, by `fleetgate routes`.
    pub steering: String,
    /// Why, by the same.
    pub reason: String,
    /// The listener, as address and port.
    pub listener: String,
    /// Percent asked for, by cluster.
    pub requested: BTreeMap<String, f64>,
    /// Percent measured, by cluster.
    pub measured: BTreeMap<String, f64>,
    /// Percent of all answers, by pod (`cluster/pod`).
    pub pods: BTreeMap<String, f64>,
    /// Answers, by pod.
    pub answers: BTreeMap<String, u64>,
    /// Connections the client opened.
    pub connections: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Failures of every kind.
    pub errors: u64,
    /// Failures by kind.
    pub error_kinds: BTreeMap<String, u64>,
    /// Connections the proxy accepted meanwhile.
    pub proxy_connections: u64,
    /// Bytes the proxy received from clients meanwhile.
    pub proxy_received_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Percent of the answers that each cluster gave.
pub fn by_cluster(answers: &BTreeMap<String, u64>) -> BTreeMap<String, f64> {
    let total = answers.values().sum::<u64>().max(1);
    let mut counts: BTreeMap<String, u64> = topology::CLUSTERS
        .iter()
        .map(|(number, _)| (format!("c{number}"), 0))
        .collect();
    for (pod, count) in answers {
        *counts.entry(cluster_of(pod).to_owned()).or_default() += count;
    }
    counts
        .into_iter()
        .map(|(id, count)| (id, percent(count, total)))
        .collect()
}

/// Percent of the answers that each pod gave, pods without any included.
pub fn by_pod(answers: &BTreeMap<String, u64>) -> BTreeMap<String, f64> {
    let total = answers.values().sum::<u64>().max(1);
    topology::pods()
        .iter()
        .map(|pod| format!("{}/{}", pod.cluster, pod.name))
        .map(|pod| {
            (
                pod.clone(),
                percent(answers.get(&pod).copied().unwrap_or(0), total),
            )
        })
        .collect()
}

/// The client's part of an outcome.
pub fn outcome(scenario: &Scenario, tally: Tally) -> Outcome {
    Outcome {
        name: scenario.name.into(),
        steering: String::new(),
        reason: String::new(),
        listener: String::new(),
        requested: scenario.requested.clone(),
        measured: by_cluster(&tally.by_pod),
        pods: by_pod(&tally.by_pod),
        connections: tally.connections,
        requests: tally.requests,
        errors: tally.failed(),
        error_kinds: tally.errors,
        answers: tally.by_pod,
        proxy_connections: 0,
        proxy_received_bytes: 0,
        seconds: tally.seconds,
    }
}

/// Points a cluster's share may be off.
const CLUSTER_POINTS: f64 = 2.0;
/// Points a pod's share of its cluster may be off.
const POD_POINTS: f64 = 3.0;
/// Least connections (`connection`) and requests (`request`) for the tolerances to mean something.
const LEAST: [u64; 2] = [10_000, 2_000];

/// Holds an outcome against its bars.
pub fn judge(outcome: &Outcome, mode: Mode, bars: &mut Bars) {
    let name = format!("{} ({})", outcome.name, mode.as_str());
    bars.hold(outcome.steering == mode.as_str(), || {
        format!(
            "{name}: steered by {}, not by {}: {}",
            outcome.steering,
            mode.as_str(),
            outcome.reason
        )
    });
    bars.hold(outcome.errors == 0, || {
        format!(
            "{name}: {} errors: {:?}",
            outcome.errors, outcome.error_kinds
        )
    });
    let (done, least, what) = match mode {
        Mode::Connection => (outcome.connections, LEAST[0], "connections"),
        Mode::Request => (outcome.requests, LEAST[1], "requests"),
    };
    bars.hold(done >= least, || {
        format!("{name}: {done} {what}, at least {least} are needed")
    });
    for (cluster, asked) in &outcome.requested {
        let got = outcome.measured.get(cluster).copied().unwrap_or(0.0);
        if *asked == 0.0 {
            let strays: u64 = in_cluster(outcome, cluster)
                .iter()
                .map(|(_, count)| count)
                .sum();
            bars.hold(strays == 0, || {
                format!("{name}: {strays} went to {cluster}, which has weight 0")
            });
            continue;
        }
        bars.hold((got - asked).abs() <= CLUSTER_POINTS, || {
            format!("{name}: {cluster} got {got:.2} %, asked for {asked:.2} % (within {CLUSTER_POINTS} points)")
        });
        let pods = in_cluster(outcome, cluster);
        let total: u64 = pods.iter().map(|(_, count)| count).sum();
        let equal = 100.0 / pods.len().max(1) as f64;
        for (pod, count) in pods {
            let share = percent(count, total.max(1));
            bars.hold((share - equal).abs() <= POD_POINTS, || {
                format!("{name}: {pod} got {share:.2} % of {cluster}, an equal share is {equal:.2} % (within {POD_POINTS} points)")
            });
        }
    }
    match mode {
        Mode::Connection => bars.hold(outcome.proxy_connections == 0 && outcome.proxy_received_bytes == 0, || {
            format!(
                "{name}: the proxy saw {} connections and {} bytes of what the kernel should have steered",
                outcome.proxy_connections, outcome.proxy_received_bytes
            )
        }),
        Mode::Request => bars.hold(outcome.proxy_connections > 0, || {
            format!("{name}: the proxy counted no connection, so something else answered")
        }),
    }
}

/// Answers of each pod the lab has in a cluster.
fn in_cluster(outcome: &Outcome, cluster: &str) -> Vec<(String, u64)> {
    outcome
        .pods
        .keys()
        .filter(|pod| cluster_of(pod) == cluster)
        .map(|pod| (pod.clone(), outcome.answers.get(pod).copied().unwrap_or(0)))
        .collect()
}

fn cluster_of(pod: &str) -> &str {
    pod.split('/').next().unwrap_or(pod)
}

fn percent(count: u64, total: u64) -> f64 {
    // Two decimals are all a report needs.
    (count as f64 * 10_000.0 / total as f64).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(scenario: &Scenario, counts: [u64; 5]) -> Vec<String> {
        let by_pod: BTreeMap<String, u64> = topology::pods()
            .iter()
            .map(|pod| format!("{}/{}", pod.cluster, pod.name))
            .zip(counts)
            .collect();
        let total = counts.iter().sum();
        let tally = Tally {
            connections: total,
            requests: total,
            by_pod,
            ..Tally::default()
        };
        let mut outcome = outcome(scenario, tally);
        outcome.steering = scenario.mode.as_str().into();
        outcome.proxy_connections = u64::from(scenario.mode == Mode::Request);
        let mut bars = Bars::default();
        judge(&outcome, scenario.mode, &mut bars);
        bars.failed
    }

    fn weighted() -> Scenario {
        weights(
            "weighted",
            Mode::Connection,
            &[("c1", 60), ("c2", 40)],
            [60.0, 40.0],
        )
    }

    #[test]
    fn what_was_asked_for_holds_every_bar() {
        assert_eq!(
            measured(&weighted(), [3000, 3000, 1333, 1333, 1334]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_cluster_three_points_off_fails() {
        let failed = measured(&weighted(), [3150, 3150, 1233, 1233, 1234]);
        assert_eq!(failed.len(), 2, "{failed:?}");
        assert!(failed[0].contains("c1 got 63.00 %"), "{failed:?}");
    }

    #[test]
    fn a_pod_four_points_off_inside_its_cluster_fails() {
        let failed = measured(&weighted(), [3240, 2760, 1333, 1333, 1334]);
        assert_eq!(failed.len(), 2, "{failed:?}");
        assert!(failed[0].contains("c1/c1-p1 got 54.00 %"), "{failed:?}");
    }

    #[test]
    fn one_connection_to_a_cluster_with_weight_zero_fails() {
        let single = weights(
            "single-cluster",
            Mode::Connection,
            &[("c1", 100)],
            [100.0, 0.0],
        );
        assert!(measured(&single, [5000, 5000, 0, 0, 0]).is_empty());
        assert_eq!(
            measured(&single, [5000, 5000, 0, 0, 1]),
            ["single-cluster (connection): 1 went to c2, which has weight 0"]
        );
    }

    #[test]
    fn too_few_connections_fail_even_when_the_shares_are_right() {
        assert!(measured(&weighted(), [300, 300, 133, 133, 134])[0].contains("at least 10000"));
    }

    #[test]
    fn every_scenario_the_kernel_can_steer_is_measured_in_both_modes() {
        let mut seen: Vec<(&str, Mode)> = all().iter().map(|one| (one.name, one.mode)).collect();
        seen.retain(|(name, _)| !name.starts_with("header"));
        assert_eq!(seen.len(), 6);
        for name in ["default", "single-cluster", "weighted"] {
            assert!(
                seen.contains(&(name, Mode::Connection)) && seen.contains(&(name, Mode::Request))
            );
        }
    }
}
