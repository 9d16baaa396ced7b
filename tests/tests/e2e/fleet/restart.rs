//! The agent starts while somebody is away.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use fleetgate_tests::{
    apiserver::{History, Resource, Verb},
    e2e::{
        fleet::{Fleet, MEMBERS, RECOVERY, SECRETS, SHOP, WEB, addresses},
        wire::{self, Held},
    },
};

use super::{gently, observe, reached, unharmed};

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
        fleet.fleet.thaw();
        observer.from_now();
        let took = observer.settled(WEB, RECOVERY)?;
        eprintln!("the truth, when the fleet was back: {took:?}");
        Ok(())
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
    let took = observer.settled(WEB, RECOVERY)?;
    eprintln!("the truth, when it may be read: {took:?}");
    observer.all_right()?;
    Ok(())
}
