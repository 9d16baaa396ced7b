//! What is said about broken manifests: each sentence names the object, the field and what to do.

use std::{fs, path::Path};

use gateway_user::check::check;

/// Case of `broken/`, then object, field, and words of the message and of the remedy of one of its problems.
const CASES: &[(&str, &str, &str, &str, &str)] = &[
    (
        "action_unknown",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/actions.web][0].type",
        "unknown action type `Teleport`",
        "correct the spelling",
    ),
    (
        "actions_incomplete",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/actions.web][0].FixedResponseConfig",
        "is missing",
        "write `{",
    ),
    (
        "addresses_bad",
        "AlbConfig mcg",
        "metadata.annotations[fleetgate.io/addresses]",
        "`10.0.0.300` is not an address",
        "write IP addresses",
    ),
    (
        "albconfig_missing",
        "Ingress demo/web",
        "spec.ingressClassName",
        "AlbConfig `mcg` does not exist",
        "create the AlbConfig",
    ),
    (
        "annotation_is_a_number",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/order]",
        "integer `5`, expected a string",
        "in quotes",
    ),
    (
        "binary_junk",
        "File fleet/ingress.yaml",
        "content",
        "is not UTF-8",
        "write the file as UTF-8",
    ),
    (
        "canary_weight",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/canary-weight]",
        "`many` is not a weight",
        "from 0 (nothing) to 100",
    ),
    (
        "class_missing",
        "Ingress demo/web",
        "spec.ingressClassName",
        "IngressClass `alb` does not exist",
        "create the IngressClass",
    ),
    (
        "class_without_parameters",
        "Ingress demo/web",
        "spec.ingressClassName",
        "no parameters",
        "set spec.parameters",
    ),
    (
        "conditions_bad_json",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/conditions.web]",
        "is not valid JSON",
        r#"write `[{"type": "Header""#,
    ),
    (
        "conditions_deep_json",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/conditions.web]",
        "recursion limit exceeded",
        r#"write `[{"type": "Header""#,
    ),
    (
        "conditions_object",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/conditions.web]",
        "is not a JSON array",
        r#"write `[{"type": "Header""#,
    ),
    (
        "conditions_unknown_type",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/conditions.web][0].type",
        "unknown condition type `Moon`",
        "correct the spelling",
    ),
    (
        "cors_origin",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/cors-allow-origin]",
        "`example.com` cannot be allowed",
        "such as `https://",
    ),
    (
        "deep_nesting",
        "File fleet/ingress.yaml",
        "line 1",
        "recursion limit exceeded",
        "correct this document",
    ),
    (
        "direction_spelt",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/rule-direction.web]",
        "`response` is not a direction",
        "with a capital letter",
    ),
    (
        "duplicate_key",
        "File fleet/a.yaml",
        "line 16",
        "key `ingressClassName` is written twice",
        "correct this document",
    ),
    (
        "duplicate_name",
        "Ingress demo/web",
        "metadata.name",
        "fleet/a.yaml and in fleet/b.yaml; the first one serves",
        "rename one of them",
    ),
    (
        "endpoint_address",
        "EndpointSlice demo/web-a (cluster c1)",
        "endpoints[0].addresses",
        "`pod-1.local` is not an IPv4 address",
        "write the address of the pod",
    ),
    (
        "family_missing",
        "Ingress demo/web",
        "spec.rules[0].http.paths[0].backend.service.name",
        "has an IPv6 address, so clients of 2001:db8::1 get nothing",
        "give the Service the address family IPv6",
    ),
    (
        "host_with_port",
        "Ingress demo/web",
        "spec.rules[0].host",
        "`shop.example.com:8001` is not a host name",
        "without port",
    ),
    (
        "ingress_on_member",
        "Ingress demo/web (cluster c1)",
        "metadata",
        "clusters/c1/ingress.yaml is not read",
        "move it to `fleet/`",
    ),
    (
        "l4_conditions",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/conditions.web]",
        "which listeners of protocol TCP do not",
        "spec.defaultBackend of an Ingress of its own",
    ),
    (
        "l4_other_protocol",
        "Ingress demo/web",
        "spec.defaultBackend.service.port",
        "has no UDP port 80",
        "use a port of the Service (it has 80",
    ),
    (
        "l4_rules",
        "Ingress demo/web",
        "spec.rules",
        "read hosts and paths, which listeners of protocol TCP do not",
        "spec.defaultBackend of an Ingress of its own",
    ),
    (
        "l4_shared_port",
        "AlbConfig mcg",
        "spec.listeners[1].port",
        "HTTP 5432 and TCP 5432 (spec.listeners[0]) cannot share a port",
        "another port",
    ),
    (
        "limit_zero",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/traffic-limit-qps]",
        "`0` is no number of requests",
        "write an integer from 1",
    ),
    (
        "listen_ports_bad",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/listen-ports][0].HTTP",
        r#"`"8001"` is not a port"#,
        "without quotes",
    ),
    (
        "listener_acl",
        "AlbConfig mcg",
        "spec.listeners[0].aclConfig.aclIds",
        "left out rather than open to everyone",
        "write the networks themselves",
    ),
    (
        "listener_missing",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/listen-ports]",
        "no HTTP listener on port 9999",
        "add `- port: 9999`",
    ),
    (
        "listener_not_served",
        "AlbConfig mcg",
        "spec.listeners[0].certificates",
        "HTTPS 8001 has no certificate",
        "name a Secret here as `CertificateId: namespace/name`",
    ),
    (
        "listener_port",
        "AlbConfig mcg",
        "spec.listeners[0].port",
        "`70000` is not a port",
        "write 1 to 65535",
    ),
    (
        "listener_protocol",
        "AlbConfig mcg",
        "spec.listeners[0].protocol",
        "unknown protocol `http`",
        "in capitals",
    ),
    (
        "listener_timeout",
        "AlbConfig mcg",
        "spec.listeners[0].idleTimeout",
        "3600 s is out of range",
        "write 1 to 60 seconds",
    ),
    (
        "misplaced_file",
        "File ingress.yaml",
        "path",
        "is not read",
        "move it to `fleet/`",
    ),
    (
        "no_kind",
        "File fleet/values.yaml",
        "document at line 1",
        "has no `kind`",
        "write the kind",
    ),
    (
        "no_name",
        "File fleet/ingress.yaml",
        "document at line 1: metadata.name",
        "Ingress has no name",
        "use 1 to 253",
    ),
    (
        "not_yaml",
        "File fleet/ingress.yaml",
        "line 2",
        "mapping values are not allowed",
        "correct this document",
    ),
    (
        "nul_bytes",
        "File fleet/ingress.yaml",
        "content",
        "byte 14 is NUL",
        "write the file as UTF-8",
    ),
    (
        "old_api_version",
        "Ingress demo/web",
        "apiVersion",
        "`extensions/v1beta1` is not read",
        "apiVersion: networking.k8s.io/v1",
    ),
    (
        "order_bad",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/order]",
        "`first` is not an order",
        "from 1 to 1000",
    ),
    (
        "path_type_unknown",
        "Ingress demo/web",
        "spec.rules[0].http.paths[0].pathType",
        "unknown path type `Regex`",
        "use Exact, Prefix",
    ),
    (
        "path_wildcard",
        "Ingress demo/web",
        "spec.rules[0].http.paths[0].path",
        "`/api/*` holds a wildcard",
        "leave the wildcard out",
    ),
    (
        "regex_unclosed",
        "Ingress demo/web",
        "spec.rules[0].http.paths[0].path",
        "unclosed group",
        "without look-around",
    ),
    (
        "rules_is_text",
        "Ingress demo/web",
        "spec.rules",
        "expected a sequence",
        "correct the type",
    ),
    (
        "scheduler_unknown",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/backend-scheduler]",
        "unknown scheduler `random`",
        "write wrr, wlc, sch or uch",
    ),
    (
        "service_missing",
        "Ingress demo/web",
        "spec.rules[0].http.paths[0].backend.service.name",
        "demo/shop is in no cluster",
        "create the Service",
    ),
    (
        "service_port_missing",
        "Ingress demo/web",
        "spec.rules[0].http.paths[0].backend.service.port",
        "in cluster c2 has no TCP port 8443",
        "use a port of the Service (it has 80",
    ),
    (
        "service_port_zero",
        "Ingress demo/web",
        "spec.rules[0].http.paths[0].backend.service.port",
        "`0` is not a port",
        "from 1 to 65535",
    ),
    (
        "tab_indent",
        "File fleet/ingress.yaml",
        "line 3",
        "tabs disallowed",
        "correct this document",
    ),
    (
        "two_finals",
        "Ingress demo/web",
        "spec.rules[0].http.paths[0].backend.service.port",
        "`actions` has a final action",
        "use-annotation",
    ),
    (
        "weight_not_a_number",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/cluster-weight.c1]",
        "`sixty` is not a weight",
        "from 0 to 100",
    ),
    (
        "weight_of_unknown_cluster",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/cluster-weight.c7]",
        "cluster `c7` does not belong",
        "correct the ID",
    ),
    (
        "weight_too_large",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/cluster-weight.c1]",
        "`101` is not a weight",
        "from 0 to 100",
    ),
    (
        "weights_sum",
        "Ingress demo/web",
        "metadata.annotations[alb.ingress.kubernetes.io/cluster-weight.*]",
        "c1=60, c2=30 sum up to 90, not 100",
        "sum up to 100",
    ),
    (
        "yaml_bomb",
        "File fleet/ingress.yaml",
        "line 5",
        "aliases expand to more than is read",
        "correct this document",
    ),
];

