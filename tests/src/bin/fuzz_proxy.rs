//! The fuzzing of the proxy as a program: prints its report as JSON, and fails if proxy and judge did not agree.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Parser;
use fleetgate_tests::fuzz_proxy::{self, Options};

#[derive(Parser)]
struct Arguments {
    /// How long new cases are begun
    #[arg(long)]
    seconds: u64,
    /// Seed of all cases
    #[arg(long)]
    seed: u64,
    /// Run this case alone
    #[arg(long)]
    case: Option<u64>,
}

#[allow(clippy::print_stdout, reason = "the report is this program's output")]
fn main() -> Result<ExitCode> {
    let Arguments {
        seconds,
        seed,
        case,
    } = Arguments::parse();
    let report = fuzz_proxy::run(Options {
        lasting: Duration::from_secs(seconds),
        seed,
        case,
    })?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(match report.disagreements.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(2),
    })
}
