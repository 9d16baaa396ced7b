//! The objects, their history, and one counter of revisions for all of them, as etcd has.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{refusal::Refusal, resource::Resource};

/// Where an object lives in its resource. The namespace is empty for objects of the whole cluster.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Key {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(namespace: Option<&str>, name: &str) -> Self {
        Self {
            namespace: namespace.unwrap_or_default().to_owned(),
            name: name.to_owned(),
        }
    }

    /// The key of an object by its own metadata.
    pub(super) fn of(object: &Value) -> Self {
        let field = |name| object.pointer(name).and_then(Value::as_str);
        Self::new(
            field("/metadata/namespace"),
            field("/metadata/name").unwrap_or_default(),
        )
    }
}

/// One state of one object, as text: ten clusters of objects as trees would take ten times the memory.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) key: Key,
    pub(super) revision: u64,
    resource: Resource,
    /// JSON without `kind` and `apiVersion`.
    bare: Bytes,
}

impl Stored {
    fn new(resource: Resource, revision: u64, value: &Value) -> Self {
        let mut bare = BTreeMap::new();
        for (name, value) in value.as_object().into_iter().flatten() {
            if !matches!(name.as_str(), "kind" | "apiVersion") {
                bare.insert(name, value);
            }
        }
        let text = serde_json::to_vec(&bare).expect("maps with names for keys can be written");
        Self {
            key: Key::of(value),
            revision,
            resource,
            bare: text.into(),
        }
    }

    /// As JSON.
    pub(super) fn text(&self) -> Bytes {
        let head = format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",",
            self.resource.kind(),
            self.resource.api_version()
        );
        // There is metadata in every object, so something follows on the comma.
        [head.as_bytes(), &self.bare[1..]].concat().into()
    }

    /// As JSON without `kind` and `apiVersion`: an item in a list of a built-in kind.
    pub(super) fn bare(&self) -> &Bytes {
        &self.bare
    }

    /// As a tree, made by this call.
    pub(super) fn value(&self) -> Value {
        serde_json::from_slice(&self.text()).expect("this text was written from a value")
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Happened {
    Added,
    Modified,
    Deleted,
}

/// One entry of the history of a resource.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) happened: Happened,
    /// The state since then; the last one, with the revision of its end, when deleted.
    pub(super) object: Arc<Stored>,
    pub(super) before: Option<Arc<Stored>>,
}

#[derive(Debug)]
struct Table {
    objects: BTreeMap<Key, Arc<Stored>>,
    /// By rising revision.
    history: VecDeque<Arc<Change>>,
    /// The last revision whose change is no longer kept.
    trimmed: u64,
    wake: watch::Sender<u64>,
}

/// A part of a listing, and where it goes on.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) items: Vec<Arc<Stored>>,
    /// The last key of this page, if more follows.
    pub(super) last: Option<Key>,
    /// How many more objects follow, whatever the selector.
    pub(super) remaining: usize,
}

/// Everything the server holds.
#[derive(Debug)]
pub(super) struct Store {
    revision: u64,
    compacted: u64,
    history_len: usize,
    tables: Vec<Table>,
}

