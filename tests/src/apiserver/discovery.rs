//! What the server says it has: enough for kubectl and for discovery in client libraries.

use serde_json::{Value, json};

use super::resource::Resource;

/// The answer to a discovery path; none if this is not one. Paths of versions come without a slash at their end.
pub(super) fn answer(path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["version"] => Some(json!({
            "major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "2025-01-01T00:00:00Z", "goVersion": "go1.24", "compiler": "gc", "platform": "linux/amd64",
        })),
        ["api"] => Some(json!({
            "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [],
        })),
        ["apis"] => {
            let groups: Vec<Value> = groups().into_iter().map(group).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => groups().into_iter().find(|have| have == name).map(|name| {
            let mut group = group(name);
            group["kind"] = json!("APIGroup");
            group["apiVersion"] = json!("v1");
            group
        }),
        ["api", "v1"] => Some(resources("")),
        ["apis", name, "v1"] => groups()
            .into_iter()
            .find(|have| have == name)
            .map(resources),
        _ => None,
    }
}

fn groups() -> Vec<&'static str> {
    let mut groups: Vec<&str> = Resource::ALL
        .into_iter()
        .map(|resource| resource.traits().group)
        .collect();
    groups.retain(|group| !group.is_empty());
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn group(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

fn resources(group: &str) -> Value {
    let mut list = Vec::new();
    for resource in Resource::ALL
        .into_iter()
        .filter(|resource| resource.traits().group == group)
    {
        let traits = resource.traits();
        list.push(json!({
            "name": traits.plural, "singularName": traits.singular, "namespaced": traits.namespaced,
            "kind": traits.kind, "shortNames": traits.short,
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        }));
        if traits.status {
            list.push(json!({
                "name": format!("{}/status", traits.plural), "singularName": "", "namespaced": traits.namespaced,
                "kind": traits.kind, "verbs": ["get", "patch", "update"],
            }));
        }
    }
    let version = if group.is_empty() {
        "v1".to_owned()
    } else {
        format!("{group}/v1")
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": list})
}
