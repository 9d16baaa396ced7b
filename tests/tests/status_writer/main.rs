//! What is written back to the fleet, on an API server.

mod cut;
mod events;
mod fleet;
mod leaders;

use std::time::{Duration, Instant};

use fleetgate_tests::apiserver::{Failure, History, Resource, Verb};
use gateway_user::status::{Outcome, Timing, Written};
use serde_json::json;

use fleet::{Fleet, Node, events, eventually, gateway, quick, served, server, shown, writes};

#[test]
fn statuses_are_what_the_contract_says() {
    let server = server();
    let fleet = Fleet::new(&server, &["web"]);
    let node = Node::start(&server, &fleet);
    eventually("the Ingress has a status", || {
        shown(&server, "web") == served()
    });
    eventually("the AlbConfig has a status", || {
        gateway(&server)
            == json!({"id": "fleetgate-mcg", "dnsname": "mcg.gw.example.com", "listeners": [],
                "subClusters": ["c1", "c2"]})
    });
    let object = server
        .get(Resource::Ingresses, Some("demo"), "web")
        .expect("it is there");
    let managers = object["metadata"]["managedFields"].as_array();
    assert!(managers.into_iter().flatten().any(|it| {
        it["manager"] == "fleetgate" && it["operation"] == "Apply" && it["subresource"] == "status"
    }));
    assert!(node.counters.is_leader());
    assert!(node.stop());
}

#[test]
fn a_resync_writes_nothing() {
    let server = server();
    let mut fleet = Fleet::new(&server, &["a", "b", "c"]);
    fleet.fail("b", "wrong");
    // Also looking at the fleet again is no reason to write.
    let timing = Timing {
        look_again: Duration::from_millis(20),
        ..quick()
    };
    let node = Node::with(&server, &fleet, timing);
    eventually("all is written", || {
        shown(&server, "c") == served() && events(&server, "b").len() == 1
    });
    eventually("all is told", || events(&server, "c").len() == 1);
    let before = writes(&server);
    for _ in 0..10 {
        node.want(&fleet);
        std::thread::sleep(Duration::from_millis(10));
    }
    let looks = server.count(Verb::List, Resource::Ingresses);
    eventually("the fleet was looked at again", || {
        server.count(Verb::List, Resource::Ingresses) > looks + 2
    });
    // What is written next shows that all of that was worked off.
    fleet.add(&server, "marker");
    node.want(&fleet);
    eventually("the marker is written and told", || {
        shown(&server, "marker") == served() && events(&server, "marker").len() == 1
    });
    assert_eq!(writes(&server), before + 2);
    assert!(node.stop());
}

#[test]
fn the_next_leader_writes_only_what_differs() {
    let server = server();
    let mut fleet = Fleet::new(&server, &["same", "gone", "changed", "bad"]);
    fleet.fail("bad", "wrong");
    let first = Node::start(&server, &fleet);
    eventually("all is written", || {
        ["same", "gone", "changed", "bad"]
            .iter()
            .all(|name| shown(&server, name) == served() && events(&server, name).len() == 1)
    });
    assert!(first.stop());
    // While nobody writes, one stops being ours, one is not served any more, and one comes.
    fleet.ingresses.retain(|it| it.name != "gone");
    fleet.ingresses[1].served = false;
    fleet.add(&server, "new");
    server.clear_journal();
    let second = Node::start(&server, &fleet);
    eventually("the difference is written", || {
        shown(&server, "new") == served()
            && shown(&server, "gone")["ingress"].is_null()
            && shown(&server, "changed")["ingress"].is_null()
            && events(&server, "new").len() == 1
    });
    assert_eq!(server.count(Verb::Patch, Resource::Ingresses), 3);
    assert_eq!(server.count(Verb::Patch, Resource::AlbConfigs), 0);
    assert_eq!(shown(&server, "same"), served());
    eventually("the error is known already", || {
        second.counters.writes(Written::Event, Outcome::Known) == 1
    });
    assert_eq!(events(&server, "same").len(), 1);
    assert!(second.stop());
}

#[test]
fn a_foreign_managers_field_is_left_alone_and_said_once() {
    let server = server();
    let mut fleet = Fleet::new(&server, &["web"]);
    let theirs = json!([{"ip": "192.0.2.1"}]);
    let foreign = json!({"status": {"loadBalancer": {"ingress": theirs}}});
    server
        .patch(Resource::Ingresses, Some("demo"), "web", foreign)
        .expect("their status");
    let foreign = json!({"status": {"loadBalancer": {"dnsname": "theirs.example.com"}}});
    server
        .patch(Resource::AlbConfigs, None, "mcg", foreign)
        .expect("their status");
    let node = Node::start(&server, &fleet);
    eventually("both conflicts are told", || {
        [("web", "ingress"), ("mcg", "dnsname")]
            .iter()
            .all(|(name, field)| {
                events(&server, name).iter().any(|(reason, note, _)| {
                    reason == "StatusConflict" && note.contains(field) && note.contains("`test`")
                })
            })
    });
    eventually("the other fields of the gateway are ours", || {
        gateway(&server)
            == json!({"id": "fleetgate-mcg", "dnsname": "theirs.example.com", "listeners": [],
                "subClusters": ["c1", "c2"]})
    });
    assert_eq!(node.counters.conflicts(), 2);
    let tries = server.count(Verb::Patch, Resource::Ingresses);
    assert_eq!(tries, 1);
    for suffix in ["x.example.com", "y.example.com"] {
        fleet.suffix = Some(suffix.into());
        node.want(&fleet);
    }
    fleet.add(&server, "marker");
    node.want(&fleet);
    eventually("the marker is written", || {
        shown(&server, "marker")["ingress"][0]["hostname"] == "mcg.y.example.com"
    });
    assert_eq!(server.count(Verb::Patch, Resource::Ingresses), tries + 1);
    assert_eq!(shown(&server, "web"), json!({ "ingress": theirs }));
    assert!(node.stop());
}

