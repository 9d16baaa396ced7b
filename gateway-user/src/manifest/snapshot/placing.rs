//! Puts each object where it belongs.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use super::{File, Snapshot};
use crate::{
    manifest::{
        object::{ClusterId, NamespacedName, ObjectMeta},
        parse::{Broken, Limits, Object, Origin, Parsed, parse},
    },
    problem::{ObjectRef, Problem, shown},
};

pub(super) struct Placing<'a> {
    before: &'a Snapshot,
    pub(super) snapshot: Snapshot,
    pub(super) problems: Vec<Problem>,
    refused: BTreeSet<String>,
}

impl<'a> Placing<'a> {
    pub(super) fn new(before: &'a Snapshot) -> Self {
        Self {
            before,
            snapshot: Snapshot::default(),
            problems: Vec::new(),
            refused: BTreeSet::new(),
        }
    }

    pub(super) fn cluster(&mut self, id: &str) -> Option<ClusterId> {
        if let Some(id) = ClusterId::new(id) {
            self.snapshot.clusters.entry(id.clone()).or_default();
            return Some(id);
        }
        if self.refused.insert(id.to_owned()) {
            let folder = ObjectRef {
                kind: "File".into(),
                name: format!("clusters/{}", id.escape_debug()),
                ..<_>::default()
            };
            self.problems.push(Problem::error(
                &folder,
                "name",
                format!("{} cannot be a cluster ID", shown(id)),
                "rename the folder to 1 to 63 letters, digits, `-`, `_` and `.`",
            ));
        }
        None
    }

    pub(super) fn file(&mut self, file: &File, limits: Limits) {
        let is_manifest = file
            .path
            .rsplit_once('.')
            .is_some_and(|(_, extension)| matches!(extension, "yaml" | "yml" | "json"));
        let path = Arc::<str>::from(file.path.as_str());
        let cluster = match (file.path.split_once('/'), is_manifest) {
            (Some(("fleet", _)), true) => None,
            (Some(("clusters", rest)), true) => match rest.split_once('/') {
                Some((id, _)) => match self.cluster(id) {
                    Some(id) => Some(id),
                    None => return,
                },
                None => return self.misplaced(file),
            },
            (None, true) => return self.misplaced(file),
            _ => return,
        };
        let origin = Origin {
            file: path,
            cluster,
        };
        for object in self.content(file, &origin, limits, parse) {
            self.object(object, &origin);
        }
    }

    /// The objects of a file; what is wrong with it is noted.
    pub(super) fn content(
        &mut self,
        file: &File,
        origin: &Origin,
        limits: Limits,
        parse: impl Fn(&Origin, &[u8], Limits) -> Parsed,
    ) -> Vec<Object> {
        match &file.content {
            Ok(bytes) => {
                let parsed = parse(origin, bytes, limits);
                self.snapshot.broken.extend(parsed.broken);
                self.problems.extend(parsed.problems);
                parsed.objects
            }
            Err(why) => {
                self.snapshot.broken.push(Broken {
                    file: origin.file.clone(),
                    object: None,
                });
                let remedy = "make it a readable file of at most 1 MiB; objects it held before keep serving until then";
                self.problems.push(Problem::error(
                    &origin.as_object(),
                    "content",
                    why.clone(),
                    remedy,
                ));
                Vec::new()
            }
        }
    }

    fn misplaced(&mut self, file: &File) {
        let object = ObjectRef {
            kind: "File".into(),
            name: file.path.clone(),
            ..ObjectRef::default()
        };
        self.problems.push(Problem::warning(
            &object,
            "path",
            "the file lies outside `fleet/` and `clusters/<id>/` and is not read",
            "move it to `fleet/`, or to the folder of its cluster",
        ));
    }

