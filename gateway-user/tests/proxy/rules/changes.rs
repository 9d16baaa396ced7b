//! What a pod is asked instead of what the client asked.

use gateway_user::ir::{Filter, InsertedValue, Regex, Rewrite, SystemValue};

use super::{insert, literal, one};
use crate::support::{Client, Gateway, Origin, Seen, filtered, ok};

/// What the pod sees of a request with these field lines.
fn seen(filters: Vec<Filter>, path: &str, fields: &str) -> Seen {
    let origin = Origin::fixed(ok("ok"));
    let gateway = Gateway::start(vec![filtered(one(&origin), filters)]);
    assert_eq!(gateway.client().get_with(path, fields).status, 200);
    origin.seen().remove(0)
}

#[test]
fn a_header_is_inserted_over_the_clients_own_or_beside_none() {
    let at = |overwrite, fields: &str| {
        seen(vec![literal("x-stage", "gray", overwrite)], "/", fields).header("x-stage")
    };
    assert_eq!(at(true, ""), ["gray"]);
    assert_eq!(at(false, ""), ["gray"]);
    assert_eq!(at(true, "X-Stage: a\r\nx-stage: b\r\n"), ["gray"]);
    assert_eq!(at(false, "X-Stage: a\r\nx-stage: b\r\n"), ["a", "b"]);
}

#[test]
fn a_header_can_be_copied_from_another_one_that_is_there() {
    let copy = || {
        vec![insert(
            "x-copy",
            InsertedValue::Header("x-from".to_owned()),
            true,
        )]
    };
    let value = seen(copy(), "/", "X-From: it\r\nX-Copy: old\r\n").header("x-copy");
    assert_eq!(value, ["it"]);
    assert!(seen(copy(), "/", "").header("x-copy").is_empty());
}

#[test]
fn system_values_tell_what_the_gateway_knows() {
    let origin = Origin::fixed(ok("ok"));
    let system = |name, value| insert(name, InsertedValue::System(value), true);
    let filters = vec![
        system("x-port", SystemValue::ClientPort),
        system("x-ip", SystemValue::ClientAddress),
        system("x-protocol", SystemValue::Protocol),
        system("x-gateway", SystemValue::GatewayId),
        system("x-listener", SystemValue::ListenerPort),
    ];
    let gateway = Gateway::start(vec![filtered(one(&origin), filters)]);
    let mut client = Client::from([127, 0, 0, 9].into(), &gateway.proxy);
    let own = client.stream().local_addr().unwrap();
    client.get_with("/", "X-Ip: 1.2.3.4\r\nX-Port: 1\r\n");
    let seen = origin.seen().remove(0);
    assert_eq!(seen.header("x-port"), [own.port().to_string()]);
    assert_eq!(seen.header("x-ip"), ["127.0.0.9"]);
    assert_eq!(seen.header("x-protocol"), ["http"]);
    assert_eq!(seen.header("x-gateway"), ["demo"]);
    let port = gateway.proxy.local_addr().port();
    assert_eq!(seen.header("x-listener"), [port.to_string()]);
}

#[test]
fn every_line_of_a_removed_header_goes_and_filters_work_in_their_order() {
    let filters = vec![
        insert("x-kept", InsertedValue::Header("x-secret".to_owned()), true),
        Filter::RemoveHeader("x-secret".to_owned()),
        literal("x-later", "1", true),
        Filter::RemoveHeader("x-later".to_owned()),
    ];
    let seen = seen(
        filters,
        "/",
        "X-Secret: a\r\nx-secret: b\r\nX-Secrets: c\r\n",
    );
    assert!(seen.header("x-secret").is_empty() && seen.header("x-later").is_empty());
    assert_eq!(seen.header("x-secrets"), ["c"]);
    assert_eq!(seen.header("x-kept"), ["a"]);
}

#[test]
fn a_client_cannot_take_an_inserted_header_away_by_naming_it_in_connection() {
    let filters = vec![literal("x-role", "guest", true)];
    let seen = seen(
        filters,
        "/",
        "Connection: x-role, keep-alive\r\nX-Role: admin\r\n",
    );
    assert_eq!(seen.header("x-role"), ["guest"]);
}

