//! Several nodes, one Lease.

use std::time::{Duration, Instant};

use fleetgate_tests::apiserver::{ApiServer, Failure, History, Resource, Verb};

use crate::{
    cut::Wire,
    fleet::{Fleet, Node, eventually, quick, served, server, shown},
};

/// Who wrote anything but the Lease, in order, neighbours of the same name taken together.
fn writers(server: &ApiServer) -> Vec<String> {
    let requests = server.requests();
    let writes = requests.iter().filter(|request| {
        request.resource != Resource::Leases
            && !matches!(request.verb, Verb::Get | Verb::List | Verb::Watch)
    });
    let mut names: Vec<String> = writes.map(|request| request.user.clone()).collect();
    names.dedup();
    names
}

fn node(server: &ApiServer, name: &str, fleet: &Fleet) -> Node {
    Node::at(server, &server.url(), name, fleet, quick(), true)
}

fn holder(server: &ApiServer) -> String {
    let lease = server.get(
        Resource::Leases,
        Some("fleetgate-system"),
        "fleetgate-status",
    );
    let holder = lease.map(|it| it["spec"]["holderIdentity"].clone());
    let holder = holder.as_ref().and_then(|it| it.as_str());
    holder.unwrap_or_default().to_owned()
}

#[test]
fn exactly_one_of_two_writes_and_the_other_follows_when_it_stops() {
    let server = server();
    let mut fleet = Fleet::new(&server, &["web"]);
    let first = node(&server, "first", &fleet);
    eventually("the first leads", || first.counters.is_leader());
    let second = node(&server, "second", &fleet);
    for nth in 0..10 {
        fleet.suffix = Some(format!("v{nth}.example.com"));
        first.want(&fleet);
        second.want(&fleet);
        let host = format!("mcg.v{nth}.example.com");
        eventually("the newest is written", || {
            shown(&server, "web")["ingress"][0]["hostname"] == *host
        });
    }
    assert_eq!(writers(&server), ["first"]);
    assert!(holder(&server).starts_with("first_"));
    assert!(!second.counters.is_leader());

    let stopped = Instant::now();
    assert!(first.stop());
    eventually("the second leads", || second.counters.is_leader());
    // The Lease was given back: nobody waited for its end.
    assert!(stopped.elapsed() < quick().lease);
    fleet.suffix = Some("gw.example.com".into());
    second.want(&fleet);
    eventually("the second writes", || shown(&server, "web") == served());
    assert_eq!(writers(&server), ["first", "second"]);
    assert!(holder(&server).starts_with("second_"));
    assert!(second.stop());
    assert_eq!(holder(&server), "");
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_writes_nothing_afterwards() {
    let server = server();
    let mut fleet = Fleet::new(&server, &["web"]);
    let wire = Wire::to(server.address());
    let first = Node::at(&server, &wire.url(), "first", &fleet, quick(), true);
    eventually("the first writes", || shown(&server, "web") == served());
    let second = node(&server, "second", &fleet);
    eventually("the second has looked", || {
        let requests = server.requests();
        requests.iter().any(|it| it.user == "second")
    });
    wire.cut();
    fleet.suffix = Some("new.example.com".into());
    first.want(&fleet);
    second.want(&fleet);
    let new = "mcg.new.example.com";
    eventually("the second writes", || {
        // Never both.
        assert!(!(first.counters.is_leader() && second.counters.is_leader()));
        shown(&server, "web")["ingress"][0]["hostname"] == new
    });
    assert_eq!(server.count(Verb::Create, Resource::Leases), 1);
    // The first is back, and follows.
    wire.mend();
    let seen = server.requests().len();
    eventually("the first has looked", || {
        let requests = server.requests();
        requests
            .iter()
            .skip(seen)
            .filter(|it| it.user == "first")
            .count()
            >= 3
    });
    assert!(!first.counters.is_leader());
    for nth in 0..5 {
        fleet.suffix = Some(format!("v{nth}.example.com"));
        first.want(&fleet);
        second.want(&fleet);
        let host = format!("mcg.v{nth}.example.com");
        eventually("the second still writes", || {
            shown(&server, "web")["ingress"][0]["hostname"] == *host
        });
    }
    // What the first had on the wire when it was cut may arrive late; nothing else.
    let requests = server.requests();
    let late = requests.iter().skip(seen);
    let late = late.filter(|it| it.user == "first" && it.verb == Verb::Patch);
    assert!(late.count() <= 1);
    assert!(second.counters.is_leader() && second.stop());
    assert!(first.stop());
}

#[test]
fn of_many_that_start_together_one_leads() {
    let server = server();
    let fleet = Fleet::new(&server, &["web"]);
    let names = ["n0", "n1", "n2", "n3", "n4"];
    let mut nodes: Vec<Node> = names
        .iter()
        .map(|name| node(&server, name, &fleet))
        .collect();
    for left in (1..=nodes.len()).rev() {
        eventually("one leads", || {
            let leaders = nodes.iter().filter(|it| it.counters.is_leader()).count();
            assert!(leaders <= 1);
            leaders == 1
        });
        assert_eq!(nodes.len(), left);
        let leader = nodes
            .iter()
            .position(|it| it.counters.is_leader())
            .expect("one leads");
        assert_eq!(nodes[leader].counters.terms(), 1);
        assert!(nodes.remove(leader).stop());
    }
}

#[test]
fn a_server_that_fails_for_a_moment_ends_no_term() {
    let server = server();
    let fleet = Fleet::new(&server, &["web"]);
    let only = node(&server, "only", &fleet);
    eventually("it leads", || only.counters.is_leader());
    server.fail_requests(Failure {
        resource: Some(Resource::Leases),
        ..Failure::all(503, 2)
    });
    let renewals = server.count(Verb::Update, Resource::Leases);
    eventually("it has renewed its Lease", || {
        assert!(only.counters.is_leader());
        server.count(Verb::Update, Resource::Leases) > renewals + 2
    });
    assert_eq!(only.counters.terms(), 1);
    // Down for longer than a lease: it stops leading, and leads again when it can.
    server.kill().expect("it stops");
    eventually("it no longer leads", || !only.counters.is_leader());
    server.restart(History::Kept).expect("it starts");
    eventually("it leads again", || only.counters.is_leader());
    assert_eq!(only.counters.terms(), 2);
    assert!(only.stop());
}

#[test]
fn who_may_not_touch_the_lease_writes_nothing() {
    let server = server();
    let fleet = Fleet::new(&server, &["web"]);
    server.forbid(Verb::Create, Resource::Leases);
    let only = node(&server, "only", &fleet);
    eventually("it has tried", || {
        server.count(Verb::Create, Resource::Leases) >= 2
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(writers(&server).is_empty() && !only.counters.is_leader());
    server.allow(Verb::Create, Resource::Leases);
    eventually("it writes", || shown(&server, "web") == served());
    assert!(only.stop());
}
