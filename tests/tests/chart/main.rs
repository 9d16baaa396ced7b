//! The Helm charts of `deploy/chart`, rendered by Helm itself: what installs is what is tested.

mod access;
mod cases;
mod crd;
mod pods;
mod values;

use std::{fs, path::Path};

use cases::{CASES, Object, by_name, golden};
use gateway_user::check::{Layout, check};

#[test]
fn every_case_renders_to_its_golden_text() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden_chart");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for case in CASES {
        let text = golden(case);
        let expected = root.join(format!("{}.yaml", case.name));
        if update {
            fs::write(&expected, &text).expect("write the golden file");
        } else if fs::read_to_string(&expected).unwrap_or_default() != text {
            wrong.push(format!("{}:\n{text}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "these differ, now:\n{}", wrong.join("\n"));
}

#[test]
fn helm_lint_finds_nothing() {
    for case in CASES {
        assert_eq!(case.render().lint, [""; 0], "{}", case.name);
    }
}

#[test]
fn every_document_is_an_object_that_can_be_applied() {
    // Of the kinds that we render.
    let cluster_wide = [
        "AlbConfig",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "IngressClass",
        "Namespace",
    ];
    for case in CASES {
        let objects = case.objects();
        assert!(!objects.is_empty(), "{}", case.name);
        let mut seen = Vec::new();
        for Object { value, .. } in &objects {
            let text = |pointer: &str| value.pointer(pointer).and_then(|it| it.as_str());
            let (kind, name) = (text("/kind"), text("/metadata/name"));
            let what = format!("{}: {kind:?} {name:?}", case.name);
            assert!(
                text("/apiVersion").is_some_and(|it| !it.is_empty()),
                "{what}"
            );
            let (Some(kind), Some(name)) = (kind, name) else {
                panic!("{what}")
            };
            let namespace = text("/metadata/namespace");
            assert_eq!(namespace.is_none(), cluster_wide.contains(&kind), "{what}");
            let key = (
                kind.to_owned(),
                namespace.map(str::to_owned),
                name.to_owned(),
            );
            assert!(!seen.contains(&key), "{what} is rendered twice");
            seen.push(key);
        }
    }
}

#[test]
fn check_accepts_what_the_charts_render() {
    for case in CASES {
        let rendered = case.render();
        let dir = tempfile::tempdir().expect("a folder");
        for (path, text) in &rendered.files {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().expect("a parent")).expect("folders");
            fs::write(file, text).expect("write");
        }
        let report = check(dir.path());
        assert!(report.clean(), "{} as files:\n{report}", case.name);
        assert_eq!(report.summary.layout, Layout::Bundle);

        let stream = dir.path().join("stream");
        fs::write(&stream, rendered.stream()).expect("write");
        let one = check(&stream);
        assert!(one.clean(), "{} as one file:\n{one}", case.name);
        assert_eq!(one.summary, report.summary, "{}", case.name);

        let items: Vec<_> = case.objects().into_iter().map(|it| it.value).collect();
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items});
        fs::write(&stream, list.to_string()).expect("write");
        let listed = check(&stream);
        assert!(listed.clean(), "{} as a list:\n{listed}", case.name);
        assert_eq!(listed.summary, report.summary, "{}", case.name);
    }
    let gateway = by_name("gateway");
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("all.yaml"), gateway.render().stream()).expect("write");
    let summary = check(dir.path()).summary;
    assert_eq!(
        (summary.gateways, summary.listeners, summary.clusters),
        (1, 1, 2)
    );
}
