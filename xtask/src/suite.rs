//! `cargo xtask test`: every test, and a refusal to call it a success when the privileged ones did not run.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    console::{self, note},
    ebpf,
    lab::state,
    paths, process, setup,
};

/// Package of the tests that need the kernel.
const PACKAGE: &str = "fleetgate-tests";
/// `linux/capability.h`: what loading programs and making namespaces takes.
const CAPABILITIES: [(u32, &str); 4] = [
    (12, "CAP_NET_ADMIN"),
    (21, "CAP_SYS_ADMIN"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];

/// Results of one run of `cargo test`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// A line of the closing table.
struct Row {
    what: &'static str,
    counts: Counts,
    seconds: f64,
    trouble: Option<String>,
}

/// Runs everything; success only if all passed and the privileged tests were among them.
pub fn run() -> Result<ExitCode> {
    // First, so that the agent is compiled once, with the object inside.
    let object = ebpf::build(&ebpf::Options::default());
    let mut rows = vec![step("unit, property, golden", &["--workspace"], &[])];
    rows.push(
        match object.and_then(|_| preflight()).and_then(|()| agent()) {
            Ok(()) => privileged(),
            Err(error) => {
                let trouble = format!("the privileged tests did not run: {error:#}");
                Row {
                    what: PRIVILEGED,
                    counts: Counts::default(),
                    seconds: 0.0,
                    trouble: Some(trouble),
                }
            }
        },
    );

    let cells = rows.iter().map(|row| {
        let Counts {
            passed,
            failed,
            ignored,
        } = row.counts;
        let verdict = if row.trouble.is_none() {
            "ok"
        } else {
            "FAILED"
        };
        vec![
            row.what.into(),
            format!("{passed:6}"),
            format!("{failed:6}"),
            format!("{ignored:7}"),
            format!("{:7.1}", row.seconds),
            verdict.into(),
        ]
    });
    let header = ["tests", "passed", "failed", "ignored", "seconds", "verdict"];
    console::say(console::table(&header, &cells.collect::<Vec<_>>()));
    let troubles: Vec<&String> = rows.iter().filter_map(|row| row.trouble.as_ref()).collect();
    for trouble in &troubles {
        console::say(format_args!("FAILED {trouble}"));
    }
    let passed: u64 = rows.iter().map(|row| row.counts.passed).sum();
    // What did not compile or did not run is at least one failure.
    let failed: u64 = rows
        .iter()
        .map(|row| row.counts.failed.max(u64::from(row.trouble.is_some())))
        .sum();
    console::say(format_args!("{passed} passed, {failed} failed"));
    Ok(if troubles.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

const PRIVILEGED: &str = "privileged (kernel, namespaces)";

/// The privileged tests, which must be more than what the package has without the feature.
fn privileged() -> Row {
    let mut row = step(
        PRIVILEGED,
        &["--package", PACKAGE, "--features", "privileged"],
        &["--test-threads=1"],
    );
    if row.trouble.is_none() {
        row.trouble = match plain_tests() {
            Ok(plain) if row.counts.passed > plain => None,
            Ok(plain) => Some(format!(
                "no privileged test ran ({} passed, {plain} of them need no privilege); \
                 they are behind the feature `privileged` of package {PACKAGE}",
                row.counts.passed
            )),
            Err(error) => Some(format!(
                "cannot count the tests that need no privilege: {error:#}"
            )),
        };
    }
    row
}

/// Whether this machine can run privileged tests; the error says what is missing and how to get it.
fn preflight() -> Result<()> {
    if !process::root() {
        bail!("they need root; run: sudo -E env PATH=\"$PATH\" cargo xtask test");
    }
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let missing = missing_capabilities(&status)?;
    if !missing.is_empty() {
        bail!(
            "missing {}; in a container add --privileged, or --cap-add for each of them",
            missing.join(", ")
        );
    }
    setup::ensure(setup::LAB)?;
    state::mount_bpffs()?;
    let name = format!("fgprobe-{}", std::process::id());
    process::output(Command::new("ip").args(["netns", "add", &name]))
        .context("this machine does not allow network namespaces (in a container: --privileged)")?;
    process::output(Command::new("ip").args(["netns", "del", &name]))?;
    Ok(())
}

/// Builds the program that the end-to-end tests run, with the kernel object inside: cargo builds no other package's
/// programs for a test.
fn agent() -> Result<()> {
    process::run(
        cargo()
            .args(["build", "--package", "gateway-user", "--bin", "fleetgate"])
            .current_dir(paths::workspace()),
    )
    .context("the agent for the end-to-end tests")
}

/// Capabilities we need and do not have.
fn missing_capabilities(status: &str) -> Result<Vec<&'static str>> {
    let held = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .ok_or_else(|| anyhow!("/proc/self/status has no CapEff"))?;
    Ok(CAPABILITIES
        .iter()
        .filter(|(bit, _)| held & (1 << bit) == 0)
        .map(|(_, name)| *name)
        .collect())
}

/// How many tests the package has without the feature.
fn plain_tests() -> Result<u64> {
    let list = process::output(
        cargo_test(&["--package", PACKAGE], &["--list"]).env("CARGO_TERM_QUIET", "true"),
    )?;
    Ok(list.lines().filter(|line| line.ends_with(": test")).count() as u64)
}

/// One run of `cargo test`, its output passed on to stderr.
fn step(what: &'static str, selection: &[&str], harness: &[&str]) -> Row {
    note(format_args!(".. {what}"));
    let started = Instant::now();
    let (counts, trouble) = match counted(&mut cargo_test(selection, harness)) {
        Ok((counts, true)) => (counts, None),
        Ok((counts, false)) => {
            let trouble = match counts.failed {
                0 => {
                    format!("{what}: something did not build or ended early; see the errors above")
                }
                failed => format!("{what}: {failed} failed; see above"),
            };
            (counts, Some(trouble))
        }
        Err(error) => (Counts::default(), Some(format!("{what}: {error:#}"))),
    };
    Row {
        what,
        counts,
        seconds: started.elapsed().as_secs_f64(),
        trouble,
    }
}

fn counted(command: &mut Command) -> Result<(Counts, bool)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo test")?;
    let mut counts = Counts::default();
    let output = child.stdout.take().context("cargo has no stdout")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        note(&line);
        counts.add(&line);
    }
    let status = child.wait()?;
    Ok((counts, status.success() && counts.failed == 0))
}

