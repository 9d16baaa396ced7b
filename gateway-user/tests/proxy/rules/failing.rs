//! Pods that fail: left out, tried again, and never asked more often than the budget for retries allows.

use std::{
    io::{BufReader, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Instant,
};

use gateway_user::{
    ir::{Direction, FixedResponse, Policy, Target},
    proxy::ProxyConfig,
};

use super::{hits, log::logged, one, pods};
use crate::support::{
    Gateway, Origin, Routed, Seen, answered, backend, closed_port, eventually, group, ok,
    read_head, rule,
};

const SORRY: &str = "HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n";

fn alone() -> ProxyConfig {
    ProxyConfig {
        workers: 1,
        ..ProxyConfig::default()
    }
}

/// Requests that decide whether a pod comes back, since then: one every three seconds at most.
fn probes(since: Instant) -> usize {
    since.elapsed().as_secs() as usize / 3 + 1
}

#[test]
fn a_pod_that_answers_503_five_times_in_a_row_gets_nothing_for_a_while() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let ill = Origin::answering(move |_, stream| match is_well.load(SeqCst) {
        true => stream.write_all(&ok("back")),
        false => stream.write_all(SORRY.as_bytes()),
    });
    let origins = [
        ill,
        Origin::fixed(ok("1")),
        Origin::fixed(ok("2")),
        Origin::fixed(ok("3")),
    ];
    let gateway = Gateway::start(vec![rule(pods(&origins, Policy::default()))]);
    let begun = Instant::now();
    let statuses = (0..120).map(|_| gateway.client().get("/").status);
    let failed = statuses.filter(|status| *status == 503).count();
    assert!(
        (5..5 + probes(begun)).contains(&failed),
        "{failed} in {:?}",
        begun.elapsed()
    );
    assert_eq!(origins[0].seen().len(), failed);
    well.store(true, SeqCst);
    let mut client = gateway.client();
    eventually("it comes back", || client.get("/").text() == "back");
    let before = origins[0].seen().len();
    for _ in 0..40 {
        client.get("/");
    }
    assert!(origins[0].seen().len() >= before + 9, "with its full share");
}

#[test]
fn an_answer_below_500_in_between_begins_the_count_anew() {
    let turn = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let ill = Origin::answering(move |_, stream| match turn.fetch_add(1, SeqCst) % 5 {
        4 => stream.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"),
        _ => stream.write_all(SORRY.as_bytes()),
    });
    let origins = [ill, Origin::fixed(ok("1"))];
    let gateway = Gateway::start(vec![rule(pods(&origins, Policy::default()))]);
    let mut client = gateway.client();
    (0..100).for_each(|_| drop(client.get("/")));
    assert_eq!(hits(&origins), [50, 50]);
}

#[test]
fn never_more_than_half_of_the_pods_are_left_out() {
    let mut origins: Vec<Origin> = (0..3).map(|_| Origin::fixed(SORRY)).collect();
    origins.push(Origin::fixed(ok("well")));
    let gateway = Gateway::start(vec![rule(pods(&origins, Policy::default()))]);
    let begun = Instant::now();
    let mut client = gateway.client();
    (0..200).for_each(|_| drop(client.get("/")));
    let few = 5 + probes(begun);
    let hits = hits(&origins);
    let out = hits.iter().filter(|count| **count <= few).count();
    assert_eq!(out, 2, "{hits:?}");
    assert!(hits[3] >= 80, "{hits:?}");
}

#[test]
fn a_pod_alone_is_never_left_out() {
    let origins = [Origin::fixed(SORRY)];
    let gateway = Gateway::start(vec![rule(pods(&origins, Policy::default()))]);
    let mut client = gateway.client();
    for _ in 0..30 {
        assert_eq!(client.get("/").reason(), "", "the answer is the pod's own");
    }
    assert_eq!(hits(&origins), [30]);
}

fn replaced(from: u16, to: u16) -> Routed {
    let mut rule = answered(Target::Respond(FixedResponse {
        code: to,
        content_type: "text/plain".to_owned(),
        content: "replaced".to_owned(),
    }));
    rule.direction = Direction::Response;
    rule.conditions.response_statuses = vec![from];
    rule
}

#[test]
fn a_pod_is_judged_by_its_own_answer_and_not_by_what_a_rule_makes_of_it() {
    // A pod whose 404 is shown as 503 is well.
    let missing = "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n";
    let origins = [Origin::fixed(missing), Origin::fixed(ok("1"))];
    let group = pods(&origins, Policy::default());
    let gateway = Gateway::start(vec![replaced(404, 503), rule(group)]);
    let mut client = gateway.client();
    (0..60).for_each(|_| drop(client.get("/")));
    assert_eq!(hits(&origins), [30, 30]);
    // One whose 503 is shown as 200 is not.
    let origins = [Origin::fixed(SORRY), Origin::fixed(ok("1"))];
    let group = pods(&origins, Policy::default());
    let gateway = Gateway::start(vec![replaced(503, 200), rule(group)]);
    let begun = Instant::now();
    let mut client = gateway.client();
    (0..60).for_each(|_| drop(client.get("/")));
    assert!(
        hits(&origins)[0] <= 5 + probes(begun),
        "{:?}",
        hits(&origins)
    );
}

/// A fifth of the requests, or three a second of the last ten seconds.
fn budget(requests: usize, since: Instant) -> usize {
    let windows = since.elapsed().as_secs() as usize / 10 + 1;
    windows * (requests / 5).max(30)
}

#[test]
fn a_backend_that_drops_pooled_connections_is_asked_again_within_the_budget_only() {
    // Each connection serves one request, and drops the next one unanswered.
    let origin = Origin::raw(|seen, stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        for answered in [true, false] {
            let head = read_head(&mut reader)?;
            seen.lock().unwrap().push(Seen {
                head,
                ..Seen::default()
            });
            if answered {
                stream.write_all(&ok("ok"))?;
            }
        }
        Ok(())
    });
    let gateway = Gateway::with(alone(), vec![rule(one(&origin))]);
    let begun = Instant::now();
    let mut client = gateway.client();
    let statuses: Vec<u16> = (0..300).map(|_| client.get("/").status).collect();
    let asked = origin.seen().len();
    assert!(asked > 300, "some were sent again");
    assert!(asked <= 300 + budget(300, begun), "{asked}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 502)));
    assert!(statuses.contains(&502), "then the client is told");
}

/// A rule whose pods all refuse.
fn refusing() -> Vec<Routed> {
    let backends = (0..4).map(|_| backend("c1", closed_port(), 1));
    vec![rule(group("web", backends.collect()))]
}

fn ask_all_refusing(gateway: &Gateway) {
    let mut client = gateway.client();
    for _ in 0..200 {
        let reply = client.get("/");
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (502, "connect-refused")
        );
    }
}

#[test]
fn when_all_pods_refuse_further_ones_are_tried_within_the_budget_only() {
    let begun = Instant::now();
    let lines = logged(refusing(), ask_all_refusing);
    let attempts: u64 = lines.iter().filter_map(|it| it["attempts"].as_u64()).sum();
    let most = 200 + budget(200, begun);
    assert!(
        (201..=most as u64).contains(&attempts),
        "{attempts}, but {most} are allowed"
    );
}

#[test]
fn a_retry_that_the_budget_did_not_allow_is_not_counted_as_one() {
    let begun = Instant::now();
    let gateway = Gateway::with(alone(), refusing());
    ask_all_refusing(&gateway);
    let (retries, most) = (gateway.stats().retries, budget(200, begun));
    assert!(retries <= most as u64, "{retries}, but {most} are allowed");
}
