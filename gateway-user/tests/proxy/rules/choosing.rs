//! How a pod is chosen.

use std::{
    collections::BTreeMap,
    io::Write,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use gateway_user::ir::{Policy, Scheduler};

use super::{hits, numbered, pods};
use crate::support::{Client, Gateway, Origin, eventually, ok, rule};

fn by(scheduler: Scheduler) -> Policy {
    Policy {
        scheduler,
        ..Policy::default()
    }
}

#[test]
fn a_pod_that_is_busy_gets_nothing_while_others_are_idle() {
    let free = Arc::new(AtomicBool::new(false));
    let waits = Arc::clone(&free);
    let busy = Origin::answering(move |_, stream| {
        while !waits.load(SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        stream.write_all(&ok("busy"))
    });
    let origins = [busy, Origin::fixed(ok("idle")), Origin::fixed(ok("idle"))];
    let gateway = Gateway::start(vec![rule(pods(&origins, by(Scheduler::LeastConnections)))]);
    let mut waiting = Vec::new();
    while origins[0].connections() == 0 {
        let mut client = gateway.client();
        let before: usize = hits(&origins).iter().sum();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        waiting.push(client);
        eventually("it arrives", || {
            hits(&origins).iter().sum::<usize>() > before
        });
    }
    // Over connections of their own, so that every worker must know.
    for _ in 0..60 {
        assert_eq!(gateway.client().get("/").text(), "idle");
    }
    assert_eq!(origins[0].seen().len(), 1);
    free.store(true, SeqCst);
    for mut client in waiting {
        assert_eq!(client.reply().unwrap().status, 200);
    }
    // Free again, it gets its share.
    for _ in 0..30 {
        gateway.client().get("/");
    }
    assert!(origins[0].seen().len() > 1);
}

#[test]
fn a_client_meets_the_same_pod_on_every_connection() {
    let origins = numbered(4);
    let gateway = Gateway::start(vec![rule(pods(&origins, by(Scheduler::SourceHash)))]);
    let mut pod_of = BTreeMap::new();
    for round in 0..4 {
        for host in 1..=24 {
            let mut client = Client::from(Ipv4Addr::new(127, 0, 1, host), &gateway.proxy);
            let pod = client.get("/").text();
            let known = pod_of.entry(host).or_insert_with(|| pod.clone());
            assert_eq!(*known, pod, "client {host} in round {round}");
        }
    }
    assert!(
        hits(&origins).iter().filter(|count| **count > 0).count() > 1,
        "clients are spread"
    );
}

#[test]
fn a_value_of_the_query_meets_the_same_pod_and_requests_without_one_are_spread() {
    let origins = numbered(4);
    let policy = by(Scheduler::QueryHash("user".to_owned()));
    let gateway = Gateway::start(vec![rule(pods(&origins, policy))]);
    let mut pods = Vec::new();
    for user in 0..24 {
        let of = |path: String| gateway.client().get(&path).text();
        let first = of(format!("/?user=u{user}"));
        assert_eq!(of(format!("/other?a=1&user=u{user}&b=2")), first);
        assert_eq!(of(format!("/x?user=u{user}")), first);
        pods.push(first);
    }
    pods.sort();
    pods.dedup();
    assert!(pods.len() > 1, "users are spread");
    for path in ["/", "/?users=1", "/?user="] {
        let before = hits(&origins);
        let mut client = gateway.client();
        for _ in 0..8 {
            client.get(path);
        }
        let more = hits(&origins)
            .iter()
            .zip(&before)
            .map(|(now, it)| now - it)
            .collect::<Vec<_>>();
        assert_eq!(more, [2, 2, 2, 2], "{path}");
    }
}

#[test]
fn pods_whose_users_stay_when_another_pod_leaves_keep_them() {
    let origins = numbered(4);
    let policy = by(Scheduler::QueryHash("user".to_owned()));
    let mut gateway = Gateway::start(vec![rule(pods(&origins, policy.clone()))]);
    let of = |gateway: &Gateway, user| gateway.client().get(&format!("/?user={user}")).text();
    let before: Vec<String> = (0..40).map(|user| of(&gateway, user)).collect();
    gateway.change(|site| site.rules[0].group = pods(&origins[..3], policy));
    let moved = (0..40).filter(|user| {
        let now = of(&gateway, *user);
        before[*user] != "3" && before[*user] != now
    });
    // A table of slots moves a few more than it must.
    assert!(moved.count() <= 6);
}

/// The share of the last pod of so many requests, each over a connection of its own.
fn share(gateway: &Gateway, origins: &[Origin], requests: usize) -> f64 {
    let before = hits(origins);
    for _ in 0..requests {
        assert_eq!(gateway.client().get("/").status, 200);
    }
    let last = origins.len() - 1;
    (hits(origins)[last] - before[last]) as f64 / requests as f64
}

#[test]
fn a_new_pod_is_as_new_to_workers_that_have_not_met_its_group() {
    let origins = numbered(3);
    let policy = Policy {
        slow_start: Some(Duration::from_secs(100_000)),
        ..Policy::default()
    };
    let mut gateway = Gateway::start(vec![rule(pods(&origins[..2], policy.clone()))]);
    gateway.change(|site| site.rules[0].group = pods(&origins, policy));
    let first = share(&gateway, &origins, 200);
    assert!(first > 0.0 && first < 0.15, "{first}");
}

#[test]
fn a_new_pod_gets_a_small_share_at_first_and_its_full_share_in_the_end() {
    let origins = numbered(3);
    let slowly = |over| Policy {
        slow_start: Some(over),
        ..Policy::default()
    };
    // So long that nothing of it passes meanwhile.
    let policy = slowly(Duration::from_secs(100_000));
    let mut gateway = Gateway::start(vec![rule(pods(&origins[..2], policy.clone()))]);
    // Every worker knows the group.
    assert!((share(&gateway, &origins[..2], 60) - 0.5).abs() < 0.1);
    gateway.change(|site| site.rules[0].group = pods(&origins, policy));
    let first = share(&gateway, &origins, 300);
    assert!(first > 0.0 && first < 0.1, "{first}");
    let policy = slowly(Duration::from_millis(1));
    gateway.change(|site| site.rules[0].group = pods(&origins, policy));
    let then = share(&gateway, &origins, 150);
    assert!(then > 0.25, "{then}");
}
