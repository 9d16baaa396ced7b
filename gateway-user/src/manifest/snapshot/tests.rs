use super::*;

fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        content: Ok(text.as_bytes().into()),
    }
}

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n---\n")
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot
        .clusters
        .values()
        .flat_map(|it| it.services.keys().map(|key| key.name.clone()))
        .collect()
}

#[test]
fn an_empty_folder_is_an_associated_cluster() {
    let (snapshot, problems) = snapshot(["c1".to_owned()], [], Limits::default());
    assert!(problems.is_empty());
    assert_eq!(
        snapshot
            .clusters
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["c1"]
    );
}

#[test]
fn of_two_objects_with_one_name_the_first_in_file_order_serves() {
    let files = [
        file("clusters/c1/b.yaml", &service("a")),
        file("clusters/c1/a.yaml", &service("a")),
    ];
    let (snapshot, problems) = snapshot([], files, Limits::default());
    let served = snapshot
        .clusters
        .values()
        .next()
        .and_then(|it| it.services.values().next());
    assert_eq!(
        served.map(|it| &*it.metadata.file),
        Some("clusters/c1/a.yaml")
    );
    assert!(
        problems[0]
            .to_string()
            .contains("Service default/a (cluster c1): metadata.name: is written twice")
    );
}

#[test]
fn a_file_that_breaks_keeps_the_objects_it_held() {
    let good = [
        file("clusters/c1/a.yaml", &(service("a") + &service("b"))),
        file("clusters/c1/b.yaml", &service("c")),
    ];
    let (before, _) = snapshot([], good, Limits::default());
    let (mut after, problems) = snapshot(
        ["c1".to_owned()],
        [file("clusters/c1/a.yaml", &(service("a") + "x: [1"))],
        Limits::default(),
    );
    assert_eq!(problems.len(), 1);
    after.keep_last_good(&before);
    // b stays since the broken document may have held it; c went with its file.
    assert_eq!(names(&after), ["a", "b"]);
}

#[test]
fn of_two_objects_with_one_name_the_one_that_served_goes_on() {
    let served = |snapshot: &Snapshot| {
        let services = snapshot
            .clusters
            .values()
            .flat_map(|it| it.services.values());
        services
            .map(|it| it.metadata.file.to_string())
            .collect::<Vec<_>>()
    };
    let old = file("clusters/c1/b.yaml", &service("a"));
    let new = file("clusters/c1/a.yaml", &service("a"));
    let (before, _) = snapshot([], [old.clone()], Limits::default());
    let (after, problems) =
        snapshot_after(&before, [], [old.clone(), new.clone()], Limits::default());
    assert_eq!(served(&after), ["clusters/c1/b.yaml"]);
    assert!(
        problems[0].message.ends_with("the second one serves"),
        "{problems:?}"
    );
    let (again, _) = snapshot_after(&after, [], [old, new.clone()], Limits::default());
    assert_eq!(served(&again), ["clusters/c1/b.yaml"]);
    let (gone, problems) = snapshot_after(&again, [], [new], Limits::default());
    assert_eq!(
        (served(&gone), problems),
        (vec!["clusters/c1/a.yaml".to_owned()], vec![])
    );
}
