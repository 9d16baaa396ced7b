//! Hostile clients as a program: prints its report as JSON, and fails if a normal client noticed.
//!
//! It starts itself again for the proxy and for its backend.

use std::{env, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use fleetgate_tests::hostile::{
    gateway, origin,
    round::{self, Options},
    script,
};
use xtask::console;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Attackers at once
    #[arg(long, default_value_t = 1000)]
    clients: u32,
    /// How long the normal client asks, each time
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How often it asks alone and under attack
    #[arg(long, default_value_t = 2)]
    turns: u32,
    /// Kinds, all if none is named
    #[arg(long)]
    only: Vec<String>,
}

#[derive(Subcommand)]
enum Part {
    /// The proxy
    Gateway {
        #[arg(long)]
        origin: SocketAddr,
    },
    /// Its backend
    Origin,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    match arguments.part {
        Some(Part::Gateway { origin }) => gateway::run(origin).map(|()| ExitCode::SUCCESS),
        Some(Part::Origin) => origin::run().map(|()| ExitCode::SUCCESS),
        None => attack(&arguments),
    }
}

fn attack(arguments: &Arguments) -> Result<ExitCode> {
    let program = env::current_exe()?;
    let scripts = script::all();
    let known: Vec<_> = scripts.iter().map(|it| it.name).collect();
    if let Some(other) = arguments
        .only
        .iter()
        .find(|it| !known.contains(&it.as_str()))
    {
        bail!("there is no kind {other}; there are {}", known.join(", "));
    }
    let options = Options {
        clients: arguments.clients,
        lasting: Duration::from_secs(arguments.seconds),
        turns: arguments.turns,
    };
    let wanted =
        |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|it| it == name);
    let mut outcomes = Vec::new();
    for script in scripts.into_iter().filter(|it| wanted(it.name)) {
        console::note(format_args!("{}: {}", script.name, script.does));
        outcomes.push(round::run(&program, &Arc::new(script), options)?);
    }
    console::say(serde_json::to_string(&outcomes)?);
    Ok(match outcomes.iter().all(round::Outcome::holds) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(2),
    })
}
