//! `cargo xtask bench control`: what a configuration and its changes cost. `bench l4` is in [`l4`], `bench l7` in [`l7`].

pub mod l4;
pub mod l7;

mod bars;
mod chart;
pub mod figure;
pub mod flows;
pub mod ring;
pub mod stage;

use std::{env, fs, num::NonZero, path::PathBuf, process::ExitCode, thread};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    console::{self, Step},
    ebpf, lab, netns, paths, process, setup,
};

/// The namespace in which API servers and agent run.
const NAMESPACE: &str = "fg-bench";
/// Sizes of the fleet, in pods.
const SIZES: [&str; 3] = ["1000", "10000", "100000"];

/// What must hold, at the largest size: name, value in the result, bound.
const BARS: [(&str, &str, f64); 4] = [
    ("cold build, ms", "/pure/2/cold_ms", 3_000.0),
    (
        "endpoint change to flipped ring, ms (p99)",
        "/live/change_to_flip_ms/p99",
        50.0,
    ),
    ("memory of the agent, MiB", "/live/peak_memory_mib", 600.0),
    ("lists after the first", "/live/relists", 0.0),
];

/// Removes the namespace, whatever ends the run.
struct Namespace;

impl Namespace {
    fn make() -> Result<Self> {
        // Left by a run that was killed.
        let _ = netns::ip_batch(None, &[format!("netns del {NAMESPACE}")]);
        netns::ip_batch(None, &[format!("netns add {NAMESPACE}")])?;
        let made = Self;
        netns::ip_batch(
            Some(NAMESPACE),
            &[
                "link set lo up".to_owned(),
                "link add fgb0 type veth peer name fgb1".to_owned(),
                "addr add 192.0.2.1/24 dev fgb0".to_owned(),
                "link set fgb0 up".to_owned(),
                "link set fgb1 up".to_owned(),
                "neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev fgb0 nud permanent".to_owned(),
                "route add 10.0.0.0/8 via 192.0.2.2".to_owned(),
            ],
        )?;
        Ok(made)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = netns::ip_batch(None, &[format!("netns del {NAMESPACE}")]);
    }
}

/// Builds, measures, prints; fails where a bar does not hold.
pub fn control(json: bool) -> Result<ExitCode> {
    setup::ensure(setup::LAB)?;
    ebpf::build(&ebpf::Options::default())?;
    let step = Step::start("building agent and benchmark");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    process::output(
        std::process::Command::new(cargo)
            .args([
                "build",
                "--release",
                "--package",
                "gateway-user",
                "--package",
            ])
            .args([
                "fleetgate-tests",
                "--bin",
                "fleetgate",
                "--bin",
                "bench-control",
            ])
            .current_dir(paths::workspace()),
    )?;
    step.done();
    lab::state::mount_bpffs()?;
    let _namespace = Namespace::make()?;
    let program = |name: &str| -> PathBuf { paths::target().join("release").join(name) };
    let step = Step::start("1 000, 10 000 and 100 000 pods, then the agent on 11 API servers");
    let mut command = netns::command(NAMESPACE, program("bench-control"));
    command.arg(program("fleetgate")).args(SIZES);
    let text = process::output(&mut command)?;
    step.done();
    let result: Value = serde_json::from_str(text.trim()).context("the benchmark's answer")?;
    let number = |at: &str| result.pointer(at).and_then(Value::as_f64);
    let mut held = true;
    let mut rows = Vec::new();
    for (what, at, most) in BARS {
        let value = number(at);
        let fits = value.is_some_and(|value| value <= most);
        held &= fits;
        let value = value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
        let verdict = if fits { "held" } else { "FAILED" };
        rows.push(vec![
            what.to_owned(),
            value,
            format!("{most}"),
            verdict.to_owned(),
        ]);
    }
    if json {
        console::say(&result);
    } else {
        console::say(table(&result));
        console::say(live(&result));
    }
    console::note(console::table(&["bar", "measured", "at most", ""], &rows));
    Ok(if held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn table(result: &Value) -> String {
    let header = [
        "pods",
        "rules",
        "cold build ms",
        "of it compile",
        "memory MiB",
        "pod, kernel ms",
        "p99",
        "pod, proxy ms",
        "p99",
        "weights ms",
        "p99",
    ];
    let none = Vec::new();
    let sizes = result["pure"].as_array().unwrap_or(&none);
    let row = |size: &Value| {
        let value = |at: &str| {
            let number = size.pointer(at).and_then(Value::as_f64);
            number.map_or_else(|| "-".to_owned(), |it| format!("{it:.2}"))
        };
        let whole = |at: &str| size[at].to_string();
        vec![
            whole("endpoints"),
            whole("rules"),
            value("/cold_ms"),
            value("/cold_stages_ms/compile"),
            value("/memory_mib"),
            value("/endpoint_change_kernel/median_ms"),
            value("/endpoint_change_kernel/p99_ms"),
            value("/endpoint_change_proxy/median_ms"),
            value("/endpoint_change_proxy/p99_ms"),
            value("/weights_of_an_ingress/median_ms"),
            value("/weights_of_an_ingress/p99_ms"),
        ]
    };
    let rows: Vec<Vec<String>> = sizes.iter().map(row).collect();
    console::table(&header, &rows)
}

fn live(result: &Value) -> String {
    let live = &result["live"];
    let value = |at: &str| {
        let number = live.pointer(at).and_then(Value::as_f64);
        number.map_or_else(|| "-".to_owned(), |it| format!("{it:.1}"))
    };
    format!(
        "Agent on {} pods of API servers: programmed {} ms after its start; {} changes of one pod, API to flipped ring: \
         median {} ms, p90 {}, p99 {}, most {}; {} MiB resident, {} at its peak; {} lists read again\n",
        live["endpoints"],
        value("/start_to_programmed_ms"),
        live["changes"],
        value("/change_to_flip_ms/median"),
        value("/change_to_flip_ms/p90"),
        value("/change_to_flip_ms/p99"),
        value("/change_to_flip_ms/max"),
        value("/memory_mib"),
        value("/peak_memory_mib"),
        live["relists"],
    )
}

/// Where the figures come from.
pub fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown CPU", |(_, model)| model.trim());
    json!({
        "cpu": model,
        "cpus": thread::available_parallelism().map_or(1, NonZero::get),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        // One minute's average, before anything is measured.
        "load": read("/proc/loadavg").split(' ').next(),
    })
}
