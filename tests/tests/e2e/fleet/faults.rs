//! API servers fail while clients come: what is programmed stays right, and the rest goes on.

use std::{thread, time::Duration};

use anyhow::Result;
use fleetgate_tests::{
    apiserver::{History, Verb},
    e2e::{
        eventually,
        fleet::{AT_ONCE, FLEET_LISTS, Fleet, MEMBER_LISTS, RECOVERY, WEB, addresses},
        manifests::Ingress,
    },
};

use super::{observe, reached, under_load};

/// Pods of the first member, and some of the second.
const WITHOUT_C2_P1: [&str; 4] = ["c1-p1", "c1-p2", "c2-p2", "c2-p3"];
const ONLY_C1: [&str; 2] = ["c1-p1", "c1-p2"];

/// Everything goes to the first member.
fn only_c1() -> String {
    Ingress::new("web", WEB).weights(&[("c1", 100)]).yaml()
}

/// Asserts how many lists there were of each resource, on the fleet and on both members.
#[track_caller]
fn listed(fleet: &Fleet, of_fleet: u64, of_c1: u64, of_c2: u64) {
    let (fleet, members) = fleet.lists();
    assert_eq!(fleet, [of_fleet; FLEET_LISTS.len()]);
    assert_eq!(members["c1"], [of_c1; MEMBER_LISTS.len()]);
    assert_eq!(members["c2"], [of_c2; MEMBER_LISTS.len()]);
}

#[test]
fn a_fleet_that_restarts_costs_no_request_and_no_list() -> Result<()> {
    let fleet = Fleet::running()?;
    let observer = observe(&fleet)?;
    fleet.clear();
    under_load(|| {
        fleet.fleet.kill()?;
        thread::sleep(Duration::from_secs(1));
        // Members are followed meanwhile.
        let took = observer.change(WEB, &addresses(&WITHOUT_C2_P1), AT_ONCE, || {
            fleet.endpoints("c2", &["c2-p2", "c2-p3"])
        })?;
        eprintln!("a member's change, with the fleet down: {took:?}");
        observer.want(WEB, &addresses(&ONLY_C1));
        fleet.apply(&only_c1())?;
        thread::sleep(Duration::from_secs(1));
        fleet.fleet.restart(History::Kept)?;
        observer.from_now();
        let took = observer.settled(WEB, RECOVERY)?;
        eprintln!("the fleet's change, after its restart: {took:?}");
        thread::sleep(Duration::from_secs(1));
        Ok(())
    })?;
    observer.all_right()?;
    listed(&fleet, 0, 0, 0);
    Ok(())
}

#[test]
fn a_fleet_and_a_member_that_lose_their_history_cost_one_list_of_each_resource() -> Result<()> {
    let fleet = Fleet::running()?;
    let observer = observe(&fleet)?;
    fleet.clear();
    under_load(|| {
        fleet.fleet.kill()?;
        fleet.member("c1").kill()?;
        observer.want(WEB, &addresses(&["c1-p2", "c2-p1", "c2-p2", "c2-p3"]));
        fleet.endpoints("c1", &["c1-p2"])?;
        fleet.fleet.restart(History::Lost)?;
        fleet.member("c1").restart(History::Lost)?;
        observer.from_now();
        let took = observer.settled(WEB, RECOVERY)?;
        eprintln!("recovered after {took:?}");
        let took = observer.change(WEB, &addresses(&["c1-p2"]), RECOVERY, || {
            fleet.apply(&only_c1())
        })?;
        eprintln!("the fleet's next change after {took:?}");
        thread::sleep(Duration::from_secs(1));
        Ok(())
    })?;
    observer.all_right()?;
    listed(&fleet, 1, 1, 0);
    Ok(())
}

