//! AlbConfigs, and which Ingress belongs to which of them: the first stages of a build.

use std::sync::Arc;

use super::{
    Compiler, Member, Subject, Touched, Work,
    class::{Linkage, link},
    gateway, ingress,
    ingress::Understood,
    notes::{ALB, Notes, annotation},
    refusals,
};

use crate::manifest::{Changes, Ingress, NamespacedName, Snapshot};

const NGINX: &str = "nginx.ingress.kubernetes.io/";

impl Compiler {
    /// AlbConfigs that changed, or all where the set of clusters did.
    pub(super) fn follow_gateways(
        &mut self,
        snapshot: &Snapshot,
        changes: &Changes,
        work: &mut Work,
        touched: &mut Touched,
    ) {
        let names: Vec<String> = if work.every_gateway {
            let gone = self.gateways.keys().cloned();
            snapshot.gateways.keys().cloned().chain(gone).collect()
        } else {
            changes.gateways.iter().cloned().collect()
        };
        for name in names {
            let subject = Subject::Gateway(name.clone());
            let Some(config) = snapshot.gateways.get(&name) else {
                self.gateways.remove(&name);
                self.good.gateways.remove(&name);
                self.note(subject, None, touched);
                work.gateways.insert(name);
                continue;
            };
            let mut notes = Notes::on("AlbConfig", "", &name);
            let before = self.good.gateways.get(&name);
            let mut gateway = gateway::understand(config, &self.associated, before, &mut notes);
            gateway.refused = refusals::listeners(&gateway, &mut notes);
            self.good
                .gateways
                .insert(name.clone(), gateway.kept.clone());
            let had = self.gateways.get(&name);
            let same = had.is_some_and(|had| {
                had.clusters == gateway.clusters && had.kept.addresses == gateway.kept.addresses
            });
            if !same {
                let theirs = self.wants.iter().filter(|(_, want)| want.gateway == name);
                work.groups.extend(theirs.map(|(group, _)| group.clone()));
            }
            self.gateways.insert(name.clone(), gateway);
            self.note(subject, Some(notes), touched);
            work.gateways.insert(name);
        }
    }

    /// Ingresses that changed, or all where an AlbConfig or a class may link them otherwise.
    pub(super) fn follow_ingresses(
        &mut self,
        snapshot: &Snapshot,
        changes: &Changes,
        work: &mut Work,
        touched: &mut Touched,
    ) {
        let all = !changes.classes.is_empty() || !changes.gateways.is_empty();
        let keys: Vec<NamespacedName> = if all {
            let gone = changes.ingresses.iter().cloned();
            snapshot.ingresses.keys().cloned().chain(gone).collect()
        } else {
            changes.ingresses.iter().cloned().collect()
        };
        for key in keys {
            let member = match snapshot.ingresses.get(&key) {
                Some(ingress) => self.member(&key, ingress, snapshot, touched),
                None => {
                    self.note(Subject::Ingress(key.clone()), None, touched);
                    None
                }
            };
            self.place(key, member, work);
        }
    }

    /// What an Ingress says, and for which gateway; from its last good version where it is wrong now.
    fn member(
        &mut self,
        key: &NamespacedName,
        ingress: &Arc<Ingress>,
        snapshot: &Snapshot,
        touched: &mut Touched,
    ) -> Option<Member> {
        let mut notes = Notes::on("Ingress", &key.namespace, &key.name);
        let linkage = link(ingress, snapshot, &mut notes);
        if linkage == Linkage::NotOurs {
            self.good.ingresses.remove(key);
            self.note(Subject::Ingress(key.clone()), Some(notes), touched);
            return None;
        }
        let understood = ingress::understand(ingress, &mut notes);
        let good = match (linkage, understood) {
            (Linkage::Gateway(gateway), Some(understood)) => {
                Some((understood, ingress.clone(), gateway, false))
            }
            _ if notes.restricts() => None,
            _ => self
                .good
                .ingresses
                .get(key)
                .filter(|(good, _)| !narrowed(ingress, good, &notes))
                .and_then(|(ingress, gateway)| revive(ingress, gateway)),
        };
        let serves = |gateway: &String| snapshot.gateways.contains_key(gateway);
        notes.until_then(match &good {
            Some((_, _, gateway, _)) if serves(gateway) => {
                "what this Ingress said before keeps serving"
            }
            _ => "nothing of this Ingress is served",
        });
        self.note(Subject::Ingress(key.clone()), Some(notes), touched);
        let Some((understood, ingress, gateway, stale)) = good else {
            self.good.ingresses.remove(key);
            return None;
        };
        self.good
            .ingresses
            .insert(key.clone(), (ingress, gateway.clone()));
        Some(Member {
            gateway,
            understood: Arc::new(understood),
            stale,
        })
    }

    /// Takes an Ingress out of where it was and puts it where it belongs.
    fn place(&mut self, key: NamespacedName, member: Option<Member>, work: &mut Work) {
        let place = |member: &Member| (member.understood.order, key.to_string());
        if let Some(had) = self.ingresses.remove(&key) {
            if let Some(members) = self.members.get_mut(&had.gateway) {
                members.remove(&place(&had));
                if members.is_empty() {
                    self.members.remove(&had.gateway);
                }
            }
            work.gateways.insert(had.gateway);
        }
        if member.is_none() && !self.good.ingresses.is_empty() {
            self.good.ingresses.remove(&key);
        }
        if let Some(member) = member {
            let members = self.members.entry(member.gateway.clone()).or_default();
            members.insert(place(&member), key.clone());
            work.gateways.insert(member.gateway.clone());
            self.ingresses.insert(key, member);
        }
    }
}

/// Annotations, by key or beginning, that restrict or change what an Ingress serves.
const NARROWING: [&str; 12] = [
    WEIGHT,
    "conditions.",
    "actions.",
    "rule-direction.",
    "traffic-limit-",
    "ssl-redirect",
    "canary",
    "rewrite-target",
    "use-regex",
    "enable-cors",
    "sticky-session",
    "backend-protocol",
];
const WEIGHT: &str = "cluster-weight.";

/// Whether a mistaken Ingress also says, without a mistake there, what its last good version did not: that version
/// would serve more than the Ingress says now.
fn narrowed(now: &Ingress, good: &Ingress, notes: &Notes) -> bool {
    let had = &good.metadata.annotations;
    now.metadata.annotations.iter().any(|(key, value)| {
        let short = key.strip_prefix(ALB).or(key.strip_prefix(NGINX));
        let narrows = short.is_some_and(|it| NARROWING.iter().any(|known| it.starts_with(known)));
        // What is wrong with weights is wrong with all of them.
        let field = match short {
            Some(short) if short.starts_with(WEIGHT) => annotation(&format!("{ALB}{WEIGHT}")),
            _ => annotation(key),
        };
        let field = field.strip_suffix(']').unwrap_or(&field);
        narrows && had.get(key) != Some(value) && !notes.errs(field)
    })
}

fn revive(
    ingress: &Arc<Ingress>,
    gateway: &str,
) -> Option<(Understood, Arc<Ingress>, String, bool)> {
    let meta = &ingress.metadata;
    let mut told = Notes::on("Ingress", &meta.namespace, &meta.name);
    let understood = ingress::understand(ingress, &mut told)?;
    Some((understood, ingress.clone(), gateway.to_owned(), true))
}
