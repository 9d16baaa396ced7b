//! Servers that restart, forget and freeze.

use super::*;
use fleetgate_tests::apiserver::{Failure, History};

#[test]
fn after_a_restart_watches_go_on_without_a_list() {
    let mut world = World::new(&["c1"]);
    world.follow();
    world.until_followed();
    world.clear();
    world.fleet.kill().unwrap();
    world.member("c1").kill().unwrap();
    world.member("c1").put(service("web", 81)).unwrap();
    world
        .member("c1")
        .delete(Resource::EndpointSlices, Some("shop"), "web-1");
    world.fleet.put(ingress("second")).unwrap();
    world.pass(Duration::from_millis(500));
    assert_eq!(
        port(&world.snapshot, "c1", "web"),
        Some(80),
        "objects of a server that is gone stay"
    );
    world.fleet.restart(History::Kept).unwrap();
    world.member("c1").restart(History::Kept).unwrap();
    let took = world.until("what was missed arrives", |snapshot| {
        port(snapshot, "c1", "web") == Some(81)
            && snapshot.ingresses.len() == 2
            && snapshot.clusters[&ClusterId("c1".into())].slices.is_empty()
    });
    eprintln!("recovered {took:?} after the restart");
    assert_eq!(
        reach(&world.snapshot, "c1"),
        Some(Reach::Connected),
        "so short an absence is none"
    );
    world.pass(QUIET);
    assert_eq!(lists(&world.fleet, &FLEET), [0; 4]);
    assert_eq!(lists(world.member("c1"), &MEMBER), [0; 2]);
}

#[test]
fn a_history_that_is_lost_costs_one_list_each() {
    let mut world = World::new(&["c1"]);
    world.follow();
    world.until_followed();
    world.clear();
    for server in [&world.fleet, world.member("c1")] {
        server.kill().unwrap();
    }
    world
        .member("c1")
        .delete(Resource::Services, Some("shop"), "web");
    world.member("c1").put(service("other", 82)).unwrap();
    for server in [&world.fleet, world.member("c1")] {
        server.restart(History::Lost).unwrap();
    }
    world.until("what was missed arrives", |snapshot| {
        port(snapshot, "c1", "web").is_none() && port(snapshot, "c1", "other") == Some(82)
    });
    world.pass(Duration::from_secs(2));
    assert_eq!(lists(&world.fleet, &FLEET), [1; 4]);
    assert_eq!(lists(world.member("c1"), &MEMBER), [1; 2]);
    assert_eq!(reach(&world.snapshot, "c1"), Some(Reach::Connected));
}

#[test]
fn a_watch_that_is_told_410_costs_one_list_each() {
    let mut world = World::new(&["c1"]);
    world.follow();
    world.until_followed();
    world.clear();
    world.fleet.compact();
    world.fleet.expire_watches(None);
    world.fleet.put(ingress("second")).unwrap();
    world.until("the change arrives", |snapshot| {
        snapshot.ingresses.len() == 2
    });
    world.pass(Duration::from_secs(2));
    assert_eq!(lists(&world.fleet, &FLEET), [1; 4]);
    for resource in FLEET {
        assert_eq!(world.fleet.count(Verb::Watch, resource), 1, "{resource:?}");
    }
}

#[test]
fn after_refusals_a_server_that_forgot_is_listed_as_soon_as_it_answers() {
    let mut world = World::new(&["c1"]);
    world.timing.backoff_first = Duration::from_millis(20);
    world.timing.backoff_longest = Duration::from_secs(1);
    world.follow();
    world.until_followed();
    world.pass(Duration::from_secs(1));
    world.clear();
    let member = world.member("c1");
    member.fail_requests(Failure {
        verb: Some(Verb::Watch),
        resource: Some(Resource::Services),
        ..Failure::all(503, 6)
    });
    member.end_watches(Some(Resource::Services));
    while member.count(Verb::Watch, Resource::Services) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    member.put(service("web", 81)).unwrap();
    member.compact();
    world.until("the change arrives", |snapshot| {
        port(snapshot, "c1", "web") == Some(81)
    });
    let asked = world.member("c1").requests();
    let asked: Vec<_> = asked
        .iter()
        .filter(|it| it.resource == Resource::Services)
        .collect();
    let list = asked.iter().position(|it| it.verb == Verb::List);
    let list = list.expect("a list");
    assert!(list > 0, "{asked:#?}");
    let waited = asked[list].at - asked[list - 1].at;
    assert!(
        waited < Duration::from_millis(300),
        "{waited:?}\n{asked:#?}"
    );
    assert_eq!(lists(world.member("c1"), &MEMBER), [1, 0]);
}

