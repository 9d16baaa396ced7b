//! Where measurements happen: a program in mount and process namespaces of its own.
//!
//! Network namespaces get their names, and maps their pins, on file systems mounted in there: however the run ends, the
//! kernel takes all of it away, processes first.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};
use rustix::process::setpriority_process;
use serde_json::Value;

use crate::{netns, process};

/// Where pins are, inside.
pub const PINS: &str = "/run/fg-bench-bpf";
/// Where files are, inside: in memory.
pub const SCRATCH: &str = "/run/fg-bench";

/// Runs a program, which begins with [`enter`], in namespaces of its own. What it prints on stdout is its result.
pub(super) fn run(program: &Path, arguments: &[String]) -> Result<Value> {
    let mut child = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run unshare (package util-linux)")?;
    // Held open for as long as we live: the benchmark ends when it closes.
    let held = child.stdin.take();
    let done = child.wait_with_output()?;
    drop(held);
    // Where its file systems were mounted: empty folders by now, and only those are removed.
    for mounted in [SCRATCH, PINS] {
        let _ = fs::remove_dir(mounted);
    }
    if !done.status.success() {
        bail!("the benchmark failed ({})", done.status);
    }
    serde_json::from_slice(&done.stdout).context("the benchmark's answer")
}

/// Takes the mounts, and ends the process when the command that started it is gone.
pub fn enter() -> Result<()> {
    if std::process::id() != 1 {
        bail!("this is run by `cargo xtask bench`, in namespaces of its own");
    }
    // Inherited by everything started from here, contenders too: what else the machine does is not what is measured.
    setpriority_process(None, -20).context("cannot raise the priority")?;
    fs::create_dir_all("/run/netns")?;
    fs::create_dir_all(PINS)?;
    fs::create_dir_all(SCRATCH)?;
    mount("tmpfs", "/run/netns")?;
    mount("tmpfs", SCRATCH)?;
    mount("bpf", PINS)?;
    thread::spawn(|| {
        let mut rest = Vec::new();
        // Its end closes with whoever holds it.
        let _ = std::io::stdin().read_to_end(&mut rest);
        std::process::exit(130);
    });
    Ok(())
}

fn mount(kind: &str, at: &str) -> Result<()> {
    process::output(Command::new("mount").args(["-t", kind, kind, at])).map(drop)
}

/// Devices made from here on send nothing of their own, which IPv6 would have them do.
pub fn quiet(namespace: &str) -> Result<()> {
    set(namespace, "ipv6/conf/default/disable_ipv6", "1")
}

/// Writes a setting below `/proc/sys/net` of a namespace.
pub fn set(namespace: &str, key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{key}");
    netns::inside(namespace, || match fs::write(&path, value) {
        Err(error) if key.starts_with("ipv6/") && error.kind() == std::io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other.with_context(|| format!("cannot write {path}")),
    })?
}
