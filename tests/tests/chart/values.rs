//! Values: what is refused, and that file and schema know the same ones.

use std::{fs, path::Path};

use serde_json::Value;

use crate::cases::render;

#[test]
fn wrong_values_are_refused_with_their_place() {
    for (values, place) in [
        ("nod: {}", "'nod'"),
        ("node: {steering: kernel}", "/node/steering"),
        ("node: {interfaces: []}", "/node/interfaces"),
        ("node: {interfaces: null}", "interfaces"),
        ("node: {snat: 10.9.0.0/28}", "/node/snat"),
        ("node: {maxFlows: 12}", "/node/maxFlows"),
        ("node: {extraArgs: [\"--a\\n--b\"]}", "/node/extraArgs"),
        ("nodes: {a: {snatt: []}}", "'snatt'"),
        ("fleet: {leaderElect: 'yes'}", "/fleet/leaderElect"),
        ("members: {kubeconfigs: {c1: {}}}", "secretName"),
        ("members: {kubeconfigs: {../c1: {secretName: a}}}", "../c1"),
        ("manifests: {fleet: {../a.yaml: ''}}", "../a.yaml"),
        ("admin: {port: 70000}", "/admin/port"),
        ("updateStrategy: {rollingUpdate: {maxSurge: 1}}", "maxSurge"),
        ("image: {digest: latest}", "/image/digest"),
        (
            "metrics: {podMonitor: {enabled: true}}",
            "needs metrics.enabled",
        ),
        ("manifests: {enabled: true}", "needs manifests.hostPath"),
        (
            "manifests: {enabled: true, hostPath: /a, fleet: {a.yaml: ''}}",
            "give one of them",
        ),
    ] {
        match render("fleetgate", values) {
            Ok(_) => panic!("{values} was taken"),
            Err(why) => assert!(why.contains(place), "{values}: {why}"),
        }
    }
    let why = render("fleetgate-member", "token: {create: 1}").expect_err("no boolean");
    assert!(why.contains("/token/create"), "{why}");
}

fn text(path: &str) -> String {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/chart");
    fs::read_to_string(chart.join(path)).expect(path)
}

#[test]
fn file_and_schema_know_the_same_values() {
    for chart in ["fleetgate", "fleetgate-member"] {
        let values: Value =
            serde_saphyr::from_str(&text(&format!("{chart}/values.yaml"))).expect("YAML");
        let schema: Value =
            serde_json::from_str(&text(&format!("{chart}/values.schema.json"))).expect("JSON");
        let mut compared = 0;
        same(&values, &schema, &schema, chart, &mut compared);
        assert!(compared >= 3, "{chart}: {compared}");
    }
}

/// Compares the keys wherever the schema closes an object.
fn same(values: &Value, schema: &Value, root: &Value, place: &str, compared: &mut usize) {
    let schema = resolved(schema, root);
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    let written = values
        .as_object()
        .unwrap_or_else(|| panic!("{place} is no map"));
    for (key, schema) in properties.iter().filter(|(key, _)| *key != "global") {
        let value = written
            .get(key)
            .unwrap_or_else(|| panic!("{place}.{key} has no default"));
        *compared += 1;
        same(value, schema, root, &format!("{place}.{key}"), compared);
    }
    for key in written.keys() {
        assert!(
            properties.contains_key(key),
            "{place}.{key} is not in the schema"
        );
    }
}

#[test]
fn every_value_is_explained_above_it() {
    for chart in ["fleetgate", "fleetgate-member"] {
        let schema: Value =
            serde_json::from_str(&text(&format!("{chart}/values.schema.json"))).expect("JSON");
        let mut leaves = Vec::new();
        leaf_paths(&schema, &schema, "", &mut leaves);
        let mut path: Vec<(usize, String)> = Vec::new();
        let mut above = String::new();
        for line in text(&format!("{chart}/values.yaml")).lines() {
            let indent = line.len() - line.trim_start().len();
            if let Some((key, _)) = line.trim_start().split_once(':')
                && !key.starts_with(['#', '-'])
            {
                path.retain(|(at, _)| *at < indent);
                path.push((indent, key.to_owned()));
                let names: String = path.iter().map(|(_, key)| format!("/{key}")).collect();
                if let Some(at) = leaves.iter().position(|leaf| *leaf == names) {
                    leaves.swap_remove(at);
                    assert!(above.trim_start().starts_with('#'), "{chart}: {names}");
                }
            }
            line.clone_into(&mut above);
        }
        assert_eq!(leaves, [""; 0], "{chart}: not found in values.yaml");
    }
}

/// Values that the schema does not open further.
fn leaf_paths(schema: &Value, root: &Value, place: &str, leaves: &mut Vec<String>) {
    match resolved(schema, root)["properties"].as_object() {
        None => leaves.push(place.to_owned()),
        Some(properties) => {
            for (key, schema) in properties.iter().filter(|(key, _)| *key != "global") {
                leaf_paths(schema, root, &format!("{place}/{key}"), leaves);
            }
        }
    }
}

fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let schema = schema.pointer("/allOf/0").unwrap_or(schema);
    match schema["$ref"].as_str() {
        Some(reference) => root
            .pointer(reference.trim_start_matches('#'))
            .expect("defined"),
        None => schema,
    }
}
