//! Removes a lab whose owner ended without doing so: Ctrl-C, a panic, SIGKILL.
//!
//! The guard is a process of its own, in its own process group, that reads a pipe from the owner. The kernel closes
//! that pipe however the owner ends, so no signal handler is needed.

use std::{
    io::{Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use super::state::{self, State};
use crate::{console, paths};

/// The owner's end.
#[derive(Debug)]
pub(super) struct Guard(Child);

impl Guard {
    /// Starts watching this process.
    pub(super) fn start() -> Result<Self> {
        let child = Command::new(paths::xtask()?)
            .arg("lab-guard")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start the lab's guard")?;
        Ok(Self(child))
    }

    /// Process number, which the guard compares with the state's.
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// The owner has cleaned up itself.
    pub(super) fn dismiss(&mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            let _ = pipe.write_all(b"!");
        }
        let _ = self.0.wait();
    }
}

/// The guard's own life (`xtask lab-guard`).
pub fn watch() -> Result<()> {
    let mut word = [0_u8; 1];
    if std::io::stdin().read(&mut word).unwrap_or(0) == 1 {
        return Ok(());
    }
    // A new lab may have been built by the time we hold the lock: then its builder has removed ours.
    let _lock = state::lock(Duration::from_secs(30))?;
    let state = State::load();
    if state
        .owner
        .as_ref()
        .is_some_and(|owner| owner.what == mark(std::process::id()))
    {
        state.remove()?;
        console::note("the lab was removed after its command ended early");
    }
    Ok(())
}

/// How an owner names itself in the state, so that its guard knows it again.
pub(super) fn mark(guard: u32) -> String {
    format!("lab command guarded by pid {guard}")
}
