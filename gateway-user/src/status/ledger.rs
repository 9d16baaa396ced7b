//! What the fleet says of us as far as we know, against what it should say: which status to write next.
//!
//! Pure, and made anew by each leader from what it finds.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use serde_json::Value;

use super::wanted::{Fields, Kind, Target, Wanted};

/// The manager of every field we write.
pub const MANAGER: &str = "fleetgate";

/// One object as the API server has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Live {
    /// `metadata.uid`.
    pub(super) uid: String,
    /// Fields of `status.loadBalancer` that we manage, with what they say.
    pub(super) ours: Fields,
    /// Fields of `status.loadBalancer` that others manage.
    pub(super) theirs: BTreeSet<String>,
}

impl Live {
    /// Reads who manages what from `metadata.managedFields`. What cannot be understood is nobody's.
    pub(super) fn read(uid: String, status: Option<&Value>, managers: &[Manager<'_>]) -> Self {
        let mut live = Self {
            uid,
            ..Self::default()
        };
        let balancer = status.and_then(|status| status.get("loadBalancer"));
        for manager in managers {
            let fields = manager
                .fields
                .pointer("/f:status/f:loadBalancer")
                .and_then(Value::as_object);
            let names = fields.into_iter().flat_map(|fields| fields.keys());
            for name in names.filter_map(|name| name.strip_prefix("f:")) {
                if manager.name == MANAGER && manager.applied {
                    let value = balancer.and_then(|it| it.get(name));
                    live.ours
                        .insert(name.to_owned(), value.cloned().unwrap_or_default());
                } else {
                    live.theirs.insert(name.to_owned());
                }
            }
        }
        live
    }
}

/// One entry of `metadata.managedFields`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manager<'a> {
    pub(super) name: &'a str,
    /// By server-side apply, not by an update.
    pub(super) applied: bool,
    /// `fieldsV1`.
    pub(super) fields: &'a Value,
}

/// One write that is due.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Write {
    pub(super) target: Target,
    /// `status.loadBalancer`; empty releases.
    pub(super) fields: Fields,
}

/// Known and wanted statuses.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    wanted: Arc<Wanted>,
    live: BTreeMap<Target, Live>,
    /// Fields that somebody else writes, with the name of who does.
    held: BTreeMap<Target, BTreeMap<String, String>>,
    /// What was refused for good, until the object, or what it should say, changes.
    parked: BTreeMap<Target, Fields>,
    due: BTreeSet<Target>,
    /// The last one that could not be written: those behind it come first.
    postponed: Option<Target>,
}

impl Ledger {
    /// Takes over everything there is of a kind, and tries again what was refused.
    pub(super) fn listed(&mut self, kind: Kind, found: BTreeMap<Target, Live>) {
        self.live.retain(|target, _| target.kind != kind);
        self.parked.retain(|target, _| target.kind != kind);
        self.held.retain(|target, fields| {
            // Whoever had the fields may have let them go.
            if let Some(live) = found.get(target) {
                fields.retain(|field, _| live.theirs.contains(field));
            }
            target.kind != kind || found.contains_key(target) && !fields.is_empty()
        });
        self.live.extend(found);
        self.look_at_all();
    }

    /// Takes what should be said from now on.
    pub(super) fn want(&mut self, wanted: Arc<Wanted>) {
        for (target, document) in &wanted.documents {
            let live = self.live.get(target);
            // Another object took the name: what we know is of the old one.
            if let (Some(uid), Some(live)) = (&document.uid, live)
                && *uid != live.uid
                && !live.uid.is_empty()
            {
                self.live.remove(target);
                self.held.remove(target);
            }
            let before = self.wanted.documents.get(target);
            if before.is_some_and(|before| before.uid != document.uid) {
                self.parked.remove(target);
            }
        }
        self.wanted = wanted;
        self.look_at_all();
    }

    /// What should be said.
    pub(super) fn wanted(&self) -> &Arc<Wanted> {
        &self.wanted
    }

