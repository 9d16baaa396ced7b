//! What is understood but cannot be executed yet: refused with a problem, never dropped.
//!
//! A refused listener takes no connections.

use std::collections::BTreeMap;

use super::{
    gateway::{Gateway, Key},
    notes::Notes,
};
use crate::ir::model::ListenerProtocol;

/// Listeners that cannot be served as written, each told, and why.
pub(super) fn listeners(gateway: &Gateway, notes: &mut Notes) -> BTreeMap<Key, String> {
    let mut refused = BTreeMap::new();
    for key in gateway.kept.listeners.keys() {
        let place = gateway
            .places
            .get(key)
            .map_or("spec.listeners", String::as_str);
        let (port, protocol) = key;
        if *protocol == ListenerProtocol::Quic {
            notes.error(
                format!("{place}.protocol"),
                format!("listener {protocol} {port} is not served yet and is left out"),
                "serve HTTPS on this port, or keep QUIC on a gateway that speaks it",
            );
            refused.insert(*key, format!("{protocol} is not served yet"));
        }
    }
    refused
}
