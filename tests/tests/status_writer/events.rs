//! Events as people see them.

use std::time::Duration;

use fleetgate_tests::apiserver::{Failure, Resource};
use gateway_user::{
    problem::{ObjectRef, Problem},
    status::{Outcome, Timing, Written},
};

use crate::fleet::{Fleet, Node, events, eventually, object, quick, served, server, shown};

const BAD: &str = "FailedBuildModel";
const GOOD: &str = "SuccessfullyReconciled";

#[test]
fn an_error_is_told_once_and_its_end_too() {
    let server = server();
    let mut fleet = Fleet::new(&server, &["web"]);
    fleet.fail("web", "no such Service");
    let node = Node::start(&server, &fleet);
    let note = "spec.rules: no such Service; mend it".to_owned();
    let bad = |times| (BAD.to_owned(), note.clone(), times);
    let good = |times| (GOOD.to_owned(), "served by AlbConfig mcg".to_owned(), times);
    eventually("the error is told", || events(&server, "web") == [bad(1)]);
    let broken = fleet.problems.clone();
    fleet.problems.clear();
    node.want(&fleet);
    eventually("its end is told", || {
        events(&server, "web") == [bad(1), good(1)]
    });
    fleet.problems = broken;
    node.want(&fleet);
    eventually("the second time is counted", || {
        events(&server, "web") == [bad(2), good(1)]
    });
    // Expired in between: told anew.
    for event in server.list(Resource::Events, Some("demo")) {
        let name = event["metadata"]["name"].as_str().unwrap_or_default();
        server.delete(Resource::Events, Some("demo"), name);
    }
    fleet.problems.clear();
    node.want(&fleet);
    eventually("good news is told anew", || {
        events(&server, "web") == [good(1)]
    });
    assert!(node.stop());
}

#[test]
fn an_event_is_found_by_describe() {
    let server = server();
    let mut fleet = Fleet::new(&server, &["web"]);
    fleet.problems.push(Problem::warning(
        &object("web"),
        "metadata.annotations",
        "x".repeat(2000),
        "remove it",
    ));
    let class = ObjectRef {
        kind: "IngressClass".into(),
        name: "alb".into(),
        ..ObjectRef::default()
    };
    server
        .put(
            serde_json::json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": "alb"}, "spec": {"controller": "ingress.k8s.alibabacloud/alb"}}),
        )
        .expect("a class");
    fleet
        .problems
        .push(Problem::error(&class, "spec", "no parameters", "add them"));
    let node = Node::start(&server, &fleet);
    eventually("both are told", || {
        events(&server, "web").len() == 2 && events(&server, "alb").len() == 1
    });
    for event in server.list(Resource::Events, None) {
        let regarding = &event["regarding"];
        let (resource, namespace) = match regarding["kind"].as_str() {
            Some("Ingress") => (Resource::Ingresses, Some("demo")),
            Some("IngressClass") => (Resource::IngressClasses, None),
            Some("AlbConfig") => (Resource::AlbConfigs, None),
            kind => panic!("an Event about {kind:?}"),
        };
        let name = regarding["name"].as_str().unwrap_or_default();
        let about = server.get(resource, namespace, name).expect("it is there");
        assert_eq!(regarding["uid"], about["metadata"]["uid"]);
        assert_eq!(regarding["apiVersion"], about["apiVersion"]);
        assert_eq!(
            event["metadata"]["namespace"],
            namespace.unwrap_or("default")
        );
        let kind = match event["reason"].as_str() {
            Some("SuccessfullyReconciled") => "Normal",
            _ => "Warning",
        };
        assert_eq!(event["type"], kind);
    }
    let told = events(&server, "web");
    assert_eq!(told[0].0, "IgnoredConfig");
    assert!(told[0].1.len() <= 1024 && told[0].1.ends_with("..."));
    assert!(node.stop());
}

#[test]
fn members_files_and_missing_objects_get_no_event() {
    let server = server();
    let mut fleet = Fleet::new(&server, &["web"]);
    let service = ObjectRef {
        cluster: Some("c1".into()),
        kind: "Service".into(),
        namespace: "demo".into(),
        name: "svc".into(),
    };
    let file = ObjectRef {
        kind: "File".into(),
        name: "a.yaml".into(),
        ..ObjectRef::default()
    };
    for object in [service, file, object("deleted")] {
        fleet
            .problems
            .push(Problem::error(&object, "spec", "m", "r"));
    }
    fleet.fail("web", "m");
    let node = Node::start(&server, &fleet);
    // Of the errors it is the last in order.
    eventually("the error of the Ingress is told", || {
        events(&server, "web").len() == 1
    });
    eventually("all of it is done", || node.counters.events_waiting() == 0);
    let about: Vec<_> = server.list(Resource::Events, None);
    let mut about: Vec<_> = about.iter().map(|it| &it["regarding"]["name"]).collect();
    about.sort_by_key(|name| name.to_string());
    assert_eq!(about, ["mcg", "web"]);
    assert!(node.stop());
}

#[test]
fn events_that_cannot_be_written_hold_back_no_status() {
    let server = server();
    let mut fleet = Fleet::new(&server, &["a", "b", "c"]);
    fleet.fail("a", "wrong");
    server.fail_requests(Failure {
        resource: Some(Resource::Events),
        ..Failure::all(500, u32::MAX)
    });
    let node = Node::start(&server, &fleet);
    eventually("every status is written", || {
        ["a", "b", "c"]
            .iter()
            .all(|name| shown(&server, name) == served())
    });
    server.stop_failing();
    eventually("the error is told", || events(&server, "a").len() == 1);
    assert!(node.stop());
}

#[test]
fn a_flood_of_errors_is_told_at_a_bounded_rate_and_holds_back_no_status() {
    let server = server();
    let names: Vec<String> = (0..40).map(|nth| format!("i{nth}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut fleet = Fleet::new(&server, &names);
    for name in &names {
        fleet.fail(name, "wrong");
    }
    let timing = Timing {
        event_burst: 5,
        event_each: Duration::from_secs(600),
        ..quick()
    };
    let node = Node::with(&server, &fleet, timing);
    eventually("every status is written", || {
        names.iter().all(|name| !shown(&server, name).is_null())
    });
    assert_eq!(server.list(Resource::Events, None).len(), 5);
    assert_eq!(node.counters.writes(Written::Event, Outcome::Done), 5);
    // The other errors, and good news of the gateway, which waits behind them.
    assert_eq!(node.counters.events_waiting(), 36);
    assert!(node.stop());
}
