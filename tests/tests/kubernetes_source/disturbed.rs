//! Watches that repeat, swap, tear and end, and objects that cannot be read.

use super::*;
use fleetgate_tests::apiserver::{Older, WatchFaults};

/// The Services of a server and of the snapshot, with their ports.
fn same(server: &ApiServer, snapshot: &Snapshot) -> bool {
    let stored = server.list(Resource::Services, None);
    let stored: BTreeMap<String, i64> = stored
        .iter()
        .map(|it| {
            (
                it["metadata"]["name"].as_str().expect("a name").to_owned(),
                it["spec"]["ports"][0]["port"].as_i64().expect("a port"),
            )
        })
        .collect();
    let has = &snapshot.clusters[&ClusterId("c1".into())].services;
    let has: BTreeMap<String, i64> = has
        .iter()
        .map(|(key, it)| (key.name.clone(), it.spec.ports[0].port))
        .collect();
    stored == has
}

fn change_a_lot(server: &ApiServer) {
    for round in 0..20u16 {
        for index in 0..10u16 {
            server
                .put(service(&format!("s{index}"), 1000 + round))
                .expect("stored");
        }
        server.delete(
            Resource::Services,
            Some("shop"),
            &format!("s{}", round % 10),
        );
    }
}

#[test]
fn repeated_swapped_and_stale_events_end_where_the_server_is() {
    for faults in [
        WatchFaults {
            duplicate: true,
            ..WatchFaults::default()
        },
        WatchFaults {
            swap: true,
            ..WatchFaults::default()
        },
        WatchFaults {
            older: Some(Older::Last),
            ..WatchFaults::default()
        },
        WatchFaults {
            duplicate: true,
            swap: true,
            older: Some(Older::ThenNewer),
            ..WatchFaults::default()
        },
    ] {
        let mut world = World::new(&["c1"]);
        world.follow();
        world.until_followed();
        world.clear();
        world.member("c1").disturb_watches(None, faults);
        change_a_lot(world.member("c1"));
        let revision = world.member("c1").revision();
        let start = Instant::now();
        loop {
            world.take();
            if same(world.member("c1"), &world.snapshot) {
                break;
            }
            assert!(
                start.elapsed() < SOON,
                "{faults:?} up to {revision}: {:#?}",
                world.snapshot.clusters
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        world.pass(QUIET);
        assert!(
            same(world.member("c1"), &world.snapshot),
            "{faults:?}: and stays there"
        );
        assert_eq!(lists(world.member("c1"), &MEMBER), [0; 2], "{faults:?}");
    }
}

#[test]
fn watches_that_break_or_end_in_the_middle_lose_nothing_and_list_nothing() {
    let mut world = World::new(&["c1"]);
    world.follow();
    world.until_followed();
    world.clear();
    for round in 0..4 {
        match round {
            0 => world.member("c1").cut_watches(None),
            1 => world.member("c1").end_watches(None),
            2 => world.member("c1").tear_events(Some(Resource::Services), 2),
            _ => {}
        }
        change_a_lot(world.member("c1"));
        let start = Instant::now();
        loop {
            world.take();
            if same(world.member("c1"), &world.snapshot) {
                break;
            }
            assert!(start.elapsed() < SOON, "round {round}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert_eq!(lists(world.member("c1"), &MEMBER), [0; 2]);
    assert_eq!(reach(&world.snapshot, "c1"), Some(Reach::Connected));
}

#[test]
fn an_object_that_cannot_be_read_keeps_its_last_good_version_and_stops_no_other() {
    let mut world = World::new(&["c1"]);
    world.follow();
    world.until_followed();
    let bad = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"ports": [{"name": "http", "port": {"not": "a port"}}]}});
    world.member("c1").put(bad).unwrap();
    world.until("it is named", |snapshot| {
        snapshot
            .problems
            .keys()
            .any(|it| it.kind == "Service" && it.name == "web")
    });
    assert_eq!(port(&world.snapshot, "c1", "web"), Some(80));
    world.member("c1").put(service("other", 81)).unwrap();
    world.until("others are read", |snapshot| {
        port(snapshot, "c1", "other") == Some(81)
    });
    world.clear();
    world.member("c1").compact();
    world.member("c1").expire_watches(None);
    world.member("c1").put(service("other", 82)).unwrap();
    world.until("a list too", |snapshot| {
        port(snapshot, "c1", "other") == Some(82)
    });
    world.pass(QUIET);
    assert_eq!(lists(world.member("c1"), &MEMBER), [1; 2]);
    assert_eq!(port(&world.snapshot, "c1", "web"), Some(80));
    world.member("c1").put(service("web", 83)).unwrap();
    world.until("it is read again", |snapshot| {
        port(snapshot, "c1", "web") == Some(83) && snapshot.problems.is_empty()
    });
}

#[test]
fn a_watch_without_a_word_is_opened_anew() {
    let mut world = World::with(
        &["c1"],
        &Server {
            bookmark_every: Duration::from_secs(600),
            ..Server::default()
        },
    );
    world.timing.watch_idle = Duration::from_millis(500);
    world.follow();
    world.until_followed();
    world.clear();
    world.pass(Duration::from_secs(3));
    let watches = world.member("c1").count(Verb::Watch, Resource::Services);
    assert!((1..=5).contains(&watches), "{watches}");
    assert_eq!(lists(world.member("c1"), &MEMBER), [0; 2]);
    assert_eq!(reach(&world.snapshot, "c1"), Some(Reach::Connected));
}

#[test]
fn a_quiet_fleet_costs_nothing_but_probes() {
    let mut world = World::new(&["c1"]);
    world.follow();
    world.until_followed();
    world.clear();
    world.pass(Duration::from_secs(3));
    assert_eq!(
        (world.fleet.counts(), world.member("c1").counts()),
        (BTreeMap::new(), BTreeMap::new())
    );
    assert!(
        world.health().iter().all(|it| it.probes <= 3),
        "{:?}",
        world.health()
    );
}
