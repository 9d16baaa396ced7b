//! Snapshot -> Ir: never fails, a bad object is a [`Problem`] and keeps its own last good version.
//!
//! Order of work: AlbConfigs, then which Ingress belongs to which of them, then each Ingress on its own, then rules per
//! listener with their pods, then who steers.

#[allow(dead_code)]
mod actions;
mod annotations;
mod backends;
mod claims;
mod class;
#[allow(dead_code)]
mod conditions;
mod gateway;
mod ingress;
mod json;
mod notes;
mod patterns;
mod ports;
mod rules;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use self::{
    backends::Members,
    claims::Held,
    class::{Linkage, link},
    gateway::{Gateway, Kept, Settings},
    ingress::Understood,
    notes::{Notes, STEERING, Told, annotation},
};
use super::{
    model::{Ir, Listener, ListenerName, ListenerProtocol, Rule, SteeringWish},
    steering::{self, Wisher},
};
use crate::{
    manifest::{Ingress, NamespacedName, Snapshot},
    problem::Problem,
};

/// What the command line decides.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// Steering of listeners whose Ingresses and AlbConfig wish for none.
    pub steering: SteeringWish,
}

/// Last good version of each object, to be handed to the next [`build`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LastGood {
    ingresses: BTreeMap<NamespacedName, (Arc<Ingress>, String)>,
    gateways: BTreeMap<String, Kept>,
    held: Held,
}

/// What [`build`] makes of a snapshot.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Built {
    /// The routing model.
    pub ir: Ir,
    /// Sorted by object, without repetitions.
    pub problems: Vec<Problem>,
    /// For the next build.
    pub last_good: LastGood,
}

/// Compiles `snapshot`; equal input gives equal output.
///
/// An object with an error is compiled from its version in `before`; if there was none it contributes nothing. An object
/// that now restricts or changes requests in a way that is not supported contributes nothing either: its version in
/// `before` would serve more than it says. Deleted objects are forgotten.
pub fn build(snapshot: &Snapshot, before: &LastGood, options: &Options) -> Built {
    let mut building = Building {
        snapshot,
        before,
        told: Told::default(),
        last_good: LastGood::default(),
    };
    let gateways = building.gateways();
    let members = building.members();
    let mut listeners = Vec::new();
    building.last_good.held = building.claims(&gateways, &members);
    let pods = Members::new(snapshot);
    for (name, gateway) in &gateways {
        let members = members.get(name).map(Vec::as_slice).unwrap_or_default();
        building.listeners(name, gateway, members, &pods, options, &mut listeners);
    }
    let Building {
        told, last_good, ..
    } = building;
    listeners.sort_by(|one: &Listener, other| one.name.cmp(&other.name));
    Built {
        ir: Ir { listeners },
        problems: told.problems(),
        last_good,
    }
}

struct Building<'a> {
    snapshot: &'a Snapshot,
    before: &'a LastGood,
    told: Told,
    last_good: LastGood,
}

/// An Ingress of a gateway, in the order of evaluation.
struct Member {
    key: NamespacedName,
    understood: Understood,
    /// Served from its last good version: problems of that version were told when it was current.
    stale: bool,
}

