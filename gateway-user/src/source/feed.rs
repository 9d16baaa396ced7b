//! Edits on their way from a source to the agent.
//!
//! What the agent has not taken yet is conflated: of each object only the last word waits, so a source that is faster
//! than the agent costs no more memory than the objects there are.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{
    manifest::{ClusterId, Edit, Key, Reach},
    problem::{ObjectRef, Problem},
};

/// A feed: sources write to the first, the agent reads the second.
pub fn feed() -> (Writer, Reader) {
    let shared = Arc::new(Shared::default());
    (Writer(shared.clone()), Reader(shared))
}

/// The end of a source. Clones write to the same feed.
#[derive(Clone, Debug)]
pub struct Writer(Arc<Shared>);

/// The end of the agent. Dropping it tells the sources.
#[derive(Debug)]
pub struct Reader(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    filled: Notify,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Pending {
    objects: BTreeMap<Key, Edit>,
    clusters: BTreeMap<ClusterId, Membership>,
    problems: BTreeMap<ObjectRef, Vec<Problem>>,
    whole: Option<bool>,
    any: bool,
}

/// What waits to be told of a cluster: first that it went, then that it is there.
#[derive(Debug, Default)]
struct Membership {
    removed: bool,
    reach: Option<Reach>,
}

impl Writer {
    /// Hands edits over, together: the agent never sees only some of them. Also an empty list wakes it.
    pub fn send(&self, edits: impl IntoIterator<Item = Edit>) {
        let mut pending = self.0.lock();
        for edit in edits {
            pending.add(edit);
        }
        pending.any = true;
        drop(pending);
        self.0.filled.notify_one();
    }

    /// Nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }
}

impl Reader {
    /// Waits for edits and takes all of them: clusters that go, clusters that come, objects, problems.
    ///
    /// Cancel safe: what was not returned is still there.
    pub async fn take(&mut self) -> Vec<Edit> {
        loop {
            if let Some(edits) = self.take_now() {
                return edits;
            }
            // A permit is stored if something was sent in between.
            self.0.filled.notified().await;
        }
    }

    /// What is there now; `None` if nothing was sent.
    pub fn take_now(&mut self) -> Option<Vec<Edit>> {
        let pending = std::mem::take(&mut *self.0.lock());
        pending.any.then(|| pending.into_edits())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Whoever panicked left a map that is whole: each change to it is one insertion.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn add(&mut self, edit: Edit) {
        match edit {
            Edit::Put(ref key, _) | Edit::Remove(ref key) => {
                self.objects.insert(key.clone(), edit);
            }
            Edit::Cluster(id, reach) => {
                self.clusters.entry(id).or_default().reach = Some(reach);
            }
            Edit::RemoveCluster(id) => {
                self.objects.retain(|key, _| key.cluster() != Some(&id));
                let removed = Membership {
                    removed: true,
                    reach: None,
                };
                self.clusters.insert(id, removed);
            }
            Edit::Problems(about, problems) => drop(self.problems.insert(about, problems)),
            Edit::Whole(whole) => self.whole = Some(whole),
        }
    }

    fn into_edits(self) -> Vec<Edit> {
        let removed = |(id, it): (&ClusterId, &Membership)| {
            it.removed.then(|| Edit::RemoveCluster(id.clone()))
        };
        let mut edits: Vec<Edit> = self.clusters.iter().filter_map(removed).collect();
        let here = |(id, it): (ClusterId, Membership)| Some(Edit::Cluster(id, it.reach?));
        edits.extend(self.clusters.into_iter().filter_map(here));
        edits.extend(self.objects.into_values());
        edits.extend(
            self.problems
                .into_iter()
                .map(|(about, problems)| Edit::Problems(about, problems)),
        );
        edits.extend(self.whole.map(Edit::Whole));
        edits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{NamespacedName, Object, Service};

    fn cluster() -> ClusterId {
        ClusterId("c1".into())
    }

    fn put(name: &str, affinity: &str) -> Edit {
        let mut service = Service::default();
        service.spec.session_affinity = Some(affinity.to_owned());
        let key = NamespacedName {
            namespace: "demo".into(),
            name: name.into(),
        };
        Edit::Put(
            Key::Service(cluster(), key),
            Object::Service(Arc::new(service)),
        )
    }

    #[test]
    fn of_each_object_only_the_last_word_waits() {
        let (writer, mut reader) = feed();
        writer.send([put("a", "None"), put("b", "None")]);
        writer.send([put("a", "ClientIP")]);
        assert_eq!(
            reader.take_now(),
            Some(vec![put("a", "ClientIP"), put("b", "None")])
        );
        assert_eq!(reader.take_now(), None);
        writer.send([]);
        assert_eq!(reader.take_now(), Some(vec![]));
    }

    #[test]
    fn a_cluster_that_comes_back_starts_without_its_old_objects() {
        let (writer, mut reader) = feed();
        writer.send([Edit::Cluster(cluster(), Reach::Connected), put("a", "None")]);
        writer.send([
            Edit::RemoveCluster(cluster()),
            Edit::Cluster(cluster(), Reach::Connected),
            put("b", "None"),
        ]);
        assert_eq!(
            reader.take_now(),
            Some(vec![
                Edit::RemoveCluster(cluster()),
                Edit::Cluster(cluster(), Reach::Connected),
                put("b", "None"),
            ])
        );
    }

    #[test]
    fn a_writer_learns_that_nobody_reads() {
        let (writer, reader) = feed();
        assert!(!writer.is_closed());
        drop(reader);
        assert!(writer.is_closed());
    }
}