#[test]
fn what_is_forbidden_holds_back_nothing_else() {
    let server = server();
    let fleet = Fleet::new(&server, &["a", "b"]);
    server.forbid(Verb::Patch, Resource::Ingresses);
    let timing = Timing {
        look_again: Duration::from_millis(200),
        ..quick()
    };
    let node = Node::with(&server, &fleet, timing);
    eventually("the gateway is written", || {
        gateway(&server)["id"] == "fleetgate-mcg"
    });
    eventually("both Ingresses were refused", || {
        node.counters.writes(Written::Ingress, Outcome::Forbidden) >= 2
    });
    server.allow(Verb::Patch, Resource::Ingresses);
    eventually("both are written", || {
        shown(&server, "a") == served() && shown(&server, "b") == served()
    });
    assert!(node.stop());
}

#[test]
fn an_object_that_is_gone_is_asked_for_once_and_one_made_anew_is_written() {
    let server = server();
    let mut fleet = Fleet::new(&server, &["web", "ghost"]);
    server.delete(Resource::Ingresses, Some("demo"), "ghost");
    fleet.ingresses[0].uid = Some("of-the-first".into());
    let node = Node::start(&server, &fleet);
    eventually("the first is written", || shown(&server, "web") == served());
    eventually("the ghost is known to be gone", || {
        node.counters.writes(Written::Ingress, Outcome::Gone) == 1
    });
    server.delete(Resource::Ingresses, Some("demo"), "web");
    server.put(fleet::ingress("web")).expect("an Ingress");
    let again = server.get(Resource::Ingresses, Some("demo"), "web");
    let uid = again.map(|it| {
        it["metadata"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    });
    fleet.ingresses[0].uid = uid;
    node.want(&fleet);
    eventually("the second is written", || {
        shown(&server, "web") == served()
    });
    assert_eq!(node.counters.writes(Written::Ingress, Outcome::Gone), 1);
    assert!(node.stop());
}

#[test]
fn after_an_outage_the_newest_content_is_written() {
    let server = server();
    let mut fleet = Fleet::new(&server, &["web"]);
    let node = Node::start(&server, &fleet);
    eventually("it is written", || shown(&server, "web") == served());
    server.kill().expect("it stops");
    for nth in 0..20 {
        fleet.suffix = Some(format!("v{nth}.example.com"));
        node.want(&fleet);
        std::thread::sleep(Duration::from_millis(5));
    }
    let before = server.count(Verb::Patch, Resource::Ingresses);
    server.restart(History::Kept).expect("it starts");
    for code in [503, 429, 500] {
        server.fail_requests(Failure {
            verb: Some(Verb::Patch),
            ..Failure::all(code, 1)
        });
    }
    eventually("the newest is written", || {
        shown(&server, "web")["ingress"][0]["hostname"] == "mcg.v19.example.com"
    });
    // Three were failed on purpose, of whichever kind.
    assert!(server.count(Verb::Patch, Resource::Ingresses) <= before + 4);
    assert!(node.stop());
}

#[test]
fn a_frozen_server_keeps_nobody_from_stopping() {
    let server = server();
    let fleet = Fleet::new(&server, &["web"]);
    server.freeze();
    let timing = Timing {
        request: Duration::from_secs(60),
        ..quick()
    };
    let node = Node::with(&server, &fleet, timing.clone());
    let other = Node::at(&server, &server.url(), "elect", &fleet, timing, true);
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    assert!(node.stop() && other.stop());
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn writes_are_bounded_in_rate() {
    let server = server();
    let names: Vec<String> = (0..40).map(|nth| format!("i{nth}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let fleet = Fleet::new(&server, &names);
    let timing = Timing {
        write_each: Duration::from_millis(20),
        event_burst: 1,
        event_each: Duration::from_secs(600),
        ..quick()
    };
    let start = Instant::now();
    let node = Node::with(&server, &fleet, timing);
    eventually("all is written", || {
        names.iter().all(|name| shown(&server, name) == served())
    });
    // 41 statuses, 10 of them at once.
    assert!(start.elapsed() >= Duration::from_millis(20 * 30));
    assert!(node.counters.events_dropped() > 0);
    assert!(node.stop());
}