#[test]
fn a_frozen_server_is_noticed_and_comes_back_without_a_list() {
    let mut world = World::new(&["c1", "c2"]);
    world.follow();
    world.until_followed();
    world.clear();
    world.member("c1").freeze();
    let noticed = world.until("the freeze is noticed", |snapshot| {
        reach(snapshot, "c1") == Some(Reach::Lost)
    });
    assert_eq!(reach(&world.snapshot, "c2"), Some(Reach::Connected));
    assert_eq!(
        port(&world.snapshot, "c1", "web"),
        Some(80),
        "its objects stay"
    );
    assert!(troubles(&world.snapshot, "c1")[0].contains("does not answer"));
    world.member("c1").put(service("web", 81)).unwrap();
    world.pass(Duration::from_secs(1));
    world.member("c1").thaw();
    let recovered = world.until("it is followed again", |snapshot| {
        reach(snapshot, "c1") == Some(Reach::Connected) && port(snapshot, "c1", "web") == Some(81)
    });
    eprintln!("noticed after {noticed:?}, recovered after {recovered:?}");
    world.until("the trouble is gone", |snapshot| {
        troubles(snapshot, "c1").is_empty()
    });
    assert_eq!(lists(world.member("c1"), &MEMBER), [0; 2]);
}

#[test]
fn a_fleet_that_freezes_leaves_everything_as_it_is() {
    let mut world = World::new(&["c1"]);
    world.follow();
    world.until_followed();
    world.fleet.freeze();
    world.until("the freeze is noticed", |snapshot| {
        !troubles(snapshot, "fleet").is_empty()
    });
    assert_eq!(world.snapshot.ingresses.len(), 1);
    world.fleet.put(ingress("second")).unwrap();
    world.fleet.thaw();
    world.until("it is followed again", |snapshot| {
        snapshot.ingresses.len() == 2 && troubles(snapshot, "fleet").is_empty()
    });
}

#[test]
fn while_a_server_is_lost_only_probes_go_out() {
    let mut world = World::new(&["c1"]);
    world.follow();
    world.until_followed();
    world.member("c1").freeze();
    world.until("the freeze is noticed", |snapshot| {
        reach(snapshot, "c1") == Some(Reach::Lost)
    });
    let before = world.health();
    world.pass(Duration::from_secs(2));
    let after = world.health();
    assert_eq!(
        (before[0].lists, before[0].watches),
        (after[0].lists, after[0].watches)
    );
    assert!(
        (1..=4).contains(&(after[0].probes - before[0].probes)),
        "{after:?}"
    );
}

#[test]
fn who_asks_for_patience_gets_it() {
    let mut world = World::new(&["c1"]);
    world.member("c1").fail_requests(Failure {
        retry_after: Some(2),
        verb: Some(Verb::List),
        resource: Some(Resource::Services),
        ..Failure::all(429, 1)
    });
    world.follow();
    world.pass(Duration::from_millis(1_500));
    assert_eq!(world.member("c1").count(Verb::List, Resource::Services), 1);
    world.until("the member joins", |snapshot| {
        reach(snapshot, "c1") == Some(Reach::Connected) && troubles(snapshot, "c1").is_empty()
    });
    assert_eq!(world.member("c1").count(Verb::List, Resource::Services), 2);
}

#[test]
fn a_server_that_only_fails_is_not_stormed() {
    let mut world = World::new(&["c1"]);
    world.member("c1").fail_requests(Failure {
        verb: Some(Verb::List),
        resource: Some(Resource::Services),
        ..Failure::all(500, u32::MAX)
    });
    world.follow();
    world.pass(Duration::from_secs(4));
    let asked = world.member("c1").count(Verb::List, Resource::Services);
    assert!((4..=9).contains(&asked), "{asked}");
    assert_eq!(reach(&world.snapshot, "c1"), Some(Reach::Unknown));
    assert!(troubles(&world.snapshot, "c1")[0].contains("answers 500"));
    world.member("c1").stop_failing();
    world.until("the member joins", |snapshot| {
        reach(snapshot, "c1") == Some(Reach::Connected)
    });
}
