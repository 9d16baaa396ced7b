//! `fleetgate check` and `plan` on any YAML: files and directories without the folders of a manifest directory.

use std::{fs, path::Path};

use gateway_user::{
    check::{Layout, check, compile},
    ir::{Group, Ir, Options},
    source::{Bounds, DirectorySource},
};

const GATEWAY: &str = r#"# Source: chart/templates/gateway.yaml

---
# Source: chart/templates/nothing.yaml
---

apiVersion: alibabacloud.com/v1
kind: AlbConfig
metadata: {name: mcg}
spec: {config: {}, listeners: [{port: 8001}]}
---
kind: IngressClass
apiVersion: networking.k8s.io/v1
metadata: {name: alb}
spec:
  controller: ingress.k8s.alibabacloud/alb
  parameters: {apiGroup: alibabacloud.com, kind: AlbConfig, name: mcg}
...
"#;

const RULES: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web", "namespace": "demo",
    "annotations": {"alb.ingress.kubernetes.io/listen-ports": "[{\"HTTP\": 8001}]"}},
   "spec": {"ingressClassName": "alb", "rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix",
    "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}},
  {"apiVersion": "v1", "kind": "ServiceList", "items": [
   {"metadata": {"name": "web", "namespace": "demo"}, "spec": {"ports": [{"port": 80, "targetPort": 8080}]}}]}]}"#;

const PODS: &str = r#"
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: demo, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: "", port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.1.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: web-1, namespace: demo}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: demo}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: web, namespace: demo}
"#;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        let file = dir.path().join(path);
        fs::create_dir_all(file.parent().expect("a parent")).expect("folders");
        fs::write(file, text).expect("write");
    }
    dir
}

fn mixed() -> tempfile::TempDir {
    folder(&[
        ("apps/web/pods.yml", PODS),
        ("gateway.yaml", GATEWAY),
        ("rules.json", RULES),
        ("Chart.yaml", "apiVersion: v2\nname: some\n"),
        ("values.yaml", "replicas: 2\n"),
        ("README.md", "kind: of text"),
        (".hidden.yaml", "{"),
    ])
}

fn first_group(ir: &Ir) -> &Group {
    ir.groups.values().next().expect("a group")
}

#[test]
fn a_directory_of_mixed_yaml_is_read_whole() {
    let dir = mixed();
    let report = check(dir.path());
    assert!(report.clean(), "{report}");
    assert_eq!(report.ir.listeners.len(), 1);
    let backends = &first_group(&report.ir).backends;
    assert_eq!(backends.len(), 1);
    assert_eq!(&*backends[0].cluster.0, "local");
    assert_eq!(backends[0].address.to_string(), "10.1.0.1:8080");
    let last = report.summary.to_string();
    assert!(last.contains("; read as one bundle"), "{last}");
}

#[test]
fn one_file_of_any_name_is_read_like_a_directory() {
    let all = format!("{GATEWAY}---\n{PODS}---\n{RULES}\n");
    let dir = folder(&[("rendered.txt", &all)]);
    let report = check(&dir.path().join("rendered.txt"));
    assert!(report.clean(), "{report}");
    assert_eq!(report.summary, check(mixed().path()).summary);
    let compiled = compile(&dir.path().join("rendered.txt"), Options::default());
    assert_eq!(compiled.layout, Layout::Bundle);
}

#[test]
fn clusters_that_objects_name_are_the_members_of_a_bundle() {
    let remote = |ids: &str| {
        let named = format!(
            "{{name: mcg, annotations: {{alb.ingress.kubernetes.io/remote-clusters: '{ids}'}}}}"
        );
        GATEWAY.replacen("{name: mcg}", &named, 1)
    };
    let weighted = |ids: &[(&str, &str)]| {
        let keys: String = ids
            .iter()
            .map(|(id, weight)| {
                format!(r#""alb.ingress.kubernetes.io/cluster-weight.{id}": "{weight}", "#)
            })
            .collect();
        RULES.replacen(
            r#""annotations": {"#,
            &format!(r#""annotations": {{{keys}"#),
            1,
        )
    };
    let read = |gateway: &str, rules: &str| {
        check(folder(&[("a.yaml", gateway), ("b.json", rules), ("c.yaml", PODS)]).path())
    };
    let both = weighted(&[("c1", "60"), ("c2", "40")]);
    for gateway in [&remote("c1, c2"), GATEWAY] {
        let report = read(gateway, &both);
        assert!(report.clean(), "{report}");
        assert_eq!(report.summary.clusters, 2);
        assert_eq!(&*first_group(&report.ir).backends[0].cluster.0, "c1");
    }
    // What the AlbConfig does not name is still a mistake.
    let report = read(&remote("c1,c2"), &weighted(&[("c1", "60"), ("c3", "40")]));
    assert_eq!(
        (report.summary.clusters, report.summary.warnings),
        (2, 1),
        "{report}"
    );
}

#[test]
fn mistakes_in_a_bundle_are_told_with_their_file() {
    let dir = folder(&[
        ("a.yaml", GATEWAY),
        (
            "sub/b.yaml",
            "kind: Ingress\napiVersion: networking.k8s.io/v1\nmetadata: {name: Web}\n",
        ),
        ("sub/c.yaml", "a: [1\n"),
        ("sub/d.yaml", GATEWAY),
    ]);
    let report = check(dir.path()).to_string();
    for place in ["sub/b.yaml", "sub/c.yaml", "in a.yaml and in sub/d.yaml"] {
        assert!(report.contains(place), "{place}:\n{report}");
    }
    assert!(!check(&dir.path().join("none.yaml")).clean());
}

#[test]
fn the_agent_reads_no_bundle() {
    let dir = mixed();
    let read = DirectorySource::new(dir.path(), Bounds::default()).read();
    assert!(read.snapshot.gateways.is_empty());
    assert!(!read.problems.is_empty());
    let layout = |path: &Path| check(path).summary.layout;
    assert_eq!(layout(dir.path()), Layout::Bundle);
    fs::create_dir(dir.path().join("fleet")).expect("folder");
    assert_eq!(layout(dir.path()), Layout::Folders);
}
