use super::*;
use crate::ir::model::{Group, Listener};
use crate::manifest::{File, Limits, snapshot};

mod bounds;
mod certificates;
mod choosing;
mod keeping;
mod passthrough;
mod pods;
mod refusals;

const FLEET: &str = r#"
apiVersion: alibabacloud.com/v1
kind: AlbConfig
metadata: {name: mcg, annotations: {alb.ingress.kubernetes.io/remote-clusters: "c1,c2"}}
spec: {config: {}, listeners: [{port: 8001, protocol: HTTP}]}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: alb}
spec: {controller: ingress.k8s.alibabacloud/alb, parameters: {apiGroup: alibabacloud.com, kind: AlbConfig, name: mcg}}
"#;

fn ingress(name: &str, annotations: &str, path: &str) -> String {
    format!(
        r#"
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  namespace: demo
  annotations: {{alb.ingress.kubernetes.io/listen-ports: '[{{"HTTP": 8001}}]'{annotations}}}
spec:
  ingressClassName: alb
  rules: [{{http: {{paths: [{{path: {path}, pathType: Prefix, backend: {{service: {{name: svc, port: {{number: 80}}}}}}}}]}}}}]
"#
    )
}

fn member(pods: &[&str]) -> String {
    let endpoints: Vec<_> = pods
        .iter()
        .map(|pod| format!("{{addresses: [{pod}]}}"))
        .collect();
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: svc, namespace: demo}}
spec: {{ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: svc-x, namespace: demo, labels: {{kubernetes.io/service-name: svc}}}}
addressType: IPv4
ports: [{{port: 8080}}]
endpoints: [{}]
"#,
        endpoints.join(", ")
    )
}

fn read(fleet: String) -> Snapshot {
    let file = |path: &str, text: String| File {
        path: path.to_owned(),
        content: Ok(text.as_bytes().into()),
    };
    let (snapshot, problems) = snapshot(
        [],
        [
            file("fleet/a.yaml", fleet),
            file("clusters/c1/a.yaml", member(&["10.1.0.1", "10.1.0.2"])),
            file(
                "clusters/c2/a.yaml",
                member(&["10.2.0.1", "10.2.0.2", "10.2.0.3"]),
            ),
        ],
        Limits::default(),
    );
    assert_eq!(problems, []);
    snapshot
}

/// The first listener.
fn listener(built: &Built) -> &Listener {
    let first = built.ir.listeners.values().next();
    first.expect("a listener")
}

/// The group that its first rule names.
fn group(built: &Built) -> &Group {
    let rule = listener(built).rules.first();
    let name = rule.and_then(|rule| rule.only_group());
    &built.ir.groups[name.expect("a group")]
}

fn compile(fleet: String, before: &LastGood) -> Built {
    build(&read(fleet), before, &Options::default())
}

const C1: &str = r#", alb.ingress.kubernetes.io/cluster-weight.c1: "100""#;
const BAD: &str = r#", alb.ingress.kubernetes.io/cluster-weight.c1: "50""#;

#[test]
fn a_bad_ingress_keeps_its_last_good_rules_with_fresh_pods() {
    let good = compile(
        format!("{FLEET}{}", ingress("a", C1, "/")),
        &LastGood::default(),
    );
    assert_eq!(good.problems, []);
    let bad = compile(
        format!("{FLEET}{}", ingress("a", BAD, "/new")),
        &good.last_good,
    );
    assert_eq!(bad.ir, good.ir);
    assert_eq!(bad.problems.len(), 1, "{:?}", bad.problems);
    assert!(
        bad.problems[0]
            .to_string()
            .contains("sum up to 50, not 100"),
        "{}",
        bad.problems[0]
    );
    assert_eq!(bad.last_good, good.last_good);
}

#[test]
fn a_bad_ingress_without_a_good_version_serves_nothing() {
    let built = compile(
        format!("{FLEET}{}", ingress("a", BAD, "/")),
        &LastGood::default(),
    );
    assert!(listener(&built).rules.is_empty());
}

#[test]
fn a_deleted_ingress_is_forgotten() {
    let good = compile(
        format!("{FLEET}{}", ingress("a", C1, "/")),
        &LastGood::default(),
    );
    let gone = compile(FLEET.to_owned(), &good.last_good);
    assert_eq!(gone.last_good.ingresses.len(), 0);
    let bad = compile(
        format!("{FLEET}{}", ingress("a", BAD, "/")),
        &gone.last_good,
    );
    assert!(listener(&bad).rules.is_empty());
}

#[test]
fn a_bad_listener_keeps_its_last_good_settings() {
    let good = compile(FLEET.to_owned(), &LastGood::default());
    let fleet = FLEET.replace("protocol: HTTP}", "protocol: HTTP, idleTimeout: 61}");
    let bad = compile(fleet.clone(), &good.last_good);
    assert_eq!(bad.ir, good.ir);
    assert_eq!(bad.problems.len(), 1);
    assert_eq!(
        compile(fleet, &LastGood::default()).ir.listeners,
        BTreeMap::new()
    );
}

#[test]
fn without_remote_clusters_every_associated_cluster_serves() {
    let fleet = FLEET.replace(
        r#", annotations: {alb.ingress.kubernetes.io/remote-clusters: "c1,c2"}"#,
        "",
    );
    let built = compile(
        format!("{fleet}{}", ingress("a", "", "/")),
        &LastGood::default(),
    );
    assert_eq!(built.problems, []);
    assert_eq!(group(&built).backends.len(), 5);
}

#[test]
fn rules_of_one_ingress_and_service_share_one_group() {
    let two = ingress("a", "", "/").replace(
        "paths: [",
        "paths: [{path: /x, pathType: Exact, backend: {service: {name: svc, port: {number: 80}}}}, ",
    );
    let built = compile(format!("{FLEET}{two}"), &LastGood::default());
    let rules = &listener(&built).rules;
    assert_eq!(rules.len(), 2);
    assert!(rules[0].only_group().is_some());
    assert_eq!(rules[0].only_group(), rules[1].only_group());
}

#[test]
fn an_http_rule_of_a_tls_host_is_never_served_in_plain() {
    let fleet = FLEET.replace("port: 8001", "port: 80");
    let tls = ingress("a", "", "/")
        .replace(r#"alb.ingress.kubernetes.io/listen-ports: '[{"HTTP": 8001}]'"#, "")
        .replace("rules: [", "tls: [{hosts: [a.com]}]\n  rules: [{host: a.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: svc, port: {number: 80}}}}]}}, ");
    let built = compile(format!("{fleet}{tls}"), &LastGood::default());
    let rules = &listener(&built).rules;
    assert_eq!(
        rules
            .iter()
            .map(|rule| rule.place.as_str())
            .collect::<Vec<_>>(),
        ["spec.rules[1].http.paths[0]"]
    );
    assert_eq!(built.problems.len(), 1, "{:?}", built.problems);
}

#[test]
fn ties_are_broken_by_namespace_and_name_as_plain_text() {
    let other = ingress("a", "", "/b").replace("namespace: demo", "namespace: demo-b");
    let built = compile(
        format!("{FLEET}{}{other}", ingress("a", "", "/a")),
        &LastGood::default(),
    );
    // '-' sorts before '/'.
    let order: Vec<_> = listener(&built)
        .rules
        .iter()
        .map(|rule| &*rule.ingress)
        .collect();
    assert_eq!(order, ["demo-b/a", "demo/a"]);
}
