//! Changes while connections are open and more are coming.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use fleetgate_tests::e2e::{
    Gateway, VIP, eventually,
    manifests::{self, Ingress, WEB},
    wire::{self, Held},
};
use xtask::{
    client::{Job, Pattern},
    lab::topology::HTTP_PORT,
};

/// Saves which pods of Service `web` are ready.
fn readiness(gateway: &Gateway, ready: impl Fn(&str) -> bool) -> Result<()> {
    manifests::clusters("web", HTTP_PORT, "None", ready)
        .iter()
        .try_for_each(|(path, text)| gateway.write(path, text))
}

/// Waits until new connections reach just these pods (by the beginning of `cluster/pod`).
fn only(begins: &'static str) -> Result<()> {
    eventually(begins, || {
        let tally = wire::burst(WEB, 40)?;
        assert_eq!(tally.failed(), 0, "{tally:?}");
        Ok((
            tally.by_pod.keys().all(|pod| pod.starts_with(begins)),
            tally,
        ))
    })
}

#[test]
fn weights_and_clusters_change_without_an_error_and_open_connections_stay() -> Result<()> {
    let gateway = Gateway::running()?;
    let mut held = Held::open(WEB, 20)?;
    let tally = wire::under_load(WEB, || {
        for (cluster, begins) in [("c1", "c1/"), ("c2", "c2/")] {
            let weighted = Ingress::new("web", WEB).weights(&[(cluster, 100)]);
            gateway.write("fleet/web.yaml", &weighted.yaml())?;
            only(begins)?;
            held.stay()?;
        }
        gateway.write("fleet/web.yaml", &Ingress::new("web", WEB).yaml())?;
        // A member is removed from the gateway, and comes back.
        gateway.write(
            "fleet/gateway.yaml",
            &manifests::gateway_of("c1", &[WEB], ""),
        )?;
        only("c1/")?;
        held.stay()?;
        gateway.write("fleet/gateway.yaml", &manifests::gateway(&[WEB], ""))?;
        eventually("both clusters serve again", || {
            let tally = wire::burst(WEB, 60)?;
            Ok((tally.by_pod.len() == 5, tally))
        })?;
        held.stay()
    })?;
    assert_eq!(tally.failed(), 0, "{tally:?}");
    Ok(())
}

#[test]
fn a_cluster_that_appears_while_the_agent_runs_serves() -> Result<()> {
    let mut gateway = Gateway::new()?;
    let (path, text) = manifests::clusters("web", HTTP_PORT, "None", |_| true).remove(1);
    gateway.remove(&path)?;
    std::fs::remove_dir(gateway.manifests().join("clusters/c2"))?;
    gateway.start()?;
    only("c1/")?;
    gateway.write(&path, &text)?;
    eventually("the new cluster serves", || {
        let tally = wire::burst(WEB, 60)?;
        Ok((tally.failed() == 0 && tally.by_pod.len() == 5, tally))
    })
}

#[test]
fn a_pod_that_is_not_ready_keeps_its_connections_and_gets_no_new_ones() -> Result<()> {
    let gateway = Gateway::running()?;
    let mut held = Held::open(WEB, 60)?;
    let on_first = held.0.iter().filter(|(_, pod)| pod == "c1-p1").count();
    assert!(on_first > 0, "60 connections missed a pod");
    let tally = wire::under_load(WEB, || {
        readiness(&gateway, |pod| pod != "c1-p1")?;
        eventually("no new connection reaches it", || {
            let tally = wire::burst(WEB, 60)?;
            Ok((!tally.by_pod.contains_key("c1/c1-p1"), tally))
        })?;
        held.stay()?;
        assert!(
            wire::burst(WEB, 200)?
                .by_pod
                .keys()
                .all(|pod| pod != "c1/c1-p1")
        );
        Ok(())
    })?;
    assert_eq!(tally.failed(), 0, "{tally:?}");

    readiness(&gateway, |_| false)?;
    eventually("nobody is ready", || {
        let said = wire::outcome(WEB);
        Ok((said == "status 503", said))
    })?;
    gateway.until_steering(WEB, "request", "no ready backend")?;
    held.stay().context("with no pod ready")?;

    readiness(&gateway, |_| true)?;
    eventually("all serve again", || {
        let tally = wire::burst(WEB, 60)?;
        Ok((tally.failed() == 0 && tally.by_pod.len() == 5, tally))
    })?;
    gateway.until_steering(WEB, "connection", "")?;
    held.stay()
}

#[test]
fn a_listener_changes_hands_between_kernel_and_proxy_without_an_error() -> Result<()> {
    let gateway = Gateway::running()?;
    let mut by_kernel = Held::open(WEB, 10)?;
    let keep_alive = Job {
        pattern: Pattern::KeepAlive(u64::MAX),
        threads: 4,
        pause: Duration::from_millis(5),
        ..Job::requests((VIP, WEB).into(), 0)
    };
    let mut by_proxy = None;
    let mut new_connections = None;
    let kept = wire::load(&keep_alive, || {
        let tally = wire::under_load(WEB, || {
            for mode in ["request", "connection", "request", "connection"] {
                let ingress = Ingress::new("web", WEB).steering(mode);
                gateway.write("fleet/web.yaml", &ingress.yaml())?;
                eventually("the listener changes hands", || {
                    let steering = gateway.steering(WEB)?;
                    Ok((steering.0 == mode, steering))
                })?;
                by_kernel.stay()?;
                if mode == "request" && by_proxy.is_none() {
                    by_proxy = Some(wire::Conn::open((VIP, WEB))?);
                }
                if let Some(conn) = &mut by_proxy {
                    // Another pod may answer each request, but one must.
                    conn.pod()
                        .with_context(|| format!("the proxy's connection, now {mode}"))?;
                }
                thread::sleep(Duration::from_millis(300));
            }
            Ok(())
        })?;
        new_connections = Some(tally);
        Ok(())
    })?;
    let new_connections = new_connections.context("the inner load ran")?;
    assert_eq!(new_connections.failed(), 0, "{new_connections:?}");
    assert_eq!(kept.failed(), 0, "{kept:?}");
    assert!(
        kept.requests > 100 && new_connections.requests > 100,
        "{kept:?} {new_connections:?}"
    );
    Ok(())
}