impl Store {
    /// Nothing yet, at this revision; each resource keeps its last `history_len` changes.
    pub(super) fn new(revision: u64, history_len: usize) -> Self {
        let table = |_| Table {
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            trimmed: revision,
            wake: watch::Sender::new(revision),
        };
        Self {
            revision,
            compacted: 0,
            history_len,
            tables: Resource::ALL.into_iter().map(table).collect(),
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Told of each change of a resource.
    pub(super) fn wake(&self, resource: Resource) -> watch::Receiver<u64> {
        self.tables[resource.index()].wake.subscribe()
    }

    /// Forgets what was before now. The revision moves on, as it would by writes to things that this
    /// server does not have, so that every version handed out before is too old to go on from.
    pub(super) fn compact(&mut self) {
        self.revision += 1;
        self.compacted = self.revision;
    }

    /// The oldest revision that a watch may go on from.
    pub(super) fn oldest(&self, resource: Resource) -> u64 {
        self.tables[resource.index()].trimmed.max(self.compacted)
    }

    pub(super) fn find(&self, resource: Resource, key: &Key) -> Option<&Arc<Stored>> {
        self.tables[resource.index()].objects.get(key)
    }

    /// Stores a new state of an object and returns it with its new `resourceVersion`.
    pub(super) fn put(&mut self, resource: Resource, mut value: Value) -> Value {
        let object = self.next(resource, &mut value);
        let table = &mut self.tables[resource.index()];
        let before = table
            .objects
            .insert(object.key.clone(), Arc::clone(&object));
        let happened = match before {
            Some(_) => Happened::Modified,
            None => Happened::Added,
        };
        self.record(resource, happened, &object, before);
        value
    }

    /// Removes an object; its last state has the revision of its end. False if there is none.
    pub(super) fn remove(&mut self, resource: Resource, key: &Key) -> bool {
        let Some(before) = self.tables[resource.index()].objects.remove(key) else {
            return false;
        };
        let object = self.next(resource, &mut before.value());
        self.record(resource, Happened::Deleted, &object, Some(before));
        true
    }

    fn next(&mut self, resource: Resource, value: &mut Value) -> Arc<Stored> {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        Arc::new(Stored::new(resource, self.revision, value))
    }

    fn record(
        &mut self,
        resource: Resource,
        happened: Happened,
        object: &Arc<Stored>,
        before: Option<Arc<Stored>>,
    ) {
        let table = &mut self.tables[resource.index()];
        table.history.push_back(Arc::new(Change {
            revision: self.revision,
            happened,
            object: Arc::clone(object),
            before,
        }));
        if table.history.len() > self.history_len
            && let Some(oldest) = table.history.pop_front()
        {
            table.trimmed = oldest.revision;
        }
        table.wake.send_replace(self.revision);
    }

    /// The changes after `revision`, oldest first; none if some of them are no longer kept.
    pub(super) fn changes_after(
        &self,
        resource: Resource,
        revision: u64,
    ) -> Option<Vec<Arc<Change>>> {
        let table = &self.tables[resource.index()];
        if revision < table.trimmed {
            return None;
        }
        let start = table
            .history
            .partition_point(|change| change.revision <= revision);
        Some(table.history.range(start..).cloned().collect())
    }

    /// The objects as they were at revision `at`, in order of their keys, behind `after`.
    ///
    /// 410 if the history back to there is gone, 504 if that revision has not come yet.
    pub(super) fn page(
        &self,
        resource: Resource,
        scope: &Scope<'_>,
        at: u64,
        matches: impl Fn(&Stored) -> bool,
    ) -> Result<Page, Refusal> {
        let table = &self.tables[resource.index()];
        if at > self.revision {
            return Err(Refusal::too_large(at, self.revision));
        }
        if at < table.trimmed {
            return Err(Refusal::expired(
                "The resourceVersion for the provided list is too old.",
            ));
        }
        // What changed since then, with what was there then: the oldest change of a key decides.
        let mut undone: BTreeMap<&Key, Option<&Arc<Stored>>> = BTreeMap::new();
        for change in table
            .history
            .iter()
            .rev()
            .take_while(|change| change.revision > at)
        {
            undone.insert(&change.object.key, change.before.as_ref());
        }
        let start = scope.start();
        let current = table.objects.range(start.clone()..);
        let was: Box<dyn Iterator<Item = (&Key, &Arc<Stored>)>> = if undone.is_empty() {
            Box::new(current)
        } else {
            let kept = current.filter(|(key, _)| !undone.contains_key(key));
            let back = undone
                .range::<&Key, _>(&start..)
                .filter_map(|(key, was)| Some((*key, (*was)?)));
            Box::new(kept.chain(back).collect::<BTreeMap<_, _>>().into_iter())
        };
        let mut page = Page {
            items: Vec::new(),
            last: None,
            remaining: 0,
        };
        for (key, object) in was.take_while(|(key, _)| scope.holds(key)) {
            if scope.after == Some(key) || !matches(object) {
                continue;
            }
            if scope.limit.is_some_and(|limit| page.items.len() >= limit) {
                page.remaining += 1;
                continue;
            }
            page.items.push(Arc::clone(object));
        }
        if page.remaining > 0 {
            page.last = page.items.last().map(|object| object.key.clone());
        }
        Ok(page)
    }
}

/// Which keys a listing walks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scope<'a> {
    /// None for all.
    pub(super) namespace: Option<&'a str>,
    /// Begin behind this key.
    pub(super) after: Option<&'a Key>,
    /// At most so many objects.
    pub(super) limit: Option<usize>,
}

impl Scope<'_> {
    fn start(&self) -> Key {
        self.after
            .cloned()
            .unwrap_or_else(|| Key::new(self.namespace, ""))
    }

    fn holds(&self, key: &Key) -> bool {
        self.namespace
            .is_none_or(|namespace| key.namespace == namespace)
    }
}