#[test]
fn watches_that_are_told_410_cost_one_list_of_each_resource_and_no_request() -> Result<()> {
    let fleet = Fleet::running()?;
    let observer = observe(&fleet)?;
    fleet.clear();
    under_load(|| {
        for server in [&fleet.fleet, fleet.member("c2")] {
            server.compact();
            server.expire_watches(None);
        }
        let took = observer.change(WEB, &addresses(&WITHOUT_C2_P1), RECOVERY, || {
            fleet.endpoints("c2", &["c2-p2", "c2-p3"])
        })?;
        eprintln!("the expired member's change: {took:?}");
        let took = observer.change(WEB, &addresses(&ONLY_C1), RECOVERY, || {
            fleet.apply(&only_c1())
        })?;
        eprintln!("the expired fleet's change: {took:?}");
        thread::sleep(Duration::from_secs(1));
        Ok(())
    })?;
    observer.all_right()?;
    listed(&fleet, 1, 0, 1);
    for resource in FLEET_LISTS {
        assert_eq!(fleet.fleet.count(Verb::Watch, resource), 1, "{resource:?}");
    }
    Ok(())
}

/// What `status` says of a cluster.
fn trouble(fleet: &Fleet, id: &str) -> Result<Vec<String>> {
    let problems = fleet.gateway.problems()?.into_iter();
    let about = problems.filter(|(object, ..)| object.ends_with(id));
    Ok(about.map(|(_, _, message)| message).collect())
}

/// A member does not answer for a while: its pods go on, and the other member's changes are in force at once.
fn member_away(
    away: impl FnOnce(&Fleet) -> Result<()>,
    back: impl FnOnce(&Fleet) -> Result<()>,
    for_so_long: Duration,
) -> Result<()> {
    let fleet = Fleet::running()?;
    let observer = observe(&fleet)?;
    fleet.clear();
    under_load(|| {
        away(&fleet)?;
        // In force before it is noticed, and after.
        let took = observer.change(
            WEB,
            &addresses(&["c1-p2", "c2-p1", "c2-p2", "c2-p3"]),
            AT_ONCE,
            || fleet.endpoints("c1", &["c1-p2"]),
        )?;
        eprintln!("the healthy member's change: {took:?}");
        thread::sleep(for_so_long);
        eventually("the trouble is named", || {
            let told = trouble(&fleet, "c2")?;
            Ok((told.len() == 1, told))
        })?;
        let took = observer.change(
            WEB,
            &addresses(&["c1-p1", "c1-p2", "c2-p1", "c2-p2", "c2-p3"]),
            AT_ONCE,
            || fleet.endpoints("c1", &["c1-p1", "c1-p2"]),
        )?;
        eprintln!("the healthy member's change, later: {took:?}");
        observer.want(WEB, &addresses(&WITHOUT_C2_P1));
        fleet.endpoints("c2", &["c2-p2", "c2-p3"])?;
        thread::sleep(Duration::from_millis(200));
        back(&fleet)?;
        observer.from_now();
        let took = observer.settled(WEB, RECOVERY)?;
        eprintln!("the lost member's change, when it was back: {took:?}");
        eventually("the trouble is over", || {
            let told = trouble(&fleet, "c2")?;
            Ok((told.is_empty(), told))
        })
    })?;
    assert_eq!(
        reached(super::SHOP)?,
        ["c1/c1-p1", "c1/c1-p2", "c2/c2-p2", "c2/c2-p3"]
    );
    observer.all_right()?;
    listed(&fleet, 0, 0, 0);
    Ok(())
}

#[test]
fn a_member_that_freezes_keeps_its_pods_and_holds_nobody_back() -> Result<()> {
    member_away(
        |fleet| {
            fleet.member("c2").freeze();
            Ok(())
        },
        |fleet| {
            fleet.member("c2").thaw();
            Ok(())
        },
        Duration::from_secs(8),
    )
}

#[test]
fn a_member_that_is_cut_off_keeps_its_pods_and_holds_nobody_back() -> Result<()> {
    member_away(
        |fleet| fleet.member("c2").kill(),
        |fleet| fleet.member("c2").restart(History::Kept),
        Duration::from_secs(3),
    )
}
