//! Members that are named by Secrets of the fleet.

use std::time::Duration;

use anyhow::Result;
use fleetgate_tests::{
    apiserver::{History, Resource},
    e2e::{
        eventually,
        fleet::{Fleet, RECOVERY, SECRETS, SHOP, WEB, addresses},
        manifests,
        observer::Observer,
        wire::{self, Held},
    },
};

use super::{ALL, reached, under_load};

#[test]
fn clusters_come_and_go_with_their_secrets() -> Result<()> {
    let mut fleet = Fleet::new()?;
    // Without the annotation every member serves.
    let gateway = manifests::gateway(&[WEB, SHOP], "");
    let without: Vec<&str> = gateway
        .lines()
        .filter(|line| !line.contains("annotations:") && !line.contains("remote-clusters"))
        .collect();
    fleet.apply(&without.join("\n"))?;
    fleet.members_by_secret();
    fleet.fleet.put(fleet.secret("c1")?).expect("stored");
    // Nothing is known yet, so the gateway is not ready.
    fleet.fleet.kill()?;
    fleet.gateway.launch()?;
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(fleet.gateway.admin("/readyz")?.0, 503);
    fleet.fleet.restart(History::Kept)?;
    fleet.gateway.wait_ready()?;
    let observer = Observer::start(fleet.gateway.pins(), &[SHOP])?;
    observer.want(WEB, &addresses(&["c1-p1", "c1-p2"]));
    observer.settled(WEB, RECOVERY)?;
    under_load(|| {
        let took = observer.change(WEB, &addresses(&ALL), RECOVERY, || {
            fleet.fleet.put(fleet.secret("c2")?).expect("stored");
            Ok(())
        })?;
        eprintln!("a cluster's pods serve {took:?} after its Secret is there");
        clusters(&fleet, &["c1", "c2"])?;
        let mut held = Held::open(WEB, 20)?;
        let took = observer.change(WEB, &addresses(&["c1-p1", "c1-p2"]), RECOVERY, || {
            assert!(fleet.fleet.delete(Resource::Secrets, Some(SECRETS), "c2"));
            Ok(())
        })?;
        eprintln!("they get nothing new {took:?} after it is gone");
        assert_eq!(reached(WEB)?, ["c1/c1-p1", "c1/c1-p2"]);
        assert_eq!(reached(SHOP)?, ["c1/c1-p1", "c1/c1-p2"]);
        clusters(&fleet, &["c1"])?;
        // Its changes are not followed any longer.
        fleet.endpoints("c2", &[])?;
        fleet.endpoints("c2", &["c2-p1"])?;
        std::thread::sleep(Duration::from_millis(300));
        held.stay()
    })?;
    observer.all_right()?;
    let tally = wire::burst(WEB, 50)?;
    assert_eq!(tally.failed(), 0, "{tally:?}");
    Ok(())
}

/// Waits until the gateway's status names just these clusters.
fn clusters(fleet: &Fleet, wanted: &[&str]) -> Result<()> {
    eventually("the status names the clusters", || {
        let shown = fleet.sub_clusters();
        Ok((shown == serde_json::json!(wanted), shown))
    })
}
