//! Files -> snapshot: every object at its place, first of duplicates, last good version of the broken.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use super::{
    edit::Reach,
    object::{
        AlbConfig, ClusterId, EndpointSlice, Ingress, IngressClass, NamespacedName, ObjectMeta,
        Secret, Service,
    },
    parse::{Broken, Limits, Object, Origin, Parsed, parse},
};
use crate::problem::{ObjectRef, Problem, shown};

mod bundle;

pub use bundle::bundle;

/// All objects a source knows at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// AlbConfigs by name.
    pub gateways: BTreeMap<String, Arc<AlbConfig>>,
    /// IngressClasses by name.
    pub classes: BTreeMap<String, Arc<IngressClass>>,
    /// Ingresses of the fleet.
    pub ingresses: BTreeMap<NamespacedName, Arc<Ingress>>,
    /// Secrets of the fleet that hold certificates.
    pub secrets: BTreeMap<NamespacedName, Arc<Secret>>,
    /// Associated member clusters, also those without objects.
    pub clusters: BTreeMap<ClusterId, ClusterObjects>,
    /// What exists but could not be decoded.
    pub broken: Vec<Broken>,
    /// What could not be read, by object or file.
    pub problems: BTreeMap<ObjectRef, Vec<Problem>>,
    /// The source could be read whole.
    pub whole: bool,
}

/// Objects of one member cluster.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClusterObjects {
    /// Whether the cluster answers.
    pub reach: Reach,
    /// Services.
    pub services: BTreeMap<NamespacedName, Arc<Service>>,
    /// EndpointSlices.
    pub slices: BTreeMap<NamespacedName, Arc<EndpointSlice>>,
    /// Names of the slices of each Service, derived from `slices`.
    by_service: BTreeMap<NamespacedName, BTreeSet<String>>,
}

impl ClusterObjects {
    /// The slices of a Service, by name.
    pub fn slices_of(&self, service: &NamespacedName) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        let names = self.by_service.get(service).into_iter().flatten();
        names.filter_map(|name| {
            self.slices.get(&NamespacedName {
                namespace: service.namespace.clone(),
                name: name.clone(),
            })
        })
    }

    /// Replaces a slice, or removes it. Returns the Services whose pods may differ now.
    pub(super) fn replace_slice(
        &mut self,
        key: &NamespacedName,
        slice: Option<Arc<EndpointSlice>>,
    ) -> BTreeSet<NamespacedName> {
        let mut touched = BTreeSet::new();
        let same = match (self.slices.get(key), &slice) {
            (Some(old), Some(new)) => old == new,
            (None, None) => true,
            _ => false,
        };
        if same {
            return touched;
        }
        let old = self.slices.remove(key);
        if let Some(service) = old.as_ref().and_then(|old| old.service()) {
            if let Some(names) = self.by_service.get_mut(&service) {
                names.remove(&key.name);
                if names.is_empty() {
                    self.by_service.remove(&service);
                }
            }
            touched.insert(service);
        }
        if let Some(slice) = slice {
            if let Some(service) = slice.service() {
                let names = self.by_service.entry(service.clone()).or_default();
                names.insert(key.name.clone());
                touched.insert(service);
            }
            self.slices.insert(key.clone(), slice);
        }
        touched
    }

    fn index(&mut self) {
        self.by_service.clear();
        for (key, slice) in &self.slices {
            if let Some(service) = slice.service() {
                let names = self.by_service.entry(service).or_default();
                names.insert(key.name.clone());
            }
        }
    }
}

/// One file of a manifest directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct File {
    /// Path relative to the directory, parts joined by `/`.
    pub path: String,
    /// Its bytes, or the sentence that says why they could not be read.
    pub content: Result<Arc<[u8]>, String>,
}

impl Snapshot {
    /// Whether a folder, or the whole source, could not be read.
    pub fn unread(&self) -> bool {
        let folder = |it: &Broken| it.file.is_empty() || it.file.ends_with('/');
        self.broken
            .iter()
            .any(|it| it.object.is_none() && folder(it))
    }

