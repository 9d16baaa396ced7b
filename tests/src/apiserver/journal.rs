//! What was asked of the server: counted, and the last requests in full.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use super::resource::Resource;

/// What a request does, in the words of RBAC.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Verb {
    /// One object.
    Get,
    /// A collection.
    List,
    /// A collection, with its changes.
    Watch,
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH, server-side apply among them.
    Patch,
    /// DELETE of one object.
    Delete,
    /// DELETE of a collection.
    DeleteCollection,
}

impl Verb {
    /// As RBAC writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

/// One request that was answered.
#[derive(Clone, Debug)]
pub struct Request {
    /// When its answer began.
    pub at: Instant,
    /// What it did.
    pub verb: Verb,
    /// To what.
    pub resource: Resource,
    /// Path and query as they were sent.
    pub uri: String,
    /// Who asked; `system:anonymous` if nobody has to log in.
    pub user: String,
    /// HTTP status of the answer.
    pub code: u16,
}

/// Counts since the start, and the last requests.
#[derive(Debug)]
pub(super) struct Journal {
    counts: BTreeMap<(Verb, Resource), u64>,
    last: VecDeque<Request>,
    keep: usize,
}

impl Journal {
    pub(super) fn new(keep: usize) -> Self {
        Self {
            counts: BTreeMap::new(),
            last: VecDeque::new(),
            keep,
        }
    }

    /// Counts a request when it has come in, whatever becomes of it.
    pub(super) fn count(&mut self, verb: Verb, resource: Resource) {
        *self.counts.entry((verb, resource)).or_default() += 1;
    }

    pub(super) fn note(&mut self, request: Request) {
        if self.last.len() >= self.keep {
            self.last.pop_front();
        }
        self.last.push_back(request);
    }

    pub(super) fn counts(&self) -> &BTreeMap<(Verb, Resource), u64> {
        &self.counts
    }

    pub(super) fn last(&self) -> Vec<Request> {
        self.last.iter().cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.counts.clear();
        self.last.clear();
    }
}
