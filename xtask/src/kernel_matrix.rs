//! `cargo xtask kernel-matrix`: boots other kernels under qemu and has each load, attach and forward.
//!
//! The guest has no disk and no network: everything is in its initramfs, and the verdict is a line on its serial console,
//! because qemu ends with 0 whatever happened inside.

mod fetch;
pub mod guest;
mod image;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    console::{self, Step},
    ebpf, paths, process, setup,
};

/// The kernels that are tested unless told otherwise, oldest first; the first is the oldest that is supported.
pub const VERSIONS: [&str; 4] = ["6.1", "6.12", "6.18", "7.3"];
/// How many must pass.
const GREEN: usize = 4;
/// What a guest may take to its first process, without KVM on a busy machine (3 to 20 s).
const BOOT: Duration = Duration::from_secs(75);
/// What it may take in all (30 to 150 s).
const RUN: Duration = Duration::from_secs(400);
/// Memory of the guest, MiB.
const MEMORY: u32 = 1024;
/// Line of the console that the guest's first process writes before anything else.
const BOOTED: &str = "KERNEL-MATRIX-INIT";
/// Boots that end before [`BOOTED`]: an emulated timer may miss its calibration on a busy machine, and nothing of ours has
/// run by then. What comes after it is never tried again.
const BOOTS: usize = 3;
/// Begins the line of the console that carries the guest's [`Report`].
const RESULT: &str = "KERNEL-MATRIX-RESULT ";

/// Programs and their packages.
const NEEDS: &[setup::Need] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("cpio", "cpio"),
    ("busybox", "busybox-static"),
    ("xz", "xz-utils"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("ethtool", "ethtool"),
    ("strip", "binutils"),
    ("nsenter", "util-linux"),
];

/// Arguments of the command.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// `fetch` or `run` for that half alone, then kernels as major.minor [default: both, the supported kernels]
    #[arg(value_name = "fetch|run|VERSION", value_parser = word)]
    pub words: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

fn word(text: &str) -> Result<String, String> {
    match text {
        "fetch" | "run" => Ok(text.to_owned()),
        text => version(text),
    }
}

fn version(text: &str) -> Result<String, String> {
    let numbers: Vec<&str> = text.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if numbers.len() == 2 && numbers.iter().all(number) {
        return Ok(text.to_owned());
    }
    Err("expected major.minor, e.g. 6.12".to_owned())
}

/// What a guest found out, step by step; it ends with the first that fails.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Report {
    /// `uname -r`.
    pub release: String,
    /// Verified instructions of each program, where the kernel tells.
    pub verified: Vec<(String, u32)>,
    /// What each run was asked for, and the hooks it got.
    pub attached: Vec<(String, String)>,
    /// Connections and datagrams that were answered through the gateway.
    pub answered: u64,
    /// What failed.
    pub failure: Option<String>,
}

/// One kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// As asked for.
    pub version: String,
    /// `passed`, `FAILED` or `skipped`.
    pub verdict: &'static str,
    /// Why it was skipped or failed.
    pub reason: String,
    /// From the start of qemu to its end.
    pub seconds: f64,
    /// What the guest said, if it said anything.
    pub report: Option<Report>,
}

/// Runs the command.
pub fn run(options: &Options) -> Result<ExitCode> {
    setup::ensure(NEEDS)?;
    let told = |word: &str| options.words.iter().any(|one| one == word);
    let mut versions: Vec<String> = options.words.clone();
    versions.retain(|word| word != "fetch" && word != "run");
    if versions.is_empty() {
        versions = VERSIONS.map(str::to_owned).to_vec();
    }
    let mut missing = Vec::new();
    if told("fetch") || !told("run") {
        missing = fetch::all(&cache(), &versions)?;
        if !told("run") && told("fetch") {
            for (version, why) in &missing {
                console::say(format_args!("{version}: not fetched: {why}"));
            }
            return Ok(verdict(missing.is_empty()));
        }
    }
    let agent = agent()?;
    let base = image::base(&cache(), &agent)?;
    let rows: Vec<Row> = versions
        .iter()
        .map(|version| {
            let why = missing.iter().find(|one| one.0 == *version);
            boot(version, &base, why.map(|one| one.1.as_str()))
        })
        .collect();
    let passed = rows.iter().filter(|row| row.verdict == "passed").count();
    let failed = rows.iter().any(|row| row.verdict == "FAILED");
    // Asked for by name, all must pass; of the supported ones at least four.
    let enough = passed >= GREEN.min(versions.len());
    if options.json {
        console::say(serde_json::to_string_pretty(&rows)?);
    } else {
        show(&rows);
        if !enough {
            console::say(format_args!(
                "FAILED only {passed} of {} kernels passed, {} are asked for",
                versions.len(),
                GREEN.min(versions.len())
            ));
        }
    }
    Ok(verdict(enough && !failed))
}

fn verdict(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Kernels and images; they survive `cargo clean` no more than anything else.
fn cache() -> PathBuf {
    paths::target().join("kernels")
}

/// The agent as the tests run it, built with the object inside.
fn agent() -> Result<PathBuf> {
    if let Some(given) = paths::given_agent() {
        return Ok(given);
    }
    ebpf::build(&ebpf::Options::default())?;
    let step = Step::start("building the agent");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::workspace());
    process::run(cargo.args([
        "build",
        "--quiet",
        "-p",
        "gateway-user",
        "--bin",
        "fleetgate",
    ]))?;
    step.done();
    Ok(paths::target().join("debug").join("fleetgate"))
}

