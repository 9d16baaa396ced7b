use ListenerProtocol::{Http, Https, Quic};
use proptest::prelude::*;

use super::*;
use crate::{
    manifest::AlbConfigSpec,
    problem::{Problem, Severity},
};

fn compile(spec: &str, before: Option<&Kept>) -> (Gateway, Vec<Problem>) {
    let config = AlbConfig {
        spec: serde_json::from_str::<AlbConfigSpec>(spec).unwrap(),
        ..AlbConfig::default()
    };
    let mut notes = Notes::on("AlbConfig", "", "mcg");
    let gateway = understand(&config, &BTreeSet::new(), before, &mut notes);
    (gateway, notes.problems)
}

/// One listener on port 443 with these fields.
fn listener(fields: &str, before: Option<&Kept>) -> (Gateway, Vec<Problem>) {
    let spec = format!(r#"{{"config": {{}}, "listeners": [{{"port": 443, {fields}}}]}}"#);
    compile(&spec, before)
}

fn good(fields: &str) -> Settings {
    let (gateway, problems) = listener(fields, None);
    assert_eq!(problems, [], "{fields}");
    let (_, settings) = gateway.kept.listeners.first_key_value().unwrap();
    settings.clone()
}

/// Errors and warnings of one listener.
fn counts(fields: &str) -> (usize, usize) {
    let (_, problems) = listener(fields, None);
    let errors = problems.iter().filter(|it| it.severity == Severity::Error);
    let errors = errors.count();
    (errors, problems.len() - errors)
}

const HTTPS: &str = r#""protocol": "HTTPS""#;

#[test]
fn a_listener_has_the_defaults_of_the_contract() {
    let plain = good(r#""protocol": "HTTP""#);
    let written = Settings {
        idle_timeout: Duration::from_secs(15),
        request_timeout: Duration::from_secs(60),
        gzip: true,
        forwarded_for: ForwardedFor::Append,
        forwarded: ForwardedHeaders::default(),
        identity: IdentityHeaders::default(),
        trusted: None,
        proxy_protocol: None,
        writes: None,
        tls: None,
        access: None,
        limits: Limits::default(),
        quic_upgrade: false,
        h2c: false,
    };
    assert_eq!(plain, written);
    let tls = Tls {
        policy: "tls_cipher_policy_1_0".into(),
        http2: true,
        ..Tls::default()
    };
    assert_eq!(good(HTTPS).tls, Some(tls.clone()));
    let quic = Tls {
        http2: false,
        ..tls
    };
    assert_eq!(good(r#""protocol": "QUIC""#).tls, Some(quic));
    assert!(!good(r#""gzipEnabled": false"#).gzip);
    assert!(
        !good(r#""protocol": "HTTPS", "http2Enabled": false"#)
            .tls
            .unwrap()
            .http2
    );
}

#[test]
fn https_and_quic_share_a_port_and_http_and_https_do_not() {
    let spec = |one: &str, other: &str| {
        format!(
            r#"{{"config": {{}}, "listeners": [{{"port": 443, "protocol": "{one}"}}, {{"port": "443", "protocol": "{other}"}}]}}"#
        )
    };
    let keys = |gateway: &Gateway| gateway.kept.listeners.keys().copied().collect::<Vec<_>>();
    let (gateway, problems) = compile(&spec("QUIC", "HTTPS"), None);
    assert_eq!(problems, []);
    assert_eq!(keys(&gateway), [(443, Https), (443, Quic)]);
    assert_eq!(gateway.places[&(443, Https)], "spec.listeners[1]");
    for (one, other, first) in [("HTTP", "HTTPS", Http), ("HTTPS", "HTTP", Https)] {
        let (gateway, problems) = compile(&spec(one, other), None);
        assert_eq!(keys(&gateway), [(443, first)]);
        assert_eq!(problems.len(), 1);
        let message = &problems[0].message;
        assert!(
            message.contains("HTTP 443") && message.contains("HTTPS 443"),
            "{message}"
        );
        assert!(message.contains("spec.listeners[0]"), "{message}");
    }
    let (gateway, problems) = compile(&spec("QUIC", "QUIC"), None);
    assert_eq!((keys(&gateway), problems.len()), (vec![(443, Quic)], 1));
}

#[test]
fn protocols_ports_and_times_out_of_range_are_errors() {
    for bad in [
        r#""protocol": "https""#,
        r#""idleTimeout": 0"#,
        r#""idleTimeout": 61"#,
        r#""idleTimeout": "ten""#,
        r#""requestTimeout": 601"#,
        r#""requestTimeout": -1"#,
        r#""port": 0"#,
        r#""port": "65536""#,
    ] {
        let spec = format!(r#"{{"config": {{}}, "listeners": [{{{bad}}}]}}"#);
        let (gateway, problems) = compile(&spec, None);
        assert_eq!(
            (gateway.kept.listeners.len(), problems.len()),
            (0, 1),
            "{bad}"
        );
    }
    let settings = good(r#""idleTimeout": "60", "requestTimeout": 600"#);
    assert_eq!(settings.idle_timeout.as_secs(), 60);
    assert_eq!(settings.request_timeout.as_secs(), 600);
}

#[test]
fn the_default_certificate_is_the_flagged_one_or_the_first() {
    let ids = |certificates: &str| {
        let tls = good(&format!(r#"{HTTPS}, "certificates": [{certificates}]"#))
            .tls
            .unwrap();
        let defaults = tls
            .certificates
            .iter()
            .map(|it| it.default)
            .collect::<Vec<_>>();
        let ids: Vec<_> = tls.certificates.into_iter().map(|it| it.id).collect();
        (ids.join(" "), defaults)
    };
    let (a, b) = (
        r#"{"CertificateId": "demo/a"}"#,
        r#"{"CertificateId": "b", "IsDefault": true}"#,
    );
    let first = vec![true, false];
    assert_eq!(
        ids(&format!("{a}, {b}")),
        ("b demo/a".into(), first.clone())
    );
    assert_eq!(
        ids(&format!(r#"{a}, {{"CertificateId": "c"}}"#)),
        ("demo/a c".into(), first)
    );
    assert_eq!(ids(&format!("{a}, {a}")), ("demo/a".into(), vec![true]));
    assert_eq!(ids(""), (String::new(), vec![]));
    let two =
        format!(r#"{HTTPS}, "certificates": [{b}, {{"CertificateId": "c", "IsDefault": true}}]"#);
    assert_eq!(counts(&two), (1, 0));
    for bad in [
        r#"{}"#,
        r#"{"certificateId": "a"}"#,
        r#"{"CertificateId": "a b"}"#,
    ] {
        assert_eq!(
            counts(&format!(r#"{HTTPS}, "certificates": [{bad}]"#)),
            (1, 0),
            "{bad}"
        );
    }
}

#[test]
fn a_policy_is_one_of_those_known() {
    let known = good(&format!(
        r#"{HTTPS}, "securityPolicyId": "tls_cipher_policy_1_2_strict_with_1_3""#
    ));
    assert_eq!(
        known.tls.unwrap().policy,
        "tls_cipher_policy_1_2_strict_with_1_3"
    );
    assert_eq!(
        counts(&format!(
            r#"{HTTPS}, "securityPolicyId": "tls_cipher_policy_1_4""#
        )),
        (1, 0)
    );
}

#[test]
fn client_certificates_need_exactly_one_signer() {
    let ca = r#"{"CertificateId": "demo/ca"}"#;
    let asks = |list: &str| format!(r#"{HTTPS}, "caEnabled": true, "caCertificates": [{list}]"#);
    assert_eq!(
        good(&asks(ca)).tls.unwrap().client_ca.as_deref(),
        Some("demo/ca")
    );
    for bad in ["", "{}", &format!("{ca}, {ca}")] {
        assert_eq!(counts(&asks(bad)), (1, 0), "{bad}");
    }
    // Not asked for, it is told that nobody asks.
    assert_eq!(
        counts(&format!(r#"{HTTPS}, "caCertificates": [{ca}]"#)),
        (0, 1)
    );
    // Plain HTTP cannot ask: no listener rather than an open one.
    let (gateway, problems) = listener(r#""protocol": "HTTP", "caEnabled": true"#, None);
    assert_eq!((gateway.kept.listeners.len(), problems.len()), (0, 1));
}

#[test]
fn what_only_https_knows_is_told_on_other_listeners() {
    for (protocol, field, warnings) in [
        ("HTTP", r#""certificates": [{"CertificateId": "a"}]"#, 1),
        ("HTTP", r#""securityPolicyId": "tls_cipher_policy_1_2""#, 1),
        ("QUIC", r#""securityPolicyId": "tls_cipher_policy_1_2""#, 1),
        ("QUIC", r#""certificates": [{"CertificateId": "a"}]"#, 0),
        ("HTTP", r#""http2Enabled": true"#, 0),
        ("QUIC", r#""http2Enabled": true"#, 1),
        ("HTTP", r#""http2Enabled": false"#, 0),
        ("HTTP", r#""quicConfig": {"quicUpgradeEnabled": true}"#, 1),
        (
            "HTTP",
            r#""xForwardedForConfig": {"XForwardedForClientCertIssuerDNEnabled": true}"#,
            1,
        ),
    ] {
        let fields = format!(r#""protocol": "{protocol}", {field}"#);
        assert_eq!(counts(&fields), (0, warnings), "{fields}");
    }
    assert!(
        good(&format!(
            r#"{HTTPS}, "quicConfig": {{"quicUpgradeEnabled": true}}"#
        ))
        .quic_upgrade
    );
}

#[test]
fn access_lists_let_in_or_keep_out() {
    let acl = |kind: &str, rest: &str| format!(r#""aclConfig": {{"aclType": "{kind}", {rest}}}"#);
    let entries = r#""aclEntries": ["10.0.0.0/8", "192.0.2.1", "10.1.2.3/8"]"#;
    for (kind, allow) in [("White", true), ("Black", false)] {
        let list = good(&acl(kind, entries)).access.unwrap();
        let networks: Vec<_> = list.networks.iter().map(ToString::to_string).collect();
        assert_eq!(
            (list.allow, networks.join(" ")),
            (allow, "10.0.0.0/8 192.0.2.1/32".into())
        );
        // "An empty list under either type passes everything."
        assert_eq!(good(&acl(kind, r#""aclEntries": []"#)).access, None);
    }
    assert_eq!(good(&acl("", r#""aclEntries": []"#)).access, None);
    assert_eq!(counts(&acl("white", entries)), (0, 1));
    let (gateway, _) = listener(&acl("white", entries), None);
    assert_eq!(gateway.kept.listeners[&(443, Http)].access, None);
    let many = vec![r#""10.0.0.0/8""#; 501].join(",");
    for bad in [
        r#""aclEntries": ["10.0.0.0/33"]"#,
        r#""aclEntries": [""]"#,
        r#""aclEntries": ["10.0.0.0/8"], "aclIds": ["acl-1"]"#,
        r#""aclIds": ["acl-1"]"#,
        &format!(r#""aclEntries": [{many}]"#),
    ] {
        let (gateway, problems) = listener(&acl("White", bad), None);
        assert_eq!(
            (gateway.kept.listeners.len(), problems.len()),
            (0, 1),
            "{bad}"
        );
    }
}

#[test]
fn a_listener_is_never_replaced_by_one_that_restricts_less() {
    let open = listener(r#""idleTimeout": 20"#, None).0.kept;
    let list = r#""aclConfig": {"aclType": "White", "aclEntries": ["10.0.0.0/8"]}"#;
    // A mistake beside the list: the old settings with the new list.
    let (gateway, _) = listener(&format!(r#"{list}, "idleTimeout": 61"#), Some(&open));
    let settings = &gateway.kept.listeners[&(443, Http)];
    assert_eq!(settings.idle_timeout.as_secs(), 20);
    assert!(settings.access.is_some());
    // A mistake in the list: nothing but an earlier list may stand in.
    let bad = list.replace("10.0.0.0/8", "10.0.0.0/8x");
    assert!(listener(&bad, Some(&open)).0.kept.listeners.is_empty());
    let closed = listener(list, None).0.kept;
    assert_eq!(listener(&bad, Some(&closed)).0.kept, closed);
    // A list that only the cloud knows: not even that.
    let unknown = list.replace(r#""aclEntries": ["10.0.0.0/8"]"#, r#""aclIds": ["acl-1"]"#);
    assert!(
        listener(&unknown, Some(&closed))
            .0
            .kept
            .listeners
            .is_empty()
    );
    // Certificates of clients are the same.
    let open = listener(HTTPS, None).0.kept;
    let asks =
        format!(r#"{HTTPS}, "caEnabled": true, "caCertificates": [{{"CertificateId": "ca"}}]"#);
    let bad = asks.replace(r#""ca""#, r#""""#);
    assert!(listener(&bad, Some(&open)).0.kept.listeners.is_empty());
    let closed = listener(&asks, None).0.kept;
    assert_eq!(listener(&bad, Some(&closed)).0.kept, closed);
    let mistaken = format!(r#"{asks}, "idleTimeout": 61"#);
    let (gateway, _) = listener(&mistaken, Some(&open));
    assert!(
        gateway.kept.listeners[&(443, Https)]
            .tls
            .as_ref()
            .unwrap()
            .client_ca
            .is_some()
    );
    let policy = format!(r#"{HTTPS}, "securityPolicyId": "x""#);
    assert_eq!(listener(&policy, Some(&open)).0.kept, open);
}

#[test]
fn headers_for_backends_are_those_switched_on() {
    let config = |fields: &str| format!(r#"{HTTPS}, "xForwardedForConfig": {{{fields}}}"#);
    let it = good(&config(r#""XForwardedForSLBIdEnabled": true"#));
    assert!(it.identity.gateway_id);
    assert_eq!(it.writes, Some("SLB-ID"));
    let it = good(&config(
        r#""XForwardedForClientCertSubjectDNEnabled": true, "XForwardedForClientCertIssuerDNEnabled": true,
           "XForwardedForClientCertIssuerDNAlias": "issuer_1", "XForwardedForClientCertFingerprintEnabled": false,
           "XForwardedForClientCertFingerprintAlias": "X", "XForwardedForClientCertClientVerifyEnabled": true,
           "XForwardedForClientCertClientVerifyAlias": """#,
    ));
    let written = IdentityHeaders {
        gateway_id: false,
        cert_subject: Some("x-forwarded-clientcert-subjectdn".into()),
        cert_issuer: Some("issuer_1".into()),
        cert_fingerprint: None,
        cert_verify: Some("x-forwarded-clientcert-clientverify".into()),
    };
    assert_eq!(it.identity, written);
    let long = "x".repeat(41);
    for alias in [
        "Subject",
        "a b",
        "host",
        "content-length",
        "x-forwarded-for",
        &long,
    ] {
        let fields = format!(
            r#""XForwardedForClientCertSubjectDNEnabled": true, "XForwardedForClientCertSubjectDNAlias": "{alias}""#
        );
        assert_eq!(counts(&config(&fields)), (1, 0), "{alias}");
    }
}

#[test]
fn the_client_is_found_behind_trusted_proxies_only() {
    let config = |trusted: &str| {
        format!(
            r#""xForwardedForConfig": {{"XForwardedForClientSourceIpsEnabled": true, "XForwardedForClientSourceIpsTrusted": "{trusted}"}}"#
        )
    };
    let trusted = good(&config("10.0.0.0/8; 192.0.2.1,10.0.0.0/8"))
        .trusted
        .unwrap();
    assert_eq!(trusted.len(), 2);
    assert_eq!(counts(&config("")), (0, 1));
    assert_eq!(counts(&config("10.0.0.0/99")), (1, 0));
    let off = r#""xForwardedForConfig": {"XForwardedForClientSourceIpsTrusted": "x"}"#;
    assert_eq!(good(off).trusted, None);
}

#[test]
fn fields_of_the_cloud_are_named_and_no_problem() {
    let (gateway, problems) = compile(
        r#"{"config": {"name": "mcg", "edition": "Basic", "zoneMappings": [{"vSwitchId": "v"}], "tags": null},
            "listeners": [{"port": 80, "description": "x", "loadBalancerId": "l", "defaultActions": [], "later": 1,
                "quicConfig": {"quicUpgradeEnabled": false, "quicListenerId": "q"},
                "logConfig": {"accessLogRecordCustomizedHeadersEnabled": true},
                "aclConfig": {"aclName": "n", "aclType": ""}}]}"#,
        None,
    );
    assert_eq!(problems, []);
    assert_eq!(
        gateway.ignored,
        [
            "spec.config.edition",
            "spec.config.name",
            "spec.config.zoneMappings",
            "spec.listeners[0].description",
            "spec.listeners[0].defaultActions",
            "spec.listeners[0].loadBalancerId",
            "spec.listeners[0].quicConfig.quicListenerId",
            "spec.listeners[0].logConfig.accessLogRecordCustomizedHeadersEnabled",
            "spec.listeners[0].later",
            "spec.listeners[0].aclConfig.aclName",
        ]
    );
    let many: Vec<_> = (0..100)
        .map(|number| format!(r#""f{number}": 1"#))
        .collect();
    let spec = format!(
        r#"{{"config": {{{}}}, "listeners": [{{}}]}}"#,
        many.join(",")
    );
    let ignored = compile(&spec, None).0.ignored;
    assert_eq!(ignored.len(), 65);
    assert_eq!(ignored[64], "and 36 more");
}

#[test]
fn a_missing_config_a_firewall_and_tracing_are_warnings() {
    for (spec, field) in [
        (r#"{"listeners": [{}]}"#, "spec.config"),
        (r#"{"config": null, "listeners": [{}]}"#, "spec.config"),
        (
            r#"{"config": {"edition": "StandardWithWaf"}, "listeners": [{}]}"#,
            "spec.config.edition",
        ),
        (
            r#"{"config": {}, "listeners": [{"logConfig": {"accessLogTracingConfig": {"tracingEnabled": true}}}]}"#,
            "spec.listeners[0].logConfig.accessLogTracingConfig.tracingEnabled",
        ),
    ] {
        let (gateway, problems) = compile(spec, None);
        assert_eq!(gateway.kept.listeners.len(), 1);
        let fields: Vec<_> = problems
            .iter()
            .map(|it| (it.field.as_str(), it.severity))
            .collect();
        assert_eq!(fields, [(field, Severity::Warning)]);
    }
}

#[test]
fn a_misspelt_field_is_told_with_what_was_meant() {
    for (fields, meant) in [
        (r#""aclconfig": {}"#, "aclConfig"),
        (r#""caEnable": true"#, "caEnabled"),
        (
            r#""aclConfig": {"aclType": "White", "aclEntry": ["10.0.0.0/8"]}"#,
            "",
        ),
        (
            r#""aclConfig": {"aclType": "White", "aclEntrie": ["10.0.0.0/8"]}"#,
            "aclEntries",
        ),
        (
            r#""xForwardedForConfig": {"xForwardedForEnabled": false}"#,
            "XForwardedForEnabled",
        ),
    ] {
        let (_, problems) = listener(fields, None);
        let remedies: Vec<_> = problems.iter().map(|it| it.remedy.clone()).collect();
        match meant {
            "" => assert!(remedies.is_empty(), "{remedies:?}"),
            meant => assert_eq!(remedies, [format!("write `{meant}`")], "{fields}"),
        }
    }
}

#[test]
fn listeners_are_bounded() {
    let many: Vec<_> = (1..=300)
        .map(|port| format!(r#"{{"port": {port}}}"#))
        .collect();
    let (gateway, problems) = compile(
        &format!(r#"{{"config": {{}}, "listeners": [{}]}}"#, many.join(",")),
        None,
    );
    assert_eq!((gateway.kept.listeners.len(), problems.len()), (200, 1));
}

proptest! {
    #[test]
    fn no_text_in_a_listener_makes_it_panic(text in ".{0,60}") {
        let text = serde_json::to_string(&text).unwrap();
        for fields in [
            format!(r#""idleTimeout": {text}, "requestTimeout": {text}"#),
            format!(r#""aclConfig": {{"aclType": "White", "aclEntries": [{text}]}}"#),
            format!(r#"{HTTPS}, "securityPolicyId": {text}, "certificates": [{{"CertificateId": {text}}}]"#),
            format!(
                r#"{HTTPS}, "xForwardedForConfig": {{"XForwardedForProcessingMode": {text},
                    "XForwardedForClientSourceIpsEnabled": true, "XForwardedForClientSourceIpsTrusted": {text},
                    "XForwardedForClientCertIssuerDNEnabled": true, "XForwardedForClientCertIssuerDNAlias": {text}}}"#
            ),
            format!(r#""protocol": {text}"#),
        ] {
            let (gateway, problems) = listener(&fields, None);
            prop_assert!(gateway.kept.listeners.len() == 1 || !problems.is_empty());
        }
    }
}

/// An HTTP and a TCP listener of an AlbConfig with this `fleetgate.io/proxy-protocol-from`.
fn behind(networks: &str, before: Option<&Kept>) -> (Gateway, Vec<Problem>) {
    let spec = r#"{"config": {}, "listeners": [{"port": 80}, {"port": 81, "protocol": "TCP"}]}"#;
    let mut config = AlbConfig {
        spec: serde_json::from_str::<AlbConfigSpec>(spec).unwrap(),
        ..AlbConfig::default()
    };
    let key = crate::ir::build::notes::PROXY_FROM.to_owned();
    config.metadata.annotations.insert(key, networks.to_owned());
    let mut notes = Notes::on("AlbConfig", "", "mcg");
    let gateway = understand(&config, &BTreeSet::new(), before, &mut notes);
    (gateway, notes.problems)
}

#[test]
fn proxy_headers_are_believed_from_the_networks_that_are_named_and_only_where_requests_are_read() {
    let (gateway, problems) = behind("192.0.2.7, 10.0.0.0/8,10.1.2.3/8", None);
    assert_eq!(problems, []);
    let of = |key| gateway.kept.listeners[&key].proxy_protocol.clone();
    let networks = ["10.0.0.0/8", "192.0.2.7"].map(|it| it.parse::<Network>().unwrap());
    assert_eq!(of((80, Http)), Some(networks.to_vec()));
    assert_eq!(of((81, ListenerProtocol::Tcp)), None);
}

#[test]
fn of_networks_that_are_no_networks_the_last_good_ones_stay_and_without_any_nothing_is_served() {
    let (good, _) = behind("10.0.0.0/8", None);
    let many = vec!["10.0.0.0/8"; 501].join(",");
    for bad in [
        "",
        " , ",
        "10.0.0.0/33",
        "10.0.0.0/8;192.0.2.7",
        "lb.example",
        many.as_str(),
    ] {
        let (gateway, problems) = behind(bad, Some(&good.kept));
        assert_eq!(problems.len(), 1, "{bad}: {problems:?}");
        assert_eq!(problems[0].severity, Severity::Error);
        assert_eq!(gateway.kept, good.kept);
        let (gateway, _) = behind(bad, None);
        let served: Vec<_> = gateway.kept.listeners.keys().collect();
        assert_eq!(served, [&(81, ListenerProtocol::Tcp)], "{bad}");
    }
}