    /// The next write; the same until its outcome is known.
    pub(super) fn next(&self) -> Option<Write> {
        let behind = self.postponed.as_ref().and_then(|target| {
            let range = (Bound::Excluded(target), Bound::Unbounded);
            self.due.range::<Target, _>(range).next()
        });
        let target = behind.or_else(|| self.due.first())?;
        Some(Write {
            target: target.clone(),
            fields: self.fields(target)?,
        })
    }

    /// It could not be written now. The others have their turn first: whatever the API server has against one object
    /// must not hold back all.
    pub(super) fn postpone(&mut self, write: Write) {
        self.postponed = Some(write.target);
    }

    /// Statuses that wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.due.len()
    }

    /// The write was done, and the server now has this object.
    pub(super) fn written(&mut self, write: Write, mut live: Live) {
        // As far as we wrote it, it says what we said: a server that words it in another way is not corrected for ever.
        live.ours = write.fields;
        self.live.insert(write.target.clone(), live);
        self.look_at(&write.target);
    }

    /// Others write these fields (name, and who): they keep them.
    pub(super) fn conflicted(&mut self, write: &Write, fields: Vec<(String, String)>) {
        let held = self.held.entry(write.target.clone()).or_default();
        let before = held.len();
        held.extend(fields);
        // Fields whose names we cannot tell from the answer: all of them are left alone.
        if held.len() == before {
            let all = write.fields.keys().cloned();
            held.extend(all.map(|field| (field, "somebody else".to_owned())));
        }
        self.look_at(&write.target);
    }

    /// There is no such object.
    pub(super) fn gone(&mut self, write: Write) {
        self.live.remove(&write.target);
        self.held.remove(&write.target);
        self.refused(write);
    }

    /// The server will not take this, now or later.
    pub(super) fn refused(&mut self, write: Write) {
        self.due.remove(&write.target);
        self.parked.insert(write.target, write.fields);
    }

    /// The uid of an object, where it is known.
    pub(super) fn uid(&self, target: &Target) -> Option<&str> {
        let live = self.live.get(target).map(|live| live.uid.as_str());
        let wanted = self.wanted.documents.get(target);
        live.filter(|uid| !uid.is_empty())
            .or_else(|| wanted?.uid.as_deref())
    }

    /// Objects that show a status of ours.
    pub(super) fn shown(&self) -> impl Iterator<Item = &Target> {
        let ours = |(_, live): &(&Target, &Live)| !live.ours.is_empty();
        self.live.iter().filter(ours).map(|(target, _)| target)
    }

    /// Objects whose status somebody else writes: fields, and by whom.
    pub(super) fn held(&self) -> impl Iterator<Item = (&Target, &BTreeMap<String, String>)> {
        self.held.iter()
    }

    /// What we should write there; `None` where nothing may be said yet.
    fn fields(&self, target: &Target) -> Option<Fields> {
        let mut fields = match self.wanted.documents.get(target) {
            Some(document) => document.fields.clone(),
            None if self.wanted.whole => Fields::new(),
            None => return None,
        };
        if let Some(held) = self.held.get(target) {
            fields.retain(|name, _| !held.contains_key(name));
        }
        Some(fields)
    }

    fn look_at_all(&mut self) {
        let mut targets: BTreeSet<Target> = self.wanted.documents.keys().cloned().collect();
        targets.extend(self.live.keys().cloned());
        self.due.clear();
        self.parked.retain(|target, _| targets.contains(target));
        for target in targets {
            self.look_at(&target);
        }
    }

    fn look_at(&mut self, target: &Target) {
        let empty = Fields::new();
        let ours = self.live.get(target).map_or(&empty, |live| &live.ours);
        let due = self
            .fields(target)
            .is_some_and(|fields| fields != *ours && self.parked.get(target) != Some(&fields));
        if due {
            self.due.insert(target.clone());
        } else {
            self.due.remove(target);
        }
    }
}

#[cfg(test)]
mod tests;
