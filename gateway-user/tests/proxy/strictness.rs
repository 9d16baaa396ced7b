//! What two readers could understand differently never reaches a backend.

use proptest::prelude::*;

use super::support::{Gateway, Origin, ok};

#[test]
fn ambiguous_input_is_refused_and_no_backend_sees_it() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = Gateway::to(&origin);
    let long = "a".repeat(100_000);
    let long_head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n");
    let long_target = format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n");
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "A: b\r\n".repeat(101)
    );
    for (name, bytes, status) in [
        (
            "CL and TE",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "two different CL",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            400,
        ),
        (
            "two equal CL",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
            400,
        ),
        (
            "CL with a sign",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\nab",
            400,
        ),
        (
            "TE xchunked",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            501,
        ),
        (
            "TE identity, chunked",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
            501,
        ),
        (
            "TE on HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "space before the colon",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            400,
        ),
        (
            "obs-fold",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
            400,
        ),
        ("bare LF", "GET / HTTP/1.1\nHost: a\n\n", 400),
        (
            "NUL in a value",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
            400,
        ),
        ("no Host", "GET / HTTP/1.1\r\n\r\n", 400),
        (
            "two Hosts",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            400,
        ),
        (
            "a Host that is none",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            400,
        ),
        (
            "a Host with a user",
            "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            400,
        ),
        ("a fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (
            "CONNECT",
            "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
            405,
        ),
        ("TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("long header", &long_head, 431),
        ("many headers", &many, 431),
        ("long target", &long_target, 414),
        ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (
            "an unknown expectation",
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: cake\r\n\r\n",
            417,
        ),
    ] {
        let mut client = gateway.client();
        client.send(bytes);
        let reply = client.reply().unwrap_or_else(|err| panic!("{name}: {err}"));
        assert_eq!(reply.status, status, "{name}");
        assert_eq!(reply.header("server"), ["fleetgate"], "{name}");
        assert!(
            !reply.reason().is_empty() && reply.text().starts_with(&reply.reason()),
            "{name}"
        );
        assert_eq!(client.rest(), "", "{name}: the connection ends");
    }
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
    assert_eq!(origin.connections(), 0);
}

#[test]
fn what_was_asked_before_a_refused_head_is_still_answered_first() {
    let origin = Origin::answering(|seen, stream| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        std::io::Write::write_all(stream, &ok(seen.line()))
    });
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost : a\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.reply().unwrap().text(), "GET /1 HTTP/1.1");
    assert_eq!(client.reply().unwrap().text(), "GET /2 HTTP/1.1");
    assert_eq!(client.reply().unwrap().status, 400);
    assert_eq!(client.rest(), "");
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn a_malformed_chunk_aborts_the_backends_request_and_is_a_400() {
    for chunk in [
        "0x1\r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "3\r\nabcdef\r\n0\r\n\r\n",
        "zz\r\n",
        "0\r\nHost: b\r\n\r\n",
    ] {
        let origin = Origin::fixed(ok("ok"));
        let gateway = Gateway::to(&origin);
        let mut client = gateway.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n{chunk}"
        ));
        let reply = client
            .reply()
            .unwrap_or_else(|err| panic!("{chunk:?}: {err}"));
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (400, "bad-request"),
            "{chunk:?}"
        );
        assert_eq!(client.rest(), "", "{chunk:?}");
        super::support::eventually("the backend's connection ended", || {
            origin.ended() == origin.connections()
        });
        assert!(
            origin.seen().iter().all(|seen| !seen.complete),
            "{chunk:?} completed: {:?}",
            origin.seen()
        );
    }
}

#[test]
fn a_hidden_request_in_a_body_stays_in_the_body() {
    let origin =
        Origin::answering(|seen, stream| std::io::Write::write_all(stream, &ok(seen.line())));
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    let hidden = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(format!("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: Content-Length\r\n\r\n{hidden}", hidden.len()));
    assert_eq!(client.reply().unwrap().text(), "POST /1 HTTP/1.1");
    client.send(format!("POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: Transfer-Encoding\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len()));
    assert_eq!(client.reply().unwrap().text(), "POST /2 HTTP/1.1");
    let seen = origin.seen();
    assert_eq!(seen.len(), 2);
    for request in seen {
        assert_eq!(request.body, hidden.as_bytes());
        assert_eq!(
            request.header("content-length").len() + request.header("transfer-encoding").len(),
            1
        );
    }
}

#[test]
fn an_answer_that_can_be_read_in_two_ways_is_a_502() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n",
    ] {
        let origin = Origin::fixed(format!("{head}\r\n0\r\n\r\n"));
        let gateway = Gateway::to(&origin);
        let reply = gateway.client().get("/");
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (502, "bad-response"),
            "{head}"
        );
    }
}

