//! Snapshot -> Ir: never fails, a bad object is a [`Problem`] and keeps its own last good version.
//!
//! Order of work: AlbConfigs, then which Ingress belongs to which of them and what each says on its own, then rules per
//! listener, then groups with their pods, then who steers. A [`Compiler`] keeps the result of each of these stages and
//! does again only what a change touches; [`build`] is a compiler that was asked once.

mod actions;
pub mod annotations;
mod assembly;
mod backends;
mod canary;
mod certificates;
mod claims;
mod class;
mod conditions;
mod drafting;
mod gateway;
mod groups;
mod ingress;
mod json;
mod judging;
mod l4;
mod linking;
mod notes;
mod passthrough;
mod patterns;
mod placing;
mod policy;
mod ports;
mod refusals;
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use self::{
    assembly::Draw,
    certificates::{GoodSecrets, Judged},
    claims::Held,
    gateway::{Gateway, Kept},
    groups::Want,
    ingress::Understood,
    judging::Probed,
    notes::{Notes, Told},
};
pub use self::{
    backends::Remembered,
    judging::{ProbeChanges, Verdicts},
};
use super::model::{GroupName, Ir, ListenerName, SteeringWish};
use crate::{
    manifest::{Changes, ClusterId, Ingress, NamespacedName, Reach, Snapshot},
    problem::Problem,
};

/// What the command line decides.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// Steering of listeners whose Ingresses and AlbConfig wish for none.
    pub steering: SteeringWish,
}

/// Last good version of each object.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LastGood {
    ingresses: BTreeMap<NamespacedName, (Arc<Ingress>, String)>,
    gateways: BTreeMap<String, Kept>,
    held: Held,
    /// By AlbConfig.
    secrets: BTreeMap<String, GoodSecrets>,
}

impl LastGood {
    /// Forgets objects that are gone; a compiler that goes on from change to change is told of each.
    fn forget_all_but(&mut self, snapshot: &Snapshot) {
        let gateways = &snapshot.gateways;
        self.ingresses
            .retain(|key, _| snapshot.ingresses.contains_key(key));
        self.gateways.retain(|name, _| gateways.contains_key(name));
        self.held.retain(|(name, _), _| gateways.contains_key(name));
        self.secrets.retain(|name, _| gateways.contains_key(name));
    }
}

/// What [`build`] makes of a snapshot.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Built {
    /// The routing model.
    pub ir: Ir,
    /// Sorted by object, without repetitions.
    pub problems: Vec<Problem>,
    /// Fields of each AlbConfig that are set and mean nothing here.
    pub ignored: BTreeMap<String, Vec<String>>,
    /// For the next build.
    pub last_good: LastGood,
}

/// Compiles `snapshot`; equal input gives equal output.
///
/// An object with an error is compiled from its version in `before`; if there was none it contributes nothing. An object
/// that now restricts or changes requests in a way that is not understood contributes nothing either: its version in
/// `before` would serve more than it says. Deleted objects are forgotten.
pub fn build(snapshot: &Snapshot, before: &LastGood, options: &Options) -> Built {
    build_judged(snapshot, before, options, &Verdicts::default())
}

/// [`build`] where some pods fail their health checks.
pub fn build_judged(
    snapshot: &Snapshot,
    before: &LastGood,
    options: &Options,
    verdicts: &Verdicts,
) -> Built {
    let mut before = before.clone();
    before.forget_all_but(snapshot);
    let mut compiler = Compiler::new(*options, before, Remembered::default());
    compiler.start_from(verdicts.clone());
    compiler.update(snapshot, &Changes::all(snapshot));
    Built {
        problems: compiler.problems(),
        ignored: compiler.ignored(),
        ir: compiler.ir,
        last_good: compiler.good,
    }
}

/// What an update changed in the routing model.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Touched {
    /// Listeners that differ, came or went, and those whose kernel group differs.
    pub listeners: BTreeSet<ListenerName>,
    /// Groups that differ, came or went.
    pub groups: BTreeSet<GroupName>,
    /// The list of problems may differ.
    pub problems: bool,
}

impl Touched {
    /// Everything of `ir`.
    pub fn all(ir: &Ir) -> Self {
        Self {
            listeners: ir.listeners.keys().cloned().collect(),
            groups: ir.groups.keys().cloned().collect(),
            problems: true,
        }
    }

    /// Whether the routing model is as it was.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.groups.is_empty()
    }
}

/// Compiles, and compiles changes again at a cost that grows with them.
///
/// A changed pod costs the groups of its Service. A changed Ingress costs the rules of its gateway. AlbConfigs, classes
/// and clusters that come or go cost a whole build.
#[derive(Debug, Default)]
pub struct Compiler {
    options: Options,
    good: LastGood,
    remembered: Remembered,
    ir: Ir,
    associated: BTreeSet<ClusterId>,
    /// Clusters whose pods are not known yet.
    unknown: BTreeSet<ClusterId>,
    gateways: BTreeMap<String, Gateway>,
    /// What was found in Secrets that hold certificates.
    judged: Judged,
    ingresses: BTreeMap<NamespacedName, Member>,
    /// Members of each gateway in the order of evaluation: order, then `namespace/name` as plain text.
    members: BTreeMap<String, BTreeMap<(u16, String), NamespacedName>>,
    /// Listeners as their rules decide, whether pods are ready or not.
    draws: BTreeMap<ListenerName, Draw>,
    /// What each group is made of.
    wants: BTreeMap<GroupName, Want>,
    /// Groups by Service.
    users: BTreeMap<NamespacedName, BTreeSet<GroupName>>,
    /// Listeners that the kernel would steer, by the group it needs.
    steered: BTreeMap<GroupName, BTreeSet<ListenerName>>,
    /// Targets of probes that fail.
    verdicts: Verdicts,
    probed: Probed,
    notes: BTreeMap<Subject, Notes>,
}

