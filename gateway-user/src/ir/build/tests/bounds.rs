//! What one object may cost.

use super::*;
use crate::problem::Severity;

/// 300 paths, each on the HTTP ports from 9000 on.
fn wide(ports: u32) -> String {
    let ports: Vec<_> = (9000..9000 + ports)
        .map(|port| format!(r#"{{"HTTP": {port}}}"#))
        .collect();
    let path = "{path: /, pathType: Prefix, backend: {service: {name: svc, port: {number: 80}}}}";
    ingress("a", "", "/")
        .replace(r#"[{"HTTP": 8001}]"#, &format!("[{}]", ports.join(", ")))
        .replace(
            &format!("[{path}]"),
            &format!("[{}]", [path; 300].join(", ")),
        )
}

fn compiled(ingress: &str) -> Built {
    compile(format!("{FLEET}{ingress}"), &LastGood::default())
}

#[test]
fn many_ports_of_one_ingress_are_one_error() {
    let built = compiled(&wide(3000));
    assert_eq!(built.problems.len(), 1, "{:?}", built.problems);
    assert_eq!(built.problems[0].severity, Severity::Error);
    assert!(built.problems[0].message.contains("more than 50 ports"));
    assert!(listener(&built).rules.is_empty());
}

#[test]
fn a_port_without_listener_is_told_once_for_all_paths() {
    assert_eq!(compiled(&wide(3)).problems.len(), 3);
}

#[test]
fn notes_of_one_object_are_capped_and_the_last_says_how_many_more() {
    let problems = compiled(&wide(50)).problems;
    assert_eq!(problems.len(), 21);
    let last = problems[20].to_string();
    assert!(last.contains("status: 30 more problems"), "{last}");
}

#[test]
fn an_error_is_shown_however_many_warnings_come_before_it() {
    let annotations: String = (0..40)
        .map(|index| format!(", alb.ingress.kubernetes.io/unknown-{index}: x"))
        .collect();
    let problems = compiled(&ingress("a", &format!("{annotations}{BAD}"), "/")).problems;
    let errors = |it: &&Problem| it.severity == Severity::Error;
    assert_eq!(
        (problems.len(), problems.iter().filter(errors).count()),
        (21, 1)
    );
}

#[test]
fn an_ingress_of_too_many_paths_is_one_error_and_reads_none() {
    let path = "{path: /, pathType: Prefix, backend: {service: {name: svc, port: {number: 80}}}}";
    let many = ingress("a", "", "/").replace(
        &format!("[{path}]"),
        &format!("[{}]", [path; 1001].join(", ")),
    );
    let built = compiled(&many);
    assert_eq!(built.problems.len(), 1, "{:?}", built.problems);
    let told = built.problems[0].to_string();
    assert!(told.contains("1001 paths, more than the 1000"), "{told}");
    assert!(listener(&built).rules.is_empty());
}

#[test]
fn an_ingress_of_too_many_expressions_is_one_error() {
    let path = "{path: /a, pathType: Prefix, backend: {service: {name: svc, port: {number: 80}}}}";
    let many = |count: usize| {
        let annotation = ", alb.ingress.kubernetes.io/use-regex: 'true'";
        ingress("a", annotation, "/a").replace(
            &format!("[{path}]"),
            &format!("[{}]", vec![path; count].join(", ")),
        )
    };
    assert_eq!(listener(&compiled(&many(100))).rules.len(), 100);
    let built = compiled(&many(300));
    assert_eq!(built.problems.len(), 1, "{:?}", built.problems);
    let told = built.problems[0].to_string();
    assert!(
        told.contains("more regular expression than the 100"),
        "{told}"
    );
    assert!(listener(&built).rules.is_empty());
}
