//! Test programs that run for long and judge themselves: `chaos`, `mixed`, `hostile`, `fuzz-proxy`.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{console, paths, process};

/// What such a program says when its bar does not hold.
const MISSED: i32 = 2;

/// Builds programs of the tests, and the agent if it is one of them; in release mode or not. Where they are.
pub fn build(programs: &[&str], release: bool) -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--package", "fleetgate-tests"]);
    if programs.contains(&"fleetgate") {
        command.args(["--package", "gateway-user"]);
    }
    if release {
        command.arg("--release");
    }
    command.args(programs.iter().flat_map(|it| ["--bin", it]));
    process::output(command.current_dir(paths::workspace()))?;
    Ok(paths::target().join(if release { "release" } else { "debug" }))
}

/// A program that needs the agent beside it.
pub fn beside_agent(built: &Path, program: &str) -> Result<Command> {
    let mut command = Command::new(built.join(program));
    command
        .env("FLEETGATE_AGENT", built.join("fleetgate"))
        .env("FLEETGATE_XTASK", paths::xtask()?);
    Ok(command)
}

/// Runs a program to its end: its report, and whether its bar holds. Fails if it could not judge.
pub fn run(command: &mut Command) -> Result<(Value, bool)> {
    let out = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    let name = Path::new(command.get_program());
    let name = name.file_name().unwrap_or_default().display();
    let out = out.with_context(|| format!("cannot start {name}"))?;
    let held = match out.status.code() {
        Some(0) => true,
        Some(MISSED) => false,
        _ => bail!("{name} could not be run to its end ({})", out.status),
    };
    let report = serde_json::from_slice(&out.stdout);
    Ok((
        report.with_context(|| format!("the report of {name}"))?,
        held,
    ))
}

/// Shows a report, as JSON or by `tell`.
pub fn show(report: &Value, held: bool, json: bool, tell: impl FnOnce(&Value)) -> ExitCode {
    match json {
        true => console::say(report),
        false => tell(report),
    }
    match held {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
