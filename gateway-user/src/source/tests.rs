use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

use super::*;

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n")
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temp dir");
    fs::create_dir_all(dir.path().join("fleet")).expect("mkdir");
    fs::create_dir_all(dir.path().join("clusters/c1")).expect("mkdir");
    dir
}

fn put(dir: &Path, path: &str, text: &str) {
    fs::write(dir.join(path), text).expect("write");
}

fn names(published: &Published) -> Vec<String> {
    let clusters = published.snapshot.clusters.values();
    clusters
        .flat_map(|it| it.services.keys().map(|key| key.name.clone()))
        .collect()
}

fn source(dir: &Path) -> DirectorySource {
    DirectorySource::new(dir, Bounds::default())
}

#[test]
fn hidden_and_editor_files_are_not_read_and_links_are_followed() {
    let dir = folder();
    put(dir.path(), "clusters/c1/.a.yaml", &service("dot"));
    put(dir.path(), "clusters/c1/a.yaml~", &service("backup"));
    put(dir.path(), "clusters/c1/#a.yaml", &service("emacs"));
    put(dir.path(), "clusters/c1/a.yaml.swp", &service("vim"));
    // A mounted ConfigMap: a.yaml -> ..data/a.yaml, ..data -> ..2024.
    fs::create_dir(dir.path().join("clusters/c1/..2024")).expect("mkdir");
    put(dir.path(), "clusters/c1/..2024/a.yaml", &service("real"));
    symlink("..2024", dir.path().join("clusters/c1/..data")).expect("symlink");
    symlink("..data/a.yaml", dir.path().join("clusters/c1/a.yaml")).expect("symlink");
    let published = source(dir.path()).read();
    assert_eq!(published.problems, []);
    assert_eq!(names(&published), ["real"]);
}

#[test]
fn a_directory_that_disappears_keeps_what_it_held() {
    let dir = folder();
    put(dir.path(), "clusters/c1/a.yaml", &service("a"));
    let mut source = source(dir.path());
    let before = source.read();
    for gone in ["clusters", "fleet", ""] {
        let from = dir.path().join(gone);
        let aside = dir
            .path()
            .parent()
            .expect("parent")
            .join(format!("{}-aside", std::process::id()));
        fs::rename(&from, &aside).expect("rename");
        let published = source.changed().expect("the gap is news");
        assert_eq!(published.snapshot, before.snapshot, "{gone}");
        assert!(
            published.problems[0].to_string().contains("keeps serving"),
            "{}",
            published.problems[0]
        );
        assert!(source.changed().is_none());
        fs::rename(&aside, &from).expect("rename");
        assert_eq!(source.changed().expect("it is back").problems, []);
    }
}

#[test]
fn a_link_to_a_folder_above_ends() {
    let dir = folder();
    symlink("..", dir.path().join("fleet/up")).expect("symlink");
    let published = source(dir.path()).read();
    assert_eq!(published.problems.len(), 1);
    assert!(
        published.problems[0].message.contains("leads back"),
        "{}",
        published.problems[0]
    );
}

#[test]
fn too_many_files_and_too_large_files_are_problems() {
    let dir = folder();
    put(dir.path(), "clusters/c1/a.yaml", &service("a"));
    put(dir.path(), "clusters/c1/b.yaml", &service("b"));
    let few = Bounds {
        files: 1,
        ..Bounds::default()
    };
    let published = DirectorySource::new(dir.path(), few).read();
    assert!(
        published.problems[0].message.contains("more than 1 files"),
        "{}",
        published.problems[0]
    );
    let small = Bounds {
        file_bytes: 10,
        ..Bounds::default()
    };
    let published = DirectorySource::new(dir.path(), small).read();
    assert_eq!(published.problems.len(), 2);
    assert!(
        published.problems[0]
            .message
            .contains("more than the 10 that are read"),
        "{}",
        published.problems[0]
    );
}

async fn until(
    published: &mut watch::Receiver<Arc<Published>>,
    longest: Duration,
    wanted: &[&str],
) {
    let found = timeout(
        longest,
        published.wait_for(|published| names(published) == wanted),
    )
    .await;
    assert!(
        found.is_ok_and(|found| found.is_ok()),
        "{wanted:?} was not published within {longest:?}"
    );
}

#[tokio::test]
async fn a_saved_file_is_published_within_a_second() {
    let dir = folder();
    let mut published = source(dir.path()).watch().expect("thread");
    until(&mut published, Duration::from_secs(5), &[]).await;
    let second = Duration::from_secs(1);
    put(dir.path(), "clusters/c1/a.yaml", &service("a"));
    until(&mut published, second, &["a"]).await;
    // As editors and `kubectl` wrappers save: write aside, rename over.
    put(dir.path(), "clusters/c1/.new", &service("b"));
    fs::rename(
        dir.path().join("clusters/c1/.new"),
        dir.path().join("clusters/c1/a.yaml"),
    )
    .expect("rename");
    until(&mut published, second, &["b"]).await;
    fs::create_dir(dir.path().join("clusters/c2")).expect("mkdir");
    put(dir.path(), "clusters/c2/a.yaml", &service("c"));
    until(&mut published, second, &["b", "c"]).await;
}

#[tokio::test]
async fn another_directory_under_the_same_name_is_followed() {
    let dir = folder();
    let root = dir.path().join("root");
    let make = |name: &str, service_name: &str| {
        let at = dir.path().join(name);
        fs::create_dir_all(at.join("fleet")).expect("mkdir");
        fs::create_dir_all(at.join("clusters/c1")).expect("mkdir");
        put(&at, "clusters/c1/a.yaml", &service(service_name));
    };
    make("root", "a");
    make("next", "b");
    let mut published = source(&root).watch().expect("thread");
    until(&mut published, Duration::from_secs(5), &["a"]).await;
    fs::rename(&root, dir.path().join("old")).expect("rename");
    fs::rename(dir.path().join("next"), &root).expect("rename");
    until(&mut published, Duration::from_secs(5), &["b"]).await;
    put(&root, "clusters/c1/a.yaml", &service("c"));
    until(&mut published, Duration::from_secs(3), &["c"]).await;
}
