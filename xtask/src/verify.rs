//! `cargo xtask verify`: what the kernel programs cost the verifier of this kernel, against their budgets.

use std::{env, process::ExitCode};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    console::{self, Step},
    ebpf, paths, process, suite,
};

/// What loading the programs takes.
const CAPABILITIES: [&str; 3] = ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"];
/// Exit code where nothing could be measured; 1 is for a program over its budget, or refused.
const UNMEASURED: u8 = 2;

/// Builds, loads, prints; fails where a program is over its budget.
pub fn run(json: bool) -> Result<ExitCode> {
    let missing = suite::lacking(&CAPABILITIES)?;
    if !missing.is_empty() {
        console::note(format_args!(
            "error: nothing was verified: loading programs needs {}; run: sudo -E env PATH=\"$PATH\" cargo xtask verify",
            missing.join(", ")
        ));
        return Ok(ExitCode::from(UNMEASURED));
    }
    let object = ebpf::build(&ebpf::Options::default())?;
    let step = Step::start("building what loads it");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    process::output(
        std::process::Command::new(cargo)
            .args(["build", "--package", "fleetgate-tests"])
            .args(["--bin", "program-costs"])
            .current_dir(paths::workspace()),
    )?;
    step.done();
    let program = paths::target().join("debug").join("program-costs");
    let text = process::output(std::process::Command::new(program).arg(object))?;
    let result: Value = serde_json::from_str(text.trim()).context("what the programs cost")?;
    let none = Vec::new();
    let programs = result["programs"].as_array().unwrap_or(&none);
    if json {
        console::say(&result);
    } else {
        console::say(format_args!(
            "Linux {}",
            result["kernel"].as_str().unwrap_or("?")
        ));
        console::say(table(programs));
    }
    let over: Vec<&str> = programs
        .iter()
        .filter(|program| program["over_budget"] != false)
        .filter_map(|program| program["program"].as_str())
        .collect();
    if programs.is_empty() || !over.is_empty() {
        console::note(format_args!(
            "over budget: {}; the budgets are in tests/src/costs.rs",
            if programs.is_empty() {
                "there is no program".to_owned()
            } else {
                over.join(", ")
            }
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn table(programs: &[Value]) -> String {
    let rows: Vec<Vec<String>> = programs
        .iter()
        .map(|program| {
            let number = |what: &str| {
                let number = program[what].as_u64();
                number.map_or_else(|| "-".to_owned(), |it| it.to_string())
            };
            let share = program["verified_instructions"]
                .as_f64()
                .zip(program["budget"].as_f64())
                .map_or_else(
                    || "-".to_owned(),
                    |(n, most)| format!("{:.0} %", n / most * 1e2),
                );
            let millis = program["load_ms"].as_f64();
            vec![
                program["program"].as_str().unwrap_or("?").to_owned(),
                number("verified_instructions"),
                number("budget"),
                share,
                number("translated_bytes"),
                number("jitted_bytes"),
                millis.map_or_else(|| "-".to_owned(), |it| format!("{it:.1}")),
                match program["over_budget"] == false {
                    true => "held".to_owned(),
                    false => "OVER".to_owned(),
                },
            ]
        })
        .collect();
    console::table(
        &[
            "program",
            "verified instructions",
            "budget",
            "of it",
            "translated bytes",
            "jitted bytes",
            "load ms",
            "",
        ],
        &rows,
    )
}
