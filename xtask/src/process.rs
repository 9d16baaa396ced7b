//! Other programs: run them, and end only those that are still ours.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// A running process, told from a later one with the same number by the moment it started.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Known {
    /// Process number.
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks from boot to its start.
    pub start_ticks: u64,
    /// What it is, for people.
    pub what: String,
}

impl Known {
    /// Takes note of a process that runs now; `None` when there is none with this number.
    pub fn of(pid: u32, what: impl Into<String>) -> Option<Self> {
        Some(Self {
            pid,
            start_ticks: start_ticks(pid)?,
            what: what.into(),
        })
    }

    /// Whether that very process still runs (a zombie does not).
    pub fn alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Sends a signal if it is still the same process.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self
            .alive()
            .then(|| Pid::from_raw(self.pid.cast_signed()))
            .flatten()
        {
            // It may end between the look and the signal: then there is nothing left to do.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Ends processes: asks all first, and insists after two seconds.
pub fn end(all: &[Known]) {
    all.iter().for_each(|one| one.signal(Signal::TERM));
    let patience = Instant::now() + Duration::from_secs(2);
    while all.iter().any(Known::alive) && Instant::now() < patience {
        thread::sleep(Duration::from_millis(10));
    }
    all.iter().for_each(|one| one.signal(Signal::KILL));
}

/// The processes that this one started and that still run.
pub fn children(parent: u32) -> Vec<Known> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| parent_of(*pid) == Some(parent))
        .filter_map(|pid| Known::of(pid, format!("child of {parent}")))
        .collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 4; see `start_ticks` for the parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Start time of a process; `None` for one that is gone or a zombie.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc(5): the command (field 2) may hold blanks and parentheses, so fields are counted after the last one.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Runs a program to its end and returns its stdout; a failure carries its stderr.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        let said = if said.trim().is_empty() {
            String::from_utf8_lossy(&out.stdout)
        } else {
            said
        };
        bail!(
            "{shown} failed ({}): {}",
            out.status,
            last_lines(said.trim(), 20)
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs a program to its end with its output on our stderr, so that stdout keeps results only.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(())
}

/// The last lines of a text, for error messages.
pub fn last_lines(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Where a program is on `PATH`, with the folders of system tools that a plain user's `PATH` often lacks.
pub fn which(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(Into::into))
        .map(|dir| dir.join(program))
        .find(|file| is_program(file))
}

/// Whether this file can be executed.
pub fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether we are root.
pub fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn show(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_another_start_time_is_not_ours() {
        let me = Known::of(std::process::id(), "this test").expect("we run");
        assert!(me.alive());
        let other = Known {
            start_ticks: me.start_ticks + 1,
            ..me
        };
        assert!(!other.alive());
    }

    #[test]
    fn ended_processes_are_gone_and_strangers_are_left_alone() {
        let mut ours = Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let known = Known::of(ours.id(), "sleep").expect("it runs");
        end(&[Known {
            start_ticks: known.start_ticks + 1,
            ..known.clone()
        }]);
        assert!(
            known.alive(),
            "a process with another start time must not be ended"
        );
        end(std::slice::from_ref(&known));
        assert!(!known.alive());
        let _ = ours.wait();
    }
}
