//! One gateway's Ingresses -> the rules of its listeners, and who steers each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Compiler, Member, Subject, Touched, Work,
    certificates::{Needed, Worth},
    gateway::{Gateway, Key},
    groups::Want,
    l4,
    notes::{Notes, STEERING, annotation},
    placing::Placing,
};
use crate::{
    ir::{
        model::{
            Certificate, GroupName, Listener, ListenerName, ListenerProtocol, Rule, Steering,
            SteeringMode,
        },
        steering::{self, Decision, Wisher},
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
        let mut placing = Placing::new(name, gateway.as_ref());
        let mut certificates = Vec::new();
        let good = self.good.secrets.remove(name).unwrap_or_default();
        let mut worth = Worth::new(snapshot, std::mem::take(&mut self.judged), good);
        if let Some(gateway) = &gateway {
            for place in gateway.kept.listeners.keys() {
                if self.good.held.contains_key(&(name.to_owned(), *place)) {
                    placing.rules.insert(*place, Vec::new());
                }
            }
            placing.order(&members);
            placing.members(&members);
            certificates = placing.certificates(&members, &mut worth);
        }
        let Placing {
            rules,
            mut passthrough,
            wants,
            mut notes,
            ..
        } = placing;
        self.follow_wants(name, wants, work);
        let mut listeners = BTreeMap::new();
        if let Some(gateway) = &gateway {
            for (place, rules) in rules {
                let secrets = (&certificates[..], &mut worth);
                let rules = (rules, passthrough.remove(&place).unwrap_or_default());
                if let Some((name, draw)) = self.draw(name, gateway, place, rules, secrets, touched)
                {
                    listeners.insert(name, draw);
                }
            }
        }
        let (judged, good) = worth.end();
        self.judged = judged;
        if gateway.is_some() {
            self.good.secrets.insert(name.to_owned(), good);
        }
        self.follow_draws(name, listeners, work);
        for (key, member) in &members {
            let notes = notes.remove(key).filter(|_| !member.stale);
            self.note(Subject::Member(key.clone()), notes, touched);
        }
        self.forget_members(name, &members, touched);
    }

    /// Listeners that show one of these Secrets, or check certificates of clients by it.
    pub(super) fn secured_by(&self, secrets: &BTreeSet<NamespacedName>) -> Vec<ListenerName> {
        let secrets: BTreeSet<String> = secrets.iter().map(ToString::to_string).collect();
        let uses = |draw: &Draw| {
            draw.listener.settings.tls.as_ref().is_some_and(|tls| {
                let shown = tls.certificates.iter().map(|it| &it.id);
                shown.chain(&tls.client_ca).any(|id| secrets.contains(id))
            })
        };
        let draws = self.draws.iter().filter(|(_, draw)| uses(draw));
        draws.map(|(name, _)| name.clone()).collect()
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
        (port, protocol): Key,
        (rules, passthrough): (Vec<Arc<Rule>>, Vec<Arc<Rule>>),
        (certificates, worth): (&[Certificate], &mut Worth<'_>),
        touched: &mut Touched,
    ) -> Option<(ListenerName, Draw)> {
        let settings = gateway.kept.listeners.get(&(port, protocol))?;
        let mut serving = settings.serving();
        let addresses = gateway.kept.addresses.clone()?;
        let listener = ListenerName {
            gateway: name.to_owned(),
            port,
            protocol,
        };
        let mut refused = gateway.refused.get(&(port, protocol)).cloned();
        if let Some(tls) = &mut serving.tls {
            let mut notes = Notes::on("AlbConfig", "", name);
            if protocol == ListenerProtocol::Https {
                let place = gateway.places.get(&(port, protocol));
                let place = place.map_or("spec.listeners", String::as_str);
                let needed = match (passthrough.is_empty(), rules.is_empty()) {
                    (true, _) => Needed::Always,
                    (false, false) => Needed::ForOthers,
                    (false, true) => Needed::Never,
                };
                let why = worth.serving(tls, certificates, place, (port, needed), &mut notes);
                refused = refused.or(why);
            } else {
                tls.certificates.extend_from_slice(certificates);
            }
            // "The first in the list is the default one."
            for (at, certificate) in tls.certificates.iter_mut().enumerate() {
                certificate.default = at == 0;
            }
            self.note(Subject::Tls(listener.clone()), Some(notes), touched);
        }
        let same = |one: &GroupName, other: &GroupName| {
            one == other
                || match (self.wants.get(one), self.wants.get(other)) {
                    (Some(one), Some(other)) => one.alike(other),
                    _ => false,
                }
        };
        let each = match (protocol, settings.writes) {
            (ListenerProtocol::Http, None) if serving.proxy_protocol.is_some() => {
                Some("reads PROXY headers".to_owned())
            }
            (ListenerProtocol::Http, None) => None,
            (ListenerProtocol::Http, Some(header)) => Some(format!(
                "is told to write the header {header} of each request"
            )),
            (ListenerProtocol::Https | ListenerProtocol::Quic, _) => Some("ends TLS".to_owned()),
            (ListenerProtocol::Tcp | ListenerProtocol::Udp, _) => None,
        };
        let mut decision = steering::decide(
            &rules,
            same,
            |group| self.wants.get(group)?.policy.proxied(),
            each.as_deref(),
            gateway.steering,
            self.options.steering,
        );
        if protocol.is_l4() {
            decision = Decision {
                steering: l4::steering(&listener, &rules, false),
                refused: None,
            };
        }
        let notes = decision
            .refused
            .as_ref()
            .map(|wisher| impossible(&listener, wisher, &decision.steering.reason));
        self.note(Subject::Listener(listener.clone()), notes, touched);
        let needs = match decision.steering.mode {
            SteeringMode::Connection => rules.first().and_then(|rule| rule.only_group()).cloned(),
            SteeringMode::Request => None,
        };
        let drawn = Listener {
            name: listener.clone(),
            addresses,
            settings: Arc::new(serving),
            refused,
            rules,
            passthrough,
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
            self.note(Subject::Listener(name.clone()), None, touched);
            self.note(Subject::Tls(name.clone()), None, touched);
            return;
        };
        let empty = |group: &&GroupName| {
            let group = self.ir.groups.get(*group);
            group.is_none_or(|group| group.backends.is_empty())
        };
        let steering = match draw.needs.as_ref().filter(empty) {
            Some(_) if name.protocol.is_l4() => l4::steering(name, &draw.listener.rules, true),
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
                    passthrough,
                    ..
                } = &draw.listener;
                (addresses, settings, refused) == (&had.addresses, &had.settings, &had.refused)
                    && *passthrough == had.passthrough
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
