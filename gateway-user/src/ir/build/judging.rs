//! Which pods fail their health checks: told from outside, kept as long as a group has the pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use super::{Compiler, Touched, Work};
use crate::{
    ir::model::{Group, GroupName, HealthCheck, Ir, Probe, ProbeFailure},
    manifest::Snapshot,
};

/// The targets that fail; all others are trusted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verdicts(BTreeMap<Arc<HealthCheck>, BTreeMap<SocketAddr, ProbeFailure>>);

impl Verdicts {
    /// Those that a routing model was made with.
    pub fn of(ir: &Ir) -> Self {
        let mut verdicts = Self::default();
        for group in ir.groups.values() {
            let Some(check) = &group.policy.health else {
                continue;
            };
            for failing in &group.failing {
                let target = Probe::of(failing.backend.address, check);
                verdicts.set(&target, Some(failing.why));
            }
        }
        verdicts
    }

    /// Why a target fails; `None` if it does not.
    pub fn get(&self, target: &Probe) -> Option<ProbeFailure> {
        self.0.get(&target.check)?.get(&target.address).copied()
    }

    /// Judges a target; false if that changes nothing.
    pub fn set(&mut self, target: &Probe, why: Option<ProbeFailure>) -> bool {
        if self.get(target) == why {
            return false;
        }
        match why {
            Some(why) => {
                let of_check = self.0.entry(Arc::clone(&target.check)).or_default();
                of_check.insert(target.address, why);
            }
            None => {
                if let Some(of_check) = self.0.get_mut(&target.check) {
                    of_check.remove(&target.address);
                    if of_check.is_empty() {
                        self.0.remove(&target.check);
                    }
                }
            }
        }
        true
    }

    fn targets(&self) -> impl Iterator<Item = Probe> {
        self.0.iter().flat_map(|(check, of_check)| {
            of_check.keys().map(|address| Probe {
                address: *address,
                check: Arc::clone(check),
            })
        })
    }
}

/// Who is probed for whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Probed {
    users: BTreeMap<Probe, BTreeSet<GroupName>>,
    of: BTreeMap<GroupName, BTreeSet<Probe>>,
    /// Targets that came or went since somebody asked.
    news: BTreeSet<Probe>,
    /// Targets that a group gave up: their verdict is forgotten if no group has them.
    left: BTreeSet<Probe>,
}

impl Probed {
    pub(super) fn follow(&mut self, name: &GroupName, group: Option<&Group>) {
        let now: BTreeSet<Probe> = group.into_iter().flat_map(Group::probes).collect();
        let had = self.of.remove(name).unwrap_or_default();
        for target in had.difference(&now) {
            if let Some(users) = self.users.get_mut(target) {
                users.remove(name);
                if users.is_empty() {
                    self.users.remove(target);
                    self.news.insert(target.clone());
                    self.left.insert(target.clone());
                }
            }
        }
        for target in now.difference(&had) {
            let users = self.users.entry(target.clone()).or_default();
            if users.is_empty() {
                self.news.insert(target.clone());
            }
            users.insert(name.clone());
        }
        if !now.is_empty() {
            self.of.insert(name.clone(), now);
        }
    }
}

/// What is to be probed, as far as it changed; a target may be named again.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ProbeChanges {
    /// Targets of a group, and why each fails so far.
    pub wanted: Vec<(Probe, Option<ProbeFailure>)>,
    /// Targets that no group has any more.
    pub gone: Vec<Probe>,
}

impl Compiler {
    /// Starts from what an earlier one knew.
    pub fn start_from(&mut self, verdicts: Verdicts) {
        self.probed.left.extend(verdicts.targets());
        self.verdicts = verdicts;
    }

    /// Which targets fail.
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// What is to be probed beyond, or no more than, the last time this was asked.
    pub fn probe_changes(&mut self) -> ProbeChanges {
        let mut changes = ProbeChanges::default();
        for target in std::mem::take(&mut self.probed.news) {
            if self.probed.users.contains_key(&target) {
                let why = self.verdicts.get(&target);
                changes.wanted.push((target, why));
            } else {
                changes.gone.push(target);
            }
        }
        changes
    }

    /// Takes in which targets fail now, and why, or do not any more. What no group has is not kept.
    pub fn judge(
        &mut self,
        snapshot: &Snapshot,
        news: impl IntoIterator<Item = (Probe, Option<ProbeFailure>)>,
    ) -> Touched {
        let mut work = Work::default();
        for (target, why) in news {
            if let Some(users) = self.probed.users.get(&target)
                && self.verdicts.set(&target, why)
            {
                work.groups.extend(users.iter().cloned());
            }
        }
        let mut touched = Touched::default();
        self.finish(snapshot, work, &mut touched);
        touched
    }

    /// Forgets verdicts on what no group has any more.
    pub(super) fn forget_verdicts(&mut self) {
        for target in std::mem::take(&mut self.probed.left) {
            if !self.probed.users.contains_key(&target) {
                self.verdicts.set(&target, None);
            }
        }
    }
}
