//! Which certificate a client is shown, and which hosts it may ask for then.

use std::io::{Read, Write};

use super::{
    made::{certificate, client},
    *,
};

#[test]
fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
    let origin = Origin::fixed(ok("ok"));
    let default = certificate(&["default.test"]);
    let wild = certificate(&["*.example"]);
    let exact = certificate(&["a.example"]);
    let gateway = gateway(
        &origin,
        &[("default", &default), ("wild", &wild), ("exact", &exact)],
    );
    let config = client().config();
    for (name, made) in [
        ("a.example", &exact),
        ("A.Example", &exact),
        ("b.example", &wild),
        ("a.b.example", &default),
        ("example", &default),
        ("default.test", &default),
        ("192.0.2.1", &default),
    ] {
        let mut client = connect(&gateway, &config, name);
        assert_eq!(shown(&mut client), made.der, "{name}");
        client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        assert_eq!(client.reply().unwrap().text(), "ok", "{name}");
    }
}

#[test]
fn a_host_that_an_ingress_names_a_certificate_for_gets_it() {
    let origin = Origin::fixed(ok("ok"));
    let default = certificate(&["default.test"]);
    let other = certificate(&["other.test"]);
    let mut gateway = gateway(&origin, &[("default", &default), ("other", &other)]);
    change_tls(&mut gateway, |tls| {
        tls.certificates[1].hosts = vec!["named.example".into()];
    });
    let config = client().config();
    let mut client = connect(&gateway, &config, "named.example");
    assert_eq!(shown(&mut client), other.der);
}

#[test]
fn a_listener_without_any_certificate_closes_and_says_nothing() {
    let origin = Origin::fixed(ok("ok"));
    let made = certificate(&["a.example"]);
    let mut gateway = gateway(&origin, &[("a", &made)]);
    change_tls(&mut gateway, |tls| {
        tls.certificates[0].id = "demo/missing".into();
    });
    let config = client().config();
    assert!(connect_to(gateway.proxy.local_addr(), &config, "a.example").is_err());
    for bytes in [
        "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        let mut client = gateway.client();
        // It may be closed already.
        let _ = client.stream().write_all(bytes.as_bytes());
        assert_eq!(client.rest(), "", "{bytes:?}");
    }
    let mut client = gateway.client();
    assert!(matches!(client.stream().read(&mut [0]), Ok(0)));
    assert!(origin.seen().is_empty());
    eventually("nothing is held", || {
        gateway.stats().active_connections == 0
    });
}

#[test]
fn a_host_that_the_shown_certificate_is_not_for_is_a_421_and_the_connection_goes_on() {
    let origin = Origin::fixed(ok("ok"));
    let (a, b) = (
        certificate(&["a.example", "also.example"]),
        certificate(&["b.example"]),
    );
    let gateway = gateway(&origin, &[("a", &a), ("b", &b)]);
    let config = client().config();
    let mut client = connect(&gateway, &config, "a.example");
    for (host, status) in [
        ("a.example", 200),
        ("b.example", 421),
        ("also.example:443", 200),
        ("B.EXAMPLE:8443", 421),
        ("A.EXAMPLE", 200),
    ] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let reply = client.reply().unwrap();
        assert_eq!(reply.status, status, "{host}");
        if status == 421 {
            assert_eq!(reply.reason(), "misdirected");
        }
    }
    client.send("GET https://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let reply = client.reply().unwrap();
    assert_eq!(reply.status, 421, "the target names the host");
    assert_eq!(origin.seen().len(), 3);
}

#[test]
fn a_421_over_http_2_ends_its_stream_alone() {
    let origin = Origin::fixed(ok("ok"));
    let (a, b) = (
        certificate(&["a.example", "also.example"]),
        certificate(&["b.example"]),
    );
    let gateway = gateway(&origin, &[("a", &a), ("b", &b)]);
    over_h2(gateway.proxy.local_addr(), "a.example", |send| async move {
        for (host, status) in [
            ("a.example", 200),
            ("b.example", 421),
            ("also.example", 200),
        ] {
            let got = ask_h2(&send, &format!("https://{host}/")).await.unwrap();
            assert_eq!(got.head.status(), status, "{host}");
        }
        let got = ask_h2(&send, "https://b.example/").await.unwrap();
        assert_eq!(got.head.headers()["x-fleetgate-reason"], "misdirected");
    });
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn a_client_that_asked_for_no_name_may_ask_for_every_host() {
    let origin = Origin::fixed(ok("ok"));
    let (a, b) = (certificate(&["a.example"]), certificate(&["b.example"]));
    let gateway = gateway(&origin, &[("a", &a), ("b", &b)]);
    let config = client().config();
    let mut client = connect(&gateway, &config, "127.0.0.1");
    for host in ["a.example", "b.example", "c.example"] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.reply().unwrap().status, 200, "{host}");
    }
    let address = gateway.proxy.local_addr();
    over_h2(address, "127.0.0.1", |send| async move {
        for host in ["a.example", "b.example", "c.example"] {
            let got = ask_h2(&send, &format!("https://{host}/")).await.unwrap();
            assert_eq!(got.head.status(), 200, "{host}");
        }
    });
}
