//! Files without the folders of a manifest directory -> snapshot: objects of the fleet and of members side by side.

use super::{ClusterObjects, File, Placing, Snapshot};
use crate::{
    manifest::{ClusterId, Limits, Object, Origin, parse::parse_mixed},
    problem::Problem,
};

/// Reads all files as one bundle, whatever folders they are in.
///
/// `members` says which clusters there are, from all objects. Which of them a Service or EndpointSlice belongs to is not
/// written in a bundle: all count in the first. Documents that are no objects (values of a chart, settings of tools) are
/// skipped.
pub fn bundle(
    files: impl IntoIterator<Item = File>,
    members: impl FnOnce(&[Object]) -> Vec<ClusterId>,
    limits: Limits,
) -> (Snapshot, Vec<Problem>) {
    let before = Snapshot::default();
    let mut placing = Placing::new(&before);
    let mut files: Vec<File> = files.into_iter().collect();
    files.sort_by(|one, other| one.path.cmp(&other.path));
    let mut objects = Vec::new();
    let mut origins = Vec::new();
    for file in &files {
        let origin = Origin {
            file: file.path.as_str().into(),
            cluster: None,
        };
        for object in placing.content(file, &origin, limits, parse_mixed) {
            objects.push(object);
            origins.push(origin.file.clone());
        }
    }
    let members = members(&objects);
    for id in &members {
        let clusters = &mut placing.snapshot.clusters;
        clusters.entry(id.clone()).or_default();
    }
    for (object, file) in objects.into_iter().zip(origins) {
        let cluster = match object {
            Object::Service(_) | Object::EndpointSlice(_) => members.first().cloned(),
            _ => None,
        };
        placing.object(object, &Origin { file, cluster });
    }
    let mut snapshot = placing.snapshot;
    let clusters = snapshot.clusters.values_mut();
    clusters.for_each(ClusterObjects::index);
    (snapshot, placing.problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n";
    const SLICE: &str =
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-1}\n";
    const CLASS: &str =
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: alb}\n";

    fn read(text: &str, members: &[&str]) -> (Snapshot, Vec<Problem>) {
        let file = File {
            path: "all.yaml".to_owned(),
            content: Ok(text.as_bytes().into()),
        };
        let ids = members.iter().map(|id| ClusterId((*id).into())).collect();
        bundle([file], |_| ids, Limits::default())
    }

    #[test]
    fn services_and_pods_count_in_the_first_member() {
        let (snapshot, problems) =
            read(&format!("{SERVICE}---\n{SLICE}---\n{CLASS}"), &["c1", "c2"]);
        assert_eq!(problems, []);
        let clusters = snapshot.clusters.values();
        let counts: Vec<_> = clusters
            .map(|it| (it.services.len(), it.slices.len()))
            .collect();
        assert_eq!(counts, [(1, 1), (0, 0)]);
        assert_eq!(snapshot.classes.len(), 1);
    }

    #[test]
    fn documents_that_are_no_objects_are_skipped_and_broken_objects_are_told() {
        let (_, problems) = read("image: {tag: x}\n---\n- a\n---\njust text\n", &["c1"]);
        assert_eq!(problems, []);
        let (_, problems) = read("metadata: {name: a}\n---\na: [1\n", &["c1"]);
        assert_eq!(problems.len(), 2);
    }

    #[test]
    fn an_object_in_two_files_is_told_once_for_the_fleet() {
        let (_, problems) = read(&format!("{CLASS}---\n{CLASS}"), &["c1"]);
        assert_eq!(problems.len(), 1);
    }
}
