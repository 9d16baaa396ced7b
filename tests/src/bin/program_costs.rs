//! What each kernel program of an object costs the verifier, as JSON: the measuring half of `cargo xtask verify`.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result};
use fleetgate_tests::costs::{self, Cost};
use serde_json::{Value, json};
use xtask::console;

fn main() -> ExitCode {
    match measure() {
        Ok(result) => {
            console::say(result);
            ExitCode::SUCCESS
        }
        Err(error) => {
            console::note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<Value> {
    let object = std::env::args_os()
        .nth(1)
        .context("usage: program-costs OBJECT")?;
    let costs = costs::measure(Path::new(&object))?;
    Ok(json!({
        "kernel": costs::release()?,
        "programs": costs.iter().map(Cost::json).collect::<Vec<_>>(),
    }))
}
