//! What the source tells of its API servers, for status and metrics.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use crate::manifest::{ClusterId, Reach};

/// One API server as the source sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerHealth {
    /// The ID of the cluster, or `fleet`.
    pub name: String,
    /// The member cluster; `None` for the fleet.
    pub cluster: Option<ClusterId>,
    /// Whether it answers.
    pub reach: Reach,
    /// When `reach` became what it is.
    pub since: SystemTime,
    /// What is wrong now, or was wrong last, in one sentence without its end.
    pub last_error: Option<String>,
    /// Lists read whole.
    pub lists: u64,
    /// Watches opened.
    pub watches: u64,
    /// Objects that watches told of, bookmarks left out.
    pub events: u64,
    /// Requests that only asked whether the server lives.
    pub probes: u64,
}

/// All API servers, shared between the source's thread and whoever asks.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<BTreeMap<String, ServerHealth>>>);

impl Board {
    /// All of them as they stand, by name.
    pub fn all(&self) -> Vec<ServerHealth> {
        self.lock().values().cloned().collect()
    }

    pub(super) fn add(&self, name: &str, cluster: Option<&ClusterId>) {
        let health = ServerHealth {
            name: name.to_owned(),
            cluster: cluster.cloned(),
            reach: Reach::Unknown,
            since: SystemTime::now(),
            last_error: None,
            lists: 0,
            watches: 0,
            events: 0,
            probes: 0,
        };
        self.lock().insert(name.to_owned(), health);
    }

    pub(super) fn remove(&self, name: &str) {
        self.lock().remove(name);
    }

    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut ServerHealth)) {
        if let Some(health) = self.lock().get_mut(name) {
            change(health);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ServerHealth>> {
        // Each change is to plain numbers and words: whoever panicked left them usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
