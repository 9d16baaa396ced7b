//! Ingresses whose TLS ends in the pods, and PROXY headers in both directions.

use super::*;
use crate::ir::model::{ListenerProtocol, SteeringMode};

const BOTH: &str = "[{port: 443, protocol: HTTPS}, {port: 80, protocol: HTTP}]";

fn fleet(ingresses: &[String]) -> String {
    let fleet = FLEET.replace("[{port: 8001, protocol: HTTP}]", BOTH);
    format!("{fleet}{}", ingresses.concat())
}

/// An Ingress with one rule and further annotations, as `, key: value`.
fn hosted(name: &str, host: &str, path: &str, annotations: &str) -> String {
    let text = ingress(name, annotations, path).replace(
        r#"alb.ingress.kubernetes.io/listen-ports: '[{"HTTP": 8001}]'"#,
        "a: b",
    );
    text.replace("[{http:", &format!("[{{host: '{host}', http:"))
}

const PASS: &str = r#", fleetgate.io/tls-passthrough: "true""#;

fn compiled(ingresses: &[String]) -> Built {
    let snapshot = read(fleet(ingresses));
    build(&snapshot, &LastGood::default(), &Options::default())
}

fn on(built: &Built, protocol: ListenerProtocol) -> &Listener {
    let mut listeners = built.ir.listeners.values();
    listeners
        .find(|it| it.name.protocol == protocol)
        .expect("a listener")
}

#[test]
fn hosts_whose_tls_is_passed_on_need_no_certificate_and_have_their_pods() {
    let pass = hosted("a", "*.example.com", "/", PASS);
    let built = compiled(&[pass]);
    assert_eq!(built.problems, []);
    let https = on(&built, ListenerProtocol::Https);
    assert_eq!((&https.refused, https.rules.len()), (&None, 0));
    let [rule] = https.passthrough.as_slice() else {
        panic!("{:?}", https.passthrough);
    };
    assert_eq!(rule.conditions.hosts[0].to_string(), "*.example.com");
    let group = &built.ir.groups[rule.only_group().expect("a group")];
    assert_eq!(group.backends.len(), 5);
    assert_eq!(https.steering.mode, SteeringMode::Request);
    let http = on(&built, ListenerProtocol::Http);
    assert!(http.rules.is_empty() && http.passthrough.is_empty());
}

