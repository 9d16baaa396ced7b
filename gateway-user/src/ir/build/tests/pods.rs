//! Which endpoints are pods.

use super::*;

/// Pods and problems of the one rule, where cluster c1 holds `slices` beside the Service.
fn served(edit: impl Fn(String) -> String) -> (Vec<String>, Vec<Problem>) {
    let file = |path: &str, text: String| File {
        path: path.to_owned(),
        content: Ok(text.as_bytes().into()),
    };
    let fleet = format!("{}{}", FLEET.replace("c1,c2", "c1"), ingress("a", "", "/"));
    let files = [
        file("fleet/a.yaml", fleet),
        file(
            "clusters/c1/a.yaml",
            edit(member(&["10.1.0.1", "10.1.0.2"])),
        ),
    ];
    let (snapshot, problems) = snapshot([], files, Limits::default());
    assert_eq!(problems, []);
    let built = build(&snapshot, &LastGood::default(), &Options::default());
    let group = group(&built);
    let pods = group.backends.iter().map(|it| it.pod.to_string());
    (pods.collect(), built.problems)
}

#[test]
fn an_endpoint_that_is_no_pod_is_skipped_and_one_without_reference_serves() {
    let (pods, problems) = served(|text| {
        text.replace(
            "{addresses: [10.1.0.1]}",
            "{addresses: [10.1.0.1], targetRef: {kind: Node, name: node-1}}",
        )
    });
    assert_eq!(pods, ["10.1.0.2"]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0]
            .to_string()
            .contains("targetRef.kind: `Node` is not Pod"),
        "{}",
        problems[0]
    );
    let (pods, problems) = served(|text| {
        text.replace(
            "{addresses: [10.1.0.1]}",
            "{addresses: [10.1.0.1], targetRef: {kind: Pod, name: p}}",
        )
    });
    assert_eq!(
        (pods, problems),
        (vec!["p".to_owned(), "10.1.0.2".to_owned()], vec![])
    );
}

#[test]
fn a_service_with_slices_of_host_names_only_is_told_once() {
    let (pods, problems) = served(|text| text.replace("IPv4", "FQDN"));
    assert!(pods.is_empty());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0]
            .to_string()
            .starts_with("EndpointSlice demo/svc-x (cluster c1): addressType")
    );
}

#[test]
fn slices_of_both_families_are_of_one_service() {
    let (pods, problems) = served(|text| {
        let slice = text
            .split_once("---")
            .map(|(_, slice)| slice.to_owned())
            .unwrap_or_default();
        let other = slice.replace("IPv4", "IPv6").replace("svc-x", "svc-a");
        let other = other.replace("10.1.0.1", "'2001:db8::1'");
        let other = other.replace("10.1.0.2", "'2001:db8::2'");
        format!("{text}\n---{other}")
    });
    assert_eq!((pods.len(), problems), (4, vec![]));
}

#[test]
fn notes_on_one_slice_are_capped() {
    let bad = "{addresses: [pod.local]}, ".repeat(500);
    let (pods, problems) =
        served(|text| text.replace("endpoints: [", &format!("endpoints: [{bad}")));
    assert_eq!((pods.len(), problems.len()), (2, 21));
    assert!(
        problems[20].message.starts_with("480 more"),
        "{}",
        problems[20]
    );
}
