//! Members that are given by Secrets of the fleet.

use super::*;
use gateway_user::source::kubernetes::CLUSTER_LABEL;

fn secret(name: &str, id: &str, kubeconfig: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"namespace": "fleetgate", "name": name, "labels": {CLUSTER_LABEL: id}},
        "stringData": {"kubeconfig": kubeconfig}})
}

fn world() -> World {
    let mut world = World::with(
        &["c1", "c2"],
        &Server {
            login: true,
            ..Server::default()
        },
    );
    world.cluster_secrets = Some("fleetgate".to_owned());
    world.fleet.accept_token("f", "agent");
    for server in world.members.values() {
        server.accept_token("t-1", "agent");
    }
    write(&world.file("fleet"), &world.fleet, Login::Token("f"));
    world
}

fn kubeconfig(world: &World, id: &str, token: &str) -> String {
    world
        .member(id)
        .kubeconfig(Login::Token(token))
        .expect("a kubeconfig")
}

#[test]
fn members_come_and_go_with_their_secrets() {
    let mut world = world();
    world
        .fleet
        .put(secret("one", "c1", &kubeconfig(&world, "c1", "t-1")))
        .unwrap();
    let mut stray = secret("stray", "c9", "x");
    stray["metadata"]["namespace"] = json!("other");
    world.fleet.put(stray).unwrap();
    world.follow_as_written();
    world.until("the first is there from the start", |snapshot| {
        snapshot.whole
    });
    assert_eq!(
        (world.published, reach(&world.snapshot, "c1")),
        (1, Some(Reach::Connected))
    );
    assert_eq!(world.snapshot.clusters.len(), 1);

    world
        .fleet
        .put(secret("two", "c2", &kubeconfig(&world, "c2", "t-1")))
        .unwrap();
    world.until("the second joins", |snapshot| {
        reach(snapshot, "c2") == Some(Reach::Connected)
    });
    assert_eq!(port(&world.snapshot, "c2", "web"), Some(80));

    world
        .fleet
        .delete(Resource::Secrets, Some("fleetgate"), "one");
    world.until("the first leaves", |snapshot| {
        reach(snapshot, "c1").is_none()
    });
    assert_eq!(world.snapshot.problems, BTreeMap::new());
    world.clear();
    world.pass(QUIET);
    assert_eq!(world.member("c1").counts(), BTreeMap::new());
    assert!(world.health().iter().all(|it| it.name != "c1"));

    world
        .fleet
        .put(secret("one", "c1", &kubeconfig(&world, "c1", "t-1")))
        .unwrap();
    world.until("and comes back", |snapshot| {
        port(snapshot, "c1", "web") == Some(80)
    });
}

#[test]
fn new_credentials_are_used_at_once_and_no_object_goes_meanwhile() {
    let mut world = world();
    world
        .fleet
        .put(secret("one", "c1", &kubeconfig(&world, "c1", "t-1")))
        .unwrap();
    world.follow_as_written();
    world.until("it is there", |snapshot| {
        reach(snapshot, "c1") == Some(Reach::Connected)
    });
    world.pass(QUIET);
    world.clear();
    world.member("c1").revoke_tokens();
    world.member("c1").accept_token("t-2", "renewed");
    world
        .fleet
        .put(secret("one", "c1", &kubeconfig(&world, "c1", "t-2")))
        .unwrap();
    let start = Instant::now();
    while world.member("c1").count(Verb::Watch, Resource::Services) == 0 {
        world.take();
        assert_eq!(port(&world.snapshot, "c1", "web"), Some(80));
        assert!(start.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(10));
    }
    world.member("c1").put(service("web", 81)).unwrap();
    world.until("it is followed", |snapshot| {
        port(snapshot, "c1", "web") == Some(81)
    });
    assert!(
        world
            .member("c1")
            .requests()
            .iter()
            .all(|it| it.user == "renewed")
    );
    assert_eq!(lists(world.member("c1"), &MEMBER), [0; 2]);
}

#[test]
fn a_bad_kubeconfig_is_named_and_the_cluster_goes_on_with_what_it_had() {
    let mut world = world();
    world
        .fleet
        .put(secret("one", "c1", &kubeconfig(&world, "c1", "t-1")))
        .unwrap();
    world.follow_as_written();
    world.until("it is there", |snapshot| {
        reach(snapshot, "c1") == Some(Reach::Connected)
    });
    let runs = world
        .member("c1")
        .kubeconfig(Login::TokenFile(Path::new("/etc/shadow")))
        .unwrap();
    world.fleet.put(secret("one", "c1", &runs)).unwrap();
    world.until("it is named", |snapshot| {
        let problems = snapshot
            .problems
            .iter()
            .find(|(about, _)| about.kind == "Secret" && about.name == "one");
        problems.is_some_and(|(_, problems)| problems[0].message.contains("may not name files"))
    });
    world.member("c1").put(service("web", 81)).unwrap();
    world.until("it goes on", |snapshot| {
        port(snapshot, "c1", "web") == Some(81)
    });
    assert_eq!(reach(&world.snapshot, "c1"), Some(Reach::Connected));
    world
        .fleet
        .put(secret("one", "c1", &kubeconfig(&world, "c1", "t-1")))
        .unwrap();
    world.until("it is mended", |snapshot| snapshot.problems.is_empty());
}

#[test]
fn without_leave_to_list_its_members_the_source_is_not_whole() {
    let mut world = world();
    world.fleet.forbid(Verb::List, Resource::Secrets);
    world.follow_as_written();
    world.until("the rest is published", |snapshot| {
        snapshot.ingresses.len() == 1
    });
    assert!(!world.snapshot.whole);
    assert!(!troubles(&world.snapshot, "fleet").is_empty());
}
