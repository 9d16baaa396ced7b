//! The annotation table of the guide, row by row, against the index and against what a build makes of the annotation.

use std::{collections::BTreeSet, fs, path::Path};

use gateway_user::{
    check::{self, Report},
    ir::annotations::{Entry, Scope, State, index},
    problem::Severity,
};

use super::pages::{read, rows};

const ALB: &str = "alb.ingress.kubernetes.io/";
const GUIDE: &str = "docs/guide.md";
const TABLES: [(&str, Scope); 4] = [
    ("### On an Ingress", Scope::Ingress),
    ("### Aliases of the NGINX controller", Scope::Ingress),
    ("### On an AlbConfig", Scope::AlbConfig),
    ("### On a Service", Scope::Service),
];

/// A row of the guide: the key as the index has it, its scope and its state.
fn table() -> Vec<(String, Scope, String)> {
    let guide = read(GUIDE);
    let mut found = Vec::new();
    for (heading, scope) in TABLES {
        for row in rows(&guide, heading) {
            let key = row[0].trim_matches('`');
            // `conditions.<svc>` stands for all that begin so.
            let key = key.split('<').next().expect("the first part");
            let key = match key.contains('/') {
                true => key.to_owned(),
                false => format!("{ALB}{key}"),
            };
            assert!(
                row.len() == 3 && !row[2].is_empty(),
                "{key} lacks a cell: {row:?}"
            );
            found.push((key, scope, row[1].clone()));
        }
    }
    found
}

#[test]
fn every_annotation_of_the_index_has_one_row_and_every_row_an_annotation() {
    let rows = table();
    let mut in_guide = BTreeSet::new();
    for (key, scope, _) in &rows {
        assert!(in_guide.insert((*scope, key.clone())), "{key} has two rows");
    }
    let known: BTreeSet<_> = index()
        .iter()
        .map(|it| (it.scope, it.key.to_owned()))
        .collect();
    assert_eq!(in_guide, known);
}

#[test]
fn every_row_says_what_a_build_makes_of_the_annotation() {
    for (key, scope, said) in table() {
        let entry = index().iter().find(|it| it.scope == scope && it.key == key);
        let entry = entry.unwrap_or_else(|| panic!("{key} is not in the index"));
        let report = built(entry);
        let found = match (entry.state, state(&report)) {
            (State::Ignored(_), "works") => "ignored",
            (_, found) => found,
        };
        // What works as nobody would expect who knows the cloud's.
        let said = if said == "different" {
            "works"
        } else {
            said.as_str()
        };
        assert_eq!(said, found, "{key}:\n{report}");
    }
}

#[test]
fn what_the_nginx_page_lists_as_not_carried_out_is_told() {
    let page = read("docs/migrating-from-ingress-nginx.md");
    let rows = rows(&page, "## Annotations that the checker names");
    assert!(rows.len() > 20);
    for key in rows.iter().flat_map(|row| row[0].split(", ")) {
        let key = format!(
            "nginx.ingress.kubernetes.io/{}",
            key.trim_matches('`').replace('*', "x")
        );
        let report = build(&[(&key, "on")], &[], &[], false);
        let told = report
            .problems
            .iter()
            .any(|it| it.message.contains("NGINX controller"));
        assert!(told, "{key}:\n{report}");
    }
}

/// `refused` if a rule or listener is, else `works`.
fn state(report: &Report) -> &'static str {
    let mut listeners = report.ir.listeners.values();
    let refused = listeners
        .any(|it| it.refused.is_some() || it.rules.iter().any(|rule| rule.refused.is_some()));
    if refused {
        return "refused";
    }
    let errors = report
        .problems
        .iter()
        .filter(|it| it.severity == Severity::Error)
        .count();
    if errors > 0 { "in error" } else { "works" }
}

fn built(entry: &Entry) -> Report {
    let alb = |short: &str| format!("{ALB}{short}");
    let short = entry.key.rsplit_once('/').expect("a prefix").1;
    let (name, value) = example(short);
    let key = format!("{}{name}", entry.key);
    let mut with: Vec<(String, &str)> = beside(short)
        .iter()
        .map(|(key, value)| (alb(key), *value))
        .collect();
    with.push((key, value));
    let with: Vec<(&str, &str)> = with
        .iter()
        .map(|(key, value)| (key.as_str(), *value))
        .collect();
    match entry.scope {
        Scope::Ingress => build(&with, &[], &[], short == "rule-direction."),
        Scope::AlbConfig => build(&[], &with, &[], false),
        Scope::Service => build(&[], &[], &with, false),
    }
}

