//! Certificates of clients: who gets in, and what backends are told.

use gateway_user::ir::IdentityHeaders;
use rcgen::DnType;

use super::{
    made::{Authority, ONLY_1_2, ONLY_1_3, certificate, client},
    *,
};

const SUBJECT: &str = "x-forwarded-clientcert-subjectdn";
const ISSUER: &str = "x-forwarded-clientcert-issuerdn";
const FINGERPRINT: &str = "x-forwarded-clientcert-fingerprint";
const VERIFY: &str = "x-forwarded-clientcert-clientverify";
const ALL: [&str; 4] = [SUBJECT, ISSUER, FINGERPRINT, VERIFY];

/// What a client sends that wants to be taken for somebody else.
const SPOOFED: &str = "X-Forwarded-Clientcert-subjectdn: CN=root\r\n\
    x-forwarded-clientcert-subjectdn: CN=root\r\n\
    X-FORWARDED-CLIENTCERT-ISSUERDN: CN=staff\r\n\
    X-Forwarded-Clientcert-Fingerprint: 00\r\n\
    X-Forwarded-Clientcert-clientverify: SUCCESS\r\n";

fn told() -> IdentityHeaders {
    IdentityHeaders {
        cert_subject: Some(SUBJECT.into()),
        cert_issuer: Some(ISSUER.into()),
        cert_fingerprint: Some(FINGERPRINT.into()),
        cert_verify: Some(VERIFY.into()),
        ..IdentityHeaders::default()
    }
}

/// A gateway whose clients must show a certificate of this authority.
fn demanding(origin: &Origin, authority: &Authority) -> Gateway {
    let made = certificate(&["a.example"]);
    let mut gateway = gateway(origin, &[("a", &made)]);
    put(&mut gateway, "ca", authority.secret());
    gateway.change(|site| {
        site.settings.tls.as_mut().unwrap().client_ca = Some("demo/ca".into());
        site.settings.identity = told();
    });
    gateway
}

fn alice(authority: &Authority) -> Made {
    authority.client(&[
        (DnType::OrganizationName, "Example"),
        (DnType::CommonName, "alice"),
    ])
}

#[test]
fn nobody_gets_in_without_a_certificate_of_the_right_authority() {
    let origin = Origin::fixed(ok("ok"));
    let (ours, theirs) = (Authority::new("staff"), Authority::new("staff"));
    let gateway = demanding(&origin, &ours);
    let (good, bad) = (alice(&ours), alice(&theirs));
    for versions in [ONLY_1_2, ONLY_1_3] {
        let asking = || client().versions(versions);
        assert!(ask(&gateway, &asking().config(), "a.example").is_err());
        let other = asking().shows(&bad).config();
        assert!(ask(&gateway, &other, "a.example").is_err());
        assert!(origin.seen().is_empty());
    }
    let good = client().shows(&good).config();
    assert_eq!(ask(&gateway, &good, "a.example").unwrap().status, 200);
}

