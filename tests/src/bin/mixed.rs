//! The run of mixed load as a program: prints its report as JSON, and fails if anything did.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Parser;
use fleetgate_tests::mixed::{self, Options};

#[derive(Parser)]
struct Arguments {
    /// How long clients ask
    #[arg(long)]
    seconds: u64,
    /// Changes of the configuration
    #[arg(long)]
    changes: u32,
    /// Seed of their order
    #[arg(long)]
    seed: u64,
}

#[allow(clippy::print_stdout, reason = "the report is this program's output")]
fn main() -> Result<ExitCode> {
    let Arguments {
        seconds,
        changes,
        seed,
    } = Arguments::parse();
    let report = mixed::run(Options {
        lasting: Duration::from_secs(seconds),
        changes,
        seed,
    })?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(match report.clean() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(2),
    })
}
