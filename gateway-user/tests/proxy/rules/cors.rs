//! Cross-origin requests of browsers.

use gateway_user::ir::{Cors, Filter};

use super::one;
use crate::support::{Client, Gateway, Origin, Reply, filtered};

const OWN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAccess-Control-Allow-Origin: https://pod\r\n\
    Access-Control-Allow-Origin: https://second\r\nAccess-Control-Expose-Headers: x-pod\r\nVary: Accept\r\n\r\nok";

fn gateway(origins: &[&str], origin: &Origin) -> Gateway {
    let list = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
    let cors = Cors {
        origins: list(origins),
        methods: list(&["GET", "PUT"]),
        headers: list(&["X-A", "X-B"]),
        expose: list(&["X-C"]),
        credentials: true,
        max_age_seconds: 600,
    };
    Gateway::start(vec![filtered(one(origin), vec![Filter::Cors(cors)])])
}

fn preflight(client: &mut Client, from: &str) -> Reply {
    client.send(format!(
        "OPTIONS /x HTTP/1.1\r\nHost: a\r\nOrigin: {from}\r\nAccess-Control-Request-Method: PUT\r\n\r\n"
    ));
    client.reply().unwrap()
}

#[test]
fn a_preflight_is_answered_without_a_backend() {
    let origin = Origin::fixed(OWN);
    let gateway = gateway(&["https://*.example.com"], &origin);
    let mut client = gateway.client();
    let reply = preflight(&mut client, "https://a.example.com");
    assert_eq!(reply.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://a.example.com"),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "X-A,X-B"),
        ("access-control-max-age", "600"),
        ("access-control-allow-credentials", "true"),
        ("vary", "Origin"),
    ] {
        assert_eq!(reply.header(name), [value], "{name}");
    }
    assert!(origin.seen().is_empty());
    assert_eq!(client.get("/").status, 200, "the connection goes on");
}

#[test]
fn a_preflight_of_another_origin_is_answered_with_nothing_it_could_use() {
    let origin = Origin::fixed(OWN);
    let gateway = gateway(&["https://*.example.com", "http://b.test:81"], &origin);
    for from in [
        "http://a.example.com",
        "https://example.com",
        "https://a.example.com.evil",
        "https://evil/.example.com",
        "http://b.test",
        "null",
    ] {
        let reply = preflight(&mut gateway.client(), from);
        assert_eq!(reply.status, 204);
        assert!(
            !reply.head.to_lowercase().contains("access-control-"),
            "{from}: {}",
            reply.head
        );
    }
    assert!(origin.seen().is_empty());
}

#[test]
fn an_answer_is_marked_for_its_origin_in_place_of_what_the_backend_says() {
    let origin = Origin::fixed(OWN);
    let gateway = gateway(&["https://a.example"], &origin);
    let mut client = gateway.client();
    let reply = client.get_with("/", "Origin: https://a.example\r\n");
    assert_eq!(reply.text(), "ok");
    assert_eq!(
        reply.header("access-control-allow-origin"),
        ["https://a.example"]
    );
    assert_eq!(reply.header("access-control-expose-headers"), ["X-C"]);
    assert_eq!(reply.header("access-control-allow-credentials"), ["true"]);
    assert_eq!(reply.header("vary"), ["Accept", "Origin"]);
    assert_eq!(
        origin.seen()[0].header("origin"),
        ["https://a.example"],
        "the pod may judge, too"
    );
}

#[test]
fn options_that_are_no_preflight_reach_the_backend() {
    let origin = Origin::fixed(OWN);
    let gateway = gateway(&["*"], &origin);
    let mut client = gateway.client();
    client.send("OPTIONS /x HTTP/1.1\r\nHost: a\r\nOrigin: https://a\r\n\r\n");
    let reply = client.reply().unwrap();
    assert_eq!(
        (reply.status, reply.header("access-control-allow-origin")),
        (200, vec!["*".into()])
    );
    client.send("OPTIONS /x HTTP/1.1\r\nHost: a\r\nAccess-Control-Request-Method: PUT\r\n\r\n");
    assert_eq!(client.reply().unwrap().status, 200);
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn an_answer_to_another_origin_does_not_let_it_in() {
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = gateway(&["https://a.example"], &origin);
    let reply = gateway
        .client()
        .get_with("/", "Origin: https://b.example\r\n");
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    assert!(reply.header("access-control-allow-origin").is_empty());
    assert_eq!(
        reply.header("vary"),
        ["Origin"],
        "caches must tell origins apart"
    );
}

#[test]
fn an_origin_that_is_not_allowed_is_not_let_in_by_the_backend_either() {
    let origin = Origin::fixed(OWN);
    let gateway = gateway(&["https://a.example"], &origin);
    let reply = gateway.client().get_with("/", "Origin: https://pod\r\n");
    assert_eq!(reply.status, 200);
    assert!(
        reply.header("access-control-allow-origin").is_empty(),
        "{}",
        reply.head
    );
}
