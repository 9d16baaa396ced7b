//! How connections begin: versions, protocols, sessions, and those that never get to a request.

use std::{
    io::{Read, Write},
    time::Instant,
};

use gateway_user::proxy::{ProxyConfig, Reason};
use rustls::HandshakeKind;

use super::{
    made::{Authority, ONLY_1_2, ONLY_1_3, certificate, client},
    *,
};

fn one(origin: &Origin) -> Gateway {
    gateway(origin, &[("a", &certificate(&["a.example"]))])
}

fn hello() -> Vec<u8> {
    let name = ServerName::try_from("a.example").unwrap();
    let mut session = ClientConnection::new(client().config(), name).unwrap();
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn one_listener_speaks_http_2_and_http_1_1_as_the_client_chooses() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = one(&origin);
    let offers: [(&[&str], Option<&str>); 4] = [
        (&["h2", "http/1.1"], Some("h2")),
        // The server chooses.
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ];
    for (offered, spoken) in offers {
        let config = client().alpn(offered).config();
        let mut client = connect(&gateway, &config, "a.example");
        let chosen = client.stream().conn.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(chosen.as_deref(), spoken.map(str::as_bytes));
        if spoken != Some("h2") {
            client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
            assert_eq!(client.reply().unwrap().text(), "ok");
        }
    }
    over_h2(gateway.proxy.local_addr(), "a.example", |send| async move {
        let got = ask_h2(&send, "https://a.example/").await.unwrap();
        assert_eq!(got.body, b"ok");
    });
}

#[test]
fn without_http_2_clients_get_http_1_1() {
    let origin = Origin::fixed(ok("ok"));
    let mut gateway = one(&origin);
    change_tls(&mut gateway, |tls| tls.http2 = false);
    let config = client().alpn(&["h2", "http/1.1"]).config();
    let mut both = connect(&gateway, &config, "a.example");
    let chosen = both.stream().conn.alpn_protocol();
    assert_eq!(chosen, Some(b"http/1.1".as_slice()));
    both.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(both.reply().unwrap().text(), "ok");
    let config = client().alpn(&["h2"]).config();
    assert!(
        ask(&gateway, &config, "a.example").is_err(),
        "nothing in common"
    );
}

#[test]
fn who_chose_http_1_1_can_not_begin_with_http_2() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = one(&origin);
    let config = client().alpn(&["http/1.1"]).config();
    let mut client = connect(&gateway, &config, "a.example");
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(client.reply().unwrap().status, 505);
}

#[test]
fn plain_http_on_the_https_port_gets_a_400_and_why() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = one(&origin);
    for request in [
        "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let mut client = gateway.client();
        client.send(request);
        let reply = client.reply().unwrap();
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (400, "bad-request")
        );
        assert_eq!(reply.header("connection"), ["close"]);
        assert_eq!(
            reply.text(),
            "bad-request: this port speaks HTTPS, and the request came in plain HTTP\n"
        );
        assert_eq!(client.rest(), "");
    }
    assert!(origin.seen().is_empty());
}

#[test]
fn the_400_reaches_a_plain_client_that_is_still_sending() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = one(&origin);
    for _ in 0..10 {
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3000000\r\n\r\n");
        let mut writer = client.stream().try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            let _ = writer.write_all(&vec![b'x'; 500_000]);
        });
        let reply = client.reply();
        sender.join().unwrap();
        assert_eq!(reply.unwrap().status, 400);
    }
}

#[test]
fn a_policy_decides_which_versions_get_in() {
    let origin = Origin::fixed(ok("ok"));
    let mut gateway = one(&origin);
    for (policy, with_1_2, with_1_3) in [
        ("tls_cipher_policy_1_0", true, true),
        ("tls_cipher_policy_1_1", true, true),
        ("tls_cipher_policy_1_2", true, true),
        ("tls_cipher_policy_1_2_strict", true, false),
        ("tls_cipher_policy_1_2_strict_with_1_3", true, true),
    ] {
        change_tls(&mut gateway, |tls| tls.policy = policy.into());
        for (versions, gets_in) in [(ONLY_1_2, with_1_2), (ONLY_1_3, with_1_3)] {
            let config = client().versions(versions).config();
            let reply = ask(&gateway, &config, "a.example");
            assert_eq!(reply.is_ok(), gets_in, "{policy} {versions:?}");
        }
    }
}

