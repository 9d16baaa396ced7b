//! Which pods serve: readiness, termination, health checks and weights of clusters together.

use super::*;
use crate::ir::{Affinity, Probe, ProbeFailure, Verdicts, build_judged};

const CHECKED: &str = ", alb.ingress.kubernetes.io/healthcheck-enabled: \"true\"";
const READY: &str = "";
const UNREADY: &str = ", conditions: {ready: false}";
/// As a pod that shuts down, and still answers.
const LEAVING: &str = ", conditions: {ready: false, serving: true, terminating: true}";
const LEFT: &str = ", conditions: {ready: false, serving: false, terminating: true}";

/// A fleet where Ingress `a` sends to svc-a, with endpoints 10.1.0.x in c1 and 10.2.0.x in c2.
fn fleet(annotations: &str, c1: &[&str], c2: &[&str]) -> Snapshot {
    let endpoints = |cluster: usize, conditions: &[&str]| {
        let one = |(at, more): (usize, &&str)| {
            format!("{{addresses: [10.{cluster}.0.{}]{more}}}", at + 1)
        };
        let all: Vec<_> = conditions.iter().enumerate().map(one).collect();
        member(&[]).replace("endpoints: []", &format!("endpoints: [{}]", all.join(", ")))
    };
    let file = |path: &str, text: String| File {
        path: path.to_owned(),
        content: Ok(text.as_bytes().into()),
    };
    let files = [
        file(
            "fleet/a.yaml",
            format!("{FLEET}{}", ingress("a", annotations, "/")),
        ),
        file("clusters/c1/a.yaml", endpoints(1, c1)),
        file("clusters/c2/a.yaml", endpoints(2, c2)),
    ];
    let (snapshot, problems) = snapshot([], files, Limits::default());
    assert_eq!(problems, []);
    snapshot
}

/// The group when these pods fail their checks: serving pods with their weights, idle ones, failing ones.
fn chosen(snapshot: &Snapshot, failing: &[&str]) -> (Vec<String>, Vec<String>, Vec<String>) {
    let options = Options::default();
    let good = LastGood::default();
    let trusted = build(snapshot, &good, &options);
    let mut verdicts = Verdicts::default();
    for probe in group(&trusted).probes().collect::<Vec<Probe>>() {
        if failing.contains(&probe.address.ip().to_string().as_str()) {
            verdicts.set(&probe, Some(ProbeFailure::Status(500)));
        }
    }
    let built = build_judged(snapshot, &good, &options, &verdicts);
    let group = group(&built);
    let ip = |it: &crate::ir::Backend| it.address.ip().to_string();
    let serving = |it: &crate::ir::Backend| format!("{} {}", ip(it), it.weight);
    (
        group.backends.iter().map(serving).collect(),
        group.idle.iter().map(ip).collect(),
        group.failing.iter().map(|it| ip(&it.backend)).collect(),
    )
}

fn weights(c1: u8, c2: u8) -> String {
    format!(
        "{CHECKED}, alb.ingress.kubernetes.io/cluster-weight.c1: \"{c1}\", \
         alb.ingress.kubernetes.io/cluster-weight.c2: \"{c2}\""
    )
}

#[test]
fn terminating_pods_serve_only_while_no_other_is_ready_and_only_those_that_say_so() {
    let none: Vec<String> = Vec::new();
    let leaving = fleet("", &[LEAVING, UNREADY, LEFT], &[LEAVING]);
    let (serving, idle, _) = chosen(&leaving, &[]);
    assert_eq!(serving, ["10.1.0.1 1000000", "10.2.0.1 1000000"]);
    assert_eq!(idle, ["10.1.0.2", "10.1.0.3"]);
    let one_ready = fleet("", &[LEAVING, UNREADY], &[READY]);
    let (serving, idle, _) = chosen(&one_ready, &[]);
    assert_eq!(serving, ["10.2.0.1 1000000"]);
    assert_eq!(idle, ["10.1.0.1", "10.1.0.2"]);
    let (serving, idle, _) = chosen(&fleet("", &[LEFT, UNREADY], &[]), &[]);
    assert_eq!(
        (serving, idle),
        (none, vec!["10.1.0.1".into(), "10.1.0.2".into()])
    );
}