impl Building<'_> {
    fn told(&mut self, notes: Notes) {
        self.told.add(notes);
    }

    fn gateways(&mut self) -> BTreeMap<String, Gateway> {
        let associated: BTreeSet<_> = self.snapshot.clusters.keys().cloned().collect();
        let mut gateways = BTreeMap::new();
        for (name, config) in &self.snapshot.gateways {
            let mut notes = Notes::on("AlbConfig", "", name);
            let gateway = gateway::understand(
                config,
                &associated,
                self.before.gateways.get(name),
                &mut notes,
            );
            self.told(notes);
            self.last_good
                .gateways
                .insert(name.clone(), gateway.kept.clone());
            gateways.insert(name.clone(), gateway);
        }
        gateways
    }

    /// Ingresses of each gateway: smaller order first, then `namespace/name` as plain text.
    fn members(&mut self) -> BTreeMap<String, Vec<Member>> {
        let mut members: BTreeMap<String, Vec<Member>> = BTreeMap::new();
        for (key, ingress) in &self.snapshot.ingresses {
            let mut notes = Notes::on("Ingress", &key.namespace, &key.name);
            let linkage = link(ingress, self.snapshot, &mut notes);
            if linkage == Linkage::NotOurs {
                self.told(notes);
                continue;
            }
            let understood = ingress::understand(ingress, &mut notes);
            let good = match (linkage, understood) {
                (Linkage::Gateway(gateway), Some(understood)) => {
                    Some((understood, ingress.clone(), gateway, false))
                }
                _ if notes.restricts() => None,
                _ => revive(self.before.ingresses.get(key)),
            };
            let serves = |gateway: &String| self.snapshot.gateways.contains_key(gateway);
            notes.until_then(match &good {
                Some((_, _, gateway, _)) if serves(gateway) => {
                    "what this Ingress said before keeps serving"
                }
                _ => "nothing of this Ingress is served",
            });
            self.told(notes);
            if let Some((understood, ingress, gateway, stale)) = good {
                self.last_good
                    .ingresses
                    .insert(key.clone(), (ingress, gateway.clone()));
                members.entry(gateway).or_default().push(Member {
                    key: key.clone(),
                    understood,
                    stale,
                });
            }
        }
        for members in members.values_mut() {
            members.sort_by_cached_key(|member| (member.understood.order, member.key.to_string()));
            self.same_order(members);
        }
        members
    }

    fn same_order(&mut self, members: &[Member]) {
        let given = |member: &&Member| member.understood.order_given;
        let mut first: BTreeMap<u16, &NamespacedName> = BTreeMap::new();
        for member in members.iter().filter(given) {
            let order = member.understood.order;
            if let Some(first) = first.get(&order) {
                let mut notes = Notes::on("Ingress", &member.key.namespace, &member.key.name);
                notes.warning(
                    notes::alb("order"),
                    format!("order {order} is also that of Ingress {first}; it is tried after it, by name"),
                    "give each Ingress an order of its own, from 1 to 1000",
                );
                self.told(notes);
            } else {
                first.insert(order, &member.key);
            }
        }
    }

    fn listeners(
        &mut self,
        name: &str,
        gateway: &Gateway,
        members: &[Member],
        pods: &Members<'_>,
        options: &Options,
        into: &mut Vec<Listener>,
    ) {
        let Some(addresses) = &gateway.kept.addresses else {
            return;
        };
        let mut rules: BTreeMap<u16, Vec<Rule>> = BTreeMap::new();
        for &port in gateway.kept.listeners.keys() {
            if self.last_good.held.contains_key(&(name.to_owned(), port)) {
                rules.insert(port, Vec::new());
            }
        }
        self.rules(name, gateway, members, pods, &mut rules);
        for (port, rules) in rules {
            let Some(settings) = gateway.kept.listeners.get(&port) else {
                continue;
            };
            let listener = ListenerName {
                gateway: name.to_owned(),
                port,
                protocol: ListenerProtocol::Http,
            };
            let decision =
                steering::decide(&rules, settings.writes, gateway.steering, options.steering);
            if let Some(wisher) = &decision.refused {
                self.refused(&listener, wisher, &decision.steering.reason);
            }
            let Settings {
                idle_timeout,
                request_timeout,
                forwarded_for,
                forwarded,
                ..
            } = settings.clone();
            let steering = steering::while_ready(decision.steering, &rules);
            into.push(Listener {
                name: listener,
                addresses: addresses.clone(),
                idle_timeout,
                request_timeout,
                forwarded_for,
                forwarded,
                rules,
                steering,
            });
        }
    }

    fn refused(&mut self, listener: &ListenerName, wisher: &Wisher, reason: &str) {
        let message = format!(
            "connection steering of listener {listener} is not possible: {reason}; the proxy steers"
        );
        let remedy =
            "wish for auto or request, or let one rule cover every request of this listener";
        let (mut notes, field) = match wisher {
            Wisher::Ingress(name) => {
                let (namespace, name) = name.split_once('/').unwrap_or_default();
                (Notes::on("Ingress", namespace, name), annotation(STEERING))
            }
            Wisher::Gateway => (
                Notes::on("AlbConfig", "", &listener.gateway),
                annotation(STEERING),
            ),
            Wisher::Default => (
                Notes::on("AlbConfig", "", &listener.gateway),
                "spec.listeners".to_owned(),
            ),
        };
        notes.warning(field, message, remedy);
        self.told(notes);
    }
}

fn revive(
    last: Option<&(Arc<Ingress>, String)>,
) -> Option<(Understood, Arc<Ingress>, String, bool)> {
    let (ingress, gateway) = last?;
    let mut told = Notes::on(
        "Ingress",
        &ingress.metadata.namespace,
        &ingress.metadata.name,
    );
    Some((
        ingress::understand(ingress, &mut told)?,
        ingress.clone(),
        gateway.clone(),
        true,
    ))
}

#[cfg(test)]
mod tests;
