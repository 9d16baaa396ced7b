use proptest::prelude::*;

use super::*;
use crate::ir::{
    build::notes::ALB,
    model::{HealthCheck, HealthProtocol},
};

fn annotations(pairs: &[(&str, &str)]) -> Annotations {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| (format!("{ALB}{key}"), (*value).to_owned()))
        .collect()
}

/// Policy, errors and warnings of an Ingress on HTTPS 443.
fn read(pairs: &[(&str, &str)]) -> (Policy, usize, usize) {
    let ports = Ports {
        https: [443].into(),
        ..Ports::default()
    };
    on_ports(pairs, &ports, true)
}

fn on_ports(pairs: &[(&str, &str)], ports: &Ports, has_tls: bool) -> (Policy, usize, usize) {
    let mut notes = Notes::on("Ingress", "demo", "a");
    let policy = parse(&annotations(pairs), ports, has_tls, &mut notes);
    (
        policy,
        notes.errors(),
        notes.problems.len() - notes.errors(),
    )
}

fn good(pairs: &[(&str, &str)]) -> Policy {
    let (policy, errors, warnings) = read(pairs);
    assert_eq!((errors, warnings), (0, 0), "{pairs:?}");
    policy
}

fn health(pairs: &[(&str, &str)]) -> (HealthCheck, usize) {
    let all = [&[("healthcheck-enabled", "true")], pairs].concat();
    let (policy, errors, warnings) = read(&all);
    assert_eq!(errors, 0, "{pairs:?}");
    (
        std::sync::Arc::unwrap_or_clone(policy.health.unwrap()),
        warnings,
    )
}

#[test]
fn nothing_written_is_the_default() {
    assert_eq!(good(&[]), Policy::default());
    assert_eq!(
        good(&[("backend-protocol", "http"), ("backend-scheduler", "wrr")]),
        Policy::default()
    );
}

#[test]
fn an_unknown_backend_protocol_is_http_with_a_warning() {
    for word in ["GRPC", "HTTPS", "h2c", ""] {
        let (policy, errors, warnings) = read(&[("backend-protocol", word)]);
        assert_eq!(
            (policy.protocol, errors, warnings),
            (BackendProtocol::Http, 0, 1),
            "{word}"
        );
    }
    assert_eq!(
        good(&[("backend-protocol", "https")]).protocol,
        BackendProtocol::Https
    );
}

#[test]
fn grpc_needs_tls_where_it_is_not_on_plain_listeners_alone() {
    let grpc = ("backend-protocol", "grpc");
    let ports = |http: &[u16], https: &[u16], quic: &[u16]| Ports {
        http: http.iter().copied().collect(),
        https: https.iter().copied().collect(),
        quic: quic.iter().copied().collect(),
        explicit: true,
        ..Ports::default()
    };
    let errors = |pairs: &[_], ports: &Ports, tls| on_ports(pairs, ports, tls).1;
    assert_eq!(errors(&[grpc], &ports(&[], &[443], &[]), true), 0);
    assert_eq!(errors(&[grpc], &ports(&[], &[443], &[]), false), 1);
    assert_eq!(errors(&[grpc], &ports(&[80], &[443], &[]), true), 0);
    assert_eq!(errors(&[grpc], &ports(&[80], &[443], &[]), false), 1);
    assert_eq!(errors(&[grpc], &ports(&[80], &[], &[]), false), 0);
    assert_eq!(errors(&[grpc], &ports(&[], &[443], &[443]), true), 1);
    let https = ("backend-protocol", "https");
    assert_eq!(errors(&[https], &ports(&[80], &[443], &[]), false), 0);
    assert_eq!(errors(&[https], &ports(&[80], &[443], &[443]), false), 1);
}

#[test]
fn schedulers_are_four_and_uch_needs_its_parameter() {
    let uch = ("backend-scheduler", "uch");
    for (word, scheduler) in [
        ("wlc", Scheduler::LeastConnections),
        ("sch", Scheduler::SourceHash),
    ] {
        assert_eq!(good(&[("backend-scheduler", word)]).scheduler, scheduler);
    }
    assert_eq!(
        good(&[uch, ("backend-scheduler-uch-value", "user")]).scheduler,
        Scheduler::QueryHash("user".into())
    );
    for bad in [
        &[uch][..],
        &[uch, ("backend-scheduler-uch-value", "")],
        &[uch, ("backend-scheduler-uch-value", "a b")],
        &[("backend-scheduler", "WRR")],
        &[("backend-scheduler", "")],
    ] {
        assert_eq!(read(bad).1, 1, "{bad:?}");
    }
    let (_, errors, warnings) = read(&[("backend-scheduler-uch-value", "user")]);
    assert_eq!((errors, warnings), (0, 1));
}

