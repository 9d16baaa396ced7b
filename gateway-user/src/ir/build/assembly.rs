//! One gateway's Ingresses -> the rules of its listeners, and who steers each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Compiler, Member, Subject, Touched, Work,
    claims::Place,
    gateway::Gateway,
    groups::Want,
    ingress::Draft,
    notes::{self, Notes, STEERING, annotation},
    refusals,
};
use crate::{
    ir::{
        model::{GroupName, Listener, ListenerName, ListenerProtocol, Rule, ServiceName, Steering},
        steering::{self, Wisher},
    },
    manifest::{NamespacedName, Snapshot},
};

/// A listener as its rules decide, and the group that the kernel would need.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Draw {
    listener: Listener,
    needs: Option<GroupName>,
}

impl Compiler {
    /// Puts the rules of a gateway together again.
    pub(super) fn assemble(
        &mut self,
        name: &str,
        snapshot: &Snapshot,
        work: &mut Work,
        touched: &mut Touched,
    ) {
        let members: Vec<(NamespacedName, Member)> = self
            .members
            .get(name)
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter_map(|key| Some((key.clone(), self.ingresses.get(key)?.clone())))
            .collect();
        let gateway = self.gateways.get(name).cloned();
        let mut assembly = Assembly {
            name,
            gateway: gateway.as_ref(),
            rules: BTreeMap::new(),
            wants: BTreeMap::new(),
            notes: BTreeMap::new(),
            missing: BTreeSet::new(),
        };
        if let Some(gateway) = &gateway {
            for place in gateway.kept.listeners.keys() {
                if self.good.held.contains_key(&(name.to_owned(), *place)) {
                    assembly.rules.insert(*place, Vec::new());
                }
            }
            assembly.order(&members);
            assembly.members(&members);
        }
        let Assembly {
            rules,
            wants,
            mut notes,
            ..
        } = assembly;
        self.follow_wants(name, wants, work);
        let mut listeners = BTreeMap::new();
        if let Some(gateway) = &gateway {
            for (place, rules) in rules {
                if let Some((name, draw)) =
                    self.draw(name, gateway, place, rules, snapshot, touched)
                {
                    listeners.insert(name, draw);
                }
            }
        }
        self.follow_draws(name, listeners, work);
        for (key, member) in &members {
            let notes = notes.remove(key).filter(|_| !member.stale);
            self.note(Subject::Member(key.clone()), notes, touched);
        }
        self.forget_members(name, &members, touched);
    }

    fn follow_wants(
        &mut self,
        gateway: &str,
        mut wants: BTreeMap<GroupName, Want>,
        work: &mut Work,
    ) {
        let had = self
            .wants
            .iter()
            .filter(|(_, want)| want.gateway == gateway);
        let had: Vec<GroupName> = had.map(|(name, _)| name.clone()).collect();
        for name in had {
            let want = wants.remove(&name);
            if want.as_ref() != self.wants.get(&name) {
                self.want(&name, want);
                work.groups.insert(name);
            }
        }
        for (name, want) in wants {
            self.want(&name, Some(want));
            work.groups.insert(name);
        }
    }

    fn follow_draws(
        &mut self,
        gateway: &str,
        mut draws: BTreeMap<ListenerName, Draw>,
        work: &mut Work,
    ) {
        let theirs = self.draws.keys().filter(|name| name.gateway == gateway);
        for name in theirs.cloned().collect::<Vec<_>>() {
            let draw = draws.remove(&name);
            if self.draws.get(&name) != draw.as_ref() {
                self.redraw(&name, draw);
                work.listeners.insert(name);
            }
        }
        for (name, draw) in draws {
            self.redraw(&name, Some(draw));
            work.listeners.insert(name);
        }
    }

    fn redraw(&mut self, name: &ListenerName, draw: Option<Draw>) {
        if let Some(group) = self.draws.remove(name).and_then(|had| had.needs)
            && let Some(steered) = self.steered.get_mut(&group)
        {
            steered.remove(name);
            if steered.is_empty() {
                self.steered.remove(&group);
            }
        }
        if let Some(draw) = draw {
            if let Some(group) = &draw.needs {
                let steered = self.steered.entry(group.clone()).or_default();
                steered.insert(name.clone());
            }
            self.draws.insert(name.clone(), draw);
        }
    }

