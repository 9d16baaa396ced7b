//! Snapshot -> Ir: never fails, a bad object is a [`Problem`] and keeps its own last good version.
//!
//! Order of work: AlbConfigs, then which Ingress belongs to which of them, then each Ingress on its own, then rules per
//! listener with their pods, then who steers.

mod annotations;
mod backends;
mod class;
mod conditions;
mod gateway;
mod ingress;
mod notes;
mod patterns;
mod ports;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use self::{
    backends::Members,
    class::{Linkage, link},
    gateway::{Gateway, Kept, Settings},
    ingress::{Draft, Understood},
    notes::{Notes, STEERING, annotation},
};
use super::{
    model::{Group, Ir, Listener, ListenerName, ListenerProtocol, Rule, ServiceName, SteeringWish},
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
/// An object with an error is compiled from its version in `before`; if there was none it contributes nothing. Deleted
/// objects are forgotten.
pub fn build(snapshot: &Snapshot, before: &LastGood, options: &Options) -> Built {
    let mut building = Building {
        snapshot,
        before,
        problems: Vec::new(),
        last_good: LastGood::default(),
    };
    let gateways = building.gateways();
    let members = building.members();
    let mut listeners = Vec::new();
    let mut taken = Vec::new();
    let pods = Members::new(snapshot);
    for (name, gateway) in &gateways {
        let members = members.get(name).map(Vec::as_slice).unwrap_or_default();
        building.listeners(
            name,
            gateway,
            members,
            &pods,
            options,
            &mut taken,
            &mut listeners,
        );
    }
    let Building {
        mut problems,
        last_good,
        ..
    } = building;
    problems.sort();
    problems.dedup();
    listeners.sort_by(|one: &Listener, other| one.name.cmp(&other.name));
    Built {
        ir: Ir { listeners },
        problems,
        last_good,
    }
}

struct Building<'a> {
    snapshot: &'a Snapshot,
    before: &'a LastGood,
    problems: Vec<Problem>,
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
            self.problems.append(&mut notes.problems);
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
            let last = self.before.ingresses.get(key);
            let good = match linkage {
                Linkage::NotOurs => None,
                Linkage::Gateway(gateway) => ingress::understand(ingress, &mut notes)
                    .map(|understood| (understood, ingress.clone(), gateway, false))
                    .or_else(|| revive(last)),
                Linkage::Broken => revive(last),
            };
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
            self.problems.append(&mut notes.problems);
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
                self.problems.append(&mut notes.problems);
            } else {
                first.insert(order, &member.key);
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call, and a struct would only rename the arguments"
    )]
    fn listeners(
        &mut self,
        name: &str,
        gateway: &Gateway,
        members: &[Member],
        pods: &Members<'_>,
        options: &Options,
        taken: &mut Vec<(u16, Vec<IpAddr>, String)>,
        into: &mut Vec<Listener>,
    ) {
        // Bad addresses and no good ones before: listening on every VIP would be more than was asked.
        let Some(addresses) = &gateway.kept.addresses else {
            return;
        };
        let mut rules: BTreeMap<u16, Vec<Rule>> = BTreeMap::new();
        for &port in gateway.kept.listeners.keys() {
            if self.free(name, port, addresses, taken) {
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
            into.push(Listener {
                name: listener,
                addresses: addresses.clone(),
                idle_timeout,
                request_timeout,
                forwarded_for,
                forwarded,
                rules,
                steering: decision.steering,
            });
        }
    }

    /// Two gateways cannot share an address and port; the first by name has it.
    fn free(
        &mut self,
        name: &str,
        port: u16,
        addresses: &[IpAddr],
        taken: &mut Vec<(u16, Vec<IpAddr>, String)>,
    ) -> bool {
        let clash = taken.iter().find(|(theirs, others, _)| {
            *theirs == port
                && (others.is_empty()
                    || addresses.is_empty()
                    || others.iter().any(|other| addresses.contains(other)))
        });
        if let Some((_, _, other)) = clash {
            let mut notes = Notes::on("AlbConfig", "", name);
            notes.error(
                "spec.listeners",
                format!("HTTP {port} is also that of AlbConfig {other} on the same address; that one serves"),
                format!("give both AlbConfigs addresses of their own with the annotation `{}`", notes::ADDRESSES),
            );
            self.problems.append(&mut notes.problems);
            return false;
        }
        taken.push((port, addresses.to_vec(), name.to_owned()));
        true
    }

    /// Fills the listeners: first the rules of all Ingresses, then their default backends.
    fn rules(
        &mut self,
        gateway_name: &str,
        gateway: &Gateway,
        members: &[Member],
        pods: &Members<'_>,
        listeners: &mut BTreeMap<u16, Vec<Rule>>,
    ) {
        let mut groups: BTreeMap<(&NamespacedName, &str, &str), Arc<Group>> = BTreeMap::new();
        let usual = members.iter().flat_map(|member| {
            member
                .understood
                .rules
                .iter()
                .map(move |draft| (member, draft))
        });
        let last = members.iter().flat_map(|member| {
            member
                .understood
                .default
                .iter()
                .map(move |draft| (member, draft))
        });
        let mut notes_of: BTreeMap<&NamespacedName, Notes> = BTreeMap::new();
        for (member, draft) in usual.chain(last) {
            let notes = notes_of
                .entry(&member.key)
                .or_insert_with(|| Notes::on("Ingress", &member.key.namespace, &member.key.name));
            let group = groups
                .entry((&member.key, &draft.service, &draft.port))
                .or_insert_with(|| {
                    let service = ServiceName {
                        namespace: member.key.namespace.clone(),
                        name: draft.service.clone(),
                        port: draft.port.clone(),
                    };
                    let place = match draft.place.strip_suffix("]") {
                        Some(_) => format!("{}.backend", draft.place),
                        None => draft.place.clone(),
                    };
                    Arc::new(pods.group(
                        service,
                        &gateway.clusters,
                        &member.understood.weights,
                        &place,
                        notes,
                    ))
                });
            if draft.tls_only {
                continue;
            }
            for port in &member.understood.ports.http {
                match listeners.get_mut(port) {
                    Some(rules) => rules.push(rule(member, draft, rules.len(), group)),
                    None => {
                        no_listener(gateway_name, *port, member.understood.ports.explicit, notes)
                    }
                }
            }
        }
        for member in members.iter().filter(|member| !member.stale) {
            if let Some(notes) = notes_of.get_mut(&member.key) {
                self.problems.append(&mut notes.problems);
            }
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
        self.problems.append(&mut notes.problems);
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

fn rule(member: &Member, draft: &Draft, before: usize, group: &Arc<Group>) -> Rule {
    Rule {
        ingress: member.key.to_string(),
        place: draft.place.clone(),
        priority: u32::try_from(before + 1).unwrap_or(u32::MAX),
        hosts: draft.hosts.clone(),
        paths: draft.paths.clone(),
        headers: draft.headers.clone(),
        steering: member.understood.steering,
        group: group.clone(),
    }
}

fn no_listener(gateway: &str, port: u16, explicit: bool, notes: &mut Notes) {
    let field = if explicit {
        notes::alb("listen-ports")
    } else {
        "spec.rules".to_owned()
    };
    let message = if explicit {
        format!(
            "AlbConfig {gateway} serves no HTTP listener on port {port}, so the rules are not served there"
        )
    } else {
        format!(
            "without listen-ports the rules go to HTTP {port}, where AlbConfig {gateway} serves no listener"
        )
    };
    notes.warning(
        field,
        message,
        format!("add `- port: {port}` with `protocol: HTTP` to spec.listeners of the AlbConfig, or correct the port"),
    );
}

#[cfg(test)]
mod tests;
