//! `cargo xtask chaos`: a gateway that is changed, restarted and cut off all the time, and clients that must not notice.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::{
    console::{self, Step},
    ebpf, lab, setup, trial,
};

/// How long and in which order.
#[derive(Args, Clone, Copy, Debug)]
pub struct Options {
    /// How long changes go on
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    seconds: u64,
    /// Seed of their order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Builds, runs, prints; fails if a connection was reset or an answer came from the wrong pod.
pub fn run(options: Options) -> Result<ExitCode> {
    setup::ensure(setup::LAB)?;
    ebpf::build(&ebpf::Options::default())?;
    let step = Step::start("building agent and clients");
    let built = trial::build(&["fleetgate", "chaos"], true)?;
    step.done();
    lab::state::mount_bpffs()?;
    let step = Step::start(format!(
        "{} s of changes, seed {}",
        options.seconds, options.seed
    ));
    let mut program = trial::beside_agent(&built, "chaos")?;
    program
        .args(["--seconds", &options.seconds.to_string()])
        .args(["--seed", &options.seed.to_string()]);
    let (report, held) = trial::run(&mut program)?;
    step.done();
    Ok(trial::show(&report, held, options.json, tell))
}

fn tell(report: &Value) {
    let none = serde_json::Map::new();
    let events = report["events"].as_object().unwrap_or(&none);
    let events = events
        .iter()
        .map(|(kind, count)| vec![kind.clone(), count.to_string()]);
    console::say(console::table(
        &["event", "times"],
        &events.collect::<Vec<_>>(),
    ));
    let count = |key: &str| report[key].as_array().map_or(0, Vec::len).to_string();
    let number = |key: &str| report[key].to_string();
    let gib = report["transferred_bytes"].as_f64().unwrap_or(0.0) / f64::from(1 << 30);
    let rows = [
        (
            "seconds",
            format!("{:.0}", report["seconds"].as_f64().unwrap_or(0.0)),
        ),
        (
            "agent came back with new programs in the same links",
            number("programs_replaced"),
        ),
        ("requests over held connections", number("held_requests")),
        ("GiB of transfers, compared", format!("{gib:.1}")),
        ("short connections", number("short_connections")),
        ("longest request, ms", number("longest_request_ms")),
        ("failures of connections whose pod died", number("excused")),
        ("other failures (bar: 0)", count("resets")),
        ("misrouted (bar: 0)", count("misrouted")),
    ];
    let rows: Vec<Vec<String>> = rows
        .map(|(what, value)| vec![what.to_owned(), value])
        .to_vec();
    console::say(console::table(&["clients met", ""], &rows));
    let none = Vec::new();
    for told in ["resets", "misrouted"]
        .iter()
        .flat_map(|key| report[*key].as_array().unwrap_or(&none))
    {
        console::say(told);
    }
}