fn answers() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 200 OK\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n",
        "HTTP/1.1 304 Not Modified\r\n",
        "HTTP/1.1 999 X\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Connection: ,,x\r\n",
        "Upgrade: x\r\n",
        "\r\n",
        "abc",
        "3\r\nabc\r\n",
        "0\r\n\r\n",
        "\n",
    ]);
    prop_oneof![
        4 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

#[test]
fn no_answer_of_a_backend_stops_the_proxy_from_serving() {
    let answer = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let source = std::sync::Arc::clone(&answer);
    let hostile = Origin::raw(move |_, stream| {
        let mut reader = std::io::BufReader::new(stream.try_clone()?);
        super::support::read_head(&mut reader)?;
        std::io::Write::write_all(stream, &source.lock().unwrap())
    });
    let fine = Origin::fixed(ok("ok"));
    let mut rules = [&hostile, &fine].map(|origin| {
        let backends = vec![super::support::backend("c1", origin.address, 1)];
        super::support::rule(super::support::group("web", backends))
    });
    rules[0].conditions.paths = vec![gateway_user::ir::PathPattern::Prefix("/hostile".into())];
    let gateway = Gateway::start(rules.to_vec());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&prop::collection::vec(answers(), 0..10), |pieces| {
            *answer.lock().unwrap() = pieces.concat();
            let mut client = gateway.client();
            client.send(
                "GET /hostile HTTP/1.1\r\nHost: a\r\nConnection: close, upgrade\r\nUpgrade: x\r\n\r\n",
            );
            client.rest();
            prop_assert_eq!(gateway.client().get("/").status, 200);
            Ok(())
        })
        .unwrap();
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST /a HTTP/1.1\r\n",
        "Host: a\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "\r\n",
        "abc",
        "3\r\nabc\r\n",
        "0\r\n\r\n",
        "\n",
        "\0",
        "Connection: upgrade\r\nUpgrade: x\r\n",
        "Expect: 100-continue\r\n",
        "HTTP/1.0\r\n",
        " ",
        ":",
    ]);
    prop_oneof![3 => known.prop_map(|text| text.as_bytes().to_vec()), 1 => prop::collection::vec(any::<u8>(), 0..40)]
}

#[test]
fn no_bytes_stop_the_proxy_from_serving() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = Gateway::to(&origin);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&prop::collection::vec(pieces(), 0..12), |pieces| {
            let mut client = gateway.client();
            let _ = std::io::Write::write_all(client.stream(), &pieces.concat());
            let _ = client.stream().shutdown(std::net::Shutdown::Write);
            client.rest();
            let reply = gateway.client().get("/");
            prop_assert_eq!(reply.status, 200);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_path_that_a_backend_may_shorten_is_refused_and_other_dots_pass() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = Gateway::to(&origin);
    for path in [
        "/public/../admin",
        "/public/..",
        "/./admin",
        "/%2e%2E/admin",
        "/public/.%2e/admin",
        "/public/%2e",
        "/public/..;a=b/admin",
        "/public/..%2Fadmin",
        "/public%5c..%5cadmin",
        "/public\\admin",
        "http://a/public/../admin",
        "http://a/..?q",
        "/%",
        "/a%2",
        "/a%zz",
        "/a%00b",
        "/\u{e4}",
    ] {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let reply = client.reply().unwrap();
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (400, "bad-request"),
            "{path}"
        );
    }
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
    let mut client = gateway.client();
    // Each with the one spelling that rules and backends see.
    let passing = [
        ("//a//b/", "//a//b/"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a..b/...", "/a..b/..."),
        ("/a%2fb", "/a%2Fb"),
        ("/a%5Cb", "/a%5Cb"),
        ("/%2ehidden", "/.hidden"),
        ("/%61dmin%7e", "/admin~"),
        ("/;/a;x=..", "/;/a;x=.."),
        ("/a?next=/../b\\c%zz", "/a?next=/../b\\c%zz"),
    ];
    for (path, _) in passing {
        assert_eq!(client.get(path).status, 200, "{path}");
    }
    let lines = passing.map(|(_, path)| format!("GET {path} HTTP/1.1"));
    let seen = origin.seen();
    assert!(
        seen.iter().map(super::support::Seen::line).eq(&lines),
        "{seen:?}"
    );
}

#[test]
fn a_few_empty_lines_before_a_request_are_skipped_and_many_are_a_400() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    for _ in 0..3 {
        client.send("\r\n\r\n\r\n\r\n");
        assert_eq!(client.get("/").status, 200, "each request has its own");
    }
    client.send("\r\n".repeat(1000));
    let reply = client.reply().unwrap();
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (400, "bad-request")
    );
    assert_eq!(client.rest(), "");
}
