//! Rules of a gateway's Ingresses onto its listeners: in order, with canaries beside the rules they belong to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Member,
    certificates::{self, Standing, Worth},
    gateway::{Gateway, Key},
    groups::Want,
    ingress::Draft,
    l4,
    notes::{Notes, alb},
};
use crate::{
    ir::model::{
        BackendProtocol, Certificate, Direction, Forward, GroupName, ListenerProtocol, Rule,
        ServiceName, Target, WeightedGroup,
    },
    manifest::NamespacedName,
    problem::shown,
};

/// One gateway's rules as they are put together.
pub(super) struct Placing<'a> {
    name: &'a str,
    gateway: Option<&'a Gateway>,
    pub(super) rules: BTreeMap<Key, Vec<Arc<Rule>>>,
    /// Rules of HTTPS listeners that send connections on as they are.
    pub(super) passthrough: BTreeMap<Key, Vec<Arc<Rule>>>,
    pub(super) wants: BTreeMap<GroupName, Want>,
    pub(super) notes: BTreeMap<NamespacedName, Notes>,
    /// Ingresses that were told why they get nothing on a listener.
    told: BTreeSet<(NamespacedName, Key)>,
}

type Members<'a> = [(NamespacedName, Member)];
/// A rule of a canary.
type Offer<'a> = (&'a NamespacedName, &'a Member, &'a Draft);
/// Canaries by host and path.
type Offers<'a> = BTreeMap<&'a (String, String), Vec<Offer<'a>>>;

impl<'a> Placing<'a> {
    pub(super) fn new(name: &'a str, gateway: Option<&'a Gateway>) -> Self {
        Self {
            name,
            gateway,
            rules: BTreeMap::new(),
            passthrough: BTreeMap::new(),
            wants: BTreeMap::new(),
            notes: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    fn notes(&mut self, key: &NamespacedName) -> &mut Notes {
        let notes = || Notes::on("Ingress", &key.namespace, &key.name);
        self.notes.entry(key.clone()).or_insert_with(notes)
    }

    /// "the same explicit value on two Ingresses of the group": tried by name, with a warning.
    pub(super) fn order(&mut self, members: &Members<'_>) {
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
                alb("order"),
                format!(
                    "order {order} is also that of Ingress {first}; it is tried after it, by name"
                ),
                "give each Ingress an order of its own, from 1 to 1000",
            );
        }
    }

    /// First the rules of all Ingresses, then their default backends.
    pub(super) fn members(&mut self, members: &Members<'_>) {
        let mut offers = Offers::new();
        // Rules have their place on listeners that read requests.
        let reads = |member: &Member| member.understood.ports.read_requests();
        for (key, member) in members.iter().filter(|(_, member)| reads(member)) {
            if member.understood.canary.is_some() {
                for draft in &member.understood.rules {
                    let theirs = offers.entry(&draft.key).or_default();
                    theirs.push((key, member, draft));
                    self.want(member, &draft.rule);
                }
            }
        }
        let mut taken = BTreeSet::new();
        let none = Vec::new();
        for (key, member) in members.iter().filter(|(_, member)| reads(member)) {
            if member.understood.canary.is_none() {
                for draft in &member.understood.rules {
                    let theirs = offers.get(&draft.key).unwrap_or(&none);
                    if draft.rule.direction == Direction::Request && !theirs.is_empty() {
                        taken.insert(&draft.key);
                    }
                    self.draft(key, member, draft, theirs);
                }
            }
        }
        for (key, member) in members.iter().filter(|(_, member)| reads(member)) {
            if let Some(draft) = &member.understood.default {
                self.draft(key, member, draft, &none);
            }
        }
        self.unreached();
        for (key, member) in members {
            self.attach(key, member);
        }
        for (offered, theirs) in &offers {
            if taken.contains(*offered) {
                continue;
            }
            for (key, _, draft) in theirs {
                self.notes(key).warning(
                    draft.rule.place.clone(),
                    "is a canary, and no other Ingress of the gateway has a rule with the same host and path, so it gets nothing",
                    "write host and path exactly as the rule has them that it belongs to",
                );
            }
        }
    }

