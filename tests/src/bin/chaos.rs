//! The chaos run as a program: prints its report as JSON, and fails if anything was lost.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Parser;
use fleetgate_tests::chaos::{self, Options};

#[derive(Parser)]
struct Arguments {
    /// How long changes go on
    #[arg(long)]
    seconds: u64,
    /// Seed of their order
    #[arg(long)]
    seed: u64,
}

#[allow(clippy::print_stdout, reason = "the report is this program's output")]
fn main() -> Result<ExitCode> {
    let Arguments { seconds, seed } = Arguments::parse();
    let report = chaos::run(Options {
        lasting: Duration::from_secs(seconds),
        seed,
    })?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(match report.clean() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(2),
    })
}
