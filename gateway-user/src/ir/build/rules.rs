//! Rules of a gateway's Ingresses, per listener, with their groups.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Building, Member,
    backends::Members,
    gateway::Gateway,
    ingress::Draft,
    notes::{self, Notes},
};
use crate::{
    ir::model::{Group, Rule, ServiceName},
    manifest::NamespacedName,
};

impl Building<'_> {
    /// Fills the listeners: first the rules of all Ingresses, then their default backends.
    pub(super) fn rules(
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
        let mut told: BTreeSet<(&NamespacedName, u16)> = BTreeSet::new();
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
                    None if !told.insert((&member.key, *port)) => {}
                    None => {
                        let explicit = member.understood.ports.explicit;
                        no_listener(
                            gateway_name,
                            *port,
                            explicit,
                            gateway.written.contains(port),
                            notes,
                        );
                    }
                }
            }
        }
        for member in members.iter().filter(|member| !member.stale) {
            if let Some(notes) = notes_of.remove(&member.key) {
                self.told(notes);
            }
        }
    }
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

fn no_listener(gateway: &str, port: u16, explicit: bool, written: bool, notes: &mut Notes) {
    let field = if explicit {
        notes::alb("listen-ports")
    } else {
        "spec.rules".to_owned()
    };
    if written {
        notes.warning(
            field,
            format!("AlbConfig {gateway} lists port {port} but cannot serve HTTP there, so the rules are not served there"),
            "mend the listener first; the problems of the AlbConfig say how",
        );
        return;
    }
    let message = if explicit {
        format!(
            "AlbConfig {gateway} has no HTTP listener on port {port}, so the rules are not served there"
        )
    } else {
        format!(
            "without listen-ports the rules go to HTTP {port}, where AlbConfig {gateway} has no listener"
        )
    };
    let remedy = "to spec.listeners of the AlbConfig, or correct the port";
    notes.warning(
        field,
        message,
        format!("add `- port: {port}` with `protocol: HTTP` {remedy}"),
    );
}
