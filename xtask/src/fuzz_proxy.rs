//! `cargo xtask fuzz-proxy`: mutated HTTP/1.x against the proxy, judged by a second reading.

use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::{
    console::{self, Step},
    trial,
};

/// How long, and which cases.
#[derive(Args, Clone, Copy, Debug)]
pub struct Options {
    /// How long new cases are begun
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Seed of all cases
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run this case alone
    #[arg(long)]
    case: Option<u64>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Builds, runs, prints; fails if proxy and judge do not agree on a case.
pub fn run(options: Options) -> Result<ExitCode> {
    let step = Step::start("building the proxy and its judge");
    // With the checks of debug builds: an overflow is a finding.
    let built = trial::build(&["fuzz-proxy"], false)?;
    step.done();
    let step = Step::start(format!("{} s, seed {}", options.seconds, options.seed));
    let mut program = Command::new(built.join("fuzz-proxy"));
    program
        .args(["--seconds", &options.seconds.to_string()])
        .args(["--seed", &options.seed.to_string()]);
    if let Some(case) = options.case {
        program.args(["--case", &case.to_string()]);
    }
    let (report, agreed) = trial::run(&mut program)?;
    step.done();
    Ok(trial::show(&report, agreed, options.json, tell))
}

fn tell(report: &Value) {
    let none = Vec::new();
    let found = report["disagreements"].as_array().unwrap_or(&none);
    let rows = [
        ("connections", report["executions"].to_string()),
        ("requests served", report["served"].to_string()),
        ("requests refused", report["refused"].to_string()),
        (
            "requests broken off at the origin",
            report["broken"].to_string(),
        ),
        (
            "suspicious once, fine when run alone",
            report["withdrawn"].to_string(),
        ),
        ("disagreements (bar: 0)", found.len().to_string()),
    ];
    let rows: Vec<Vec<String>> = rows
        .map(|(what, value)| vec![what.to_owned(), value])
        .to_vec();
    console::say(console::table(&["fuzzing of the proxy", ""], &rows));
    for it in found {
        let what = it["what"].as_str().unwrap_or_default();
        let hex = it["hex"].as_str().unwrap_or_default();
        console::say(format_args!(
            "--seed {} --case {}: {what}\n    {hex}",
            report["seed"], it["case"]
        ));
    }
}
