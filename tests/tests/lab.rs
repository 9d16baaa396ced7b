//! The lab itself: what the other tests and the demo stand on.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use xtask::{
    client::{self, Job},
    lab::{
        Lab,
        state::{self, State},
        topology,
    },
    netns, paths,
};

#[test]
fn a_client_reaches_every_pod_and_each_says_who_it_is() -> Result<()> {
    let _lab = Lab::up()?;
    for pod in topology::pods() {
        let job = Job::connections((pod.address, topology::HTTP_PORT).into(), 50);
        let tally = netns::inside(topology::CLIENT, || client::run(&job))?;
        let who = format!("{}/{}", pod.cluster, pod.name);
        assert_eq!(
            (tally.failed(), tally.by_pod.get(&who)),
            (0, Some(&50)),
            "{who}: {tally:?}"
        );
    }
    Ok(())
}

#[test]
fn a_dropped_lab_leaves_no_namespace_and_no_process() -> Result<()> {
    let lab = Lab::up()?;
    let state = State::load();
    assert_eq!(state::existing().len(), topology::namespaces().len());
    assert!(!state.processes.is_empty() && state.processes.iter().all(|one| one.alive()));
    drop(lab);
    assert_eq!(state::existing(), Vec::<String>::new());
    assert!(state.processes.iter().all(|one| !one.alive()));
    Ok(())
}

#[test]
fn a_lab_leaves_the_namespaces_of_others_alone() -> Result<()> {
    struct Other(String);
    impl Drop for Other {
        fn drop(&mut self) {
            let _ = netns::ip_batch(None, &[format!("netns del {}", self.0)]);
        }
    }
    let other = Other(format!("{}other-{}", topology::PREFIX, std::process::id()));
    netns::ip_batch(None, &[format!("netns add {}", other.0)])?;
    drop(Lab::up()?);
    assert!(fs::exists(format!("/run/netns/{}", other.0))?);
    Ok(())
}

#[test]
fn a_lab_is_removed_when_its_command_is_killed() -> Result<()> {
    // An agent that never gets ready keeps the demo waiting with its lab up.
    let dir = tempfile::tempdir()?;
    let agent = dir.path().join("agent");
    fs::write(&agent, "#!/bin/sh\nexec sleep 60\n")?;
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755))?;
    let mut demo = Command::new(paths::xtask()?)
        .arg("demo")
        .env("FLEETGATE_AGENT", &agent)
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start the demo")?;
    let up = wait(|| {
        State::load()
            .processes
            .iter()
            .any(|one| one.what == "agent")
    });
    let state = State::load();
    demo.kill()?;
    demo.wait()?;
    ensure!(up, "the demo did not get as far as its agent");
    assert!(
        wait(|| state::existing().is_empty()),
        "left: {:?}",
        state::existing()
    );
    assert!(wait(|| state.processes.iter().all(|one| !one.alive())));
    Ok(())
}

/// Waits up to eight seconds for something to become true.
fn wait(done: impl Fn() -> bool) -> bool {
    let give_up = Instant::now() + Duration::from_secs(8);
    while !done() {
        if Instant::now() > give_up {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}
