//! Files -> snapshot: every object at its place, first of duplicates, last good version of the broken.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    edit::Reach,
    object::{
        AlbConfig, ClusterId, EndpointSlice, Ingress, IngressClass, NamespacedName, ObjectMeta,
        Secret, Service,
    },
    parse::{Broken, Limits},
};
use crate::problem::{ObjectRef, Problem};

mod bundle;
mod placing;

pub use bundle::bundle;
use placing::Placing;

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
