//! Which gateway has a port that several AlbConfigs ask for.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Compiler, Member, Subject, Touched, Work,
    gateway::Key,
    notes::{self, Notes},
};

/// Addresses (empty: every VIP) by AlbConfig and place.
pub(super) type Held = BTreeMap<(String, Key), Vec<IpAddr>>;

/// How good a claim is, best last: a new object must never take what another one serves on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Title {
    Asked,
    HasRules,
    /// Held the port on some of these addresses.
    HeldSome,
    HeldAll,
}

impl Compiler {
    /// Two gateways cannot share an address and port. The one that held it has it, then one that has rules there, then
    /// the first by name; each other one is told. Gateways that won or lost a listener join the work.
    pub(super) fn claim(&mut self, work: &mut Work, touched: &mut Touched) {
        let mut claims = Vec::new();
        for (name, gateway) in &self.gateways {
            // Bad addresses and no good ones before: listening on every VIP would be more than was asked.
            let Some(addresses) = &gateway.kept.addresses else {
                continue;
            };
            let ruled = self.ruled(name);
            for &place in gateway.kept.listeners.keys() {
                let before = self.good.held.get(&(name.clone(), place));
                let title = match before {
                    Some(before) if covers(before, addresses) => Title::HeldAll,
                    Some(before) if overlap(before, addresses) => Title::HeldSome,
                    _ if ruled.contains(&place) => Title::HasRules,
                    _ => Title::Asked,
                };
                claims.push((Reverse(title), name, place, addresses));
            }
        }
        claims.sort();
        let mut taken: BTreeMap<_, Vec<(&String, &Vec<IpAddr>)>> = BTreeMap::new();
        let mut held = Held::new();
        let mut lost = Vec::new();
        // HTTPS is TCP and QUIC is UDP: they may share a port number.
        let port = |place: Key| (place.0, place.1.transport());
        for (_, name, place, addresses) in claims {
            let taken = taken.entry(port(place)).or_default();
            // Within one AlbConfig its own check has spoken.
            let clash =
                |(theirs, at): &(&String, &Vec<IpAddr>)| *theirs != name && overlap(at, addresses);
            if taken.iter().any(clash) {
                lost.push((name, place, addresses));
            } else {
                taken.push((name, addresses));
                held.insert((name.clone(), place), addresses.clone());
            }
        }
        let mut occupied: BTreeMap<Subject, Notes> = BTreeMap::new();
        for (name, place, addresses) in lost {
            // Of several the first by name, so that what is told does not depend on who was first.
            let taken = taken.get(&port(place)).into_iter().flatten();
            let clash = taken.filter(|(theirs, at)| *theirs != name && overlap(at, addresses));
            if let Some(other) = clash.map(|(theirs, _)| *theirs).min() {
                let subject = Subject::Claim(name.clone(), place);
                occupied.insert(subject, refused(name, place, other));
            }
        }
        let keys = self.good.held.keys().chain(held.keys());
        let moved = keys.filter(|key| self.good.held.contains_key(*key) != held.contains_key(*key));
        work.gateways
            .extend(moved.map(|(gateway, _)| gateway.clone()));
        self.good.held = held;
        let told = self
            .notes
            .keys()
            .filter(|it| matches!(it, Subject::Claim(..)));
        let over: Vec<_> = told
            .filter(|it| !occupied.contains_key(it))
            .cloned()
            .collect();
        for subject in over {
            self.note(subject, None, touched);
        }
        for (subject, notes) in occupied {
            self.note(subject, Some(notes), touched);
        }
    }

    /// Where some rule of a gateway asks to be.
    fn ruled(&self, gateway: &str) -> BTreeSet<Key> {
        let keys = self
            .members
            .get(gateway)
            .into_iter()
            .flat_map(BTreeMap::values);
        let members = keys.filter_map(|key| self.ingresses.get(key));
        let serves = |member: &&Member| {
            let it = &member.understood;
            !it.rules.is_empty() || it.default.is_some()
        };
        members
            .filter(serves)
            .flat_map(|member| member.understood.ports.all())
            .collect()
    }
}

fn refused(name: &str, (port, protocol): Key, other: &str) -> Notes {
    let mut notes = Notes::on("AlbConfig", "", name);
    notes.error(
        "spec.listeners",
        format!(
            "{protocol} {port} is also that of AlbConfig {other} on the same address; that one serves"
        ),
        format!(
            "give both AlbConfigs addresses of their own with the annotation `{}`",
            notes::ADDRESSES
        ),
    );
    notes
}

fn overlap(one: &[IpAddr], other: &[IpAddr]) -> bool {
    one.is_empty() || other.is_empty() || one.iter().any(|address| other.contains(address))
}

fn covers(before: &[IpAddr], now: &[IpAddr]) -> bool {
    before.is_empty() || (!now.is_empty() && now.iter().all(|address| before.contains(address)))
}
