//! Rules for responses.

use std::io::Write;

use gateway_user::ir::{
    Direction, Filter, FixedResponse, HeaderMatch, InsertedValue, PathPattern, Target,
};

use super::{insert, literal, one};
use crate::support::{Gateway, Origin, Routed, answered, ok, rule};

/// A pod that answers with the status its path names, and a header `kind` with the rest of it.
fn by_path() -> Origin {
    Origin::answering(|seen, stream| {
        let path = seen.line().split(' ').nth(1).unwrap_or_default();
        let mut parts = path.trim_start_matches('/').splitn(2, '/');
        let (status, kind) = (parts.next().unwrap_or("200"), parts.next().unwrap_or(""));
        let kept = "set-cookie: a=1\r\nset-cookie: b=2\r\nserver: pod";
        write!(
            stream,
            "HTTP/1.1 {status} Pod\r\nkind: {kind}\r\n{kept}\r\ncontent-length: 8\r\n\r\nfrom pod"
        )
    })
}

fn on_response(filters: Vec<Filter>, target: Target) -> Routed {
    Routed {
        direction: Direction::Response,
        filters,
        ..answered(target)
    }
}

fn fixed(code: u16, content: &str) -> Target {
    Target::Respond(FixedResponse {
        code,
        content_type: "text/plain".to_owned(),
        content: content.to_owned(),
    })
}

fn kind(value: &str) -> Vec<HeaderMatch> {
    vec![HeaderMatch {
        name: "kind".to_owned(),
        values: vec![value.to_owned()],
    }]
}

#[test]
fn a_response_is_changed_by_its_status_and_no_other_is() {
    let origin = by_path();
    let mut teapots = on_response(
        vec![
            literal("x-tea", "yes", true),
            literal("kind", "mine", false),
            literal("server", "mine", true),
            Filter::RemoveHeader("set-cookie".to_owned()),
        ],
        Target::Pass,
    );
    teapots.conditions.response_statuses = vec![418, 419];
    let gateway = Gateway::start(vec![teapots, rule(one(&origin))]);
    let mut client = gateway.client();
    for status in [418, 419] {
        let reply = client.get(&format!("/{status}/k"));
        assert_eq!((reply.status, reply.text().as_str()), (status, "from pod"));
        assert_eq!(reply.header("x-tea"), ["yes"]);
        assert_eq!(reply.header("kind"), ["k"], "what is there stays");
        assert_eq!(reply.header("server"), ["mine"]);
        assert!(reply.header("set-cookie").is_empty());
    }
    let reply = client.get("/200/k");
    assert!(reply.header("x-tea").is_empty());
    assert_eq!(reply.header("set-cookie"), ["a=1", "b=2"]);
}

#[test]
fn a_response_header_decides_and_values_can_come_from_the_request() {
    let origin = by_path();
    let echo = insert("x-id", InsertedValue::Header("x-request".to_owned()), true);
    let mut of_kind = on_response(vec![echo], Target::Pass);
    of_kind.conditions.response_headers = kind("go*");
    let gateway = Gateway::start(vec![of_kind, rule(one(&origin))]);
    let mut client = gateway.client();
    let id = |reply: crate::support::Reply| reply.header("x-id");
    assert_eq!(id(client.get_with("/200/good", "X-Request: 7\r\n")), ["7"]);
    assert!(id(client.get_with("/200/bad", "X-Request: 7\r\n")).is_empty());
    assert!(id(client.get("/200/good")).is_empty(), "nothing to insert");
}

#[test]
fn a_fixed_response_takes_the_place_of_the_backends() {
    let origin = by_path();
    let mut sorry = on_response(Vec::new(), fixed(503, "sorry"));
    sorry.conditions.response_statuses = vec![404];
    let gateway = Gateway::start(vec![sorry, rule(one(&origin))]);
    let mut client = gateway.client();
    let reply = client.get("/404/k");
    assert_eq!((reply.status, reply.text().as_str()), (503, "sorry"));
    assert!(reply.header("kind").is_empty() && reply.header("set-cookie").is_empty());
    assert_eq!(reply.header("content-length"), ["5"]);
    // The next one on this connection is answered by the pod, and what it had said before is gone.
    assert_eq!(client.get("/200/k").text(), "from pod");
    client.send("HEAD /404/k HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.reply_to("HEAD").unwrap().status, 503);
    assert_eq!(origin.seen().len(), 3);
}

#[test]
fn the_first_rule_that_meets_the_response_decides_and_the_request_must_be_met_too() {
    let origin = by_path();
    let marks = |mark: &str| on_response(vec![literal("x-by", mark, true)], Target::Pass);
    let (mut below_api, mut by_kind, any) = (marks("path"), marks("kind"), marks("any"));
    below_api.conditions.paths = vec![PathPattern::Prefix("/201".into())];
    below_api.conditions.response_statuses = vec![201];
    by_kind.conditions.response_headers = kind("k");
    let gateway = Gateway::start(vec![below_api, by_kind, any, rule(one(&origin))]);
    let mut client = gateway.client();
    for (path, expected) in [
        ("/201/k", "path"),
        ("/201/x", "path"),
        ("/202/k", "kind"),
        ("/202/x", "any"),
    ] {
        assert_eq!(client.get(path).header("x-by"), [expected], "{path}");
    }
}

#[test]
fn what_the_gateway_answers_itself_is_no_response_of_a_backend() {
    let mut everything = on_response(vec![literal("x-by", "rule", true)], fixed(200, "hidden"));
    everything.conditions.response_statuses = vec![404, 503];
    let gateway = Gateway::start(vec![
        everything,
        rule(crate::support::group("none", Vec::new())),
    ]);
    let reply = gateway.client().get("/");
    assert_eq!((reply.status, reply.reason().as_str()), (503, "no-server"));
    assert!(reply.header("x-by").is_empty());
}

#[test]
fn a_long_answer_that_is_replaced_costs_the_client_nothing() {
    let origin = Origin::fixed(ok(&"x".repeat(1 << 20)));
    let mut short = on_response(Vec::new(), fixed(200, "short"));
    short.conditions.response_statuses = vec![200];
    let gateway = Gateway::start(vec![short, rule(one(&origin))]);
    let mut client = gateway.client();
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "short");
    }
}