    /// Notes of Ingresses that were members of this gateway and are no more.
    fn forget_members(
        &mut self,
        gateway: &str,
        members: &[(NamespacedName, Member)],
        touched: &mut Touched,
    ) {
        let now: BTreeSet<&NamespacedName> = members.iter().map(|(key, _)| key).collect();
        let gone = self.notes.keys().filter_map(|subject| match subject {
            Subject::Member(key) if !now.contains(key) => Some(key),
            _ => None,
        });
        let elsewhere = |key: &&NamespacedName| {
            let member = self.ingresses.get(key);
            member.is_some_and(|member| member.gateway != gateway)
        };
        let gone: Vec<_> = gone.filter(|key| !elsewhere(key)).cloned().collect();
        for key in gone {
            self.note(Subject::Member(key), None, touched);
        }
    }

    fn draw(
        &mut self,
        name: &str,
        gateway: &Gateway,
        (port, protocol): Place,
        rules: Vec<Arc<Rule>>,
        snapshot: &Snapshot,
        touched: &mut Touched,
    ) -> Option<(ListenerName, Draw)> {
        let settings = gateway.kept.listeners.get(&(port, protocol))?;
        let addresses = gateway.kept.addresses.clone()?;
        let listener = ListenerName {
            gateway: name.to_owned(),
            port,
            protocol,
        };
        let same = |one: &GroupName, other: &GroupName| {
            one == other
                || match (self.wants.get(one), self.wants.get(other)) {
                    (Some(one), Some(other)) => one.alike(other),
                    _ => false,
                }
        };
        let decision = steering::decide(
            &rules,
            same,
            settings.writes,
            gateway.steering,
            self.options.steering,
        );
        let notes = decision
            .refused
            .as_ref()
            .map(|wisher| impossible(&listener, wisher, &decision.steering.reason));
        self.note(Subject::Listener(listener.clone()), notes, touched);
        let needs = match decision.steering.mode {
            crate::ir::SteeringMode::Connection => {
                rules.first().and_then(|rule| rule.only_group()).cloned()
            }
            crate::ir::SteeringMode::Request => None,
        };
        let _ = snapshot;
        let drawn = Listener {
            name: listener.clone(),
            addresses,
            settings: settings.serving.clone(),
            refused: refusals::listener(protocol, &settings.serving),
            rules,
            steering: decision.steering,
        };
        Some((
            listener,
            Draw {
                listener: drawn,
                needs,
            },
        ))
    }

    /// Decides who steers a listener now: the proxy, as long as no pod is ready.
    pub(super) fn settle(&mut self, name: &ListenerName, touched: &mut Touched) {
        let Some(draw) = self.draws.get(name) else {
            if self.ir.listeners.remove(name).is_some() {
                touched.listeners.insert(name.clone());
            }
            let subject = Subject::Listener(name.clone());
            self.note(subject, None, touched);
            return;
        };
        let empty = |group: &&GroupName| {
            let group = self.ir.groups.get(*group);
            group.is_none_or(|group| group.backends.is_empty())
        };
        let steering = match draw.needs.as_ref().filter(empty) {
            Some(group) => steering::while_empty(group),
            None => draw.listener.steering.clone(),
        };
        // Also one that is as it was: its group is not.
        touched.listeners.insert(name.clone());
        let had = self.ir.listeners.get(name);
        let same = had.is_some_and(|had| {
            had.steering == steering && had.rules == draw.listener.rules && {
                let Listener {
                    addresses,
                    settings,
                    refused,
                    ..
                } = &draw.listener;
                (addresses, settings, refused) == (&had.addresses, &had.settings, &had.refused)
            }
        });
        if !same {
            let listener = Listener {
                steering: Steering { ..steering },
                ..draw.listener.clone()
            };
            self.ir.listeners.insert(name.clone(), Arc::new(listener));
        }
    }
}

struct Assembly<'a> {
    name: &'a str,
    gateway: Option<&'a Gateway>,
    rules: BTreeMap<Place, Vec<Arc<Rule>>>,
    wants: BTreeMap<GroupName, Want>,
    notes: BTreeMap<NamespacedName, Notes>,
    missing: BTreeSet<(NamespacedName, Place)>,
}