    /// Fills in from `before` what is [`Broken`] here, so that a half-written file takes nothing out of service.
    ///
    /// A broken document does not say what it held: then everything `before` had from that file stays. Nothing counts
    /// as broken any more afterwards.
    pub fn keep_last_good(&mut self, before: &Self) {
        let mut files = BTreeSet::new();
        let mut folders = Vec::new();
        let mut objects = BTreeSet::new();
        for Broken { file, object } in std::mem::take(&mut self.broken) {
            match object {
                Some(object) => drop(objects.insert(object)),
                None if file.is_empty() || file.ends_with('/') => folders.push(file),
                None => drop(files.insert(file)),
            }
        }
        let unseen = |file: &str| folders.iter().any(|folder| file.starts_with(&**folder));
        let lost = |cluster: Option<&ClusterId>, kind: &str, meta: &ObjectMeta| {
            files.contains(&meta.file)
                || unseen(&meta.file)
                || objects.contains(&ObjectRef {
                    cluster: cluster.map(ToString::to_string),
                    kind: kind.to_owned(),
                    namespace: meta.namespace.clone(),
                    name: meta.name.clone(),
                })
        };
        keep(&mut self.gateways, &before.gateways, |it| {
            lost(None, "AlbConfig", &it.metadata)
        });
        keep(&mut self.classes, &before.classes, |it| {
            lost(None, "IngressClass", &it.metadata)
        });
        keep(&mut self.ingresses, &before.ingresses, |it| {
            lost(None, "Ingress", &it.metadata)
        });
        keep(&mut self.secrets, &before.secrets, |it| {
            lost(None, "Secret", &it.metadata)
        });
        for (id, had) in &before.clusters {
            if unseen(&format!("clusters/{id}/")) {
                self.clusters.entry(id.clone()).or_default();
            }
            // A cluster whose folder is gone was taken out on purpose.
            let Some(has) = self.clusters.get_mut(id) else {
                continue;
            };
            keep(&mut has.services, &had.services, |it| {
                lost(Some(id), "Service", &it.metadata)
            });
            keep(&mut has.slices, &had.slices, |it| {
                lost(Some(id), "EndpointSlice", &it.metadata)
            });
            has.index();
        }
    }
}

fn keep<K: Clone + Ord, V: Clone>(
    has: &mut BTreeMap<K, V>,
    had: &BTreeMap<K, V>,
    lost: impl Fn(&V) -> bool,
) {
    for (key, value) in had {
        if !has.contains_key(key) && lost(value) {
            has.insert(key.clone(), value.clone());
        }
    }
}

/// Reads `fleet/**` and `clusters/<id>/**`. `clusters` names the folders under `clusters/`, also empty ones.
///
/// Files count in the order of their path, whatever the order they come in. Only `.yaml`, `.yml` and `.json` are read.
pub fn snapshot(
    clusters: impl IntoIterator<Item = String>,
    files: impl IntoIterator<Item = File>,
    limits: Limits,
) -> (Snapshot, Vec<Problem>) {
    snapshot_after(&Snapshot::default(), clusters, files, limits)
}

/// As [`snapshot`], but of an object that is written twice the one whose file served in `before` goes on serving.
pub fn snapshot_after(
    before: &Snapshot,
    clusters: impl IntoIterator<Item = String>,
    files: impl IntoIterator<Item = File>,
    limits: Limits,
) -> (Snapshot, Vec<Problem>) {
    let mut placing = Placing::new(before);
    for id in clusters {
        placing.cluster(&id);
    }
    let mut files: Vec<File> = files.into_iter().collect();
    files.sort_by(|one, other| one.path.cmp(&other.path));
    for file in &files {
        placing.file(file, limits);
    }
    let mut snapshot = placing.snapshot;
    snapshot
        .clusters
        .values_mut()
        .for_each(ClusterObjects::index);
    (snapshot, placing.problems)
}

struct Placing<'a> {
    before: &'a Snapshot,
    snapshot: Snapshot,
    problems: Vec<Problem>,
    refused: BTreeSet<String>,
}

impl<'a> Placing<'a> {
    fn new(before: &'a Snapshot) -> Self {
        Self {
            before,
            snapshot: Snapshot::default(),
            problems: Vec::new(),
            refused: BTreeSet::new(),
        }
    }

    fn cluster(&mut self, id: &str) -> Option<ClusterId> {
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

    fn file(&mut self, file: &File, limits: Limits) {
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
    fn content(
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

    fn object(&mut self, object: Object, origin: &Origin) {
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

impl EndpointSlice {
    /// The Service it belongs to, by its label.
    pub fn service(&self) -> Option<NamespacedName> {
        let name = self.metadata.labels.get(SERVICE_NAME)?;
        Some(NamespacedName {
            namespace: self.metadata.namespace.clone(),
            name: name.clone(),
        })
    }
}

/// Label of an EndpointSlice that names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

#[cfg(test)]
mod tests;
