//! API servers that answer, but not well.

use std::{thread, time::Duration};

use anyhow::Result;
use fleetgate_tests::{
    apiserver::{Failure, History, Older, Verb, WatchFaults},
    e2e::{
        eventually,
        fleet::{AT_ONCE, FLEET_LISTS, Fleet, MEMBER_LISTS, RECOVERY, WEB, addresses},
    },
};

use super::{ALL, observe, under_load};

/// How long everything is refused.
const REFUSED: Duration = Duration::from_secs(3);
/// Most tries of one resource in that time, and the one that is answered: after 0.1 s, 0.2 s, 0.4 s ..., or half of that.
const TRIES: u64 = 9;

#[test]
fn servers_that_come_back_without_history_and_overloaded_are_not_stormed() -> Result<()> {
    let fleet = Fleet::running()?;
    let observer = observe(&fleet)?;
    fleet.clear();
    under_load(|| {
        let servers = [&fleet.fleet, fleet.member("c1")];
        for server in servers {
            server.kill()?;
            server.fail_requests(Failure::all(503, u32::MAX));
            server.restart(History::Lost)?;
        }
        observer.want(WEB, &addresses(&["c1-p2", "c2-p1", "c2-p2", "c2-p3"]));
        fleet.endpoints("c1", &["c1-p2"])?;
        thread::sleep(REFUSED);
        servers.iter().for_each(|server| server.stop_failing());
        observer.from_now();
        let took = observer.settled(WEB, RECOVERY)?;
        eprintln!("recovered after {took:?}");
        Ok(())
    })?;
    observer.all_right()?;
    // Each list waits for the end of its own pause.
    eventually("everything was listed once", || {
        let (of_fleet, members) = fleet.lists();
        let once = of_fleet == [1; FLEET_LISTS.len()] && members["c1"] == [1; MEMBER_LISTS.len()];
        Ok((once, (of_fleet, members)))
    })?;
    let fleets = FLEET_LISTS.map(|it| (&fleet.fleet, it));
    let members = MEMBER_LISTS.map(|it| (fleet.member("c1"), it));
    for (server, resource) in fleets.into_iter().chain(members) {
        let tries = server.count(Verb::List, resource) + server.count(Verb::Watch, resource);
        assert!(tries <= TRIES, "{resource:?}: {tries}");
    }
    Ok(())
}

#[test]
fn events_that_come_twice_late_and_in_the_wrong_order_program_nothing_that_is_not_so() -> Result<()>
{
    let fleet = Fleet::running()?;
    let observer = observe(&fleet)?;
    fleet.clear();
    for id in ["c1", "c2"] {
        let faults = WatchFaults {
            duplicate: true,
            swap: true,
            older: Some(Older::Last),
            ..WatchFaults::default()
        };
        fleet.member(id).disturb_watches(None, faults);
    }
    under_load(|| {
        for gone in ALL {
            // Pods come and go, one at a time.
            let left: Vec<&str> = ALL.into_iter().filter(|pod| *pod != gone).collect();
            observer.change(WEB, &addresses(&left), AT_ONCE, || {
                fleet.endpoints(&gone[..2], &left)
            })?;
            observer.change(WEB, &addresses(&ALL), AT_ONCE, || {
                fleet.endpoints(&gone[..2], &ALL)
            })?;
        }
        Ok(())
    })?;
    observer.all_right()?;
    for id in ["c1", "c2"] {
        let lists = MEMBER_LISTS.map(|it| fleet.member(id).count(Verb::List, it));
        assert_eq!(lists, [0, 0], "{id}");
    }
    Ok(())
}
