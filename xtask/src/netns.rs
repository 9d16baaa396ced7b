//! Work inside a network namespace, without leaving the mounts (`ip netns exec` would hide /sys/fs/bpf).

use std::{
    fs::File,
    io::Write,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The file that names a namespace.
pub fn path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// A command that will run in the namespace.
pub fn command(name: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", path(name).display()))
        .arg(program);
    command
}

/// Runs `work` on a thread of its own inside the namespace; threads it spawns are inside too.
pub fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let file = File::open(path(name))
        .with_context(|| format!("no network namespace {name}; is the lab up?"))?;
    thread::scope(|scope| {
        scope
            .spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| {
                        format!("cannot enter network namespace {name} (are you root?)")
                    })?;
                Ok(work())
            })
            .join()
            .map_err(|_| anyhow!("the work inside {name} panicked"))?
    })
}

/// Feeds lines to one `ip -batch`, in a namespace or (`None`) in ours.
pub fn ip_batch(name: Option<&str>, lines: &[String]) -> Result<()> {
    let mut ip = match name {
        Some(name) => command(name, "ip"),
        None => Command::new("ip"),
    };
    let mut child = ip
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run ip (package iproute2); cargo xtask setup installs it")?;
    let mut input = child.stdin.take().context("ip has no stdin")?;
    // A write fails when ip stopped at an earlier line; its own message below says more.
    let _ = input.write_all((lines.join("\n") + "\n").as_bytes());
    drop(input);
    let out = child.wait_with_output()?;
    if !out.status.success() {
        bail!(
            "ip -batch in {} failed: {}",
            name.unwrap_or("this namespace"),
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}

/// Bytes a namespace's device has received and sent so far.
pub fn device_bytes(name: &str, device: &str) -> Result<(u64, u64)> {
    let text = inside(name, || {
        std::fs::read_to_string("/proc/thread-self/net/dev")
    })??;
    text.lines()
        .find_map(|line| {
            let fields: Vec<u64> = line
                .trim_start()
                .strip_prefix(device)?
                .strip_prefix(':')?
                .split_ascii_whitespace()
                .filter_map(|field| field.parse().ok())
                .collect();
            Some((*fields.first()?, *fields.get(8)?))
        })
        .with_context(|| format!("{name} has no device {device}"))
}