/// An Ingress of a gateway.
#[derive(Clone, Debug)]
struct Member {
    gateway: String,
    understood: Arc<Understood>,
    /// Served from its last good version: problems of that version were told when it was current.
    stale: bool,
}

/// What notes are about: the same subject's are replaced.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Subject {
    Gateway(String),
    Claim(String, gateway::Key),
    Ingress(NamespacedName),
    /// Of an Ingress among the others of its gateway.
    Member(NamespacedName),
    Listener(ListenerName),
    /// Certificates of a listener.
    Tls(ListenerName),
    Group(GroupName),
}

impl Compiler {
    /// A compiler that knows nothing but what served before.
    pub fn new(options: Options, good: LastGood, remembered: Remembered) -> Self {
        Self {
            options,
            good,
            remembered,
            ..Self::default()
        }
    }

    /// The routing model.
    pub fn ir(&self) -> &Ir {
        &self.ir
    }

    /// Every Ingress that a gateway serves, or would, with its AlbConfig.
    pub fn members(&self) -> impl Iterator<Item = (&NamespacedName, &str)> {
        let members = self.ingresses.iter();
        members.map(|(key, member)| (key, member.gateway.as_str()))
    }

    /// Clusters whose pods serve a gateway.
    pub fn clusters(&self, gateway: &str) -> impl Iterator<Item = &ClusterId> {
        let gateway = self.gateways.get(gateway);
        gateway.into_iter().flat_map(|it| &it.clusters)
    }

    /// Fields of AlbConfigs that are set and mean nothing here: a word for people, no problem.
    pub fn ignored(&self) -> BTreeMap<String, Vec<String>> {
        let gateways = self.gateways.iter();
        let some = gateways.filter(|(_, it)| !it.ignored.is_empty());
        some.map(|(name, it)| (name.clone(), it.ignored.clone()))
            .collect()
    }

    /// Last good versions, for another compiler.
    pub fn last_good(&self) -> &LastGood {
        &self.good
    }

    /// Everything that is wrong, sorted by object, without repetitions.
    pub fn problems(&self) -> Vec<Problem> {
        let mut told = Told::default();
        for notes in self.notes.values() {
            told.add(notes.clone());
        }
        told.problems()
    }

    /// Follows changes of `snapshot`.
    pub fn update(&mut self, snapshot: &Snapshot, changes: &Changes) -> Touched {
        let mut touched = Touched {
            problems: changes.problems,
            ..Touched::default()
        };
        let mut work = Work::default();
        if changes.clusters {
            self.follow_clusters(snapshot, &mut work);
        }
        self.follow_gateways(snapshot, changes, &mut work, &mut touched);
        self.follow_ingresses(snapshot, changes, &mut work, &mut touched);
        if !changes.secrets.is_empty() {
            self.judged.forget(&changes.secrets);
            work.gateways.extend(self.gateways.keys().cloned());
            // Names of certificates may be as they were, and what they hold is not.
            work.listeners.extend(self.secured_by(&changes.secrets));
        }
        if !work.gateways.is_empty() {
            self.claim(&mut work, &mut touched);
            for name in work.gateways.clone() {
                self.assemble(&name, snapshot, &mut work, &mut touched);
            }
        }
        for service in &changes.services {
            work.groups
                .extend(self.users.get(service).into_iter().flatten().cloned());
        }
        self.finish(snapshot, work, &mut touched);
        touched
    }

    /// The last stages: pods of groups, then who steers the listeners that depend on them.
    fn finish(&mut self, snapshot: &Snapshot, mut work: Work, touched: &mut Touched) {
        for name in &work.groups {
            self.regroup(name, snapshot, touched);
        }
        self.forget_verdicts();
        for name in &touched.groups {
            let steered = self.steered.get(name).into_iter().flatten();
            work.listeners.extend(steered.cloned());
        }
        for name in &work.listeners {
            self.settle(name, touched);
        }
    }

    fn follow_clusters(&mut self, snapshot: &Snapshot, work: &mut Work) {
        let associated: BTreeSet<_> = snapshot.clusters.keys().cloned().collect();
        let unknown: BTreeSet<_> = snapshot
            .clusters
            .iter()
            .filter(|(_, it)| it.reach == Reach::Unknown)
            .map(|(id, _)| id.clone())
            .collect();
        if associated != self.associated {
            self.associated = associated;
            work.every_gateway = true;
        }
        if unknown != self.unknown {
            self.unknown = unknown;
            work.groups.extend(self.wants.keys().cloned());
        }
    }

    /// Replaces what is noted on a subject.
    fn note(&mut self, subject: Subject, notes: Option<Notes>, touched: &mut Touched) {
        let notes = notes.filter(|notes| !notes.is_empty());
        let had = match notes {
            Some(notes) => {
                let same = self.notes.get(&subject) == Some(&notes);
                if !same {
                    self.notes.insert(subject, notes);
                }
                !same
            }
            None => self.notes.remove(&subject).is_some(),
        };
        touched.problems |= had;
    }
}

/// What is to be done again.
#[derive(Debug, Default)]
struct Work {
    every_gateway: bool,
    /// Gateways whose rules are put together again.
    gateways: BTreeSet<String>,
    /// Groups whose pods are looked up again.
    groups: BTreeSet<GroupName>,
    /// Listeners whose steering is settled again.
    listeners: BTreeSet<ListenerName>,
}

#[cfg(test)]
mod tests;
