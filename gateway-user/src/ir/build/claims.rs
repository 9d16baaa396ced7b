//! Which gateway has a port that several AlbConfigs ask for.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Building, Member,
    gateway::Gateway,
    notes::{self, Notes},
};

/// Addresses (empty: every VIP) by AlbConfig and port.
pub(super) type Held = BTreeMap<(String, u16), Vec<IpAddr>>;

/// How good a claim is, best last: a new object must never take what another one serves on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Title {
    Asked,
    HasRules,
    /// Held the port on some of these addresses.
    HeldSome,
    HeldAll,
}

impl Building<'_> {
    /// Two gateways cannot share an address and port. The one that held it has it, then one that has rules there, then
    /// the first by name; each other one is told.
    pub(super) fn claims(
        &mut self,
        gateways: &BTreeMap<String, Gateway>,
        members: &BTreeMap<String, Vec<Member>>,
    ) -> Held {
        let mut claims = Vec::new();
        for (name, gateway) in gateways {
            // Bad addresses and no good ones before: listening on every VIP would be more than was asked.
            let Some(addresses) = &gateway.kept.addresses else {
                continue;
            };
            let ruled = ruled(members.get(name).map(Vec::as_slice).unwrap_or_default());
            for &(port, _) in gateway.kept.listeners.keys() {
                let before = self.before.held.get(&(name.clone(), port));
                let title = match before {
                    Some(before) if covers(before, addresses) => Title::HeldAll,
                    Some(before) if overlap(before, addresses) => Title::HeldSome,
                    _ if ruled.contains(&port) => Title::HasRules,
                    _ => Title::Asked,
                };
                claims.push((Reverse(title), name, port, addresses));
            }
        }
        claims.sort();
        let mut taken: BTreeMap<u16, Vec<(&String, &Vec<IpAddr>)>> = BTreeMap::new();
        let mut held = Held::new();
        for (_, name, port, addresses) in claims {
            let taken = taken.entry(port).or_default();
            match taken.iter().find(|(_, theirs)| overlap(theirs, addresses)) {
                Some((other, _)) => self.occupied(name, port, other),
                None => {
                    taken.push((name, addresses));
                    held.insert((name.clone(), port), addresses.clone());
                }
            }
        }
        held
    }

    fn occupied(&mut self, name: &str, port: u16, other: &str) {
        let mut notes = Notes::on("AlbConfig", "", name);
        notes.error(
            "spec.listeners",
            format!(
                "HTTP {port} is also that of AlbConfig {other} on the same address; that one serves"
            ),
            format!(
                "give both AlbConfigs addresses of their own with the annotation `{}`",
                notes::ADDRESSES
            ),
        );
        self.told(notes);
    }
}

/// Ports that some rule asks for.
fn ruled(members: &[Member]) -> BTreeSet<u16> {
    let serves = |member: &&Member| {
        let it = &member.understood;
        it.rules
            .iter()
            .chain(&it.default)
            .any(|draft| !draft.tls_only)
    };
    let ports = |member: &Member| member.understood.ports.http.clone();
    members.iter().filter(serves).flat_map(ports).collect()
}

fn overlap(one: &[IpAddr], other: &[IpAddr]) -> bool {
    one.is_empty() || other.is_empty() || one.iter().any(|address| other.contains(address))
}

fn covers(before: &[IpAddr], now: &[IpAddr]) -> bool {
    before.is_empty() || (!now.is_empty() && now.iter().all(|address| before.contains(address)))
}