#[test]
fn every_broken_case_names_object_field_and_remedy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("broken");
    let mut folders: Vec<_> = fs::read_dir(&root)
        .expect("broken/")
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    folders.sort();
    let mut told: Vec<_> = CASES.iter().map(|case| case.0.to_owned()).collect();
    told.sort();
    assert_eq!(
        folders, told,
        "every folder of broken/ has a row here, and the other way round"
    );
    for (case, object, field, message, remedy) in CASES {
        let report = check(&root.join(case));
        let found = report.problems.iter().any(|problem| {
            problem.object.to_string() == *object
                && problem.field == *field
                && problem.message.contains(message)
                && problem.remedy.contains(remedy)
        });
        assert!(
            found,
            "{case}: nothing says {object}: {field}: ..{message}..; ..{remedy}.. but:\n{report}"
        );
    }
}

#[test]
fn a_file_of_ten_megabytes_is_named_and_not_read() {
    let dir = tempfile::tempdir().expect("temp dir");
    fs::create_dir_all(dir.path().join("fleet")).expect("mkdir");
    fs::create_dir_all(dir.path().join("clusters")).expect("mkdir");
    fs::write(dir.path().join("fleet/big.yaml"), "a: b\n".repeat(2 << 20)).expect("write");
    let report = check(dir.path());
    assert_eq!(report.problems.len(), 1, "{report}");
    assert_eq!(
        report.problems[0].to_string(),
        "File fleet/big.yaml: content: the file has 10485760 bytes, more than the 1048576 that are read; \
         make it a readable file of at most 1 MiB; objects it held before keep serving until then"
    );
}

#[test]
fn a_directory_that_does_not_exist_is_named() {
    let report = check(Path::new("/nonexistent/manifests"));
    assert_eq!(report.problems.len(), 1, "{report}");
    assert!(
        report.problems[0]
            .message
            .contains("/nonexistent/manifests cannot be read"),
        "{report}"
    );
    assert!(
        report.problems[0].remedy.contains("name a directory"),
        "{report}"
    );
}