#[test]
fn a_backend_is_told_of_the_certificate_and_of_none_that_a_client_makes_up() {
    let origin = Origin::fixed(ok("ok"));
    let authority = Authority::new("staff");
    let gateway = demanding(&origin, &authority);
    let alice = alice(&authority);
    let config = client().shows(&alice).config();
    let mut client = connect(&gateway, &config, "a.example");
    for nominated in ["", "Connection: x-forwarded-clientcert-subjectdn\r\n"] {
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a.example\r\n{nominated}{SPOOFED}\r\n"
        ));
        assert_eq!(client.reply().unwrap().status, 200);
    }
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &alice.der);
    let digest: String = digest
        .as_ref()
        .iter()
        .map(|it| format!("{it:02x}"))
        .collect();
    for seen in origin.seen() {
        assert_eq!(seen.header(SUBJECT), ["CN=alice,O=Example"]);
        assert_eq!(seen.header(ISSUER), ["CN=staff"]);
        assert_eq!(seen.header(FINGERPRINT), [digest.as_str()]);
        assert_eq!(seen.header(VERIFY), ["SUCCESS"]);
    }
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn a_listener_that_demands_no_certificate_tells_of_none() {
    let origin = Origin::fixed(ok("ok"));
    let made = certificate(&["a.example"]);
    let mut gateway = gateway(&origin, &[("a", &made)]);
    gateway.change(|site| site.settings.identity = told());
    let mut client = connect(&gateway, &client().config(), "a.example");
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: a.example\r\n{SPOOFED}\r\n"
    ));
    assert_eq!(client.reply().unwrap().status, 200);
    over_h2(gateway.proxy.local_addr(), "a.example", |send| async move {
        let request = Request::get("https://a.example/");
        let request = ALL
            .iter()
            .fold(request, |it, name| it.header(*name, "CN=root"));
        let got = ask_with(&send, request.body(()).unwrap()).await.unwrap();
        assert_eq!(got.head.status(), 200);
    });
    let seen = origin.seen();
    assert_eq!(seen.len(), 2);
    for (seen, name) in seen.iter().flat_map(|it| ALL.map(|name| (it, name))) {
        assert_eq!(seen.header(name), [""; 0], "{name}");
    }
}

#[test]
fn headers_of_certificates_that_a_listener_does_not_send_can_not_be_made_up_either() {
    let origin = Origin::fixed(ok("ok"));
    let authority = Authority::new("staff");
    let mut gateway = demanding(&origin, &authority);
    gateway.change(|site| site.settings.identity = IdentityHeaders::default());
    let config = client().shows(&alice(&authority)).config();
    let mut client = connect(&gateway, &config, "a.example");
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: a.example\r\n{SPOOFED}\r\n"
    ));
    assert_eq!(client.reply().unwrap().status, 200);
    for name in ALL {
        assert_eq!(origin.seen()[0].header(name), [""; 0], "{name}");
    }
}

#[test]
fn trailers_do_not_tell_of_a_certificate() {
    let origin = Origin::fixed(ok("ok"));
    let made = certificate(&["a.example"]);
    let mut gateway = gateway(&origin, &[("a", &made)]);
    gateway.change(|site| site.settings.identity = told());
    let mut client = connect(&gateway, &client().config(), "a.example");
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n{SPOOFED}\r\n"
    ));
    assert_eq!(client.reply().unwrap().status, 200);
    assert_eq!(origin.seen()[0].trailers, ["X-Sum: 1"]);
}

#[test]
fn without_its_authority_a_listener_lets_nobody_in() {
    let origin = Origin::fixed(ok("ok"));
    let authority = Authority::new("staff");
    let made = certificate(&["a.example"]);
    let mut gateway = gateway(&origin, &[("a", &made)]);
    change_tls(&mut gateway, |tls| tls.client_ca = Some("demo/ca".into()));
    let alice = alice(&authority);
    let config = client().shows(&alice).config();
    assert!(ask(&gateway, &config, "a.example").is_err());
    put(&mut gateway, "ca", authority.secret());
    gateway.publish();
    assert_eq!(ask(&gateway, &config, "a.example").unwrap().status, 200);
}

#[test]
fn a_new_authority_shuts_out_clients_of_the_old_one() {
    let origin = Origin::fixed(ok("ok"));
    let (old, new) = (Authority::new("staff"), Authority::new("staff"));
    let mut gateway = demanding(&origin, &old);
    let (before, after) = (alice(&old), alice(&new));
    let before = client().shows(&before).config();
    let after = client().shows(&after).config();
    assert_eq!(ask(&gateway, &before, "a.example").unwrap().status, 200);
    put(&mut gateway, "ca", new.secret());
    gateway.publish();
    // Not by a session from before either.
    assert!(ask(&gateway, &before, "a.example").is_err());
    assert_eq!(ask(&gateway, &after, "a.example").unwrap().status, 200);
}
