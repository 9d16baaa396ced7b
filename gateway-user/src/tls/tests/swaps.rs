//! What changes of Secrets and listeners do to handshakes, and to connections that are open.

use std::{
    io::{Read, Write},
    sync::Arc,
};

use super::{
    super::servers::{Secrets, Servers},
    handshakes::{BOTH, carry, client, model, name, put, put_secret, shake, shake_as, shown, tls},
    made,
};
use crate::{ir::Ir, manifest::Sealed};

#[test]
fn a_new_certificate_is_shown_at_once_while_an_old_connection_goes_on() {
    let (old, new) = (made::certificate(&["a"]), made::certificate(&["a"]));
    let mut secrets = Secrets::new();
    let mut servers = Servers::default();
    let ir = model(tls(&["a"]));
    put(&mut secrets, "a", &old);
    servers.update(&ir, [&name()], &secrets);
    let config = Arc::clone(servers.server(&name()).unwrap().config());
    let resuming = Arc::new(client(BOTH, None));
    let mut open = shake_as(&config, &resuming, "a").unwrap();
    assert_eq!(shown(&open), old.der);

    put(&mut secrets, "a", &new);
    servers.update(&ir, [&name()], &secrets);
    let config = servers.server(&name()).unwrap().config();
    assert_eq!(
        shown(&shake(config, client(BOTH, None), "a").unwrap()),
        new.der
    );
    open.0.writer().write_all(b"still here").unwrap();
    carry(&mut open.0, &mut open.1).unwrap();
    let mut heard = [0; 10];
    open.1.reader().read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still here");
    let (again, _) = shake_as(config, &resuming, "a").unwrap();
    assert_eq!(again.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
}

#[test]
fn the_last_good_certificate_serves_until_there_is_a_good_one_again() {
    let (old, new) = (made::certificate(&["a"]), made::certificate(&["a"]));
    let mut secrets = Secrets::new();
    let mut servers = Servers::default();
    let ir = model(tls(&["a"]));
    let mut shows = |secrets: &Secrets| {
        servers.update(&ir, [&name()], secrets);
        let config = servers.server(&name())?.config();
        Some(shown(&shake(config, client(BOTH, None), "a").unwrap()))
    };
    assert_eq!(shows(&secrets), None, "never good");
    put(&mut secrets, "a", &old);
    assert_eq!(shows(&secrets), Some(old.der.clone()));
    put_secret(
        &mut secrets,
        made::secret("demo", "a", &new.certificate, &old.key),
    );
    assert_eq!(shows(&secrets), Some(old.der.clone()), "key of another");
    secrets.clear();
    assert_eq!(shows(&secrets), Some(old.der), "gone");
    put(&mut secrets, "a", &new);
    assert_eq!(shows(&secrets), Some(new.der));
}

#[test]
fn a_broken_certificate_takes_nothing_from_the_others() {
    let good = made::certificate(&["b"]);
    let mut secrets = Secrets::new();
    put_secret(&mut secrets, made::secret("demo", "a", "no", "no"));
    put(&mut secrets, "b", &good);
    let mut servers = Servers::default();
    servers.update(&model(tls(&["a", "b"])), [&name()], &secrets);
    let config = servers.server(&name()).unwrap().config();
    for sni in ["a", "b"] {
        assert_eq!(
            shown(&shake(config, client(BOTH, None), sni).unwrap()),
            good.der
        );
    }
}

#[test]
fn a_listener_whose_authority_was_never_good_is_not_served_without_it() {
    let mut secrets = Secrets::new();
    put(&mut secrets, "a", &made::certificate(&["a"]));
    let mut asking = tls(&["a"]);
    asking.client_ca = Some("demo/ca".into());
    let mut servers = Servers::default();
    let ir = model(asking);
    servers.update(&ir, [&name()], &secrets);
    assert!(servers.server(&name()).is_none());

    let mut ca = made::secret("demo", "ca", "", "");
    ca.data.ca = Sealed::from(made::authority().certificate.as_bytes());
    put_secret(&mut secrets, ca.clone());
    servers.update(&ir, [&name()], &secrets);
    let first = Arc::clone(servers.server(&name()).unwrap().config());
    // Another authority is another configuration: nobody comes back by what the old one let in.
    ca.data.ca = Sealed::from(made::certificate(&["ca"]).certificate.as_bytes());
    put_secret(&mut secrets, ca);
    servers.update(&ir, [&name()], &secrets);
    assert!(!Arc::ptr_eq(
        &first,
        servers.server(&name()).unwrap().config()
    ));
}

#[test]
fn a_configuration_goes_on_where_nothing_that_concerns_it_changed() {
    let mut secrets = Secrets::new();
    for it in ["a", "b"] {
        put(&mut secrets, it, &made::certificate(&[it]));
    }
    let mut servers = Servers::default();
    let mut config = |tls| {
        servers.update(&model(tls), [&name()], &secrets);
        Arc::clone(servers.server(&name()).unwrap().config())
    };
    let first = config(tls(&["a"]));
    assert!(Arc::ptr_eq(&first, &config(tls(&["b", "a"]))));
    let mut other = tls(&["b", "a"]);
    other.http2 = false;
    assert!(!Arc::ptr_eq(&first, &config(other)));
}

#[test]
fn keys_of_a_listener_that_is_gone_are_forgotten() {
    let mut secrets = Secrets::new();
    put(&mut secrets, "a", &made::certificate(&["a"]));
    let mut servers = Servers::default();
    let ir = model(tls(&["a"]));
    servers.update(&ir, [&name()], &secrets);
    servers.update(&Ir::default(), [&name()], &secrets);
    assert!(servers.server(&name()).is_none());
    secrets.clear();
    servers.update(&ir, [&name()], &secrets);
    assert!(servers.server(&name()).is_none());
}

#[test]
fn a_request_belongs_on_a_connection_that_was_shown_the_same_certificate() {
    let mut secrets = Secrets::new();
    put(
        &mut secrets,
        "a",
        &made::certificate(&["a.example.com", "b.example.com"]),
    );
    put(&mut secrets, "w", &made::certificate(&["*.example.org"]));
    let mut servers = Servers::default();
    servers.update(&model(tls(&["a", "w"])), [&name()], &secrets);
    let server = servers.server(&name()).unwrap();
    for (sni, authority, same) in [
        (Some("a.example.com"), "A.example.com:443", true),
        (Some("a.example.com"), "b.example.com", true),
        (Some("x.example.org"), "y.example.org", true),
        (Some("x.example.org"), "a.example.com", false),
        (Some("a.example.com"), "x.example.org:443", false),
        (Some("unknown"), "unknown", true),
        (None, "x.example.org", true),
    ] {
        assert_eq!(server.covers(sni, authority), same, "{sni:?} {authority}");
    }
}

#[test]
fn a_certificate_that_is_over_is_told_and_serves() {
    let mut secrets = Secrets::new();
    put(&mut secrets, "a", &made::expired("a"));
    let mut servers = Servers::default();
    servers.update(&model(tls(&["a"])), [&name()], &secrets);
    let problems = servers.problems(1_100_000_000);
    let told: Vec<String> = problems
        .iter()
        .map(|it| format!("{} {}", it.object, it.message))
        .collect();
    assert_eq!(
        told,
        [
            "Secret demo/a the certificate was good until Dec 31 00:00:00 2001 +00:00, so clients refuse it"
        ]
    );
    assert!(servers.problems(1_000_000_000).is_empty());
    assert!(servers.server(&name()).is_some());
}
