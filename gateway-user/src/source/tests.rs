use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use tokio::time::timeout;

use super::*;
use crate::manifest::{Changes, Snapshot};

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

fn names(snapshot: &Snapshot) -> Vec<String> {
    let clusters = snapshot.clusters.values();
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
    assert_eq!(names(&published.snapshot), ["real"]);
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
        let objects = |it: &Published| (it.snapshot.gateways.clone(), it.snapshot.clusters.clone());
        assert_eq!(objects(&published), objects(&before), "{gone}");
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
fn a_folder_that_cannot_be_listed_keeps_its_own_objects_only() {
    let dir = folder();
    put(dir.path(), "clusters/c1/a.yaml", &service("a"));
    fs::create_dir_all(dir.path().join("clusters/c1/deep/deeper")).expect("mkdir");
    put(dir.path(), "clusters/c1/deep/deeper/b.yaml", &service("b"));
    let mut source = source(dir.path());
    assert_eq!(names(&source.read().snapshot), ["a", "b"]);
    // Too deep from now on: what lies there is unseen, the rest is followed.
    source.bounds.depth = 3;
    fs::remove_file(dir.path().join("clusters/c1/a.yaml")).expect("remove");
    put(dir.path(), "clusters/c1/c.yaml", &service("c"));
    let published = source.changed().expect("news");
    assert_eq!(names(&published.snapshot), ["b", "c"]);
    assert_eq!(published.problems.len(), 1);
    assert!(
        published.problems[0]
            .to_string()
            .contains("clusters/c1/deep/deeper"),
        "{}",
        published.problems[0]
    );
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

/// A reader of a feed and what its edits make.
struct Following(Reader, Snapshot);

impl Following {
    fn start(source: DirectorySource) -> Self {
        let (writer, reader) = feed();
        source.follow(writer).expect("thread");
        Self(reader, Snapshot::default())
    }

    async fn until(&mut self, longest: Duration, wanted: &[&str]) {
        let found = timeout(longest, async {
            while names(&self.1) != wanted || !self.1.whole {
                for edit in self.0.take().await {
                    self.1.apply(edit, &mut Changes::default());
                }
            }
        });
        assert!(
            found.await.is_ok(),
            "{wanted:?} was not published within {longest:?}"
        );
    }
}

#[tokio::test]
async fn a_saved_file_is_published_within_a_second() {
    let dir = folder();
    let mut published = Following::start(source(dir.path()));
    published.until(Duration::from_secs(5), &[]).await;
    let second = Duration::from_secs(1);
    put(dir.path(), "clusters/c1/a.yaml", &service("a"));
    published.until(second, &["a"]).await;
    // As editors and `kubectl` wrappers save: write aside, rename over.
    put(dir.path(), "clusters/c1/.new", &service("b"));
    fs::rename(
        dir.path().join("clusters/c1/.new"),
        dir.path().join("clusters/c1/a.yaml"),
    )
    .expect("rename");
    published.until(second, &["b"]).await;
    fs::create_dir(dir.path().join("clusters/c2")).expect("mkdir");
    put(dir.path(), "clusters/c2/a.yaml", &service("c"));
    published.until(second, &["b", "c"]).await;
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
    let mut published = Following::start(source(&root));
    published.until(Duration::from_secs(5), &["a"]).await;
    fs::rename(&root, dir.path().join("old")).expect("rename");
    fs::rename(dir.path().join("next"), &root).expect("rename");
    published.until(Duration::from_secs(5), &["b"]).await;
    put(&root, "clusters/c1/a.yaml", &service("c"));
    published.until(Duration::from_secs(3), &["c"]).await;
}
