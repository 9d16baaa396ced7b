//! The DaemonSet, and what finds its pods.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use clap::Parser;
use gateway_user::{
    check::{Layout, check},
    cli::args::{Cli, Command as Asked},
};
use serde_json::{Value, json};

use crate::cases::{Case, by_name, render};

fn pod(case: &Case) -> Value {
    case.one("DaemonSet")["spec"]["template"].clone()
}

#[test]
fn service_and_monitor_find_the_pods_and_their_port() {
    let case = by_name("metrics");
    let (service, monitor) = (case.one("Service"), case.one("PodMonitor"));
    let daemon = case.one("DaemonSet");
    let pod = pod(case);
    let labels = pod["metadata"]["labels"].as_object().expect("labels");
    for selector in [
        &daemon["spec"]["selector"]["matchLabels"],
        &service["spec"]["selector"],
        &monitor["spec"]["selector"]["matchLabels"],
    ] {
        let selector = selector.as_object().expect("a selector");
        assert!(
            selector.contains_key("app.kubernetes.io/instance"),
            "{selector:?}"
        );
        for (key, value) in selector {
            assert_eq!(labels.get(key), Some(value), "{key}");
        }
    }
    let port = &pod["spec"]["containers"][0]["ports"][0];
    assert_eq!(port["containerPort"], 9621);
    assert_eq!(port["hostPort"], port["containerPort"]);
    assert_eq!(service["spec"]["ports"][0]["targetPort"], port["name"]);
    assert_eq!(service["spec"]["ports"][0]["port"], port["containerPort"]);
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["port"], port["name"]);
    assert_eq!(endpoint["path"], "/metrics");
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(
        monitor["spec"]["namespaceSelector"]["matchNames"],
        json!([daemon["metadata"]["namespace"]])
    );
}

#[test]
fn the_admin_port_leaves_loopback_only_for_metrics() {
    let address = |case: &str| {
        let container = pod(by_name(case))["spec"]["containers"][0].clone();
        let env = container["env"].as_array().cloned().unwrap_or_default();
        let ip = env
            .into_iter()
            .find(|it| it["name"] == "ADMIN_IP")
            .expect("ADMIN_IP");
        let probes = ["startupProbe", "livenessProbe", "readinessProbe"]
            .map(|probe| container[probe]["httpGet"]["host"].clone());
        (ip, probes)
    };
    let (ip, probes) = address("defaults");
    assert_eq!(ip["value"], "127.0.0.1");
    assert_eq!(
        probes,
        ["127.0.0.1", "127.0.0.1", "127.0.0.1"].map(Value::from)
    );
    let (ip, probes) = address("metrics");
    assert_eq!(ip["valueFrom"]["fieldRef"]["fieldPath"], "status.hostIP");
    assert_eq!(probes, [Value::Null, Value::Null, Value::Null]);
}

#[test]
fn pods_are_privileged_only_where_some_node_has_no_pool() {
    let context = |values: &str| {
        let rendered = render("fleetgate", values).expect("valid values");
        let text = &rendered.files["fleetgate/templates/daemonset.yaml"];
        let daemon: Value = serde_saphyr::from_str(text).expect("YAML");
        daemon["spec"]["template"]["spec"]["containers"][0]["securityContext"].clone()
    };
    assert_eq!(context("")["privileged"], true);
    assert_eq!(
        context("node: {snat: [10.9.0.0/28]}\nnodes: {a: {snat: []}}")["privileged"],
        true
    );
    assert_eq!(
        context("nodes: {a: {snat: [10.9.0.0/28]}}")["privileged"],
        true
    );
    let pool = context("node: {snat: [10.9.0.0/28]}\nnodes: {a: {interfaces: [eth1]}}");
    assert_eq!(pool["privileged"], false);
    assert_eq!(pool["allowPrivilegeEscalation"], false);
    assert_eq!(pool["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(
        pool["capabilities"]["add"],
        json!(["BPF", "NET_ADMIN", "PERFMON"])
    );
    let forced = context("securityContext: {privileged: false}");
    assert_eq!(forced["privileged"], false);
    let forced = context("node: {snat: [10.9.0.0/28]}\nsecurityContext: {privileged: true}");
    assert_eq!(forced["privileged"], true);
}

#[test]
fn a_token_is_mounted_only_for_a_fleet_that_is_this_cluster() {
    for (case, token) in [
        ("defaults", true),
        ("remote_fleet", false),
        ("manifests", false),
    ] {
        let spec = pod(by_name(case))["spec"].clone();
        assert_eq!(spec["automountServiceAccountToken"], token, "{case}");
    }
}

/// Arguments that the container's own script gives to the agent on a node.
fn arguments(case: &Case, node: &str, env: &[(&str, &str)]) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a folder");
    let config = case.objects().into_iter().find(|it| {
        let name = it.value["metadata"]["name"].as_str().unwrap_or_default();
        it.is("ConfigMap") && name.ends_with("-arguments")
    });
    let config = config.expect("the arguments").value;
    let folder = dir.path().join("arguments");
    fs::create_dir(&folder).expect("folder");
    for (key, text) in config["data"].as_object().expect("data") {
        fs::write(folder.join(key), text.as_str().expect("text")).expect("write");
    }
    let agent = dir.path().join("fleetgate");
    fs::write(&agent, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n").expect("write");
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).expect("mode");
    let container = pod(case)["spec"]["containers"][0].clone();
    let command: Vec<&str> = ["command", "args"]
        .iter()
        .flat_map(|field| container[field].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    let [shell, flags, script] = command[..] else {
        panic!("{command:?}")
    };
    let script = script.replace("/etc/fleetgate/arguments", &folder.display().to_string());
    let out = Command::new(shell)
        .args([flags, &script])
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()))
        .env("NODE_NAME", node)
        .envs(env.iter().copied())
        .output()
        .expect("a shell");
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8(out.stdout).expect("text");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn each_node_starts_its_agent_with_its_own_arguments() {
    let case = by_name("nodes");
    let loopback = ("ADMIN_IP", "127.0.0.1");
    let usual = [
        "run",
        "--fleet=in-cluster",
        "--cluster-secrets=fleetgate-system",
        "--leader-elect",
        "--interface=eth0",
    ];
    let common = arguments(case, "gw-1", &[loopback]);
    assert_eq!(common[..5], usual);
    assert_eq!(
        common[5..],
        [
            "--snat=10.9.0.0/28",
            "--steering=auto",
            "--xdp=auto",
            "--admin=127.0.0.1:9620"
        ]
    );
    let own = arguments(case, "gw-2", &[loopback]);
    assert_eq!(own[..5], usual);
    assert_eq!(
        own[5..],
        [
            "--interface=eth1",
            "--steering=auto",
            "--xdp=auto",
            "--sample-every=7",
            "--admin=127.0.0.1:9620"
        ]
    );
    let odd = [
        ("ADMIN_IP", "fd00::1"),
        ("RING_SECRET", "two words; $(id) *"),
    ];
    let six = arguments(by_name("remote_fleet"), "gw-1", &odd);
    let end = ["--admin=[fd00::1]:9620", "--ring-secret=two words; $(id) *"];
    assert_eq!(six[six.len() - 2..], end);
}

