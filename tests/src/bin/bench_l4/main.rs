//! What the kernel path costs, beside others: `cargo xtask bench l4`.

mod bulk;
mod connect;
mod contenders;
mod dialogue;
mod flows;
mod nanos;
mod network;
mod rate;
mod rounds;
mod stage;
mod stream;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use serde_json::{Map, Value, json};
use xtask::{bench, console};

use crate::network::Contender;

/// What is measured, and how long.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// The kernel programs that ship.
    #[arg(long)]
    object: PathBuf,
    /// Floors and generator.
    #[arg(long)]
    bench_object: PathBuf,
    /// The agent.
    #[arg(long)]
    agent: PathBuf,
    /// Fewer sizes.
    #[arg(long)]
    quick: bool,
    /// Rounds that count.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Frames of one measurement.
    #[arg(long, default_value_t = 200_000)]
    frames: u32,
    /// Frames that the generator makes before they are looked at; a veth's ring holds 256.
    #[arg(long, default_value_t = 64)]
    batch: u32,
    /// Connections open at once.
    #[arg(long, default_value_t = 32)]
    open: usize,
    /// Sizes of the flow table's content, for a look at one change.
    #[arg(long)]
    flows: Vec<u32>,
    /// Parts, all if none is named.
    #[arg(long)]
    only: Vec<String>,
}

fn main() -> ExitCode {
    match measure(&Options::parse()) {
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

fn measure(options: &Options) -> Result<Value> {
    stage::enter()?;
    let wanted = |part: &str| options.only.is_empty() || options.only.iter().any(|it| it == part);
    let mut result = Map::new();
    result.insert("machine".into(), bench::machine());
    if wanted("ns") {
        console::note("ns per packet of an established flow, net of the empty program");
        let nanos = nanos::run(options)?;
        result.insert("ns".into(), json!(nanos.cases));
        result.insert("opening".into(), json!(nanos.opening));
    }
    let rate = wanted("pps");
    let tcp = wanted("tcp") || wanted("conn");
    let mut there: Vec<Contender> = Vec::new();
    if rate {
        there.extend(rate::CONTENDERS);
    }
    if tcp {
        there.extend(contenders::ALL);
    }
    there.sort_by_key(|one| one.number());
    there.dedup();
    if !there.is_empty() {
        network::build(&there)?;
    }
    if rate {
        console::note("packets per second");
        result.insert("pps".into(), rate::run(options)?);
    }
    if tcp {
        contenders::start(options)?;
    }
    if wanted("tcp") {
        console::note("bulk TCP");
        let zerocopy = stream::run(options)?;
        let iperf = bulk::run(options)?;
        result.insert("tcp".into(), [zerocopy, iperf].concat().into());
    }
    if wanted("conn") {
        console::note("connections per second");
        let sockets = connect::run(options)?;
        let xdp = dialogue::run(options)?;
        result.insert("conn".into(), json!([xdp, sockets]));
    }
    Ok(Value::Object(result))
}
