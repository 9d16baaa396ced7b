//! Traffic limits of rules.

use std::{net::Ipv4Addr, time::Instant};

use gateway_user::ir::{Filter, FixedResponse, PathPattern, Target, TrafficLimit};

use super::one;
use crate::support::{Client, Gateway, Origin, Reply, Routed, answered, filtered, ok};

fn limit(per_second: Option<u32>, per_client: Option<u32>) -> Vec<Filter> {
    vec![Filter::TrafficLimit(TrafficLimit {
        per_second,
        per_client,
    })]
}

fn client(gateway: &Gateway, host: u8) -> Client {
    Client::from(Ipv4Addr::new(127, 0, 0, host), &gateway.proxy)
}

/// How many of so many requests pass; each on a connection of its own, so that all workers are asked.
fn passed(gateway: &Gateway, host: u8, path: &str, requests: usize) -> usize {
    let replies = (0..requests).map(|_| client(gateway, host).get(path));
    let refused = |reply: &Reply| match reply.status {
        200 => false,
        503 => {
            assert_eq!(reply.reason(), "rate-limited");
            true
        }
        other => panic!("{other}"),
    };
    replies.filter(|reply| !refused(reply)).count()
}

/// What a limit lets pass at once, and what it may let pass more in the time that has gone by.
fn assert_limit(passed: usize, rate: usize, since: Instant) {
    let more = (since.elapsed().as_secs_f64() * rate as f64) as usize;
    assert!(
        (rate..=rate + more).contains(&passed),
        "{passed} of {rate}, and {more} later"
    );
}

#[test]
fn of_a_rule_so_many_pass_at_once_whoever_asks_and_no_pod_sees_the_others() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = Gateway::start(vec![filtered(one(&origin), limit(Some(7), None))]);
    let begun = Instant::now();
    let all: usize = (1..=4).map(|host| passed(&gateway, host, "/", 8)).sum();
    assert_limit(all, 7, begun);
    assert_eq!(origin.seen().len(), all);
}

#[test]
fn a_client_that_used_its_share_up_takes_nothing_of_the_others() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = Gateway::start(vec![filtered(one(&origin), limit(Some(9), Some(3)))]);
    let begun = Instant::now();
    assert_limit(passed(&gateway, 1, "/", 30), 3, begun);
    for host in 2..=3 {
        let begun = Instant::now();
        assert_limit(passed(&gateway, host, "/", 3), 3, begun);
    }
}

fn at(path: &str, filters: Vec<Filter>) -> Routed {
    let target = Target::Respond(FixedResponse {
        code: 200,
        content_type: "text/plain".to_owned(),
        content: "ok".to_owned(),
    });
    let mut routed = answered(target);
    routed.conditions.paths = vec![PathPattern::Prefix(path.into())];
    routed.filters = filters;
    routed
}

#[test]
fn a_limit_counts_for_its_own_rule_also_where_no_pod_is_asked() {
    let gateway = Gateway::start(vec![
        at("/a", limit(Some(4), None)),
        at("/b", limit(Some(5), None)),
        at("/c", Vec::new()),
    ]);
    for (path, rate) in [("/a", 4), ("/b", 5)] {
        let begun = Instant::now();
        assert_limit(passed(&gateway, 1, path, 20), rate, begun);
    }
    assert_eq!(passed(&gateway, 1, "/c", 20), 20);
}

#[test]
fn what_was_spent_stays_spent_when_another_rule_changes() {
    let mut gateway = Gateway::start(vec![at("/a", limit(Some(4), None))]);
    let begun = Instant::now();
    let mut all = passed(&gateway, 1, "/a", 4);
    for round in 0..5 {
        gateway.change(|site| {
            let other = at("/b", limit(Some(round + 1), None));
            site.rules.truncate(1);
            site.rules.push(other);
        });
        all += passed(&gateway, 1, "/a", 2);
    }
    assert_limit(all, 4, begun);
}

#[test]
fn a_refused_request_with_a_body_keeps_the_connection_in_step() {
    let gateway = Gateway::start(vec![at("/", limit(Some(1), None))]);
    let mut client = gateway.client();
    for _ in 0..30 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 25\r\n\r\n");
        client.send("GET / HTTP/1.1\r\nHost: b\r\n");
        assert!(matches!(client.reply().unwrap().status, 200 | 503));
    }
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.reply().unwrap();
    assert_eq!(client.rest(), "", "no answer to a body");
}