#[test]
fn the_agent_understands_the_arguments_that_it_is_given() {
    let case = by_name("manifests");
    let given = arguments(case, "gw-1", &[("ADMIN_IP", "fd00::1")]);
    let cli = Cli::try_parse_from(["fleetgate".to_owned()].into_iter().chain(given));
    match cli.map(|cli| cli.command) {
        Ok(Asked::Run(run)) => assert_eq!(run.admin.to_string(), "[fd00::1]:9620"),
        other => panic!("{other:?}"),
    }
    for fleet in [
        "defaults",
        "cluster_secrets",
        "cluster_files",
        "remote_fleet",
        "metrics",
    ] {
        let given = arguments(by_name(fleet), "gw-1", &[("ADMIN_IP", "192.0.2.1")]);
        let cli = Cli::try_parse_from(["fleetgate".to_owned()].into_iter().chain(given));
        match cli.map(|cli| cli.command) {
            Ok(Asked::Run(run)) => assert!(run.fleet.is_some(), "{fleet}: {run:?}"),
            other => panic!("{fleet}: {other:?}"),
        }
    }
}

#[test]
fn manifests_among_the_values_are_a_manifest_directory_in_the_pod() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/weighted");
    let texts = |folder: &str| -> Value {
        let entries = fs::read_dir(example.join(folder)).expect("folder");
        let text = |entry: fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read_to_string(entry.path()).expect("text").into())
        };
        entries
            .map(|entry| text(entry.expect("entry")))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let values = json!({"manifests": {"enabled": true, "fleet": texts("fleet"),
        "clusters": {"c1": texts("clusters/c1"), "c2": texts("clusters/c2")}}});
    let rendered = render("fleetgate", &values.to_string()).expect("valid values");
    let maps: Vec<Value> = rendered.files["fleetgate/templates/configmap.yaml"]
        .split("\n---\n")
        .map(|text| serde_saphyr::from_str(text).expect("YAML"))
        .collect();
    let daemon: Value =
        serde_saphyr::from_str(&rendered.files["fleetgate/templates/daemonset.yaml"])
            .expect("YAML");
    let volumes = daemon["spec"]["template"]["spec"]["volumes"]
        .as_array()
        .expect("volumes");
    let volume = volumes
        .iter()
        .find(|it| it["name"] == "manifests")
        .expect("manifests");
    // As the kubelet lays out a projected volume.
    let dir = tempfile::tempdir().expect("a folder");
    for source in volume["projected"]["sources"].as_array().expect("sources") {
        let source = &source["configMap"];
        let map = maps
            .iter()
            .find(|it| it["metadata"]["name"] == source["name"])
            .expect("its map");
        for item in source["items"].as_array().expect("items") {
            let file = dir.path().join(item["path"].as_str().expect("path"));
            fs::create_dir_all(file.parent().expect("parent")).expect("folders");
            let text = &map["data"][item["key"].as_str().expect("key")];
            fs::write(file, text.as_str().expect("text")).expect("write");
        }
    }
    let report = check(dir.path());
    assert!(report.clean(), "{report}");
    assert_eq!(report.summary.layout, Layout::Folders);
    assert_eq!((report.summary.listeners, report.summary.clusters), (1, 2));
}
