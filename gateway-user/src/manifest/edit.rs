//! One change of what a source knows, and what a snapshot makes of it.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use super::{
    object::{ClusterId, NamespacedName},
    parse::Object,
    snapshot::Snapshot,
};
use crate::problem::{ObjectRef, Problem};

/// Whether a member cluster answers. What it last said stands in every case.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reach {
    /// Associated, and has not been listed since the agent started: what it holds is not known.
    Unknown,
    /// Listed and followed.
    #[default]
    Connected,
    /// Was listed, does not answer now.
    Lost,
}

/// Identity of an object.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Key {
    /// On the fleet.
    AlbConfig(String),
    /// On the fleet.
    IngressClass(String),
    /// On the fleet.
    Ingress(NamespacedName),
    /// On the fleet.
    Secret(NamespacedName),
    /// Of a member.
    Service(ClusterId, NamespacedName),
    /// Of a member.
    EndpointSlice(ClusterId, NamespacedName),
}

impl Key {
    /// The key of an object as a source read it; `None` for objects of members without a cluster.
    pub fn of(object: &Object, cluster: Option<&ClusterId>) -> Option<Self> {
        let key = |meta: &super::ObjectMeta| NamespacedName {
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
        };
        Some(match object {
            Object::AlbConfig(it) => Self::AlbConfig(it.metadata.name.clone()),
            Object::IngressClass(it) => Self::IngressClass(it.metadata.name.clone()),
            Object::Ingress(it) => Self::Ingress(key(&it.metadata)),
            Object::Secret(it) => Self::Secret(key(&it.metadata)),
            Object::Service(it) => Self::Service(cluster?.clone(), key(&it.metadata)),
            Object::EndpointSlice(it) => Self::EndpointSlice(cluster?.clone(), key(&it.metadata)),
        })
    }

    /// The member cluster.
    pub fn cluster(&self) -> Option<&ClusterId> {
        match self {
            Self::Service(id, _) | Self::EndpointSlice(id, _) => Some(id),
            _ => None,
        }
    }
}

/// One change. Edits are idempotent: a repeated one changes nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Edit {
    /// The object exists and says this.
    Put(Key, Object),
    /// The object is gone.
    Remove(Key),
    /// The cluster is associated; objects it had stay.
    Cluster(ClusterId, Reach),
    /// The cluster is no longer associated: its objects go with it.
    RemoveCluster(ClusterId),
    /// All that is wrong with how an object, a file or a cluster could be read; replaces what was said of it before.
    Problems(ObjectRef, Vec<Problem>),
    /// Whether the source could be read whole; an agent that starts does not take less for an order to serve less.
    Whole(bool),
}

/// What edits touched.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// AlbConfigs by name.
    pub gateways: BTreeSet<String>,
    /// IngressClasses by name.
    pub classes: BTreeSet<String>,
    /// Ingresses.
    pub ingresses: BTreeSet<NamespacedName>,
    /// Secrets.
    pub secrets: BTreeSet<NamespacedName>,
    /// Services whose ports or pods may differ, over all clusters.
    pub services: BTreeSet<NamespacedName>,
    /// Clusters came, went, or changed their reach.
    pub clusters: bool,
    /// Problems of reading differ.
    pub problems: bool,
}

impl Changes {
    /// As if every object of `snapshot` were new.
    pub fn all(snapshot: &Snapshot) -> Self {
        let mut services = BTreeSet::new();
        for has in snapshot.clusters.values() {
            services.extend(has.services.keys().cloned());
            services.extend(has.slices.values().filter_map(|slice| slice.service()));
        }
        Self {
            gateways: snapshot.gateways.keys().cloned().collect(),
            classes: snapshot.classes.keys().cloned().collect(),
            ingresses: snapshot.ingresses.keys().cloned().collect(),
            secrets: snapshot.secrets.keys().cloned().collect(),
            services,
            clusters: true,
            problems: true,
        }
    }

    /// Whether nothing was touched.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Snapshot {
    /// Carries an edit out and notes what it touched. What is as it was touches nothing.
    pub fn apply(&mut self, edit: Edit, changes: &mut Changes) {
        match edit {
            Edit::Put(key, object) => self.put(key, object, changes),
            Edit::Remove(key) => self.remove(&key, changes),
            Edit::Cluster(id, reach) => match self.clusters.entry(id) {
                Entry::Occupied(had) if had.get().reach == reach => {}
                had => {
                    had.or_default().reach = reach;
                    changes.clusters = true;
                }
            },
            Edit::RemoveCluster(id) => {
                if let Some(had) = self.clusters.remove(&id) {
                    changes.clusters = true;
                    changes.services.extend(had.services.into_keys());
                    let slices = had.slices.values().filter_map(|slice| slice.service());
                    changes.services.extend(slices);
                }
            }
            Edit::Problems(about, problems) => {
                let had = if problems.is_empty() {
                    self.problems.remove(&about)
                } else {
                    self.problems.insert(about.clone(), problems)
                };
                changes.problems |= had.as_ref() != self.problems.get(&about);
            }
            Edit::Whole(whole) => self.whole = whole,
        }
    }

