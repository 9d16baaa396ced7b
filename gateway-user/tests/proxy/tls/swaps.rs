//! Secrets change while clients are connected.

use gateway_user::manifest::{SecretData, TLS_SECRET};

use super::{
    made::{certificate, client},
    *,
};

#[test]
fn a_new_secret_serves_new_connections_and_disturbs_none_that_is_open() {
    let origin = Origin::fixed(ok("ok"));
    let (old, new) = (certificate(&["a.example"]), certificate(&["a.example"]));
    let mut gateway = gateway(&origin, &[("a", &old)]);
    let config = client().config();
    let mut kept = connect(&gateway, &config, "a.example");
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    kept.send(request);
    assert_eq!(kept.reply().unwrap().status, 200);
    let address = gateway.proxy.local_addr();
    let (served, open, next) = (&mut gateway, &mut kept, &new);
    over_h2(address, "a.example", |send| async move {
        let got = ask_h2(&send, "https://a.example/").await.unwrap();
        assert_eq!(got.body, b"ok");
        put(served, "a", next.secret());
        served.publish();
        let mut fresh = connect(served, &client().config(), "a.example");
        assert_eq!(shown(&mut fresh), next.der);
        let got = ask_h2(&send, "https://a.example/").await.unwrap();
        assert_eq!(got.body, b"ok");
        open.send(request);
        assert_eq!(open.reply().unwrap().status, 200);
    });
    assert_eq!(shown(&mut kept), old.der);
}

#[test]
fn requests_that_are_under_way_while_secrets_change_are_all_answered() {
    let origin = Origin::fixed(ok("ok"));
    let (one, two) = (certificate(&["a.example"]), certificate(&["a.example"]));
    let mut gateway = gateway(&origin, &[("a", &one)]);
    let address = gateway.proxy.local_addr();
    let asking = std::thread::spawn(move || {
        let config = client().config();
        let mut kept = connect_to(address, &config, "a.example").unwrap();
        for turn in 0..200 {
            if turn % 10 == 0 {
                kept = connect_to(address, &config, "a.example").unwrap();
            }
            kept.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
            assert_eq!(kept.reply().unwrap().status, 200, "turn {turn}");
        }
    });
    let mut turn = 0;
    while !asking.is_finished() {
        let next = if turn % 2 == 0 { &two } else { &one };
        put(&mut gateway, "a", next.secret());
        gateway.publish();
        turn += 1;
    }
    asking.join().unwrap();
    assert!(turn > 1);
}

#[test]
fn a_secret_that_can_not_serve_leaves_the_last_good_one() {
    let origin = Origin::fixed(ok("ok"));
    let (old, new) = (certificate(&["a.example"]), certificate(&["a.example"]));
    let mut gateway = gateway(&origin, &[("a", &old)]);
    let data = SecretData {
        certificate: b"no PEM".as_slice().into(),
        key: b"none either".as_slice().into(),
        ..SecretData::default()
    };
    put(&mut gateway, "a", (TLS_SECRET, data));
    gateway.publish();
    let config = client().config();
    assert_eq!(shown(&mut connect(&gateway, &config, "a.example")), old.der);
    gateway.secrets.clear();
    gateway.publish();
    assert_eq!(shown(&mut connect(&gateway, &config, "a.example")), old.der);
    put(&mut gateway, "a", new.secret());
    gateway.publish();
    let config = client().config();
    assert_eq!(shown(&mut connect(&gateway, &config, "a.example")), new.der);
}

#[test]
fn a_listener_that_leaves_takes_no_connection_through_tls() {
    let origin = Origin::fixed(ok("ok"));
    let made = certificate(&["a.example"]);
    let mut gateway = gateway(&origin, &[("a", &made)]);
    let config = client().config();
    assert_eq!(ask(&gateway, &config, "a.example").unwrap().status, 200);
    gateway.change(|site| {
        site.protocol = ListenerProtocol::Http;
        site.settings.tls = None;
    });
    assert!(ask(&gateway, &config, "a.example").is_err());
    let mut plain = gateway.client();
    assert_eq!(plain.get("/").status, 200);
}
