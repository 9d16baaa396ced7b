//! The first publication.

use super::*;
use fleetgate_tests::apiserver::History;

#[test]
fn the_first_publication_is_everything_at_once_for_one_list_each() {
    let mut world = World::new(&["c1", "c2"]);
    world
        .fleet
        .put(
            json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"namespace": "shop", "name": "password"}}),
        )
        .unwrap();
    world.follow();
    let mut first = None;
    world.until("something is published", |snapshot| {
        first = (snapshot.clusters.len() == 2).then(|| snapshot.clone());
        first.is_some()
    });
    let first = first.unwrap();
    assert!(first.whole);
    assert_eq!(
        (
            first.gateways.len(),
            first.classes.len(),
            first.ingresses.len()
        ),
        (1, 1, 1)
    );
    assert_eq!(
        first.secrets.keys().collect::<Vec<_>>(),
        [&shop("cert")],
        "only certificates are read"
    );
    for (id, has) in &first.clusters {
        assert_eq!(
            (has.reach, has.services.len(), has.slices.len()),
            (Reach::Connected, 1, 1),
            "{id}"
        );
    }
    assert_eq!(first.problems, BTreeMap::new());

    world.until_followed();
    world.pass(QUIET);
    assert_eq!(world.published, 1);
    assert_eq!(lists(&world.fleet, &FLEET), [1; 4]);
    assert_eq!(lists(world.member("c1"), &MEMBER), [1; 2]);
    assert_eq!(world.fleet.count(Verb::List, Resource::Services), 0);
    let health = world.health();
    let names: Vec<_> = health
        .iter()
        .map(|it| (&*it.name, it.reach, it.lists, it.watches))
        .collect();
    assert_eq!(
        names,
        [
            ("c1", Reach::Connected, 2, 2),
            ("c2", Reach::Connected, 2, 2),
            ("fleet", Reach::Connected, 4, 4)
        ]
    );
}

#[test]
fn a_list_of_many_pages_is_one_publication() {
    let mut world = World::new(&["c1"]);
    world.timing.page = 10;
    for index in 0..95 {
        world
            .member("c1")
            .put(service(&format!("s{index}"), 80))
            .unwrap();
    }
    world.follow();
    world.until("the member is there", |snapshot| {
        reach(snapshot, "c1").is_some()
    });
    assert_eq!(
        (
            world.published,
            world.snapshot.clusters[&ClusterId("c1".into())]
                .services
                .len()
        ),
        (1, 96)
    );
    assert_eq!(world.member("c1").count(Verb::List, Resource::Services), 10);
}

#[test]
fn a_member_that_is_down_at_the_start_is_unknown_and_holds_up_nobody_for_long() {
    let mut world = World::new(&["c1", "c2"]);
    world.member("c2").kill().unwrap();
    world.follow();
    let took = world.until("the rest is published", |snapshot| snapshot.whole);
    assert!(took >= world.timing.initial_wait, "{took:?}");
    assert_eq!(
        (reach(&world.snapshot, "c1"), reach(&world.snapshot, "c2")),
        (Some(Reach::Connected), Some(Reach::Unknown))
    );
    world.until("the trouble is named", |snapshot| {
        troubles(snapshot, "c2")
            .iter()
            .any(|it| it.contains("does not answer"))
    });
    assert_eq!(troubles(&world.snapshot, "c1"), [""; 0]);
    world.member("c2").restart(History::Kept).unwrap();
    world.until("it joins", |snapshot| {
        reach(snapshot, "c2") == Some(Reach::Connected) && troubles(snapshot, "c2").is_empty()
    });
    assert_eq!(port(&world.snapshot, "c2", "web"), Some(80));
    assert_eq!(lists(world.member("c2"), &MEMBER), [1; 2]);
}

#[test]
fn while_the_fleet_is_down_nothing_is_published() {
    let mut world = World::new(&["c1"]);
    world.fleet.kill().unwrap();
    world.follow();
    world.pass(Duration::from_secs(2));
    assert_eq!(world.published, 0);
    assert!(
        world
            .health()
            .iter()
            .any(|it| it.name == "fleet" && it.last_error.is_some())
    );
    world.fleet.restart(History::Kept).unwrap();
    world.until("everything is published", |snapshot| {
        snapshot.whole && snapshot.ingresses.len() == 1
    });
    assert_eq!(world.published, 1);
    world.until("no trouble is left", |snapshot| {
        snapshot.problems.is_empty()
    });
}

#[test]
fn certificates_may_be_withheld() {
    let mut world = World::new(&["c1"]);
    world.timing.initial_wait = SOON * 2;
    world.fleet.forbid(Verb::List, Resource::Secrets);
    world.follow();
    world.until("the rest is published", |snapshot| snapshot.whole);
    assert_eq!(world.snapshot.secrets.len(), 0);
    let told = troubles(&world.snapshot, "fleet");
    assert!(
        told.len() == 1 && told[0].contains("list and watch secrets"),
        "{told:?}"
    );
}

#[test]
fn a_kubeconfig_that_is_not_there_yet_is_awaited() {
    let mut world = World::new(&["c1"]);
    write(&world.file("fleet"), &world.fleet, Login::Nobody);
    world.follow_as_written();
    world.until("the rest is published", |snapshot| snapshot.whole);
    assert_eq!(reach(&world.snapshot, "c1"), Some(Reach::Unknown));
    let told = troubles(&world.snapshot, "c1");
    assert!(
        told.len() == 1 && told[0].contains("cannot be read"),
        "{told:?}"
    );
    write(&world.file("c1"), world.member("c1"), Login::Nobody);
    world.until("the member joins", |snapshot| {
        port(snapshot, "c1", "web") == Some(80) && troubles(snapshot, "c1").is_empty()
    });
}

#[test]
fn the_source_ends_with_its_handle_also_while_servers_are_frozen() {
    let mut world = World::new(&["c1"]);
    world.follow();
    world.until_followed();
    world.fleet.freeze();
    let start = Instant::now();
    world.running = None;
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
}