    /// On listeners of protocol TCP and UDP: each leads to what its first Ingress attaches.
    fn attach(&mut self, key: &NamespacedName, member: &Member) {
        let places = member.understood.ports.all();
        for place in places.filter(|(_, protocol)| protocol.is_l4()) {
            let attached = member.understood.attached.iter();
            let Some(attachment) = attached
                .clone()
                .find(|it| it.transport == place.1.transport())
            else {
                continue;
            };
            self.want(member, &attachment.rule);
            let Some(rules) = self.rules.get_mut(&place) else {
                self.no_listener(key, member, place);
                continue;
            };
            match rules.first().cloned() {
                Some(first) => l4::occupied(place, &first, self.notes(key)),
                None => rules.push(attachment.rule.clone()),
            }
        }
    }

    fn draft(
        &mut self,
        key: &NamespacedName,
        member: &Member,
        draft: &Draft,
        offers: &[Offer<'_>],
    ) {
        self.want(member, &draft.rule);
        for place in places(member, draft) {
            if !self.rules.contains_key(&place) {
                self.no_listener(key, member, place);
                continue;
            }
            if draft.passthrough && place.1 == ListenerProtocol::Https {
                self.pass(key, draft, place);
                continue;
            }
            if !self.speaks(member, draft, place) {
                self.without_http2(key, place);
                continue;
            }
            let here =
                |(_, member, draft): &&Offer<'_>| places(member, draft).any(|it| it == place);
            let here = offers.iter().filter(here).copied();
            let (offers, mute): (Vec<Offer<'_>>, Vec<Offer<'_>>) =
                here.partition(|(_, member, draft)| self.speaks(member, draft, place));
            for (key, ..) in mute {
                self.without_http2(key, place);
            }
            let redirected = draft.redirected.as_ref();
            let rules = match redirected.filter(|_| redirects(place)) {
                Some(redirected) => vec![redirected.clone()],
                None => self.with_canaries(draft, &offers, place),
            };
            self.rules.entry(place).or_default().extend(rules);
        }
    }

    /// Whether clients of the listener can speak what the rule's pods do: gRPC is HTTP/2, which a listener of HTTP takes
    /// only where `http2Enabled` says so.
    fn speaks(&self, member: &Member, draft: &Draft, place: Key) -> bool {
        let listeners = self.gateway.map(|gateway| &gateway.kept.listeners);
        let settings = listeners.and_then(|listeners| listeners.get(&place));
        place.1 != ListenerProtocol::Http
            || member.understood.policy.protocol != BackendProtocol::Grpc
            || draft.redirected.is_some() && redirects(place)
            || settings.is_some_and(|settings| settings.h2c)
    }

    fn without_http2(&mut self, key: &NamespacedName, place: Key) {
        if !self.told.insert((key.clone(), place)) {
            return;
        }
        let (port, protocol) = place;
        let message = format!("grpc needs HTTP/2, which listener {protocol} {port} does not take");
        let remedy = format!(
            "set http2Enabled on that listener, or serve on HTTPS and take {protocol} {port} out of listen-ports (HTTP 80 may stay with `ssl-redirect: \"true\"`); until then it gets nothing there"
        );
        self.notes(key)
            .error(alb("backend-protocol"), message, remedy);
    }

    /// A rule whose connections go on as they are; of each host the first one counts.
    fn pass(&mut self, key: &NamespacedName, draft: &Draft, place: Key) {
        let theirs = self.passthrough.entry(place).or_default();
        let hosts = &draft.rule.conditions.hosts;
        let Some(first) = theirs.iter().find(|it| it.conditions.hosts == *hosts) else {
            theirs.push(draft.rule.clone());
            return;
        };
        let message = format!(
            "the host is also that of {} of Ingress {}, which is tried first, so this rule gets nothing on {} {}",
            first.place, first.ingress, place.1, place.0
        );
        let remedy = "TLS of a host goes to one Service: take one of the rules out";
        self.notes(key)
            .warning(draft.rule.place.clone(), message, remedy);
    }

    /// Tells of rules that read requests of hosts whose connections nobody reads.
    fn unreached(&mut self) {
        let mut found = Vec::new();
        for (place, passed) in &self.passthrough {
            for rule in self.rules.get(place).into_iter().flatten() {
                let by = |host| passed.iter().find(|it| it.conditions.hosts.contains(host));
                let hosts = &rule.conditions.hosts;
                if let [first, ..] = hosts.as_slice()
                    && hosts.iter().all(|host| by(host).is_some())
                    && let Some(by) = by(first)
                {
                    found.push((rule.clone(), by.ingress.clone(), *place));
                }
            }
        }
        for (rule, by, (port, protocol)) in found {
            let Some((namespace, name)) = rule.ingress.split_once('/') else {
                continue;
            };
            let key = NamespacedName {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            let message = format!(
                "TLS of the host goes to pods as it is by Ingress {by}, so this rule gets nothing on {protocol} {port}"
            );
            let remedy =
                "take the rule out, or the annotation tls-passthrough of the other Ingress";
            self.notes(&key)
                .warning(rule.place.clone(), message, remedy);
        }
    }

    /// The rule with its canaries: those by header before it, then those by cookie; those by weight share in it.
    fn with_canaries(&mut self, draft: &Draft, offers: &[Offer<'_>], place: Key) -> Vec<Arc<Rule>> {
        if offers.is_empty() || draft.rule.direction == Direction::Response {
            return vec![draft.rule.clone()];
        }
        let mut rules = Vec::new();
        let canary = |member: &Member| member.understood.canary.clone().unwrap_or_default();
        // A canary that asks for HTTPS serves nothing in plain either.
        let redirected = |offer: &Draft| offer.redirected.clone().filter(|_| redirects(place));
        for by_header in [true, false] {
            for (_, member, offer) in offers {
                let canary = canary(member);
                let narrows = canary.header.is_some() || canary.cookie.is_some();
                if narrows && canary.header.is_some() == by_header {
                    rules.push(redirected(offer).unwrap_or_else(|| offer.rule.clone()));
                }
            }
        }
        let mut shares: Vec<WeightedGroup> = Vec::new();
        for (key, member, offer) in offers {
            let Some(weight) = canary(member).weight.filter(|weight| *weight > 0) else {
                continue;
            };
            let shared = match (&draft.rule.target, offer.rule.only_group()) {
                (Target::Forward(_), Some(group)) if redirected(offer).is_none() => {
                    Some(group.clone())
                }
                _ => None,
            };
            match shared {
                Some(group) => shares.push(WeightedGroup {
                    group,
                    weight: u32::from(weight),
                }),
                None => {
                    let what = "takes a share by weight, but it or the rule it belongs to does more than forward, so it gets nothing";
                    let remedy = "use canary-by-header, or take the other actions out";
                    self.notes(key)
                        .warning(offer.rule.place.clone(), what, remedy);
                }
            }
        }
        let sum: u32 = shares.iter().map(|it| it.weight).sum();
        if sum > 100
            && let Some((key, ..)) = offers.last()
        {
            self.notes(key).warning(
                alb("canary-weight"),
                format!(
                    "all canaries of this host and path take {sum} of 100, so they share it all"
                ),
                "let their weights sum up to 100 or less",
            );
        }
        rules.push(shared(&draft.rule, shares, sum));
        rules
    }

    fn want(&mut self, member: &Member, rule: &Rule) {
        for WeightedGroup { group, .. } in rule.groups() {
            if self.wants.contains_key(group) {
                continue;
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
                place: match rule.place.strip_suffix("]") {
                    Some(_) => format!("{}.backend", rule.place),
                    None => rule.place.clone(),
                },
                stale: member.stale,
            };
            self.wants.insert(group.clone(), want);
        }
    }

    /// Certificates that Ingresses name, each Secret once, in the order of the Ingresses.
    pub(super) fn certificates(
        &mut self,
        members: &Members<'_>,
        worth: &mut Worth<'_>,
    ) -> Vec<Certificate> {
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        let mut certificates: Vec<Certificate> = Vec::new();
        for (key, member) in members {
            for tls in &member.understood.secrets {
                let secret = NamespacedName {
                    namespace: key.namespace.clone(),
                    name: tls.name.clone(),
                };
                let notes = self.notes(key);
                match worth.certificate(&secret) {
                    Standing::Good(names) => {
                        let other = tls.hosts.iter().find(|host| !names.cover(host));
                        if let Some(host) = other {
                            notes.warning(
                                tls.place.clone(),
                                format!("the certificate in Secret {secret} is not for {}, so clients refuse it there", shown(host)),
                                "have a certificate signed that names all hosts of this entry",
                            );
                        }
                    }
                    Standing::Before(fault) => {
                        notes.warning(
                            tls.place.clone(),
                            certificates::before(&secret, fault),
                            fault.remedy(),
                        );
                    }
                    Standing::Bad(fault) => {
                        notes.warning(
                            tls.place.clone(),
                            format!("Secret {secret} {fault}, so its hosts have no certificate of their own"),
                            fault.remedy(),
                        );
                        continue;
                    }
                }
                let id = secret.to_string();
                match found.get(&id) {
                    Some(at) => certificates[*at].hosts.extend(tls.hosts.iter().cloned()),
                    None => {
                        found.insert(id.clone(), certificates.len());
                        certificates.push(Certificate {
                            id,
                            hosts: tls.hosts.clone(),
                            default: false,
                        });
                    }
                }
            }
        }
        for certificate in &mut certificates {
            certificate.hosts.sort();
            certificate.hosts.dedup();
        }
        certificates
    }

    fn no_listener(&mut self, key: &NamespacedName, member: &Member, place: Key) {
        if !self.told.insert((key.clone(), place)) {
            return;
        }
        let explicit = member.understood.ports.explicit;
        let (name, gateway) = (self.name, self.gateway);
        let port = (place.0, place.1.transport());
        let written = gateway.is_some_and(|gateway| gateway.written.contains(&port));
        missing(name, place, explicit, written, self.notes(key));
    }
}

/// "On every listener whose port is not 443" - of those in plain: one of HTTPS elsewhere would redirect to itself.
fn redirects((port, protocol): Key) -> bool {
    port != 443 && protocol == ListenerProtocol::Http
}

fn places<'a>(member: &'a Member, draft: &'a Draft) -> impl Iterator<Item = Key> + use<'a> {
    let here = |(_, protocol): &Key| match protocol {
        ListenerProtocol::Http => draft.plain,
        ListenerProtocol::Https | ListenerProtocol::Quic => draft.secured,
        ListenerProtocol::Tcp | ListenerProtocol::Udp => false,
    };
    member.understood.ports.all().filter(here)
}

/// "Stable gets 100 - sum; if the sum is exactly 100 stable is removed."
fn shared(rule: &Arc<Rule>, shares: Vec<WeightedGroup>, sum: u32) -> Arc<Rule> {
    let Target::Forward(forward) = &rule.target else {
        return rule.clone();
    };
    if shares.is_empty() {
        return rule.clone();
    }
    let rest = 100_u32.saturating_sub(sum);
    // Groups of the action ForwardGroup have weights of their own, whose sum stands for the whole.
    let whole: u32 = match forward.groups.as_slice() {
        [_] => 1,
        groups => groups.iter().map(|it| it.weight).sum(),
    };
    let scaled = |weight: u32, by: u32| weight.saturating_mul(by);
    let mut groups: Vec<WeightedGroup> = Vec::new();
    if rest > 0 {
        for it in &forward.groups {
            let own = if whole == 1 { 1 } else { it.weight };
            groups.push(WeightedGroup {
                group: it.group.clone(),
                weight: scaled(own, rest),
            });
        }
    }
    for it in shares {
        groups.push(WeightedGroup {
            weight: scaled(it.weight, whole),
            ..it
        });
    }
    Arc::new(Rule {
        target: Target::Forward(Forward {
            groups,
            sticky: forward.sticky,
        }),
        ..Rule::clone(rule)
    })
}

fn missing(gateway: &str, (port, protocol): Key, explicit: bool, written: bool, notes: &mut Notes) {
    let field = if explicit {
        alb("listen-ports")
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
