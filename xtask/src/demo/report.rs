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
}

impl Report {
    /// Takes over the verdict.
    pub fn judged(mut self, bars: Bars) -> Self {
        self.bars_held = bars.held;
        self.bars_failed = bars.failed;
        self
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
            "  iperf3 {bulk}; {} connections without an agent, {} errors; {} flows known after the restart; \
             {} established connections, {} moved",
            killed.connections_without_agent,
            killed.errors,
            killed.flows_after_restart,
            killed.held_connections,
            killed.held_moved,
        ));

        say(format_args!(
            "\n{} bars held, {} failed ({:.0} s)",
            self.bars_held,
            self.bars_failed.len(),
            self.seconds
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
