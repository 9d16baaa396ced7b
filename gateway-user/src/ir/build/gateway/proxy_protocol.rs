//! `fleetgate.io/proxy-protocol-from`: load balancers in front of us, whose connections begin with a PROXY header.

use std::collections::BTreeMap;

use super::{Kept, Key, Settings};
use crate::{
    ir::{
        build::notes::{Notes, PROXY_FROM, annotation},
        model::Network,
    },
    problem::shown,
};

/// Most networks of load balancers.
const MOST: usize = 500;

/// Sets the networks of all listeners that read requests. Of a mistaken annotation the last good value of each listener
/// stays; one that has none is left out, for whom it would take for the client is unknown.
pub(super) fn read(
    annotations: &BTreeMap<String, String>,
    listeners: &mut BTreeMap<Key, Settings>,
    before: Option<&Kept>,
    notes: &mut Notes,
) {
    let networks = match annotations.get(PROXY_FROM) {
        None => Some(None),
        Some(text) => networks(text, notes).map(Some),
    };
    listeners.retain(|key, settings| {
        let (_, protocol) = *key;
        let had = before.and_then(|kept| kept.listeners.get(key));
        match (&networks, had) {
            // Their bytes pass as they are, headers too.
            _ if protocol.is_l4() => {}
            (Some(networks), _) => settings.proxy_protocol.clone_from(networks),
            (None, Some(had)) => settings.proxy_protocol.clone_from(&had.proxy_protocol),
            (None, None) => return false,
        }
        true
    });
}

fn networks(text: &str, notes: &mut Notes) -> Option<Vec<Network>> {
    let remedy = "write networks of your load balancers such as 10.0.0.0/8, separated by commas";
    let items = text.split(',').map(str::trim);
    let mut networks = Vec::new();
    for item in items.filter(|item| !item.is_empty()) {
        let Ok(network) = item.parse::<Network>() else {
            let message = format!("{} is neither an address nor a network", shown(item));
            notes.error(annotation(PROXY_FROM), message, remedy);
            return None;
        };
        if networks.len() == MOST {
            notes.error(
                annotation(PROXY_FROM),
                format!("lists more than {MOST} networks"),
                "join neighbouring networks",
            );
            return None;
        }
        networks.push(network);
    }
    if networks.is_empty() {
        let remedy = format!("{remedy}, or remove the annotation");
        notes.error(annotation(PROXY_FROM), "names no load balancer", remedy);
        return None;
    }
    networks.sort();
    networks.dedup();
    Some(networks)
}