impl Assembly<'_> {
    fn notes(&mut self, key: &NamespacedName) -> &mut Notes {
        let notes = || Notes::on("Ingress", &key.namespace, &key.name);
        self.notes.entry(key.clone()).or_insert_with(notes)
    }

    /// "the same explicit value on two Ingresses of the group": tried by name, with a warning.
    fn order(&mut self, members: &[(NamespacedName, Member)]) {
        let mut first: BTreeMap<u16, &NamespacedName> = BTreeMap::new();
        for (key, member) in members {
            if !member.understood.order_given {
                continue;
            }
            let order = member.understood.order;
            let Some(first) = first.get(&order) else {
                first.insert(order, key);
                continue;
            };
            self.notes(key).warning(
                notes::alb("order"),
                format!(
                    "order {order} is also that of Ingress {first}; it is tried after it, by name"
                ),
                "give each Ingress an order of its own, from 1 to 1000",
            );
        }
    }

    /// First the rules of all Ingresses, then their default backends.
    fn members(&mut self, members: &[(NamespacedName, Member)]) {
        for (key, member) in members {
            for draft in &member.understood.rules {
                self.draft(key, member, draft);
            }
        }
        for (key, member) in members {
            if let Some(draft) = &member.understood.default {
                self.draft(key, member, draft);
            }
        }
    }

    fn draft(&mut self, key: &NamespacedName, member: &Member, draft: &Draft) {
        for group in draft.rule.groups() {
            self.want(&group.group, member, draft);
        }
        if draft.tls_only {
            return;
        }
        for port in &member.understood.ports.http {
            let place = (*port, ListenerProtocol::Http);
            match self.rules.get_mut(&place) {
                Some(rules) => rules.push(draft.rule.clone()),
                None => self.no_listener(key, member, place),
            }
        }
    }

    fn want(&mut self, group: &GroupName, member: &Member, draft: &Draft) {
        if self.wants.contains_key(group) {
            return;
        }
        let want = Want {
            gateway: self.name.to_owned(),
            service: ServiceName {
                namespace: group.namespace.clone(),
                name: group.service.clone(),
                port: group.port.clone(),
            },
            weights: member.understood.weights.clone(),
            policy: member.understood.policy.clone(),
            place: match draft.rule.place.strip_suffix("]") {
                Some(_) => format!("{}.backend", draft.rule.place),
                None => draft.rule.place.clone(),
            },
            stale: member.stale,
        };
        self.wants.insert(group.clone(), want);
    }

    fn no_listener(&mut self, key: &NamespacedName, member: &Member, place: Place) {
        if !self.missing.insert((key.clone(), place)) {
            return;
        }
        let explicit = member.understood.ports.explicit;
        let (name, gateway) = (self.name, self.gateway);
        let written = gateway.is_some_and(|gateway| gateway.written.contains(&place.0));
        missing(name, place, explicit, written, self.notes(key));
    }
}

fn missing(
    gateway: &str,
    (port, protocol): Place,
    explicit: bool,
    written: bool,
    notes: &mut Notes,
) {
    let field = if explicit {
        notes::alb("listen-ports")
    } else {
        "spec.rules".to_owned()
    };
    if written {
        notes.warning(
            field,
            format!("AlbConfig {gateway} lists port {port} but cannot serve {protocol} there, so the rules are not served there"),
            "mend the listener first; the problems of the AlbConfig say how",
        );
        return;
    }
    let message = if explicit {
        format!(
            "AlbConfig {gateway} has no {protocol} listener on port {port}, so the rules are not served there"
        )
    } else {
        format!(
            "without listen-ports the rules go to {protocol} {port}, where AlbConfig {gateway} has no listener"
        )
    };
    let remedy = "to spec.listeners of the AlbConfig, or correct the port";
    notes.warning(
        field,
        message,
        format!("add `- port: {port}` with `protocol: {protocol}` {remedy}"),
    );
}

/// Connection steering was asked for and cannot be had.
fn impossible(listener: &ListenerName, wisher: &Wisher, reason: &str) -> Notes {
    let message = format!(
        "connection steering of listener {listener} is not possible: {reason}; the proxy steers"
    );
    let remedy = "wish for auto or request, or let one rule cover every request of this listener";
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
    notes
}
