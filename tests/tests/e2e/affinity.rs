//! Clients that keep their pod: `sessionAffinity: ClientIP` with its timeout.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use fleetgate_tests::e2e::{
    Gateway, eventually,
    manifests::{self, Ingress, WEB},
    wire,
};
use xtask::lab::topology::HTTP_PORT;

/// How long a client keeps its pod in this test, in seconds.
const LASTS: u64 = 3;

/// The one pod that all new connections of the lab's client reach, as `cluster/pod`.
fn pod() -> Result<String> {
    let tally = wire::burst(WEB, 40)?;
    assert_eq!((tally.failed(), tally.by_pod.len()), (0, 1), "{tally:?}");
    tally.by_pod.into_keys().next().context("a pod")
}

/// Gives the client's cluster this weight, and the rest to the other; waits until the kernel has the ring.
fn weigh(gateway: &Gateway, mine: &str, weight: u8) -> Result<()> {
    let other = if mine == "c1" { "c2" } else { "c1" };
    let before = gateway.json(&["services"])?;
    let ingress = Ingress::new("web", WEB).weights(&[(mine, weight), (other, 100 - weight)]);
    gateway.write("fleet/web.yaml", &ingress.yaml())?;
    eventually("the ring is there", || {
        let now = gateway.json(&["services"])?;
        Ok((now[0]["epoch"] != before[0]["epoch"], now))
    })
}

#[test]
fn a_client_keeps_its_pod_over_changes_of_the_ring_for_as_long_as_the_service_says() -> Result<()> {
    let mut gateway = Gateway::new()?;
    let affinity =
        format!("ClientIP\n  sessionAffinityConfig:\n    clientIP:\n      timeoutSeconds: {LASTS}");
    for (path, text) in manifests::clusters("web", HTTP_PORT, &affinity, |_| true) {
        gateway.write(&path, &text)?;
    }
    gateway.start()?;
    assert_eq!(gateway.steering(WEB)?.0, "connection");
    let first = pod()?;
    let mine = first.split('/').next().context("a cluster")?.to_owned();

    // One in a hundred slots is left to its cluster: the ring gives the client another pod, it stays all the same.
    weigh(&gateway, &mine, 1)?;
    assert_eq!(pod()?, first);
    thread::sleep(Duration::from_secs(LASTS - 1));
    assert_eq!(pod()?, first, "each connection gives it its time again");
    thread::sleep(Duration::from_secs(LASTS - 1));
    assert_eq!(pod()?, first);
    thread::sleep(Duration::from_secs(LASTS + 1));
    let second = pod()?;
    assert_ne!(second, first, "its time was over");

    // A pod that the listener sends nothing to any more is left at once.
    let mine = second.split('/').next().context("a cluster")?.to_owned();
    weigh(&gateway, &mine, 0)?;
    eventually("it leaves", || {
        let now = pod()?;
        Ok((!now.starts_with(&mine), now))
    })
}
