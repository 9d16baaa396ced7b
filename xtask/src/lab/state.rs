//! What a lab leaves on the machine, written down so that the next start can remove it after any kind of end.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::topology;
use crate::{netns, process, process::Known};

/// Beside `/run/netns`, because namespace names belong to the machine and not to one checkout; a reboot empties both.
const DIR: &str = "/run/fleetgate-lab";

/// The processes and pins of one lab.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct State {
    /// The command that made it. A lab of `lab up` outlives it.
    pub owner: Option<Known>,
    /// What runs in the lab.
    pub processes: Vec<Known>,
    /// Folders in bpffs that hold pins.
    pub pins: Vec<PathBuf>,
}

impl State {
    /// Reads what was left; nothing readable means nothing left.
    pub fn load() -> Self {
        fs::read(file())
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// Writes it down, whole or not at all.
    pub fn save(&self) -> Result<()> {
        let new = file().with_extension("new");
        let text = serde_json::to_vec(self).context("the lab's state cannot be written as JSON")?;
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, file()))
            .with_context(|| format!("cannot write {DIR}"))
    }

    /// Ends the processes that are still ours, removes every namespace of the lab, its pins and this note.
    pub fn remove(&self) -> Result<()> {
        process::end(&self.processes);
        let left: Vec<String> = existing()
            .into_iter()
            .map(|name| format!("netns del {name}"))
            .collect();
        if !left.is_empty() {
            netns::ip_batch(None, &left)?;
        }
        for pin in &self.pins {
            gone(fs::remove_dir_all(pin))
                .with_context(|| format!("cannot remove the pins in {}", pin.display()))?;
        }
        gone(fs::remove_file(file())).context("cannot remove the lab's note")
    }
}

/// Namespaces of a lab that exist now. Others with the same prefix belong to whoever made them.
pub fn existing() -> Vec<String> {
    let namespaces = topology::namespaces().into_iter();
    let there = |name: &String| Path::new("/run/netns").join(name).exists();
    let mut names: Vec<String> = namespaces.map(|one| one.name).filter(there).collect();
    names.sort();
    names
}

/// Held while a lab is built, removed, or used by the command that built it: one lab at a time on one machine.
pub fn lock(patience: Duration) -> Result<File> {
    if !process::root() {
        bail!(
            "the lab needs root for network namespaces; run it as root, for example: sudo -E cargo xtask ..."
        );
    }
    fs::create_dir_all(DIR).with_context(|| format!("cannot make {DIR}"))?;
    let file = File::create(Path::new(DIR).join("lock"))
        .with_context(|| format!("cannot open {DIR}/lock"))?;
    let give_up = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                thread::sleep(Duration::from_millis(50))
            }
            Err(TryLockError::WouldBlock) => {
                let owner = State::load().owner;
                let who = owner.map_or_else(
                    || "unknown".into(),
                    |owner| format!("pid {}, {}", owner.pid, owner.what),
                );
                bail!(
                    "the lab is in use by another command ({who}); wait for it to end or stop it"
                );
            }
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the lab"),
        }
    }
}

/// Mounts bpffs if the machine has not done so, since pins need it.
pub fn mount_bpffs() -> Result<()> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    if mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf"))
    {
        return Ok(());
    }
    process::output(Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))
        .context("bpffs is not mounted on /sys/fs/bpf and could not be mounted")?;
    Ok(())
}

fn file() -> PathBuf {
    Path::new(DIR).join("state.json")
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
