//! The agent starts while somebody is away.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use fleetgate_tests::{
    apiserver::{History, Resource, Verb},
    e2e::{
        eventually,
        fleet::{Fleet, MEMBERS, RECOVERY, SECRETS, SHOP, WEB, addresses},
        wire::{self, Held},
    },
};
use serde_json::{Value, json};

use super::{gently, observe, reached, unharmed};

/// Member clusters and how they are reached, as `status` says.
fn clusters(fleet: &Fleet) -> Result<Vec<(String, String)>> {
    let status = fleet.gateway.json(&["status"])?;
    let clusters = status["clusters"].as_array().context("an array")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(clusters
        .iter()
        .map(|one| (text(&one["id"]), text(&one["reach"])))
        .collect())
}

fn named((id, reach): (&str, &str)) -> (String, String) {
    (id.to_owned(), reach.to_owned())
}

/// A server that refuses is asked again within 15 s; then what it says is in force as soon as ever.
const ALLOWED: Duration = Duration::from_secs(15).saturating_add(RECOVERY);
/// Longer than a starting agent waits for anybody.
const PATIENCE: Duration = Duration::from_millis(6_000);

#[test]
fn an_agent_that_starts_with_a_member_down_serves_the_pods_that_the_record_knows() -> Result<()> {
    let mut fleet = Fleet::running()?;
    let observer = observe(&fleet)?;
    let mut held = Held::open(WEB, 20)?;
    let tally = wire::load(&gently(WEB), || {
        fleet.member("c2").kill()?;
        fleet.gateway.kill()?;
        fleet.gateway.start()?;
        assert_eq!(reached(SHOP)?.len(), 5, "before anything was published");
        thread::sleep(PATIENCE);
        assert_eq!(reached(SHOP)?.len(), 5, "without the member");
        // It was connected once, and nobody removed it.
        assert_eq!(
            clusters(&fleet)?,
            [("c1", "connected"), ("c2", "lost")].map(named)
        );
        assert_eq!(fleet.sub_clusters(), json!(["c1", "c2"]));
        held.stay()?;
        // What was published since is in force, and has not made anybody forget.
        observer.change(
            WEB,
            &addresses(&["c1-p1", "c2-p1", "c2-p2", "c2-p3"]),
            RECOVERY,
            || fleet.endpoints("c1", &["c1-p1"]),
        )?;
        observer.want(WEB, &addresses(&["c1-p1", "c2-p3"]));
        fleet.endpoints("c2", &["c2-p3"])?;
        thread::sleep(Duration::from_millis(500));
        fleet.member("c2").restart(History::Lost)?;
        observer.from_now();
        let took = observer.settled(WEB, RECOVERY)?;
        eprintln!("the truth about the member, when it was back: {took:?}");
        Ok(())
    })?;
    unharmed(&tally);
    assert_eq!(reached(SHOP)?, ["c1/c1-p1", "c2/c2-p3"]);
    observer.all_right()?;
    held.stay()
}

#[test]
fn an_agent_that_starts_with_the_fleet_frozen_withdraws_nothing() -> Result<()> {
    let mut fleet = Fleet::running()?;
    let observer = observe(&fleet)?;
    let tally = wire::load(&gently(WEB), || {
        fleet.fleet.freeze();
        let begun = Instant::now();
        assert!(fleet.gateway.stop()?.success());
        assert!(
            begun.elapsed() < RECOVERY,
            "nobody waits for a frozen server"
        );
        fleet.gateway.start()?;
        assert_eq!(reached(SHOP)?.len(), 5, "as before");
        observer.want(WEB, &addresses(&["c1-p1", "c2-p1", "c2-p2", "c2-p3"]));
        fleet.endpoints("c1", &["c1-p1"])?;
        thread::sleep(PATIENCE);
        assert_eq!(reached(SHOP)?.len(), 5, "the fleet was not read yet");
        assert_eq!(
            clusters(&fleet)?,
            [("c1", "lost"), ("c2", "lost")].map(named)
        );
        let warnings = fleet.gateway.json(&["status"])?["warnings"].to_string();
        assert!(
            warnings.contains("the fleet was not read yet"),
            "{warnings}"
        );
        fleet.fleet.thaw();
        observer.from_now();
        let took = observer.settled(WEB, RECOVERY)?;
        eprintln!("the truth, when the fleet was back: {took:?}");
        eventually("the state is shown", || {
            let status = fleet.gateway.json(&["status"])?;
            let shown = clusters(&fleet)?;
            let connected = shown.iter().all(|(_, reach)| reach == "connected");
            Ok((connected && status["warnings"] == json!([]), status))
        })
    })?;
    unharmed(&tally);
    observer.all_right()?;
    Ok(())
}

#[test]
fn an_agent_that_may_not_read_who_the_members_are_goes_on_with_those_it_knew() -> Result<()> {
    let mut fleet = Fleet::new()?;
    fleet.members_by_secret();
    for id in MEMBERS {
        fleet.fleet.put(fleet.secret(id)?).expect("stored");
    }
    fleet.gateway.start()?;
    let observer = observe(&fleet)?;
    fleet.fleet.forbid(Verb::List, Resource::Secrets);
    fleet.gateway.kill()?;
    fleet.gateway.start()?;
    thread::sleep(PATIENCE);
    assert_eq!(
        reached(SHOP)?.len(),
        5,
        "nobody is known, and nobody forgotten"
    );
    observer.want(WEB, &addresses(&["c1-p1", "c1-p2"]));
    assert!(fleet.fleet.delete(Resource::Secrets, Some(SECRETS), "c2"));
    fleet.fleet.allow(Verb::List, Resource::Secrets);
    observer.from_now();
    let took = observer.settled(WEB, ALLOWED)?;
    eprintln!("the truth, when it may be read: {took:?}");
    observer.all_right()?;
    Ok(())
}
