//! `cargo xtask bench flows`: what a million flows cost.

use std::{env, process::ExitCode};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    console::{self, Step},
    ebpf, lab, paths, process,
};

/// Builds, measures, prints. Holding all flows is the bar; times are told, not judged.
pub fn flows(json: bool) -> Result<ExitCode> {
    ebpf::build(&ebpf::Options::default())?;
    let step = Step::start("building the benchmark");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    process::output(
        std::process::Command::new(cargo)
            .args(["build", "--release", "--package", "fleetgate-tests"])
            .args(["--bin", "bench-flows"])
            .current_dir(paths::workspace()),
    )?;
    step.done();
    lab::state::mount_bpffs()?;
    let step = Step::start("1 000 000 flows through the XDP program");
    let program = paths::target().join("release").join("bench-flows");
    let mut command = std::process::Command::new(program);
    command
        .arg("1000000")
        .env("FLEETGATE_BPF_OBJECT", paths::object());
    let text = process::output(&mut command)?;
    step.done();
    let result: Value = serde_json::from_str(text.trim()).context("the benchmark's answer")?;
    if json {
        console::say(&result);
    } else {
        console::say(table(&result));
        console::say(rest(&result));
    }
    Ok(ExitCode::SUCCESS)
}

fn table(result: &Value) -> String {
    let none = Vec::new();
    let looks = result["at"].as_array().unwrap_or(&none);
    let row = |look: &Value| {
        let of = |at: &str| {
            let number = |name: &str| look[at][name].to_string();
            format!(
                "{} ({} - {})",
                number("median"),
                number("p10"),
                number("p90")
            )
        };
        vec![
            look["live"].to_string(),
            of("not_ours_ns"),
            of("known_flow_ns"),
            of("new_flow_ns"),
        ]
    };
    let rows: Vec<Vec<String>> = looks.iter().map(row).collect();
    console::table(
        &[
            "live flows",
            "not ours, ns (10 - 90 %)",
            "known flow, ns",
            "new flow, ns",
        ],
        &rows,
    )
}

fn rest(result: &Value) -> String {
    let number = |at: &str| result.pointer(at).and_then(Value::as_f64).unwrap_or(0.0);
    format!(
        "{} flows held in a table of {} entries: {:.0} MiB, {:.0} bytes a flow. A sweep that removes nothing takes \
         {:.0} ms, one that removes all {:.0} ms, and {:.0} KiB of memory. Single runs of the program through \
         BPF_PROG_TEST_RUN, which adds what the first column shows, with cold caches.\n",
        result["flows"],
        result["table_entries"],
        number("/table_mib"),
        number("/table_bytes_per_flow"),
        number("/sweep/nothing_over_ms"),
        number("/sweep/everything_over_ms"),
        number("/sweep/peak_growth_kib"),
    )
}
