//! The command line: what it takes, what it shows, and its exit codes.
//!
//! Invariant: inspection works with the agent down and writes nothing but the clock's reading. What
//! is shown is computed by pure functions in [`views`] and `trace`; only [`output`] prints.

pub mod args;
pub mod doctor;
pub mod live;
pub mod monitor;
pub mod offline;
pub mod output;
pub mod table;
pub mod top;
pub mod trace;
pub mod units;
pub mod unload;
pub mod values;
pub mod views;

use clap::CommandFactory;

pub use self::{
    args::{Cli, Command, RunArgs},
    output::{Failure, Outcome},
};
use self::{
    args::{FlowsArgs, Inspect},
    live::{FlowCount, Live, Rings, alive, unix_now},
    output::{Format, show},
    views::{FlowFilter, Moment},
};

/// Flows that a table shows unless told otherwise.
const FLOWS_SHOWN: usize = 50;

/// Runs every command but `run`, which is the agent's.
pub fn inspect(command: &Command) -> Result<Outcome, Failure> {
    match command {
        Command::Run(_) => Err(Failure::Usage(Cli::command().render_usage().to_string())),
        Command::Check(args) => offline::check(args),
        Command::Plan(args) => offline::plan(args),
        Command::Status(args) => status(args),
        Command::Routes(args) => {
            let Live { record, .. } = Live::open(&args.pins)?;
            let view = views::routes(&record.ir, &record.vips, &record.plan);
            show(&view, args.output.format)?;
            Ok(Outcome::Fine)
        }
        Command::Services(args) => {
            let live = Live::open(&args.pins)?;
            let view = views::services(&live.record, &live.readings()?);
            show(&view, args.output.format)?;
            Ok(Outcome::Fine)
        }
        Command::Backends(args) => backends(args),
        Command::Flows(args) => flows(args),
        Command::Stats(args) => {
            let live = Live::open(&args.pins)?;
            let view = views::stats(&live.record, &live.readings()?);
            show(&view, args.output.format)?;
            Ok(Outcome::Fine)
        }
        Command::Top(args) => top::run(args),
        Command::Trace(args) => trace::run(args),
        Command::Monitor(args) => monitor::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Unload(args) => unload::run(args),
    }
}

fn status(args: &Inspect) -> Result<Outcome, Failure> {
    let live = Live::open(&args.pins)?;
    let moment = Moment {
        now: unix_now(),
        alive: alive(&live.record),
        links: live.pins.links(),
    };
    let flows = FlowCount::of(&live.flows());
    let view = views::status(&live.record, &live.readings()?, &flows, moment);
    show(&view, args.output.format)?;
    Ok(if view.in_error() {
        Outcome::Negative
    } else {
        Outcome::Fine
    })
}

fn backends(args: &Inspect) -> Result<Outcome, Failure> {
    let live = Live::open(&args.pins)?;
    let readings = live.readings()?;
    let mut rings = Rings::new();
    for (address, (entry, _)) in &readings.services {
        rings.insert(*address, live.ring(entry)?);
    }
    let flows = FlowCount::of(&live.flows());
    let view = views::backends(&live.record, &readings, &rings, &flows);
    show(&view, args.output.format)?;
    Ok(Outcome::Fine)
}

fn flows(args: &FlowsArgs) -> Result<Outcome, Failure> {
    let live = Live::open(&args.inspect.pins)?;
    let format = args.inspect.output.format;
    let filter = FlowFilter {
        client: args.client,
        service: args.service,
        backend: args.backend.clone(),
        limit: args.limit.unwrap_or(match format {
            Format::Table => FLOWS_SHOWN,
            Format::Json => usize::MAX,
        }),
    };
    let view = views::flows(&live.record, &live.flows(), live.ticks()?, &filter);
    show(&view, format)?;
    Ok(Outcome::Fine)
}
