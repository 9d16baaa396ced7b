//! What a request means that came through TLS.

use gateway_user::ir::{Conditions, ForwardedHeaders, Network, Redirect, Rule, Target};

use super::{
    made::{certificate, client},
    *,
};

#[test]
fn backends_are_told_https_whatever_the_client_says() {
    let origin = Origin::fixed(ok("ok"));
    let made = certificate(&["a.example"]);
    let mut gateway = gateway(&origin, &[("a", &made)]);
    gateway.change(|site| {
        site.settings.forwarded = ForwardedHeaders {
            proto: true,
            port: true,
            ..ForwardedHeaders::default()
        };
    });
    let mut client = connect(&gateway, &client().config(), "a.example");
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-Proto: http\r\n\r\n");
    assert_eq!(client.reply().unwrap().status, 200);
    let address = gateway.proxy.local_addr();
    over_h2(address, "a.example", |send| async move {
        let got = ask_h2(&send, "https://a.example/").await.unwrap();
        assert_eq!(got.head.status(), 200);
    });
    let seen = origin.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        assert_eq!(seen.header("x-forwarded-proto"), ["https"]);
        assert_eq!(
            seen.header("x-forwarded-port"),
            [address.port().to_string()]
        );
    }
}

/// A rule that only redirects.
fn redirecting(to: Redirect) -> Rule {
    let group = group("web", Vec::new());
    Rule {
        target: Target::Redirect(to),
        ..Rule::forwarding(group.name.clone(), "spec.rules[0]")
    }
}

#[test]
fn a_redirect_that_keeps_the_protocol_says_https() {
    let origin = Origin::fixed(ok("ok"));
    let made = certificate(&["a.example"]);
    let mut gateway = gateway(&origin, &[("a", &made)]);
    let port = gateway.proxy.local_addr().port();
    let config = client().config();
    for (redirect, location) in [
        (
            Redirect {
                path: "/new${path}".into(),
                ..Redirect::default()
            },
            format!("https://a.example:{port}/new/old?q=1"),
        ),
        (
            Redirect {
                port: "443".into(),
                ..Redirect::default()
            },
            "https://a.example/old?q=1".into(),
        ),
        (
            Redirect {
                protocol: "http".into(),
                port: "80".into(),
                ..Redirect::default()
            },
            "http://a.example/old?q=1".into(),
        ),
    ] {
        gateway.change(|site| site.first = vec![redirecting(redirect)]);
        let mut client = connect(&gateway, &config, "a.example");
        client.send("GET /old?q=1 HTTP/1.1\r\nHost: a.example\r\n\r\n");
        let reply = client.reply().unwrap();
        assert_eq!(reply.status, 301);
        assert_eq!(reply.header("location"), [location.as_str()]);
        let address = gateway.proxy.local_addr();
        over_h2(address, "a.example", |send| async move {
            let got = ask_h2(&send, "https://a.example/old?q=1").await.unwrap();
            assert_eq!(got.head.headers()["location"], location);
        });
    }
    assert!(origin.seen().is_empty());
}

#[test]
fn behind_trusted_proxies_a_rule_sees_the_client_and_not_the_proxy() {
    let (office, world) = (Origin::fixed(ok("office")), Origin::fixed(ok("world")));
    let mut gateway = gateway(&world, &[("a", &certificate(&["a.example"]))]);
    let network = |text: &str| -> Network { text.parse().unwrap() };
    let inside = Routed {
        conditions: Conditions {
            sources: vec![network("192.0.2.0/24")],
            ..Conditions::default()
        },
        ..rule(group("office", vec![backend("c1", office.address, 1)]))
    };
    gateway.change(|site| site.rules.insert(0, inside));
    let trusted = Some(vec![network("127.0.0.0/8"), network("198.51.100.0/24")]);
    let config = client().config();
    for (trusted, told, served) in [
        // Nobody is trusted: the peer is the client.
        (&None, "X-Forwarded-For: 192.0.2.1\r\n", "world"),
        (&Some(Vec::new()), "X-Forwarded-For: 192.0.2.1\r\n", "world"),
        (&trusted, "", "world"),
        (&trusted, "X-Forwarded-For: 192.0.2.1\r\n", "office"),
        // Past a proxy, not past who is none.
        (
            &trusted,
            "X-Forwarded-For: 192.0.2.1, 198.51.100.7\r\n",
            "office",
        ),
        (
            &trusted,
            "X-Forwarded-For: 192.0.2.1, 203.0.113.9\r\n",
            "world",
        ),
        (
            &trusted,
            "X-Forwarded-For: 203.0.113.9, 192.0.2.1\r\n",
            "office",
        ),
        // Two lines are one list.
        (
            &trusted,
            "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 203.0.113.9\r\n",
            "world",
        ),
        // What is no address is believed by nobody.
        (&trusted, "X-Forwarded-For: 192.0.2.1, what\r\n", "world"),
        (&trusted, "X-Forwarded-For: \r\n", "world"),
    ] {
        gateway.change(|site| site.settings.trusted.clone_from(trusted));
        let mut client = connect(&gateway, &config, "a.example");
        client.send(format!("GET / HTTP/1.1\r\nHost: a.example\r\n{told}\r\n"));
        assert_eq!(client.reply().unwrap().text(), served, "{trusted:?} {told}");
    }
}
