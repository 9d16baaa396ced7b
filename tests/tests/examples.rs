//! The examples people copy: the four scenarios of the ALB multi-cluster gateway.

use std::path::Path;

use gateway_user::{
    check::check,
    ir::{Group, Ir, Listener, Rule, SteeringMode, matching::PlainRequest},
};

fn listener(example: &str) -> (Ir, Listener) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/examples")
        .join(example);
    let report = check(&dir);
    assert!(report.clean(), "{example}:\n{report}");
    let mut listeners = report.ir.listeners.values();
    let (Some(listener), None) = (listeners.next(), listeners.next()) else {
        panic!("{example} has one listener")
    };
    assert_eq!(
        listener.name.to_string().split('/').next(),
        Some("mcg:8001")
    );
    let listener = Listener::clone(listener);
    (report.ir, listener)
}

/// Share of cluster c1 and pods of each cluster that get traffic.
fn share(ir: &Ir, rule: &Rule) -> (f64, usize, usize) {
    let name = rule.only_group();
    let group: &Group = &ir.groups[name.expect("a rule with one group")];
    let weight = |id: &str| -> u64 {
        let backends = group
            .backends
            .iter()
            .filter(|backend| &*backend.cluster.0 == id);
        backends.map(|backend| u64::from(backend.weight)).sum()
    };
    let pods = |id: &str| {
        group
            .backends
            .iter()
            .filter(|backend| &*backend.cluster.0 == id)
            .count()
    };
    let (c1, c2) = (weight("c1") as f64, weight("c2") as f64);
    (c1 / (c1 + c2), pods("c1"), pods("c2"))
}

#[test]
fn by_default_clusters_share_by_ready_pods() {
    let (ir, listener) = listener("default");
    assert_eq!(listener.steering.mode, SteeringMode::Connection);
    assert_eq!(share(&ir, &listener.rules[0]), (0.4, 2, 3));
}

#[test]
fn a_single_cluster_takes_everything() {
    let (ir, listener) = listener("single-cluster");
    assert_eq!(listener.steering.mode, SteeringMode::Connection);
    assert_eq!(share(&ir, &listener.rules[0]), (1.0, 2, 0));
}

#[test]
fn a_header_sends_to_its_cluster_and_all_others_to_the_base() {
    let (ir, listener) = listener("header");
    assert_eq!(listener.steering.mode, SteeringMode::Request);
    assert_eq!(
        listener.steering.reason,
        r#"rule 1 (gateway-demo/gray) reads the header "stage""#
    );
    let meet = |stage: Option<&'static str>| {
        let line = stage.map(|stage| ("stage".to_owned(), stage.to_owned()));
        let headers: Vec<(String, String)> = line.into_iter().collect();
        listener
            .first_match(&PlainRequest {
                host: Some("any.example.com:8001"),
                method: "GET",
                path: "/x",
                headers: &headers,
                ..PlainRequest::default()
            })
            .map(|at| &listener.rules[at])
            .map(|rule| (rule.ingress.to_string(), share(&ir, rule)))
    };
    assert_eq!(
        meet(Some("gray")),
        Some(("gateway-demo/gray".to_owned(), (0.0, 0, 3)))
    );
    assert_eq!(
        meet(Some("blue")),
        Some(("gateway-demo/base".to_owned(), (1.0, 2, 0)))
    );
    assert_eq!(
        meet(None),
        Some(("gateway-demo/base".to_owned(), (1.0, 2, 0)))
    );
}

#[test]
fn weights_split_whatever_the_pods() {
    let (ir, listener) = listener("weighted");
    assert_eq!(listener.steering.mode, SteeringMode::Connection);
    let (c1, one, two) = share(&ir, &listener.rules[0]);
    assert!((c1 - 0.6).abs() < 1e-6, "{c1}");
    assert_eq!((one, two), (2, 3));
}