fn rewriting(host: &str, path: &str, query: &str, captures: Option<&str>) -> Vec<Filter> {
    vec![Filter::Rewrite(Rewrite {
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        captures: captures.map(|it| Regex::new(it, false).unwrap()),
    })]
}

#[test]
fn host_path_and_query_are_rewritten_each_for_itself() {
    for ((host, path, query), asked, line, to) in [
        (
            ("${host}", "/new", "${query}"),
            "/old?a=1",
            "GET /new?a=1 HTTP/1.1",
            "demo",
        ),
        (
            ("b.example", "${path}", "${query}"),
            "/x?a=%2f",
            "GET /x?a=%2f HTTP/1.1",
            "b.example",
        ),
        (
            ("${host}", "${path}", "h=${host}"),
            "/x?a=1",
            "GET /x?h=demo HTTP/1.1",
            "demo",
        ),
        (
            ("${host}", "/v2${path}", ""),
            "/x?a=1",
            "GET /v2/x HTTP/1.1",
            "demo",
        ),
    ] {
        let seen = seen(rewriting(host, path, query, None), asked, "");
        assert_eq!(
            (seen.line(), seen.header("host").join(",")),
            (line, to.to_owned())
        );
    }
}

#[test]
fn what_a_rewrite_target_captured_is_put_in_its_place() {
    let to = || {
        rewriting(
            "${host}",
            "/${2}/${1}",
            "${query}",
            Some("^/([a-z]+)/(.*)$"),
        )
    };
    for (asked, line) in [
        ("/abc/d/e?q", "GET /d/e/abc?q HTTP/1.1"),
        ("/abc/", "GET /abc HTTP/1.1"),
        // The expression is not found in it.
        ("/ABC/x", "GET /ABC/x HTTP/1.1"),
        ("/abc/%20x", "GET /%20x/abc HTTP/1.1"),
    ] {
        let line_seen = seen(to(), asked, "");
        // Only one slash leads, whatever is captured.
        assert_eq!(line_seen.line().replace("//", "/"), line, "{asked}");
    }
}

#[test]
fn a_dot_segment_that_a_capture_makes_is_refused_and_reaches_no_pod() {
    let origin = Origin::fixed(ok("ok"));
    let captures = Some("^/open/([^/]*)x([^/]*)");
    let to = rewriting("${host}", "/files/${1}${2}/secret", "${query}", captures);
    let gateway = Gateway::start(vec![filtered(one(&origin), to)]);
    for path in [
        "/open/.x.",
        "/open/.x",
        "/open/x.",
        "/open/%2ex.",
        "/open/..x",
    ] {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let reply = client.reply().unwrap();
        let told = (reply.status, reply.reason());
        assert_eq!(told, (400, "bad-request".to_owned()), "{path}");
    }
    assert!(origin.seen().is_empty());
    assert_eq!(gateway.client().get("/open/.x.a").status, 200);
    assert_eq!(origin.seen()[0].line(), "GET /files/..a/secret HTTP/1.1");
}

#[test]
fn the_rule_is_chosen_by_what_the_client_asked_and_not_by_what_became_of_it() {
    let (old, new) = (Origin::fixed(ok("old")), Origin::fixed(ok("new")));
    let mut first = filtered(one(&old), rewriting("${host}", "/new", "${query}", None));
    first.conditions.paths = vec![gateway_user::ir::PathPattern::Prefix("/old".into())];
    let mut second = crate::support::rule(crate::support::group(
        "new",
        vec![crate::support::backend("c1", new.address, 1)],
    ));
    second.conditions.paths = vec![gateway_user::ir::PathPattern::Prefix("/new".into())];
    let gateway = Gateway::start(vec![first, second]);
    let mut client = gateway.client();
    assert_eq!(client.get("/old").text(), "old");
    assert_eq!(client.get("/new").text(), "new");
    assert_eq!(old.seen()[0].line(), "GET /new HTTP/1.1");
}