#[test]
fn a_handshake_that_stalls_or_drips_is_cut() {
    let origin = Origin::fixed(ok("ok"));
    let patience = Duration::from_millis(500);
    let mut gateway = Gateway::with(
        ProxyConfig {
            workers: 1,
            head_timeout: patience,
            ..ProxyConfig::default()
        },
        vec![rule(group("web", vec![backend("c1", origin.address, 1)]))],
    );
    serve(&mut gateway, &[("a", &certificate(&["a.example"]))]);
    let hello = hello();
    let half = &hello[..hello.len() / 2];
    for bytes in [&hello[..0], &hello[..1], half, &hello[..]] {
        let started = Instant::now();
        let mut client = gateway.client();
        client.send(bytes);
        // What the server has to say to a whole hello, and the end.
        client.rest();
        assert!(started.elapsed() >= patience / 2, "{} bytes", bytes.len());
    }
    let mut client = gateway.client();
    let mut cut = false;
    for byte in half.iter().cycle().take(400) {
        cut |= client.stream().write_all(&[*byte]).is_err();
        if cut {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(cut, "bytes that drip do not prolong it");
    let stats = gateway.stats();
    assert_eq!(stats.reason(Reason::RequestTimeout), 5);
    assert_eq!(stats.reason(Reason::HandshakeFailed), 0);
    eventually("nothing is held", || {
        gateway.stats().active_connections == 0
    });
}

#[test]
fn handshakes_that_break_off_leave_nothing() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = one(&origin);
    let hello = hello();
    for turn in 0..200 {
        let mut client = gateway.client();
        let whole = turn % 2 == 0;
        let len = if whole { hello.len() } else { hello.len() / 2 };
        client.send(&hello[..len]);
        if whole {
            // The server's part of the handshake is on its way or here.
            client.stream().read_exact(&mut [0; 5]).unwrap();
        }
        if turn % 4 < 2 {
            let socket = socket2::SockRef::from(&*client.stream());
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
    eventually("nothing is held", || {
        gateway.stats().active_connections == 0
    });
    eventually("each is counted", || {
        gateway.stats().reason(Reason::HandshakeFailed) == 200
    });
    assert_eq!(gateway.stats().accepted_connections, 200);
    let config = client().config();
    assert_eq!(ask(&gateway, &config, "a.example").unwrap().status, 200);
}

#[test]
fn what_is_no_tls_and_no_http_stops_nobody() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = one(&origin);
    for bytes in [
        vec![0; 10_000],
        vec![0x16; 10_000],
        vec![0xff; 5],
        // A record of an alert, one of data, and a hello that claims more than it holds.
        vec![0x15, 3, 3, 0, 2, 2, 40],
        vec![0x17, 3, 3, 0, 1, 0],
        vec![0x16, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff],
    ] {
        let mut client = gateway.client();
        // It may be refused before it is said whole.
        let _ = client.stream().write_all(&bytes);
        let _ = client.stream().shutdown(std::net::Shutdown::Write);
        client.rest();
    }
    let config = client().config();
    assert_eq!(ask(&gateway, &config, "a.example").unwrap().status, 200);
    eventually("nothing is held", || {
        gateway.stats().active_connections == 0
    });
}

/// How two connections of one client begin, each with a request.
fn twice(gateway: &Gateway, config: &Arc<ClientConfig>) -> [Option<HandshakeKind>; 2] {
    [(); 2].map(|()| {
        let mut client = connect(gateway, config, "a.example");
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
        // Tickets of TLS 1.3 come before it.
        assert_eq!(client.reply().unwrap().status, 200);
        client.stream().conn.handshake_kind()
    })
}

#[test]
fn a_client_that_comes_back_resumes_its_session() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = one(&origin);
    for versions in [ONLY_1_2, ONLY_1_3] {
        let config = client().versions(versions).config();
        let [first, second] = twice(&gateway, &config);
        assert_eq!(first, Some(HandshakeKind::Full));
        assert_eq!(second, Some(HandshakeKind::Resumed), "{versions:?}");
    }
}

#[test]
fn sessions_outlive_a_certificate_and_another_table() {
    let origin = Origin::fixed(ok("ok"));
    let mut gateway = one(&origin);
    let config = client().config();
    twice(&gateway, &config);
    put(&mut gateway, "a", certificate(&["a.example"]).secret());
    gateway.publish();
    let [first, _] = twice(&gateway, &config);
    assert_eq!(first, Some(HandshakeKind::Resumed));
}

#[test]
fn clients_with_certificates_show_them_every_time() {
    let origin = Origin::fixed(ok("ok"));
    let mut gateway = one(&origin);
    let authority = Authority::new("staff");
    put(&mut gateway, "ca", authority.secret());
    change_tls(&mut gateway, |tls| tls.client_ca = Some("demo/ca".into()));
    let alice = authority.client(&[(rcgen::DnType::CommonName, "alice")]);
    for versions in [ONLY_1_2, ONLY_1_3] {
        let config = client().versions(versions).shows(&alice).config();
        let [_, second] = twice(&gateway, &config);
        assert_eq!(second, Some(HandshakeKind::Full), "{versions:?}");
    }
}
