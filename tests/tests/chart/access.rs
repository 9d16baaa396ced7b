//! What the rendered roles grant, to whom.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cases::{CASES, by_name};

/// `Role namespace/name: group/resource[name] verb` of every rule.
fn grants(case: &str) -> BTreeSet<String> {
    let strings = |value: &Value| -> Vec<String> {
        let list = value.as_array().cloned().unwrap_or_default();
        list.iter()
            .filter_map(|it| it.as_str().map(str::to_owned))
            .collect()
    };
    let mut grants = BTreeSet::new();
    for object in by_name(case).objects() {
        if !object.is("ClusterRole") && !object.is("Role") {
            continue;
        }
        let role = &object.value;
        let at = role["metadata"]["namespace"].as_str().unwrap_or("*");
        for rule in role["rules"].as_array().expect("rules") {
            assert!(rule.get("nonResourceURLs").is_none(), "{rule}");
            let names = match strings(&rule["resourceNames"]).join(",") {
                names if names.is_empty() => names,
                names => format!("[{names}]"),
            };
            for group in strings(&rule["apiGroups"]) {
                for resource in strings(&rule["resources"]) {
                    for verb in strings(&rule["verbs"]) {
                        grants.insert(format!("{at}: {group}/{resource}{names} {verb}"));
                    }
                }
            }
        }
    }
    grants
}

fn each(at: &str, resource: &str, verbs: &[&str]) -> Vec<String> {
    let grant = |verb: &&str| format!("{at}: {resource} {verb}");
    verbs.iter().map(grant).collect()
}

fn fleet() -> BTreeSet<String> {
    let read = ["get", "list", "watch"];
    [
        each("*", "networking.k8s.io/ingresses", &read),
        each("*", "networking.k8s.io/ingressclasses", &read),
        each("*", "alibabacloud.com/albconfigs", &read),
        each("*", "networking.k8s.io/ingresses/status", &["patch"]),
        each("*", "alibabacloud.com/albconfigs/status", &["patch"]),
        each("*", "events.k8s.io/events", &["create", "patch"]),
    ]
    .concat()
    .into_iter()
    .collect()
}

fn leader() -> BTreeSet<String> {
    let named = "coordination.k8s.io/leases[fleetgate-status]";
    [
        each(
            "fleetgate-system",
            "coordination.k8s.io/leases",
            &["create"],
        ),
        each("fleetgate-system", named, &["get", "patch", "update"]),
    ]
    .concat()
    .into_iter()
    .collect()
}

#[test]
fn roles_grant_exactly_what_the_agent_needs() {
    let secrets = |at: &str, verbs: &[&str]| -> BTreeSet<String> {
        each(at, "/secrets", verbs).into_iter().collect()
    };
    let read = ["get", "list", "watch"];
    let always = &fleet() | &leader();
    let usual = &always | &secrets("fleetgate-system", &read);
    assert_eq!(grants("defaults"), usual);
    assert_eq!(
        grants("cluster_secrets"),
        &always | &secrets("fleetgate-clusters", &read)
    );
    assert_eq!(grants("cluster_files"), fleet());
    assert_eq!(
        grants("tls_secrets"),
        &usual | &secrets("*", &["list", "watch"])
    );
    for none in [
        "no_rbac",
        "manifests",
        "manifests_of_the_node",
        "remote_fleet",
    ] {
        assert_eq!(grants(none), BTreeSet::new(), "{none}");
    }
    let member: BTreeSet<_> = [
        each("*", "/services", &read),
        each("*", "discovery.k8s.io/endpointslices", &read),
    ]
    .concat()
    .into_iter()
    .collect();
    assert_eq!(grants("member"), member);
    assert_eq!(grants("member_without_token"), member);
}

#[test]
fn every_role_is_bound_to_the_account_of_the_pods_and_to_nobody_else() {
    for case in CASES {
        let objects = case.objects();
        let text = |value: &Value, pointer: &str| {
            let text = value.pointer(pointer).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let account = objects.iter().find_map(|it| {
            let name = |pointer| text(&it.value, pointer);
            match it.value["kind"].as_str() {
                Some("DaemonSet") => Some(name("/spec/template/spec/serviceAccountName")),
                Some("ServiceAccount") if case.chart == "fleetgate-member" => {
                    Some(name("/metadata/name"))
                }
                _ => None,
            }
        });
        let account = account.expect("an account");
        let mut bound = BTreeSet::new();
        for object in objects
            .iter()
            .filter(|it| it.is("RoleBinding") || it.is("ClusterRoleBinding"))
        {
            let it = &object.value;
            let subjects = it["subjects"].as_array().expect("subjects");
            assert_eq!(subjects.len(), 1, "{}", object.text);
            assert_eq!(text(it, "/subjects/0/kind"), "ServiceAccount");
            assert_eq!(text(it, "/subjects/0/name"), account);
            assert_eq!(text(it, "/subjects/0/namespace"), "fleetgate-system");
            assert_eq!(
                text(it, "/kind"),
                format!("{}Binding", text(it, "/roleRef/kind"))
            );
            bound.insert((
                text(it, "/roleRef/kind"),
                text(it, "/metadata/namespace"),
                text(it, "/roleRef/name"),
            ));
        }
        let roles: BTreeSet<_> = objects
            .iter()
            .filter(|it| it.is("Role") || it.is("ClusterRole"))
            .map(|it| {
                let name = |pointer| text(&it.value, pointer);
                (
                    name("/kind"),
                    name("/metadata/namespace"),
                    name("/metadata/name"),
                )
            })
            .collect();
        assert_eq!(bound, roles, "{}", case.name);
    }
}
