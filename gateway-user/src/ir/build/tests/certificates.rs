//! Which Secrets make an HTTPS listener serve, and what their changes touch.

use super::*;
use crate::{
    ir::model::SteeringMode,
    manifest::Sealed,
    tls::tests::made::{self, Made},
};

fn gateway(more: &str) -> String {
    let listener = "[{port: 8001, protocol: HTTPS, certificates: [{CertificateId: demo/site}]";
    let fleet = FLEET.replace(
        "[{port: 8001, protocol: HTTP}]",
        &format!("{listener}{more}}}]"),
    );
    format!(
        "{fleet}{}",
        ingress("a", "", "/").replace("HTTP\"", "HTTPS\"")
    )
}

/// The snapshot of this text, with the Secret `demo/site`.
fn with(fleet: String, site: Option<&Made>) -> Snapshot {
    let mut snapshot = read(fleet);
    let secret = site.map(|it| made::secret("demo", "site", &it.certificate, &it.key));
    snapshot
        .secrets
        .extend(secret.map(|it| (site_name(), Arc::new(it))));
    snapshot
}

fn site_name() -> NamespacedName {
    NamespacedName::read("demo/site").expect("a name")
}

fn refused(compiler: &Compiler) -> Option<String> {
    let first = compiler.ir().listeners.values().next();
    first.expect("a listener").refused.clone()
}

#[test]
fn a_listener_serves_from_its_first_good_secret_on_whatever_becomes_of_it() {
    let good = made::certificate(&["a.example.com"]);
    let broken = Made {
        key: "none".into(),
        ..good.clone()
    };
    let mut compiler = Compiler::default();
    let mut follow = |site: Option<&Made>, all: bool| {
        let snapshot = with(gateway(""), site);
        let changes = match all {
            true => Changes::all(&snapshot),
            false => Changes {
                secrets: [site_name()].into(),
                ..Changes::default()
            },
        };
        compiler.update(&snapshot, &changes);
        let problems = compiler.problems();
        let told: Vec<_> = problems.iter().map(|it| it.field.clone()).collect();
        (refused(&compiler).is_some(), told.len())
    };
    assert_eq!(follow(Some(&broken), true), (true, 2), "it has none");
    assert_eq!(follow(Some(&good), false), (false, 0));
    assert_eq!(follow(Some(&broken), false), (false, 1));
    assert_eq!(follow(None, false), (false, 1));
}

#[test]
fn another_key_under_the_same_name_touches_the_listener_that_shows_it() {
    let mut compiler = Compiler::default();
    let site = || with(gateway(""), Some(&made::certificate(&["a.example.com"])));
    let snapshot = site();
    compiler.update(&snapshot, &Changes::all(&snapshot));
    let had = compiler.ir().clone();
    let secrets = Changes {
        secrets: [site_name()].into(),
        ..Changes::default()
    };
    let touched = compiler.update(&site(), &secrets);
    assert_eq!(*compiler.ir(), had);
    assert!(touched.listeners.iter().eq(had.listeners.keys()));
    let other = Changes {
        secrets: [NamespacedName::read("demo/other").expect("a name")].into(),
        ..Changes::default()
    };
    assert!(compiler.update(&site(), &other).listeners.is_empty());
}

#[test]
fn an_https_listener_is_steered_by_request_whatever_is_wished_for() {
    let site = made::certificate(&["a.example.com"]);
    let wish = gateway("").replace(
        "metadata: {name: mcg, annotations: {",
        "metadata: {name: mcg, annotations: {fleetgate.io/steering: connection, ",
    );
    let snapshot = with(wish, Some(&site));
    let built = build(&snapshot, &LastGood::default(), &Options::default());
    let listener = listener(&built);
    assert_eq!(listener.refused, None);
    assert_eq!(listener.steering.mode, SteeringMode::Request);
    assert_eq!(built.ir.kernel_group(listener), None);
    assert_eq!(built.problems.len(), 1, "{:?}", built.problems);
    assert!(built.problems[0].message.contains("the listener ends TLS"));
}

#[test]
fn a_listener_that_asks_for_certificates_serves_only_with_what_signs_them() {
    let site = made::certificate(&["a.example.com"]);
    let asks = ", caEnabled: true, caCertificates: [{CertificateId: demo/site}]";
    let mut snapshot = with(gateway(asks), Some(&site));
    let mut compiler = Compiler::default();
    compiler.update(&snapshot, &Changes::all(&snapshot));
    assert!(refused(&compiler).is_some());
    let secret = snapshot.secrets.get_mut(&site_name()).expect("it is there");
    Arc::make_mut(secret).data.ca = Sealed::from(site.certificate.as_bytes());
    compiler.update(&snapshot, &Changes::all(&snapshot));
    assert_eq!(refused(&compiler), None);
}