#[test]
fn with_ssl_redirect_plain_requests_of_these_hosts_are_redirected() {
    let annotations = format!(r#"{PASS}, alb.ingress.kubernetes.io/ssl-redirect: "true""#);
    let built = compiled(&[hosted("a", "a.example.com", "/", &annotations)]);
    assert_eq!(built.problems, []);
    assert_eq!(on(&built, ListenerProtocol::Https).passthrough.len(), 1);
    let http = on(&built, ListenerProtocol::Http);
    assert_eq!(http.rules.len(), 1);
    assert_eq!(http.rules[0].only_group(), None);
}

#[test]
fn what_needs_more_than_the_host_serves_nothing_not_even_what_was_before() {
    let good = compiled(&[hosted("a", "a.example.com", "/", "")]);
    assert_eq!(on(&good, ListenerProtocol::Http).rules.len(), 1);
    let with = |more: &str| hosted("a", "a.example.com", "/", &format!("{PASS}{more}"));
    let alb = |more: &str| with(&format!(", alb.ingress.kubernetes.io/{more}"));
    let bad = [
        hosted("a", "a.example.com", "/x", PASS),
        hosted("a", "", "/", PASS),
        alb(r#"traffic-limit-qps: "5""#),
        alb(r#"enable-cors: "true""#),
        alb(r#"sticky-session: "true""#),
        alb(r#"canary: "true", alb.ingress.kubernetes.io/canary-by-header: "x""#),
        alb(r#"conditions.svc: '[{"type": "Method", "methodConfig": {"values": ["GET"]}}]'"#),
        alb(
            r#"backend-scheduler: uch, alb.ingress.kubernetes.io/backend-scheduler-uch-value: "q""#,
        ),
        alb(r#"listen-ports: '[{"HTTP": 80}, {"HTTPS": 443}]'"#),
    ];
    for text in bad {
        let snapshot = read(fleet(std::slice::from_ref(&text)));
        let built = build(&snapshot, &good.last_good, &Options::default());
        for protocol in [ListenerProtocol::Http, ListenerProtocol::Https] {
            let listener = on(&built, protocol);
            assert!(
                listener.rules.is_empty() && listener.passthrough.is_empty(),
                "{text}"
            );
        }
        let told = built.problems.iter();
        let told = told
            .filter(|it| it.remedy.contains("tls-passthrough"))
            .count();
        assert_eq!(told, 1, "{text}: {:?}", built.problems);
    }
}

#[test]
fn of_a_host_the_first_rule_counts_and_rules_that_read_its_requests_are_told() {
    let secured = r#", alb.ingress.kubernetes.io/listen-ports: '[{"HTTPS": 443}]'"#;
    let built = compiled(&[
        hosted("a", "a.example.com", "/", PASS),
        hosted("b", "a.example.com", "/", PASS),
        hosted("c", "a.example.com", "/", secured),
    ]);
    let https = on(&built, ListenerProtocol::Https);
    assert_eq!((https.passthrough.len(), https.rules.len()), (1, 1));
    assert_eq!(&*https.passthrough[0].ingress, "demo/a");
    assert_eq!(https.refused, None);
    let told: Vec<_> = built
        .problems
        .iter()
        .map(|it| (it.object.name.as_str(), it.field.as_str()))
        .collect();
    let place = "spec.rules[0].http.paths[0]";
    let certificates = "spec.listeners[0].certificates";
    assert_eq!(told, [("mcg", certificates), ("b", place), ("c", place)]);
}

#[test]
fn a_listener_behind_load_balancers_is_steered_by_request() {
    let from = "annotations: {fleetgate.io/proxy-protocol-from: '10.0.0.0/8', ";
    let fleet = format!("{FLEET}{}", ingress("a", "", "/")).replacen("annotations: {", from, 1);
    let built = build(&read(fleet), &LastGood::default(), &Options::default());
    assert_eq!(built.problems, []);
    let listener = listener(&built);
    assert_eq!(listener.steering.mode, SteeringMode::Request);
    assert_eq!(listener.steering.reason, "the listener reads PROXY headers");
    assert!(listener.settings.proxy_protocol.is_some());
}

#[test]
fn pods_that_are_told_clients_by_header_need_the_proxy() {
    let with = |value: &str, more: &str| {
        let annotations = format!(", fleetgate.io/backend-proxy-protocol: {value}{more}");
        let fleet = format!("{FLEET}{}", ingress("a", &annotations, "/"));
        build(&read(fleet), &LastGood::default(), &Options::default())
    };
    let built = with("v2", "");
    assert_eq!(built.problems, []);
    assert_eq!(listener(&built).steering.mode, SteeringMode::Request);
    let groups: Vec<_> = built.ir.groups.values().collect();
    assert!(groups[0].policy.proxy_header);
    let mirror = r#", alb.ingress.kubernetes.io/actions.svc: '[{"type": "TrafficMirror", "TrafficMirrorConfig": {"TargetType": "ForwardGroupMirror", "MirrorGroupConfig": {"ServerGroupTuples": [{"ServiceName": "svc", "ServicePort": 80}]}}}]'"#;
    for (value, more) in [("v1", ""), ("'true'", ""), ("v2", mirror)] {
        let built = with(value, more);
        assert_eq!(listener(&built).rules, [], "{value}{more}");
        let errors = built
            .problems
            .iter()
            .filter(|it| it.field.contains("backend-proxy-protocol"));
        assert_eq!(errors.count(), 1, "{value}{more}: {:?}", built.problems);
    }
}
