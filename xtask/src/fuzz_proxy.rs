//! `cargo xtask fuzz-proxy`: mutated HTTP/1.x against the proxy, judged by a second reading.

use std::{
    env,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::{
    console::{self, Step},
    paths, process,
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

/// What the program says when it found something.
const FOUND: i32 = 2;

/// Builds, runs, prints; fails if proxy and judge do not agree on a case.
pub fn run(options: Options) -> Result<ExitCode> {
    let step = Step::start("building the proxy and its judge");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // With the checks of debug builds: an overflow is a finding.
    process::output(
        Command::new(cargo)
            .args(["build", "--package", "fleetgate-tests"])
            .args(["--bin", "fuzz-proxy"])
            .current_dir(paths::workspace()),
    )?;
    step.done();
    let step = Step::start(format!("{} s, seed {}", options.seconds, options.seed));
    let mut program = Command::new(paths::target().join("debug").join("fuzz-proxy"));
    program
        .args(["--seconds", &options.seconds.to_string()])
        .args(["--seed", &options.seed.to_string()]);
    if let Some(case) = options.case {
        program.args(["--case", &case.to_string()]);
    }
    let out = program
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the fuzzing")?;
    let agreed = match out.status.code() {
        Some(0) => true,
        Some(FOUND) => false,
        _ => bail!("the fuzzing could not be done ({})", out.status),
    };
    step.done();
    let report: Value = serde_json::from_slice(&out.stdout).context("its report")?;
    match options.json {
        true => console::say(&report),
        false => tell(&report),
    }
    Ok(match agreed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
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
