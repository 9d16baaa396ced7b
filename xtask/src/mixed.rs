//! `cargo xtask mixed`: requests of every kind while the proxy's configuration, certificates, pods and program change, none
//! of which may fail.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::{
    console::{self, Step},
    ebpf, lab, setup, suite, trial,
};

/// How long, how much, in which order.
#[derive(Args, Clone, Copy, Debug)]
pub struct Options {
    /// How long clients ask
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(8..=86_400))]
    seconds: u64,
    /// Changes of the configuration; certificates and pods change beside them
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    changes: u32,
    /// Seed of their order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Columns of the table: key in the report, and heading.
const COLUMNS: [(&str, &str); 9] = [
    ("connections", "connections"),
    ("asked", "asked"),
    ("answered", "answered"),
    ("failed", "failed (bar: 0)"),
    ("told", "end announced"),
    ("unused", "ended unused"),
    ("retried", "sent again"),
    ("cut", "tunnels ended"),
    ("slowest_ms", "slowest, ms"),
];

/// Builds, runs, prints; fails if a request did.
pub fn run(options: Options) -> Result<ExitCode> {
    setup::ensure(setup::LAB)?;
    ebpf::build(&ebpf::Options::default())?;
    let step = Step::start("building agents and clients");
    // The version that takes over has maps of another layout.
    suite::other_agent()?;
    let built = trial::build(&["fleetgate", "mixed"], false)?;
    step.done();
    lab::state::mount_bpffs()?;
    let step = Step::start(format!(
        "{} s of requests, {} changes, seed {}",
        options.seconds, options.changes, options.seed
    ));
    let mut program = trial::beside_agent(&built, "mixed")?;
    program
        .args(["--seconds", &options.seconds.to_string()])
        .args(["--changes", &options.changes.to_string()])
        .args(["--seed", &options.seed.to_string()]);
    let (report, held) = trial::run(&mut program)?;
    step.done();
    Ok(trial::show(&report, held, options.json, tell))
}

fn tell(report: &Value) {
    let none = serde_json::Map::new();
    let object = |key: &str| report[key].as_object().unwrap_or(&none);
    let events = object("events").iter();
    let events = events.map(|(kind, count)| vec![kind.clone(), count.to_string()]);
    console::say(console::table(
        &["event", "times"],
        &events.collect::<Vec<_>>(),
    ));
    let mut headings = vec!["client"];
    headings.extend(COLUMNS.map(|(_, heading)| heading));
    let mut sums = [0; COLUMNS.len()];
    let mut rows = Vec::new();
    for (kind, counts) in object("kinds") {
        let mut row = vec![kind.clone()];
        for ((key, _), sum) in COLUMNS.iter().zip(&mut sums) {
            let count = counts[key].as_u64().unwrap_or(0);
            *sum = match *key {
                "slowest_ms" => count.max(*sum),
                _ => count + *sum,
            };
            row.push(count.to_string());
        }
        rows.push(row);
    }
    let all = sums.iter().map(u64::to_string);
    rows.push(["all".to_owned()].into_iter().chain(all).collect());
    console::say(console::table(&headings, &rows));
    let upgrade = &report["upgrade"];
    let layout = match upgrade["other_layout"].as_bool() {
        Some(true) => "other",
        _ => "the same",
    };
    console::say(format_args!(
        "{:.0} s; after {:.1} s another agent took over with maps of {layout} layout and served {} ms after its start",
        report["seconds"].as_f64().unwrap_or(0.0),
        upgrade["at"].as_f64().unwrap_or(0.0),
        upgrade["ready_ms"]
    ));
    for failure in report["failures"].as_array().into_iter().flatten() {
        console::say(failure);
    }
}