#[test]
fn a_pod_that_fails_gets_nothing_and_its_share_goes_to_the_others_of_its_cluster() {
    let snapshot = fleet(&weights(60, 40), &[READY, READY, READY], &[READY]);
    let (serving, idle, failing) = chosen(&snapshot, &["10.1.0.2"]);
    assert_eq!(
        serving,
        [
            "10.1.0.1 30000000",
            "10.1.0.3 30000000",
            "10.2.0.1 40000000"
        ]
    );
    assert_eq!((idle.len(), failing), (0, vec!["10.1.0.2".to_owned()]));
}

#[test]
fn a_cluster_whose_pods_all_fail_is_left_for_the_others_and_only_when_all_fail_all_serve() {
    let snapshot = fleet(&weights(60, 40), &[READY, READY], &[READY]);
    let (serving, ..) = chosen(&snapshot, &["10.1.0.1", "10.1.0.2"]);
    assert_eq!(serving, ["10.2.0.1 40000000"]);
    let (serving, _, failing) = chosen(&snapshot, &["10.1.0.1", "10.1.0.2", "10.2.0.1"]);
    assert_eq!(
        serving,
        [
            "10.1.0.1 30000000",
            "10.1.0.2 30000000",
            "10.2.0.1 40000000"
        ]
    );
    assert_eq!(failing.len(), 3);
}

#[test]
fn failing_pods_never_spill_to_a_cluster_of_weight_zero_which_is_not_probed() {
    let snapshot = fleet(&weights(100, 0), &[READY], &[READY]);
    let (serving, idle, failing) = chosen(&snapshot, &["10.1.0.1", "10.2.0.1"]);
    assert_eq!(serving, ["10.1.0.1 100000000"]);
    assert_eq!(
        (idle, failing),
        (vec!["10.2.0.1".to_owned()], vec!["10.1.0.1".to_owned()])
    );
}

#[test]
fn who_failed_is_known_again_from_the_routing_model_alone() {
    let snapshot = fleet(&weights(60, 40), &[READY, READY], &[READY]);
    let (options, good) = (Options::default(), LastGood::default());
    for failing in [1, 3] {
        let trusted = build(&snapshot, &good, &options);
        let mut verdicts = Verdicts::default();
        for probe in group(&trusted).probes().take(failing) {
            verdicts.set(&probe, Some(ProbeFailure::Timeout));
        }
        let built = build_judged(&snapshot, &good, &options, &verdicts);
        assert_eq!(Verdicts::of(&built.ir), verdicts, "{failing}");
    }
}

#[test]
fn affinity_lasts_as_long_as_the_service_says_and_three_hours_otherwise() {
    let lasting = |spec: &str| {
        let text = member(&["10.1.0.1"]).replace("spec: {ports", &format!("spec: {{{spec}, ports"));
        let files = [
            ("fleet/a.yaml", format!("{FLEET}{}", ingress("a", "", "/"))),
            ("clusters/c1/a.yaml", text),
        ];
        let files = files.map(|(path, text)| File {
            path: path.to_owned(),
            content: Ok(text.as_bytes().into()),
        });
        let (snapshot, problems) = snapshot([], files, Limits::default());
        assert_eq!(problems, []);
        let built = build(&snapshot, &LastGood::default(), &Options::default());
        let group = group(&built);
        let warned = built
            .problems
            .iter()
            .any(|it| it.field.contains("timeoutSeconds"));
        (group.affinity, group.affinity_seconds, warned)
    };
    let by_client = Affinity::ClientIp;
    assert_eq!(lasting("sessionAffinity: None"), (Affinity::None, 0, false));
    assert_eq!(
        lasting("sessionAffinity: ClientIP"),
        (by_client, 10_800, false)
    );
    let config = |seconds| {
        format!(
            "sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}"
        )
    };
    assert_eq!(lasting(&config(60)), (by_client, 60, false));
    assert_eq!(lasting(&config(86_401)), (by_client, 10_800, true));
    assert_eq!(lasting(&config(-1)), (by_client, 10_800, true));
}
