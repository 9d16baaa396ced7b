//! `cargo xtask bench l4`: what the kernel path costs, beside others, with its bars.

mod bars;
mod chart;
mod report;

use std::{
    env, fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{bars::Bar, stage};
use crate::{
    console::{self, Step},
    ebpf, paths, process, setup,
};

/// Programs that are compared or used beside those of the lab.
const NEEDS: &[setup::Need] = &[
    ("haproxy", "haproxy"),
    ("nft", "nftables"),
    ("unshare", "util-linux"),
];

/// What is measured.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Few rounds and no table of a million flows: for a look, not for figures
    #[arg(long)]
    pub quick: bool,
    /// Alternating rounds; ns with up to 1000 flows takes four times as many [default: 9, with --quick 3]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=99))]
    pub rounds: Option<u16>,
    /// Measure this part only; repeat for more
    #[arg(long, value_name = "PART", value_parser = ["ns", "pps", "tcp", "conn"])]
    pub only: Vec<String>,
    /// Write docs/bench-l4.svg and docs/bench-l4.md from the result
    #[arg(long)]
    pub chart: bool,
}

/// Builds, measures, prints; fails where a bar does not hold.
pub fn run(options: &Options) -> Result<ExitCode> {
    if options.chart && !options.only.is_empty() {
        bail!("--chart writes a whole page: leave --only out");
    }
    if !process::root() {
        bail!("bench l4 loads programs and makes network namespaces: run it as root");
    }
    setup::ensure(setup::LAB)?;
    setup::ensure(NEEDS)?;
    let object = ebpf::build(&ebpf::Options::default())?;
    let floors = ebpf::build_bench()?;
    let step = Step::start("building agent and benchmark");
    build()?;
    step.done();
    let step = Step::start("measuring");
    let result = measure(options, &object, &floors)?;
    step.done();
    let judged = bars::judge(&result);
    if options.json {
        let bars: Vec<Value> = judged.iter().map(Bar::json).collect();
        let mut result = result.clone();
        result["bars"] = bars.into();
        console::say(&result);
    } else {
        console::say(report::tables(&result));
        console::say(report::bars(&judged));
    }
    if options.chart {
        let docs = paths::workspace().join("docs");
        for (name, text) in [
            ("bench-l4.svg", chart::svg(&result)),
            ("bench-l4.md", report::page(&result, &judged)),
        ] {
            let path = docs.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            console::note(format_args!("   {}", path.display()));
        }
    }
    Ok(if judged.iter().all(Bar::held) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn build() -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--package", "gateway-user", "--bin", "fleetgate"]);
    command.args(["--package", "fleetgate-tests", "--bin", "bench-l4"]);
    // Neither agent nor benchmark is in the path of a packet: they need not be optimised.
    process::output(command.current_dir(paths::workspace())).map(drop)
}

/// Runs the benchmark in mount and process namespaces of its own: nothing of it outlives it.
fn measure(options: &Options, object: &Path, floors: &Path) -> Result<Value> {
    let program = |name: &str| paths::target().join("debug").join(name);
    let rounds = options.rounds.unwrap_or(if options.quick { 3 } else { 9 });
    let mut arguments = vec![
        "--object".to_owned(),
        object.display().to_string(),
        "--bench-object".to_owned(),
        floors.display().to_string(),
        "--agent".to_owned(),
        program("fleetgate").display().to_string(),
        "--rounds".to_owned(),
        rounds.to_string(),
    ];
    if options.quick {
        arguments.push("--quick".to_owned());
    }
    for part in &options.only {
        arguments.extend(["--only".to_owned(), part.clone()]);
    }
    stage::run(&program("bench-l4"), &arguments)
}