#[test]
fn keepalive_tells_written_from_not_written() {
    assert_eq!(good(&[("backend-keepalive", "true")]).keepalive, Some(true));
    assert_eq!(
        good(&[("backend-keepalive", "false")]).keepalive,
        Some(false)
    );
    assert_eq!(good(&[]).keepalive, None);
}

#[test]
fn stickiness_is_by_a_cookie_of_the_gateway_or_of_the_application() {
    let on = ("sticky-session", "true");
    let insert = |seconds| Some(Sticky::Insert(Duration::from_secs(seconds)));
    assert_eq!(good(&[on]).sticky, insert(1000));
    assert_eq!(
        good(&[on, ("sticky-session-type", "Insert")]).sticky,
        insert(1000)
    );
    for seconds in [1, 86_400] {
        let text = seconds.to_string();
        assert_eq!(
            good(&[on, ("cookie-timeout", &text)]).sticky,
            insert(seconds)
        );
    }
    for bad in ["0", "86401", "-1", "1.5", ""] {
        let (policy, errors, warnings) = read(&[on, ("cookie-timeout", bad)]);
        assert_eq!(
            (policy.sticky, errors, warnings),
            (insert(1000), 0, 1),
            "{bad}"
        );
    }
    let server = ("sticky-session-type", "Server");
    assert_eq!(
        good(&[on, server, ("cookie", "JSESSIONID")]).sticky,
        Some(Sticky::Server("JSESSIONID".into()))
    );
    assert_eq!(read(&[on, server]).1, 1);
    let long = "x".repeat(201);
    for bad in ["", "$a", "a b", "a,b", "a;b", "a=b", "\u{fc}", &long] {
        assert_eq!(read(&[on, server, ("cookie", bad)]).1, 1, "{bad}");
    }
    assert_eq!(read(&[on, ("sticky-session-type", "insert")]).1, 1);
    // Off, the details are nobody's business.
    assert_eq!(
        good(&[("cookie-timeout", "0"), ("sticky-session", "false")]).sticky,
        None
    );
}

#[test]
fn slow_start_and_drain_are_on_only_when_enabled_and_within_their_ranges() {
    let seconds = |number| Some(Duration::from_secs(number));
    let slow = ("slow-start-enabled", "true");
    assert_eq!(good(&[slow]).slow_start, seconds(30));
    assert_eq!(
        good(&[slow, ("slow-start-duration", "900")]).slow_start,
        seconds(900)
    );
    assert_eq!(good(&[("slow-start-duration", "60")]).slow_start, None);
    for bad in ["29", "901", "x"] {
        let (policy, _, warnings) = read(&[slow, ("slow-start-duration", bad)]);
        assert_eq!((policy.slow_start, warnings), (seconds(30), 1), "{bad}");
    }
    let drain = ("connection-drain-enabled", "true");
    assert_eq!(good(&[drain]).drain, seconds(300));
    assert_eq!(
        good(&[drain, ("connection-drain-timeout", "0")]).drain,
        seconds(0)
    );
    let (policy, _, warnings) = read(&[drain, ("connection-drain-timeout", "901")]);
    assert_eq!((policy.drain, warnings), (seconds(300), 1));
}

#[test]
fn pods_are_probed_only_for_exactly_true_and_with_the_defaults() {
    assert_eq!(good(&[("healthcheck-path", "/up")]).health, None);
    assert_eq!(good(&[("healthcheck-enabled", "True")]).health, None);
    let (health, warnings) = health(&[]);
    assert_eq!(warnings, 0);
    let default = HealthCheck {
        protocol: HealthProtocol::Http,
        port: None,
        path: "/".into(),
        method: "HEAD".into(),
        http10: false,
        codes: vec![2],
        timeout: Duration::from_secs(5),
        interval: Duration::from_secs(2),
        rise: 3,
        fall: 3,
    };
    assert_eq!(health, default);
}

#[test]
fn every_value_of_a_probe_is_read() {
    let (health, warnings) = health(&[
        ("healthcheck-path", "/up?x=1"),
        ("healthcheck-protocol", "HTTPS"),
        ("healthcheck-httpversion", "HTTP1.0"),
        ("healthcheck-method", "POST"),
        ("healthcheck-httpcode", "http_3xx, http_2xx"),
        ("healthcheck-timeout-seconds", "300"),
        ("healthcheck-interval-seconds", "50"),
        ("healthy-threshold-count", "10"),
        ("unhealthy-threshold-count", "2"),
        ("healthcheck-connect-port", "65535"),
    ]);
    assert_eq!(warnings, 0);
    let written = HealthCheck {
        protocol: HealthProtocol::Https,
        port: Some(65_535),
        path: "/up?x=1".into(),
        method: "POST".into(),
        http10: true,
        codes: vec![2, 3],
        timeout: Duration::from_secs(300),
        interval: Duration::from_secs(50),
        rise: 10,
        fall: 2,
    };
    assert_eq!(health, written);
}

