//! The demo's result, for people and for programs.

use serde::Serialize;

use super::{
    bars::Bars,
    iperf::Comparison,
    live::{AgentKilled, LiveChange},
    scenario::Outcome,
};
use crate::console::{say, table};

/// Everything that was found. Serialised, it is the output of `demo --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenarios, in the order they ran.
    pub scenarios: Vec<Outcome>,
    /// Bulk TCP through TC full NAT, beside routed directly.
    pub iperf: Comparison,
    /// The same through XDP on frames it can take: printed, not barred. `None` when it was not measured.
    pub xdp: Option<Comparison>,
    /// Why there is no XDP figure.
    pub xdp_note: Option<String>,
    /// Weights edited under load.
    pub live_change: LiveChange,
    /// Agent killed and started again under load.
    pub agent_killed: AgentKilled,
    /// Bars that held.
    pub bars_held: u32,
    /// Bars that did not, as sentences.
    pub bars_failed: Vec<String>,
    /// Time of the whole demo.
    pub seconds: f64,
    /// Time of the demo without installing and building: lab, agent, measurements, removal.
    pub warm_seconds: f64,
}

/// What [`Report::warm_seconds`] must stay below.
const WARM_SECONDS: f64 = 90.0;

impl Report {
    /// Takes over the verdict.
    pub fn judged(mut self, bars: Bars) -> Self {
        self.bars_held = bars.held;
        self.bars_failed = bars.failed;
        self
    }

    /// Notes how long the demo took without installing and building, and holds that against its bar.
    pub fn warm(&mut self, seconds: f64) {
        let mut bars = Bars {
            held: self.bars_held,
            failed: std::mem::take(&mut self.bars_failed),
        };
        bars.hold(seconds < WARM_SECONDS, || {
            format!(
                "time: {seconds:.0} s without setup and build, less than {WARM_SECONDS} s is asked for"
            )
        });
        self.warm_seconds = seconds;
        self.bars_held = bars.held;
        self.bars_failed = bars.failed;
    }

    /// One JSON value on one line, for programs.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// Prints it for people.
    pub fn print(&self) {
        for outcome in &self.scenarios {
            print_outcome(outcome);
        }
        say("\nBulk TCP (iperf3, medians)");
        let mut rows = vec![comparison("kernel path, TC", &self.iperf)];
        rows.extend(
            self.xdp
                .as_ref()
                .map(|xdp| comparison("kernel path, XDP, no offloads", xdp)),
        );
        say(table(
            &[
                "path",
                "gateway Gbit/s",
                "direct Gbit/s",
                "ratio",
                "gateway runs",
                "direct runs",
                "pod",
            ],
            &rows,
        ));
        if let Some(note) = &self.xdp_note {
            say(format_args!("XDP was not measured: {note}"));
        }

        let live = &self.live_change;
        say("\nWeights 60/40 -> 20/80 edited under load");
        let seconds = live
            .seconds_to_new_split
            .map_or("never".into(), |seconds| format!("{seconds:.3} s"));
        say(format_args!(
            "  new split after {seconds}; {} connections, {} errors; c1/c2 {:.1}/{:.1} % before, {:.1}/{:.1} % after; \
             {} established connections, {} moved",
            live.connections,
            live.errors,
            live.before.get("c1").unwrap_or(&0.0),
            live.before.get("c2").unwrap_or(&0.0),
            live.after.get("c1").unwrap_or(&0.0),
            live.after.get("c2").unwrap_or(&0.0),
            live.held_connections,
            live.held_moved,
        ));

        let killed = &self.agent_killed;
        say("\nAgent killed (SIGKILL) and started again during an iperf3 run");
        let bulk = killed.iperf_gbps.map_or("broke off".into(), |rate| {
            format!("completed, {rate:.2} Gbit/s")
        });
        say(format_args!(
            "  iperf3 {bulk}, ended {:.1} s after the new agent was ready; {} connections without an agent, {} errors\n  \
             {} established connections, {} moved; same pod and source port before and after: {} of {} held, {} of {} \
             of iperf3 ({} flows known)",
            killed.iperf_seconds_after_restart,
            killed.connections_without_agent,
            killed.errors,
            killed.held_connections,
            killed.held_moved,
            killed.held.kept,
            killed.held.connections,
            killed.iperf.kept,
            killed.iperf.connections,
            killed.flows_after_restart,
        ));

        say(format_args!(
            "\nTime: {:.0} s without setup and build (less than {WARM_SECONDS} s is asked for), {:.0} s in all",
            self.warm_seconds, self.seconds
        ));
        say(format_args!(
            "{} bars held, {} failed",
            self.bars_held,
            self.bars_failed.len()
        ));
        for failed in &self.bars_failed {
            say(format_args!("FAILED {failed}"));
        }
    }
}

