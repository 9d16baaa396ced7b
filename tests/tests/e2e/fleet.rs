//! The agent on a fleet of API servers.

mod faults;
mod restart;
mod scenarios;
mod secrets;
mod thousand;
mod unwell;

use std::time::Duration;

use anyhow::Result;
use fleetgate_tests::e2e::{
    VIP,
    fleet::{Fleet, SHOP, WEB, addresses},
    observer::Observer,
    wire,
};
use xtask::client::{Job, Tally};

/// All pods of the lab.
const ALL: [&str; 5] = ["c1-p1", "c1-p2", "c2-p1", "c2-p2", "c2-p3"];

/// An observer that knows the state of [`Fleet::new`].
fn observe(fleet: &Fleet) -> Result<Observer> {
    let observer = Observer::start(fleet.gateway.pins(), &[SHOP])?;
    observer.want(WEB, &addresses(&ALL));
    observer.settled(WEB, Duration::from_secs(5))?;
    Ok(observer)
}

/// New connections from the client, few enough to leave the processors to the agent.
fn gently(port: u16) -> Job {
    Job {
        threads: 1,
        pause: Duration::from_millis(5),
        ..Job::connections((VIP, port).into(), u64::MAX)
    }
}

/// Does `work` while clients come to both listeners: none of them may fail.
fn under_load(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut outer = None;
    let inner = wire::load(&gently(SHOP), || {
        outer = Some(wire::load(&gently(WEB), work)?);
        Ok(())
    })?;
    for tally in [Some(inner), outer].into_iter().flatten() {
        unharmed(&tally);
    }
    Ok(())
}

#[track_caller]
fn unharmed(tally: &Tally) {
    assert_eq!(tally.failed(), 0, "{tally:?}");
    assert!(tally.requests > 50, "{tally:?}");
}

/// Pods that new connections reach, as `cluster/pod`.
fn reached(port: u16) -> Result<Vec<String>> {
    let tally = wire::burst(port, 80)?;
    assert_eq!(tally.failed(), 0, "{tally:?}");
    Ok(tally.by_pod.into_keys().collect())
}