    pub(super) fn object(&mut self, object: Object, origin: &Origin) {
        let Self {
            before,
            snapshot,
            problems,
            ..
        } = self;
        let member = origin
            .cluster
            .as_ref()
            .and_then(|id| before.clusters.get(id));
        match (object, &origin.cluster) {
            (Object::AlbConfig(it), None) => {
                let name = it.metadata.name.clone();
                place(
                    &mut snapshot.gateways,
                    Some(&before.gateways),
                    name,
                    it,
                    origin,
                    "AlbConfig",
                    |it| &it.metadata,
                    problems,
                );
            }
            (Object::IngressClass(it), None) => {
                let name = it.metadata.name.clone();
                place(
                    &mut snapshot.classes,
                    Some(&before.classes),
                    name,
                    it,
                    origin,
                    "IngressClass",
                    |it| &it.metadata,
                    problems,
                );
            }
            (Object::Ingress(it), None) => {
                place(
                    &mut snapshot.ingresses,
                    Some(&before.ingresses),
                    key(&it.metadata),
                    it,
                    origin,
                    "Ingress",
                    |it| &it.metadata,
                    problems,
                );
            }
            (Object::Secret(it), None) => {
                place(
                    &mut snapshot.secrets,
                    Some(&before.secrets),
                    key(&it.metadata),
                    it,
                    origin,
                    "Secret",
                    |it| &it.metadata,
                    problems,
                );
            }
            // Applications keep Secrets beside their pods; they are none of ours.
            (Object::Secret(_), Some(_)) => {}
            // People keep the Service beside its Ingress on the fleet; only those of members have pods.
            (Object::Service(_), None) => {}
            (Object::EndpointSlice(it), None) => problems.push(Problem::warning(
                &reference("EndpointSlice", &it.metadata, origin),
                "metadata",
                format!(
                    "pods run in member clusters, so an EndpointSlice in {} is not read",
                    origin.file
                ),
                "move it to `clusters/<id>/`",
            )),
            (Object::Service(it), Some(id)) => {
                let services = &mut snapshot.clusters.entry(id.clone()).or_default().services;
                place(
                    services,
                    member.map(|it| &it.services),
                    key(&it.metadata),
                    it,
                    origin,
                    "Service",
                    |it| &it.metadata,
                    problems,
                );
            }
            (Object::EndpointSlice(it), Some(id)) => {
                let slices = &mut snapshot.clusters.entry(id.clone()).or_default().slices;
                place(
                    slices,
                    member.map(|it| &it.slices),
                    key(&it.metadata),
                    it,
                    origin,
                    "EndpointSlice",
                    |it| &it.metadata,
                    problems,
                );
            }
            (Object::AlbConfig(it), Some(_)) => {
                problems.push(on_a_member("AlbConfig", &it.metadata, origin))
            }
            (Object::IngressClass(it), Some(_)) => {
                problems.push(on_a_member("IngressClass", &it.metadata, origin))
            }
            (Object::Ingress(it), Some(_)) => {
                problems.push(on_a_member("Ingress", &it.metadata, origin))
            }
        }
    }
}

fn on_a_member(kind: &str, meta: &ObjectMeta, origin: &Origin) -> Problem {
    Problem::warning(
        &reference(kind, meta, origin),
        "metadata",
        format!(
            "the gateway is configured on the fleet, so an {kind} in {} is not read",
            origin.file
        ),
        "move it to `fleet/` if the gateway should serve it",
    )
}

fn key(meta: &ObjectMeta) -> NamespacedName {
    NamespacedName {
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
    }
}

fn reference(kind: &str, meta: &ObjectMeta, origin: &Origin) -> ObjectRef {
    ObjectRef {
        cluster: origin.cluster.as_ref().map(ToString::to_string),
        kind: kind.to_owned(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "five calls, and a struct would only rename the arguments"
)]
fn place<K: Ord, V>(
    into: &mut BTreeMap<K, Arc<V>>,
    before: Option<&BTreeMap<K, Arc<V>>>,
    key: K,
    value: Arc<V>,
    origin: &Origin,
    kind: &str,
    meta: impl Fn(&V) -> &ObjectMeta,
    problems: &mut Vec<Problem>,
) {
    let served = before
        .and_then(|before| before.get(&key))
        .map(|it| meta(it).file.clone());
    match into.entry(key) {
        Entry::Vacant(free) => {
            free.insert(value);
        }
        Entry::Occupied(mut taken) => {
            let first = meta(taken.get()).file.clone();
            let returns = served.is_some_and(|file| file == origin.file && file != first);
            problems.push(Problem::error(
                &reference(kind, meta(&value), origin),
                "metadata.name",
                format!(
                    "is written twice, in {first} and in {}; the {} one serves",
                    origin.file,
                    if returns { "second" } else { "first" }
                ),
                "delete or rename one of them",
            ));
            if returns {
                taken.insert(value);
            }
        }
    }
}