fn print_outcome(outcome: &Outcome) {
    say(format_args!(
        "\n{} - steering {} on {}",
        outcome.name, outcome.steering, outcome.listener
    ));
    say(format_args!("  why: {}", outcome.reason));
    say(format_args!(
        "  {} connections, {} requests, {} errors in {:.1} s; the proxy saw {} connections, {} bytes",
        outcome.connections,
        outcome.requests,
        outcome.errors,
        outcome.seconds,
        outcome.proxy_connections,
        outcome.proxy_received_bytes
    ));
    let mut rows = Vec::new();
    for (cluster, asked) in &outcome.requested {
        let got = outcome.measured.get(cluster).copied().unwrap_or(0.0);
        rows.push(vec![
            cluster.clone(),
            format!("{asked:6.2} %"),
            format!("{got:6.2} %"),
            String::new(),
        ]);
        let pods: Vec<_> = outcome
            .pods
            .iter()
            .filter(|(pod, _)| pod.starts_with(&format!("{cluster}/")))
            .collect();
        for (pod, share) in &pods {
            let fair = asked / pods.len() as f64;
            let answers = outcome.answers.get(*pod).copied().unwrap_or(0);
            rows.push(vec![
                format!("  {pod}"),
                format!("{fair:6.2} %"),
                format!("{share:6.2} %"),
                answers.to_string(),
            ]);
        }
    }
    let text = table(&["cluster/pod", "asked", "measured", "answers"], &rows);
    text.lines().for_each(|line| say(format_args!("  {line}")));
}

fn comparison(label: &str, found: &Comparison) -> Vec<String> {
    let runs = |runs: &[f64]| {
        runs.iter()
            .map(|run| format!("{run:.1}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    vec![
        label.into(),
        format!("{:.2}", found.gateway_gbps),
        format!("{:.2}", found.direct_gbps),
        format!("{:.3}", found.ratio),
        runs(&found.gateway_runs),
        runs(&found.direct_runs),
        found.pod.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;
    use crate::{
        client::Tally,
        demo::{
            scenario::{self, Mode},
            survivors::Survivors,
        },
    };

    fn report() -> Report {
        let scenario = scenario::weights(
            "weighted",
            Mode::Connection,
            &[("c1", 60), ("c2", 40)],
            [60.0, 40.0],
        );
        let tally = Tally {
            connections: 10,
            requests: 10,
            by_pod: BTreeMap::from([("c1/c1-p1".into(), 6), ("c2/c2-p1".into(), 4)]),
            ..Tally::default()
        };
        let mut outcome = scenario::outcome(&scenario, tally);
        outcome.steering = "connection".into();
        outcome.reason = "two\nlines".into();
        Report {
            scenarios: vec![outcome],
            iperf: Comparison {
                direct_gbps: 10.0,
                gateway_gbps: 9.5,
                ratio: 0.95,
                direct_runs: vec![10.0],
                gateway_runs: vec![9.5],
                pod: "c1-p1".into(),
            },
            xdp: None,
            xdp_note: None,
            live_change: LiveChange {
                errors: 0,
                seconds_to_new_split: Some(0.1),
                connections: 100,
                before: BTreeMap::new(),
                after: BTreeMap::new(),
                held_connections: 8,
                held_moved: 0,
            },
            agent_killed: AgentKilled {
                iperf_gbps: Some(9.0),
                iperf_error: None,
                iperf_seconds_after_restart: 2.0,
                connections_without_agent: 500,
                errors: 0,
                flows_after_restart: 510,
                held: Survivors::default(),
                iperf: Survivors::default(),
                held_connections: 8,
                held_moved: 0,
            },
            bars_held: 3,
            bars_failed: Vec::new(),
            seconds: 100.0,
            warm_seconds: 0.0,
        }
    }

    #[test]
    fn the_json_is_one_line_with_the_agreed_fields() {
        let mut report = report();
        report.warm(70.5);
        let text = report.json().expect("it serialises");
        assert_eq!(text.lines().count(), 1);
        let json: Value = serde_json::from_str(&text).expect("one JSON value");
        let scenario = &json["scenarios"][0];
        assert_eq!(scenario["name"], "weighted");
        assert_eq!(scenario["steering"], "connection");
        assert_eq!(scenario["requested"]["c1"], 60.0);
        assert_eq!(scenario["measured"]["c2"], 40.0);
        assert_eq!(scenario["pods"]["c1/c1-p1"], 60.0);
        assert_eq!(scenario["connections"], 10);
        assert_eq!(scenario["errors"], 0);
        assert_eq!(json["iperf"]["direct_gbps"], 10.0);
        assert_eq!(json["iperf"]["gateway_gbps"], 9.5);
        assert_eq!(json["iperf"]["ratio"], 0.95);
        assert_eq!(json["live_change"]["errors"], 0);
        assert_eq!(json["live_change"]["seconds_to_new_split"], 0.1);
        assert_eq!(json["warm_seconds"], 70.5);
        assert_eq!(json["bars_held"], 4);
        assert_eq!(json["bars_failed"], Value::Array(Vec::new()));
    }

    #[test]
    fn a_split_that_never_came_is_null_and_not_a_number() {
        let mut report = report();
        report.live_change.seconds_to_new_split = None;
        let json: Value =
            serde_json::from_str(&report.json().expect("it serialises")).expect("JSON");
        assert!(json["live_change"]["seconds_to_new_split"].is_null());
    }

    #[test]
    fn ninety_seconds_without_setup_and_build_are_too_many() {
        let mut report = report();
        report.warm(90.0);
        assert_eq!((report.bars_held, report.bars_failed.len()), (3, 1));
    }
}
