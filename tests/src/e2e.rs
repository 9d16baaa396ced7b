//! The whole program in the lab: the agent as a process, its manifests, its pins, and clients on real connections.

pub mod curl;
pub mod fleet;
pub mod frames;
mod gateway;
pub mod manifests;
pub mod observer;
pub mod program;
pub mod secrets;
pub mod tls;
pub mod wire;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

pub use gateway::{Gateway, Ran, VIP, ip, pod_named};

/// How long anything may take that the tests wait for.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `what` holds; fails with what was seen last.
pub fn eventually<T: std::fmt::Debug>(
    what: &str,
    mut look: impl FnMut() -> Result<(bool, T)>,
) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let seen = look();
        match &seen {
            Ok((true, _)) => return Ok(()),
            _ if Instant::now() > give_up => {
                bail!("{what} did not come true in {PATIENCE:?}; seen last: {seen:?}")
            }
            _ => thread::sleep(Duration::from_millis(30)),
        }
    }
}