fn boot(version: &str, base: &Path, missing: Option<&str>) -> Row {
    let mut row = Row {
        version: version.to_owned(),
        verdict: "FAILED",
        reason: String::new(),
        seconds: 0.0,
        report: None,
    };
    let kernel = cache().join(version);
    if !kernel.join("vmlinuz").is_file() {
        row.verdict = "skipped";
        row.reason = missing
            .unwrap_or("not downloaded; run: cargo xtask kernel-matrix fetch")
            .to_owned();
        return row;
    }
    let step = Step::start(format!("Linux {version}"));
    let started = Instant::now();
    match guest(&kernel, base) {
        Ok(report) => {
            row.reason = report.failure.clone().unwrap_or_default();
            if report.failure.is_none() {
                row.verdict = "passed";
            }
            row.report = Some(report);
        }
        Err(error) => row.reason = format!("{error:#}"),
    }
    row.seconds = (started.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    step.done_with(row.verdict);
    row
}

/// Boots one kernel and reads what it said.
fn guest(kernel: &Path, base: &Path) -> Result<Report> {
    let mut boots = 0;
    loop {
        boots += 1;
        match attempt(kernel, base)? {
            Attempt::Told(report) => return report,
            Attempt::NotBooted(why) if boots == BOOTS => return Err(why),
            Attempt::NotBooted(why) => console::note(format_args!("{why:#}\n.. booting again")),
        }
    }
}

/// How a boot ended.
enum Attempt {
    /// With a result, or in the middle of the test.
    Told(Result<Report>),
    /// Before the first process.
    NotBooted(anyhow::Error),
}

fn attempt(kernel: &Path, base: &Path) -> Result<Attempt> {
    let initramfs = image::for_kernel(kernel, base)?;
    let log = kernel.join("console.log");
    let file = fs::File::create(&log)?;
    // KVM only where the machine really has it: a /dev/kvm of another kind opens and then fails in the middle.
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let kvm = Path::new("/dev/kvm").exists()
        && cpu
            .split_whitespace()
            .any(|flag| flag == "vmx" || flag == "svm");
    let (accelerator, model) = if kvm {
        ("kvm", "host")
    } else {
        ("tcg,thread=multi", "max")
    };
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-machine", "q35", "-accel", accelerator, "-cpu", model])
        .args(["-m", &MEMORY.to_string(), "-smp", "2"])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-serial", "stdio", "-no-reboot"])
        .arg("-kernel")
        .arg(kernel.join("vmlinuz"))
        .arg("-initrd")
        .arg(&initramfs)
        .args(["-append", "console=ttyS0 panic=-1 quiet no_timer_check"])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .context("cannot run qemu")?;
    let ended = watch(&mut qemu, &log);
    let _ = fs::remove_file(&initramfs);
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let report = result(&said).with_context(|| {
        format!(
            "{}; last lines of {}:\n{}",
            ended.map_or_else(|error| format!("{error:#}"), str::to_owned),
            log.display(),
            process::last_lines(said.trim_end(), 15)
        )
    });
    Ok(match report {
        Err(why) if !said.contains(BOOTED) => Attempt::NotBooted(why),
        report => Attempt::Told(report),
    })
}

/// Waits for a guest to power off, and ends one that takes too long. Returns how it ended.
fn watch(qemu: &mut Child, log: &Path) -> Result<&'static str> {
    let started = Instant::now();
    let mut booted = false;
    let ended = loop {
        if qemu.try_wait()?.is_some() {
            return Ok("the guest ended without a result");
        }
        if started.elapsed() > RUN {
            break "no result in time";
        }
        if !booted && started.elapsed() > BOOT {
            booted = String::from_utf8_lossy(&fs::read(log)?).contains(BOOTED);
            if !booted {
                break "it did not boot in time";
            }
        }
        thread::sleep(Duration::from_millis(200));
    };
    qemu.kill()?;
    qemu.wait()?;
    Ok(ended)
}

/// The report on a console, among whatever the kernel said.
fn result(console: &str) -> Option<Report> {
    console.lines().rev().find_map(|line| {
        let (_, json) = line.split_once(RESULT)?;
        serde_json::from_str(json.trim_end()).ok()
    })
}

fn show(rows: &[Row]) {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let report = row.report.clone().unwrap_or_default();
            let list = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>().join(", ");
            vec![
                row.version.clone(),
                report.release,
                format!("{:6.1}", row.seconds),
                list(
                    &mut report
                        .verified
                        .iter()
                        .map(|(name, n)| format!("{name} {n}")),
                ),
                list(&mut report.attached.iter().map(|(_, hooks)| hooks.clone())),
                format!("{:8}", report.answered),
                row.verdict.to_owned(),
            ]
        })
        .collect();
    let header = [
        "kernel",
        "release",
        "s",
        "verified instructions",
        "attached",
        "answered",
        "verdict",
    ];
    console::say(console::table(&header, &cells));
    for row in rows.iter().filter(|row| !row.reason.is_empty()) {
        console::say(format_args!(
            "{} {}: {}",
            row.verdict, row.version, row.reason
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_result_line_is_a_result() {
        let report = Report {
            release: "6.1.0".into(),
            answered: 7,
            ..Report::default()
        };
        let json = serde_json::to_string(&report).expect("a report");
        let console =
            format!("[    1.0] noise\r\n{RESULT}{json}\r\n[    2.0] reboot: Power down\r\n");
        assert_eq!(result(&console), Some(report));
        assert_eq!(
            result(&format!("{RESULT}{}", &json[..json.len() - 2])),
            None
        );
        assert_eq!(result("Kernel panic - not syncing"), None);
    }

    #[test]
    fn versions_are_two_numbers() {
        assert!(version("6.1").is_ok());
        for odd in ["6", "6.1.2", "6.x", "", "6."] {
            assert!(version(odd).is_err(), "{odd}");
        }
    }
}