/// What follows a prefix, and a value that asks for something.
fn example(short: &str) -> (&'static str, &'static str) {
    match short {
        "conditions." => (
            "web",
            r#"[{"type": "Method", "methodConfig": {"values": ["GET"]}}]"#,
        ),
        "actions." => ("web", INSERT),
        "rule-direction." => ("web", "Response"),
        "cluster-weight." => ("c1", "100"),
        "listen-ports" => ("", r#"[{"HTTP": 80}]"#),
        "albconfig.name" => ("", "mcg"),
        "remote-clusters" => ("", "c1"),
        "steering" => ("", "auto"),
        "addresses" => ("", "192.0.2.1"),
        "proxy-protocol-from" => ("", "192.0.2.0/24"),
        "backend-proxy-protocol" => ("", "v2"),
        // On, it needs hosts and an HTTPS listener.
        "tls-passthrough" => ("", "false"),
        "rewrite-target" => ("", "/y"),
        "backend-protocol" => ("", "https"),
        "backend-scheduler" => ("", "wlc"),
        "sticky-session-type" => ("", "Insert"),
        "slow-start-duration" => ("", "60"),
        "healthcheck-path" => ("", "/live"),
        "healthcheck-protocol" => ("", "TCP"),
        "healthcheck-httpversion" => ("", "HTTP1.0"),
        "healthcheck-method" => ("", "GET"),
        "healthcheck-httpcode" | "healthcheck-code" => ("", "http_3xx"),
        "cors-allow-origin" => ("", "https://www.example.com"),
        "cors-allow-methods" => ("", "GET"),
        "cors-allow-headers" | "cors-expose-headers" => ("", "X-Stage"),
        "canary-by-header"
        | "canary-by-header-value"
        | "canary-by-cookie"
        | "cookie"
        | "backend-scheduler-uch-value" => ("", "stage"),
        "order"
        | "albconfig.order"
        | "canary-weight"
        | "cookie-timeout"
        | "connection-drain-timeout"
        | "healthcheck-timeout-seconds"
        | "healthcheck-interval-seconds"
        | "healthy-threshold-count"
        | "unhealthy-threshold-count"
        | "healthcheck-connect-port"
        | "traffic-limit-qps"
        | "traffic-limit-ip-qps"
        | "new-flows-per-second"
        | "new-flows-per-second-per-source"
        | "cors-max-age" => ("", "7"),
        // Switches, and what is ignored whatever it says.
        _ => ("", "true"),
    }
}

const INSERT: &str = r#"[{"type": "InsertHeader", "InsertHeaderConfig": {"key": "a", "value": "b", "valueType": "UserDefined"}}]"#;

/// Annotations without which this one means nothing.
fn beside(short: &str) -> &'static [(&'static str, &'static str)] {
    match short {
        "canary" => &[("canary-weight", "10")],
        "canary-by-header-value" => &[("canary", "true"), ("canary-by-header", "stage")],
        _ if short.starts_with("canary-") => &[("canary", "true")],
        "rule-direction." => &[("actions.web", INSERT)],
        "backend-scheduler-uch-value" => &[("backend-scheduler", "uch")],
        "sticky-session-type" | "cookie-timeout" => &[("sticky-session", "true")],
        "cookie" => &[
            ("sticky-session", "true"),
            ("sticky-session-type", "Server"),
        ],
        "slow-start-duration" => &[("slow-start-enabled", "true")],
        "connection-drain-timeout" => &[("connection-drain-enabled", "true")],
        "healthcheck-enabled" => &[],
        _ if short.starts_with("health") || short.starts_with("unhealthy") => {
            &[("healthcheck-enabled", "true")]
        }
        _ if short.starts_with("cors-") => &[("enable-cors", "true")],
        _ => &[],
    }
}

/// Two Ingresses with one path; the annotations are on the second.
fn build(
    ingress: &[(&str, &str)],
    gateway: &[(&str, &str)],
    service: &[(&str, &str)],
    by_annotation: bool,
) -> Report {
    let folder = tempfile::tempdir().expect("a folder");
    let port = if by_annotation {
        r#"{"name": "use-annotation"}"#
    } else {
        r#"{"number": 80}"#
    };
    let rule = |name: &str, annotations: &[(&str, &str)], port: &str| {
        format!(
            r#"{{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                "metadata": {{"name": "{name}", "namespace": "demo", "annotations": {}}},
                "spec": {{"ingressClassName": "alb", "rules": [{{"http": {{"paths": [{{"path": "/x", "pathType": "Prefix",
                    "backend": {{"service": {{"name": "web", "port": {port}}}}}}}]}}}}]}}}}"#,
            object(annotations)
        )
    };
    let fleet = [
        format!(
            r#"{{"apiVersion": "alibabacloud.com/v1", "kind": "AlbConfig",
                "metadata": {{"name": "mcg", "annotations": {}}},
                "spec": {{"config": {{}}, "listeners": [{{"port": 80, "protocol": "HTTP"}}]}}}}"#,
            object(gateway)
        ),
        r#"{"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "alb"},
            "spec": {"controller": "ingress.k8s.alibabacloud/alb",
                "parameters": {"apiGroup": "alibabacloud.com", "kind": "AlbConfig", "name": "mcg"}}}"#
            .to_owned(),
        rule("web", &[], r#"{"number": 80}"#),
        rule("with", ingress, port),
    ];
    let member = [
        format!(
            r#"{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "web", "namespace": "demo", "annotations": {}}},
                "spec": {{"ports": [{{"port": 80, "targetPort": 8080}}]}}}}"#,
            object(service)
        ),
        r#"{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "web", "namespace": "demo", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]}"#
            .to_owned(),
    ];
    write(&folder.path().join("fleet"), &fleet);
    write(&folder.path().join("clusters/c1"), &member);
    check::check(folder.path())
}

fn object(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).into()));
    serde_json::Value::Object(pairs.collect()).to_string()
}

fn write(folder: &Path, objects: &[String]) {
    fs::create_dir_all(folder).expect("a folder");
    for (at, object) in objects.iter().enumerate() {
        fs::write(folder.join(format!("{at}.json")), object).expect("a file");
    }
}