#[test]
fn a_mistake_in_a_probe_is_a_warning_and_its_default_counts() {
    let default = health(&[]).0;
    let long = format!("/{}", "x".repeat(80));
    for (key, bad) in [
        ("healthcheck-path", "up"),
        ("healthcheck-path", ""),
        ("healthcheck-path", "/a b"),
        ("healthcheck-path", "/a\r\nX: y"),
        ("healthcheck-path", &long),
        ("healthcheck-protocol", "http"),
        ("healthcheck-httpversion", "HTTP2"),
        ("healthcheck-method", "PUT"),
        ("healthcheck-httpcode", "200"),
        ("healthcheck-httpcode", ""),
        ("healthcheck-code", "http_1xx"),
        ("healthcheck-timeout-seconds", "0"),
        ("healthcheck-timeout-seconds", "301"),
        ("healthcheck-interval-seconds", "51"),
        ("healthcheck-interval-seconds", "two"),
        ("healthy-threshold-count", "1"),
        ("unhealthy-threshold-count", "11"),
        ("healthcheck-connect-port", "65536"),
        ("healthcheck-connect-port", "-1"),
    ] {
        assert_eq!(health(&[(key, bad)]), (default.clone(), 1), "{key} {bad}");
    }
}

#[test]
fn healthcheck_code_beats_httpcode() {
    let both = [
        ("healthcheck-httpcode", "http_3xx"),
        ("healthcheck-code", "http_4xx,http_2xx"),
    ];
    assert_eq!(health(&both).0.codes, [2, 4]);
    assert_eq!(health(&both[..1]).0.codes, [3]);
}

#[test]
fn grpc_probes_have_codes_and_a_method_of_their_own() {
    let grpc = ("healthcheck-protocol", "GRPC");
    let (check, warnings) = health(&[grpc, ("healthcheck-httpcode", "http_3xx")]);
    assert_eq!(
        (check.method.as_str(), &check.codes[..], warnings),
        ("POST", &[0][..], 0)
    );
    let (check, _) = health(&[grpc, ("healthcheck-code", "0,12-14, 99")]);
    assert_eq!(check.codes, [0, 12, 13, 14, 99]);
    let many = vec!["1"; 21].join(",");
    for bad in ["100", "5-3", "-1", "1-", "a", "", "1,,2", &many] {
        let (check, warnings) = health(&[grpc, ("healthcheck-code", bad)]);
        assert_eq!((check.codes, warnings), (vec![0], 1), "{bad}");
    }
    let (check, warnings) = health(&[grpc, ("healthcheck-method", "HEAD")]);
    assert_eq!((check.method.as_str(), warnings), ("POST", 1));
    let named = [grpc, ("healthcheck-path", "/shop.Cart/Ping")];
    assert_eq!(health(&named).0.path, "/shop.Cart/Ping");
    let (check, warnings) = health(&[grpc, ("healthcheck-path", "/a<b>")]);
    assert_eq!((check.path.as_str(), warnings), ("/", 1));
    assert!(
        health(&[("healthcheck-protocol", "TCP")])
            .0
            .codes
            .is_empty()
    );
}

proptest! {
    #[test]
    fn a_number_is_within_its_range_whatever_is_written(text in "(-?[0-9]{0,12}|.{0,12})") {
        let (check, warnings) = health(&[
            ("healthcheck-timeout-seconds", &text),
            ("healthy-threshold-count", &text),
            ("healthcheck-interval-seconds", &text),
        ]);
        prop_assert!((1..=300).contains(&check.timeout.as_secs()));
        prop_assert!((1..=50).contains(&check.interval.as_secs()));
        prop_assert!((2..=10).contains(&check.rise));
        let exact = text.parse() == Ok(check.timeout.as_secs());
        prop_assert!(exact || warnings > 0);
    }

    #[test]
    fn a_path_of_a_grpc_probe_is_one_that_http2_carries(text in "/[!-~]{0,20}|.{0,12}") {
        let (check, _) = health(&[("healthcheck-protocol", "GRPC"), ("healthcheck-path", &text)]);
        let carried = http::uri::PathAndQuery::try_from(&check.path).unwrap();
        prop_assert_eq!(carried.as_str(), check.path);
    }

    #[test]
    fn lists_of_codes_are_bounded_whatever_is_written(text in "[0-9,htp_x -]{0,60}|.{0,60}") {
        for protocol in ["HTTP", "GRPC"] {
            let (check, _) = health(&[("healthcheck-protocol", protocol), ("healthcheck-code", &text)]);
            prop_assert!((1..=100).contains(&check.codes.len()));
        }
    }
}
