//! Answers that need no pod: redirects and fixed responses.

use gateway_user::ir::{FixedResponse, Redirect, Target};

use crate::support::{Gateway, answered};

fn redirecting(to: Redirect) -> Gateway {
    Gateway::start(vec![answered(Target::Redirect(to))])
}

fn fixed(code: u16, content: &str) -> Target {
    Target::Respond(FixedResponse {
        code,
        content_type: "application/json".to_owned(),
        content: content.to_owned(),
    })
}

#[test]
fn a_redirect_changes_the_parts_it_names_and_keeps_the_others() {
    let all = Redirect::default;
    let text = str::to_owned;
    for (to, path, expected) in [
        (
            Redirect {
                host: text("b.example"),
                port: text("80"),
                ..all()
            },
            "/x?q=1",
            "http://b.example/x?q=1",
        ),
        (
            Redirect {
                protocol: text("https"),
                port: text("8443"),
                ..all()
            },
            "/x",
            "https://a.example:8443/x",
        ),
        (
            Redirect {
                path: text("/new${path}/${host}"),
                port: text("80"),
                ..all()
            },
            "/x/y?z",
            "http://a.example/new/x/y/a.example?z",
        ),
        (
            Redirect {
                query: text("from=${path}"),
                port: text("80"),
                ..all()
            },
            "/x?q=1",
            "http://a.example/x?from=/x",
        ),
        (
            Redirect {
                query: text(""),
                port: text("80"),
                ..all()
            },
            "/x?q=1",
            "http://a.example/x",
        ),
    ] {
        let gateway = redirecting(to.clone());
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a.example:81\r\n\r\n"));
        let reply = client.reply().unwrap();
        assert_eq!(reply.status, 301);
        assert_eq!(reply.header("location"), [expected], "{to:?}");
        assert_eq!(
            (reply.header("content-length"), reply.text()),
            (vec![text("0")], text(""))
        );
    }
}

#[test]
fn a_redirect_has_the_code_that_was_asked_for() {
    for code in [301, 302, 303, 307, 308] {
        let gateway = redirecting(Redirect {
            code,
            path: "/new".to_owned(),
            ..Redirect::default()
        });
        assert_eq!(gateway.client().get("/old").status, code);
    }
}

#[test]
fn ssl_redirect_answers_308_with_path_and_query_as_they_were() {
    let gateway = redirecting(Redirect::to_https());
    let mut client = gateway.client();
    client.send("GET /a%20b/c?x=1&y=%2F HTTP/1.1\r\nHost: A.example:8080\r\n\r\n");
    let reply = client.reply().unwrap();
    assert_eq!(reply.status, 308);
    let location = reply.header("location").join(",").to_ascii_lowercase();
    assert_eq!(location, "https://a.example/a%20b/c?x=1&y=%2f");
}

#[test]
fn a_body_that_nobody_wants_leaves_the_connection_in_step() {
    for target in [Target::Redirect(Redirect::to_https()), fixed(200, "{}")] {
        let gateway = Gateway::start(vec![answered(target)]);
        let mut client = gateway.client();
        for round in 0..20 {
            client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 25\r\n\r\n");
            client.send("GET / HTTP/1.1\r\nHost: b\r\n");
            assert!(client.reply().unwrap().status < 400, "{round}");
            client.send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            client.send("4\r\nGET \r\n0\r\n\r\n");
            assert!(client.reply().unwrap().status < 400, "{round}");
        }
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.reply().unwrap();
        assert_eq!(client.rest(), "", "no answer to a body");
    }
}

#[test]
fn a_fixed_response_says_what_is_written_and_head_gets_its_head_alone() {
    let gateway = Gateway::start(vec![answered(fixed(418, "{\"tea\":1}"))]);
    let mut client = gateway.client();
    let reply = client.get("/");
    assert_eq!((reply.status, reply.text().as_str()), (418, "{\"tea\":1}"));
    assert_eq!(reply.header("content-type"), ["application/json"]);
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let reply = client.reply_to("HEAD").unwrap();
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (418, vec!["9".to_owned()])
    );
    // Had a body followed the head, this would begin with it.
    assert_eq!(client.get("/").status, 418);
    assert!(
        gateway
            .stats()
            .backends
            .iter()
            .all(|(_, count)| *count == 0)
    );
}

#[test]
fn a_fixed_response_of_204_has_neither_body_nor_length() {
    let gateway = Gateway::start(vec![answered(fixed(204, "ignored"))]);
    let mut client = gateway.client();
    let reply = client.get("/");
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (204, vec![])
    );
    assert_eq!(client.get("/").status, 204, "nothing followed the head");
}