    fn put(&mut self, key: Key, object: Object, changes: &mut Changes) {
        match (key, object) {
            (Key::AlbConfig(key), Object::AlbConfig(it)) => {
                replace(&mut self.gateways, key, Some(it), &mut changes.gateways);
            }
            (Key::IngressClass(key), Object::IngressClass(it)) => {
                replace(&mut self.classes, key, Some(it), &mut changes.classes);
            }
            (Key::Ingress(key), Object::Ingress(it)) => {
                replace(&mut self.ingresses, key, Some(it), &mut changes.ingresses);
            }
            (Key::Secret(key), Object::Secret(it)) => {
                replace(&mut self.secrets, key, Some(it), &mut changes.secrets);
            }
            // A cluster that is not associated has no objects: a late word of one that was removed.
            (Key::Service(id, key), Object::Service(it)) => {
                if let Some(has) = self.clusters.get_mut(&id) {
                    replace(&mut has.services, key, Some(it), &mut changes.services);
                }
            }
            (Key::EndpointSlice(id, key), Object::EndpointSlice(it)) => {
                if let Some(has) = self.clusters.get_mut(&id) {
                    changes.services.extend(has.replace_slice(&key, Some(it)));
                }
            }
            // A key of one kind with an object of another: no source builds that.
            _ => {}
        }
    }

    fn remove(&mut self, key: &Key, changes: &mut Changes) {
        match key {
            Key::AlbConfig(key) => {
                replace(&mut self.gateways, key.clone(), None, &mut changes.gateways);
            }
            Key::IngressClass(key) => {
                replace(&mut self.classes, key.clone(), None, &mut changes.classes);
            }
            Key::Ingress(key) => {
                replace(
                    &mut self.ingresses,
                    key.clone(),
                    None,
                    &mut changes.ingresses,
                );
            }
            Key::Secret(key) => {
                replace(&mut self.secrets, key.clone(), None, &mut changes.secrets);
            }
            Key::Service(id, key) => {
                if let Some(has) = self.clusters.get_mut(id) {
                    replace(&mut has.services, key.clone(), None, &mut changes.services);
                }
            }
            Key::EndpointSlice(id, key) => {
                if let Some(has) = self.clusters.get_mut(id) {
                    changes.services.extend(has.replace_slice(key, None));
                }
            }
        }
    }

    /// The edits that lead from `before` to this snapshot.
    pub fn edits_since(&self, before: &Self) -> Vec<Edit> {
        let mut edits = Vec::new();
        for id in before.clusters.keys() {
            if !self.clusters.contains_key(id) {
                edits.push(Edit::RemoveCluster(id.clone()));
            }
        }
        differences(
            &before.gateways,
            &self.gateways,
            Key::AlbConfig,
            Object::AlbConfig,
            &mut edits,
        );
        differences(
            &before.classes,
            &self.classes,
            Key::IngressClass,
            Object::IngressClass,
            &mut edits,
        );
        differences(
            &before.ingresses,
            &self.ingresses,
            Key::Ingress,
            Object::Ingress,
            &mut edits,
        );
        differences(
            &before.secrets,
            &self.secrets,
            Key::Secret,
            Object::Secret,
            &mut edits,
        );
        let none = super::ClusterObjects::default();
        for (id, has) in &self.clusters {
            let known = before.clusters.get(id);
            if known.is_none_or(|known| known.reach != has.reach) {
                edits.push(Edit::Cluster(id.clone(), has.reach));
            }
            let had = known.unwrap_or(&none);
            let service = |key| Key::Service(id.clone(), key);
            differences(
                &had.services,
                &has.services,
                service,
                Object::Service,
                &mut edits,
            );
            let slice = |key| Key::EndpointSlice(id.clone(), key);
            differences(
                &had.slices,
                &has.slices,
                slice,
                Object::EndpointSlice,
                &mut edits,
            );
        }
        for about in before.problems.keys() {
            if !self.problems.contains_key(about) {
                edits.push(Edit::Problems(about.clone(), Vec::new()));
            }
        }
        for (about, problems) in &self.problems {
            if before.problems.get(about) != Some(problems) {
                edits.push(Edit::Problems(about.clone(), problems.clone()));
            }
        }
        if before.whole != self.whole {
            edits.push(Edit::Whole(self.whole));
        }
        edits
    }
}

fn replace<K: Clone + Ord, V: PartialEq>(
    map: &mut BTreeMap<K, Arc<V>>,
    key: K,
    value: Option<Arc<V>>,
    touched: &mut BTreeSet<K>,
) {
    let same = match (map.get(&key), &value) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
        (None, None) => true,
        _ => false,
    };
    if same {
        return;
    }
    match value {
        Some(value) => map.insert(key.clone(), value),
        None => map.remove(&key),
    };
    touched.insert(key);
}

fn differences<K: Clone + Ord, V: PartialEq>(
    before: &BTreeMap<K, Arc<V>>,
    now: &BTreeMap<K, Arc<V>>,
    key: impl Fn(K) -> Key,
    object: impl Fn(Arc<V>) -> Object,
    edits: &mut Vec<Edit>,
) {
    for name in before.keys() {
        if !now.contains_key(name) {
            edits.push(Edit::Remove(key(name.clone())));
        }
    }
    for (name, value) in now {
        let same = before
            .get(name)
            .is_some_and(|old| Arc::ptr_eq(old, value) || old == value);
        if !same {
            edits.push(Edit::Put(key(name.clone()), object(value.clone())));
        }
    }
}
