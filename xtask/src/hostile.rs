//! `cargo xtask hostile`: slow and hostile clients of every kind beside a normal one, which must not notice.

use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::{
    console::{self, Step},
    trial,
};

/// How many, how long, which.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Hostile clients at once
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// How long the normal client asks, alone and under attack, twice each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Measure this kind only; repeat for more
    #[arg(long, value_name = "KIND")]
    only: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Builds, runs, prints; fails if the normal client noticed an attack.
pub fn run(options: &Options) -> Result<ExitCode> {
    let step = Step::start("building proxy and clients");
    let built = trial::build(&["hostile"], true)?;
    step.done();
    let mut command = Command::new(built.join("hostile"));
    command
        .args(["--clients", &options.clients.to_string()])
        .args(["--seconds", &options.seconds.to_string()]);
    for kind in &options.only {
        command.args(["--only", kind]);
    }
    let (outcomes, held) = trial::run(&mut command)?;
    Ok(trial::show(&outcomes, held, options.json, |outcomes| {
        tell(outcomes, options.clients);
    }))
}

fn tell(outcomes: &Value, clients: u32) {
    let none = Vec::new();
    let outcomes = outcomes.as_array().unwrap_or(&none);
    console::say(console::table(
        &[
            "kind",
            "success",
            "alone, us",
            "attacked, us",
            "ratio",
            "p99, us",
            "CPU",
            "kB each",
            "again, MB",
            "files",
            "left",
            "what the proxy did",
        ],
        &outcomes.iter().map(row).collect::<Vec<_>>(),
    ));
    for outcome in outcomes {
        for failure in outcome["failures"].as_array().unwrap_or(&none) {
            console::say(format_args!("{}: {failure}", text(&outcome["kind"])));
        }
    }
    console::say(format_args!(
        "\n{clients} hostile clients of each kind, who come back a second after they were closed:"
    ));
    for outcome in outcomes {
        let (kind, does) = (text(&outcome["kind"]), text(&outcome["does"]));
        console::say(format_args!("  {kind}: {does}"));
    }
    console::say(
        "One proxy worker in a process of its own, on loopback; its timeouts are 3 s, that of a stall 5 s. Success and \
         median are of one client that asks for 1 KiB over a connection kept alive; bars: 100 %, ratio 2. CPU: seconds \
         per second that the attack alone takes. kB each: memory of the first attack; again: what the second took more. \
         Left: connections held 10 s after the last attacker left.",
    );
}

fn row(outcome: &Value) -> Vec<String> {
    let number = |key: &str| outcome[key].as_f64().unwrap_or(f64::NAN);
    let (requests, failed) = (number("requests"), number("failed"));
    vec![
        text(&outcome["kind"]),
        format!("{:.2} %", 100.0 * (requests - failed) / requests),
        format!("{:.0}", number("alone_us")),
        format!("{:.0}", number("attacked_us")),
        format!("{:.2}", number("ratio")),
        format!("{:.0}", number("attacked_p99_us")),
        format!("{:.2}", number("cpu")),
        format!("{:.1}", number("bytes_per_attacker") / 1024.0),
        format!("{:.1}", number("grew_again_bytes") / f64::from(1 << 20)),
        text(&outcome["files"]),
        text(&outcome["left_over"]),
        did(outcome),
    ]
}

fn did(outcome: &Value) -> String {
    let told = &outcome["told"];
    let mut did = Vec::new();
    for key in ["closed", "reset", "unmade", "held_back", "stream_resets"] {
        let count = told[key].as_u64().unwrap_or(0);
        if count > 0 {
            did.push(format!("{} {count}", key.replace('_', " ")));
        }
    }
    for (key, name) in [("statuses", ""), ("goaways", "GOAWAY ")] {
        let counts = told[key].as_object().into_iter().flatten();
        did.extend(counts.map(|(code, count)| format!("{name}{code} x {count}")));
    }
    did.join(", ")
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