fn cargo_test(selection: &[&str], harness: &[&str]) -> Command {
    let mut command = cargo();
    command
        .args(["test", "--no-fail-fast"])
        .args(selection)
        .arg("--")
        .args(harness);
    command.current_dir(paths::workspace());
    if let Ok(me) = env::current_exe() {
        // The tests' lab runs its pods from this program.
        command.env("FLEETGATE_XTASK", me);
    }
    command
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

impl Counts {
    /// Adds a line such as `test result: ok. 13 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; ...`.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else {
            return;
        };
        let number = |label: &str| {
            rest.split([';', '.'])
                .find_map(|part| part.trim().strip_suffix(label)?.trim().parse::<u64>().ok())
                .unwrap_or(0)
        };
        self.passed += number("passed");
        self.failed += number("failed");
        self.ignored += number("ignored");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed_over_all_test_programs() {
        let mut counts = Counts::default();
        counts.add("test result: ok. 13 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.06s");
        counts.add("test result: FAILED. 1 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.06s");
        counts.add("test something::passed ... ok");
        assert_eq!(
            counts,
            Counts {
                passed: 14,
                failed: 4,
                ignored: 2
            }
        );
    }

    #[test]
    fn a_missing_capability_is_named() {
        assert!(
            missing_capabilities("CapEff:\t000001fffeffffff\n")
                .expect("valid")
                .is_empty()
        );
        assert_eq!(
            missing_capabilities("CapEff:\t0000004000201000\n").expect("valid"),
            ["CAP_BPF"]
        );
        assert!(missing_capabilities("nothing").is_err());
    }
}
