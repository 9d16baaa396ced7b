//! `cargo xtask test`: every test, and a refusal to call it a success when the privileged ones did not run.

use std::{
    env,
    ffi::OsString,
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use self::results::{Counts, Results};
use crate::{
    console::{self, note},
    ebpf, kernel,
    lab::state,
    paths, process, setup,
};

pub mod results;
pub mod watch;

/// Package of the tests that need the kernel.
const PACKAGE: &str = "fleetgate-tests";
/// `linux/capability.h`: what loading programs and making namespaces takes.
const CAPABILITIES: [(u32, &str); 4] = [
    (12, "CAP_NET_ADMIN"),
    (21, "CAP_SYS_ADMIN"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];
/// What all tests together may take, without compiling.
const RUNS: Duration = Duration::from_secs(10 * 60);
/// When whatever still compiles or runs is ended.
const HARD: Duration = Duration::from_secs(20 * 60);

/// A line of the closing table.
struct Row {
    what: &'static str,
    counts: Counts,
    compile_seconds: f64,
    seconds: f64,
    trouble: Option<String>,
}

impl Row {
    /// What was not run at all.
    fn failed(what: &'static str, trouble: String) -> Self {
        Self {
            what,
            counts: Counts::default(),
            compile_seconds: 0.0,
            seconds: 0.0,
            trouble: Some(trouble),
        }
    }
}

/// Runs everything; success only if all passed and the privileged tests were among them.
pub fn run() -> Result<ExitCode> {
    let deadline = Instant::now() + HARD;
    kernel::ensure()?;
    // First, so that the agent is compiled once, with the object inside.
    let object = ebpf::build(&ebpf::Options::default());
    for ready in [setup::ensure(setup::REFEREE), setup::clients::ensure()] {
        if let Err(error) = ready {
            // The tests that need it fail, and say so.
            note(format_args!("{error:#}"));
        }
    }
    let mut rows = vec![step("unit, property, golden", &["--workspace"], &[], deadline).0];
    rows.push(
        match object.and_then(|_| preflight()).and_then(|()| agent()) {
            Ok(()) => privileged(deadline),
            Err(error) => {
                let trouble = format!("the privileged tests did not run: {error:#}");
                Row::failed(PRIVILEGED, trouble)
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
            format!("{:8.1}", row.compile_seconds),
            format!("{:7.1}", row.seconds),
            verdict.into(),
        ]
    });
    let header = [
        "tests", "passed", "failed", "ignored", "compiled", "seconds", "verdict",
    ];
    console::say(console::table(&header, &cells.collect::<Vec<_>>()));
    let mut troubles: Vec<String> = rows.iter().filter_map(|row| row.trouble.clone()).collect();
    let ran: f64 = rows.iter().map(|row| row.seconds).sum();
    if ran >= RUNS.as_secs_f64() {
        troubles.push(format!(
            "the tests ran for {ran:.0} s, less than {} s is asked for",
            RUNS.as_secs()
        ));
    }
    for trouble in &troubles {
        console::say(format_args!("FAILED {trouble}"));
    }
    let passed: u64 = rows.iter().map(|row| row.counts.passed).sum();
    // What did not compile or did not run is at least one failure.
    let failed: u64 = rows
        .iter()
        .map(|row| row.counts.failed.max(u64::from(row.trouble.is_some())))
        .sum();
    console::say(format_args!(
        "{passed} passed, {failed} failed ({ran:.0} s without compiling)"
    ));
    Ok(if troubles.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

const PRIVILEGED: &str = "privileged (kernel, namespaces)";

/// The privileged tests, with at least one passed in every program that needs the feature. The other programs of the
/// package have run before.
fn privileged(deadline: Instant) -> Row {
    let wanted = match privileged_programs() {
        Ok(wanted) => wanted,
        Err(error) => {
            let trouble = format!("cannot tell which test programs must run: {error:#}");
            return Row::failed(PRIVILEGED, trouble);
        }
    };
    let mut selection = vec!["--package", PACKAGE, "--features", "privileged"];
    for name in &wanted {
        selection.extend(["--test", name]);
    }
    let (mut row, results) = step(PRIVILEGED, &selection, &["--test-threads=1"], deadline);
    if row.trouble.is_none() {
        let missing = results.without_a_pass(&wanted);
        row.trouble = (!missing.is_empty()).then(|| {
            format!(
                "no test passed in {} of package {PACKAGE}",
                missing.join(", ")
            )
        });
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

/// Builds the programs that the end-to-end tests run, with the kernel objects inside: cargo builds no other package's
/// programs for a test. The one of another layout first: cargo gives both the same name.
fn agent() -> Result<()> {
    other_agent()?;
    build(&[]).context("the agent for the end-to-end tests")?;
    Ok(())
}

/// The agent whose maps have another layout, for the tests of upgrades. Only our own crates are built once more.
pub(crate) fn other_agent() -> Result<()> {
    let began = Instant::now();
    ebpf::build_other_layout()?;
    let built = build(&["--features", "gateway-user/other-layout"])
        .context("the agent of another layout for the tests of upgrades")?;
    let other = paths::other_agent();
    fs::copy(&built, &other).with_context(|| format!("cannot write {}", other.display()))?;
    note(format_args!(
        "ok an agent of another layout: {} ({:.1} s)",
        other.display(),
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn build(features: &[&str]) -> Result<PathBuf> {
    process::run(
        cargo()
            .args(["build", "--package", "gateway-user", "--bin", "fleetgate"])
            .args(features)
            .current_dir(paths::workspace()),
    )?;
    Ok(paths::target().join("debug").join("fleetgate"))
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

/// Which of these capabilities this process does not hold.
pub fn lacking(names: &[&str]) -> Result<Vec<&'static str>> {
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let mut missing = missing_capabilities(&status)?;
    missing.retain(|name| names.contains(name));
    Ok(missing)
}

/// Names of the test programs that need the feature, by the package's manifest.
fn privileged_programs() -> Result<Vec<String>> {
    let mut metadata = cargo();
    metadata
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(paths::workspace());
    named_programs(&process::output(&mut metadata)?)
}

/// The same, from what `cargo metadata` prints.
fn named_programs(metadata: &str) -> Result<Vec<String>> {
    let metadata: serde_json::Value =
        serde_json::from_str(metadata).context("cargo metadata printed no JSON")?;
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let names: Vec<String> = list(&metadata["packages"])
        .iter()
        .filter(|package| package["name"] == PACKAGE)
        .flat_map(|package| list(&package["targets"]))
        .filter(|target| list(&target["required-features"]).contains(&"privileged".into()))
        .filter_map(|target| Some(target["name"].as_str()?.to_owned()))
        .collect();
    if names.is_empty() {
        bail!("no test of package {PACKAGE} has required-features = [\"privileged\"]");
    }
    Ok(names)
}

/// One run of `cargo test`, compiled first, its output passed on to stderr.
fn step(
    what: &'static str,
    selection: &[&str],
    harness: &[&str],
    deadline: Instant,
) -> (Row, Results) {
    note(format_args!(".. {what}"));
    let mut results = Results::default();
    let began = Instant::now();
    let compiled = watch::run(cargo_build(selection), deadline, |line| note(line));
    let compile_seconds = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let trouble = match compiled {
        Ok(true) => {
            let ran = watch::run(cargo_test(selection, harness), deadline, |line| {
                note(line);
                results.read(line);
            });
            trouble(ran, &results)
        }
        Ok(false) => Some("something did not build; see the errors above".into()),
        Err(error) => Some(format!("not compiled: {error:#}")),
    };
    let row = Row {
        what,
        counts: results.total(),
        compile_seconds,
        seconds: began.elapsed().as_secs_f64(),
        trouble: trouble.map(|trouble| format!("{what}: {trouble}")),
    };
    (row, results)
}

/// What is wrong with a run, if anything.
fn trouble(ran: Result<bool>, results: &Results) -> Option<String> {
    match (ran, results.total()) {
        (Err(error), _) => Some(format!("{error:#}")),
        (Ok(_), Counts { failed: 1.., .. }) => {
            Some(format!("{} failed; see above", results.total().failed))
        }
        (Ok(false), _) => Some("something ended early; see the errors above".into()),
        (Ok(true), Counts { ignored: 1.., .. }) => {
            let each: Vec<String> = results
                .ignoring()
                .map(|(program, count)| format!("{count} in {program}"))
                .collect();
            Some(format!("tests were ignored: {}", each.join(", ")))
        }
        (Ok(true), _) => None,
    }
}

/// Compiles what [`cargo_test`] runs.
fn cargo_build(selection: &[&str]) -> Command {
    let mut command = cargo();
    command
        .args(["test", "--no-run"])
        .args(selection)
        .current_dir(paths::workspace());
    command
}

fn cargo_test(selection: &[&str], harness: &[&str]) -> Command {
    let mut command = cargo();
    command
        .args(["test", "--no-fail-fast"])
        .args(selection)
        .arg("--")
        .args(harness);
    command.current_dir(paths::workspace());
    // The results are read: cargo must say which program runs, in plain letters.
    command
        .env("CARGO_TERM_QUIET", "false")
        .env("CARGO_TERM_VERBOSE", "false")
        .env("CARGO_TERM_COLOR", "never");
    // Without HAProxy, the test that asks it fails instead of being skipped.
    command.env("FLEETGATE_REFEREE", "1");
    if let Ok(me) = env::current_exe() {
        // The tests' lab runs its pods from this program.
        command.env("FLEETGATE_XTASK", me);
    }
    command
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Results {
        let mut results = Results::default();
        lines.iter().for_each(|line| results.read(line));
        results
    }

    #[test]
    fn a_run_with_ignored_tests_is_no_success() {
        let results = read(&[
            "     Running tests/a.rs (target/debug/deps/a-0123456789abcdef)",
            "test result: ok. 9 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
        ]);
        assert_eq!(
            trouble(Ok(true), &results).as_deref(),
            Some("tests were ignored: 1 in a")
        );
    }

    #[test]
    fn a_run_is_a_success_only_if_cargo_says_so_and_nothing_failed() {
        let good = read(&["test result: ok. 9 passed; 0 failed; 0 ignored"]);
        let bad = read(&["test result: FAILED. 9 passed; 2 failed; 0 ignored"]);
        assert_eq!(trouble(Ok(true), &good), None);
        assert!(trouble(Ok(false), &good).is_some());
        assert!(trouble(Err(anyhow!("late")), &good).is_some());
        assert_eq!(
            trouble(Ok(true), &bad).as_deref(),
            Some("2 failed; see above")
        );
    }

    #[test]
    fn the_manifest_names_the_programs_that_must_run() {
        let metadata = |feature: &str| {
            format!(
                r#"{{"packages":[{{"name":"{PACKAGE}","targets":[
                    {{"name":"plain","kind":["test"]}},
                    {{"name":"wire","kind":["test"],"required-features":["{feature}"]}}]}},
                  {{"name":"other","targets":[{{"name":"x","required-features":["privileged"]}}]}}]}}"#
            )
        };
        assert_eq!(
            named_programs(&metadata("privileged")).expect("one"),
            ["wire"]
        );
        assert!(named_programs(&metadata("odd")).is_err());
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
