//! `fleetgate.io/new-flows-per-second` and the like: how many new flows listeners take.

use std::collections::BTreeMap;

use super::{Kept, Key, Settings};
use crate::{
    ir::build::notes::{FLOWS, FLOWS_PER_SOURCE, Notes, annotation},
    problem::shown,
};

/// More new flows in a second than any node opens.
const MOST: u32 = 100_000_000;

/// What an annotation says.
#[derive(Debug, Default, Eq, PartialEq)]
struct Rates {
    /// For ports that are not named; 0 is no limit.
    others: u32,
    ports: BTreeMap<u16, u32>,
}

impl Rates {
    fn of(&self, port: u16) -> u32 {
        self.ports.get(&port).copied().unwrap_or(self.others)
    }
}

/// Sets the limits of all listeners. Of a mistaken annotation the last good value of each listener stays.
pub(super) fn read(
    annotations: &BTreeMap<String, String>,
    listeners: &mut BTreeMap<Key, Settings>,
    before: Option<&Kept>,
    notes: &mut Notes,
) {
    let mut rates = |key: &str| match annotations.get(key) {
        None => Some(Rates::default()),
        Some(text) => rates(text, key, listeners, notes),
    };
    let (flows, sources) = (rates(FLOWS), rates(FLOWS_PER_SOURCE));
    for (key, settings) in listeners {
        let had = before.and_then(|kept| kept.listeners.get(key));
        let had = had.map(|it| it.limits).unwrap_or_default();
        let (port, _) = *key;
        settings.limits.flows = flows.as_ref().map_or(had.flows, |it| it.of(port));
        settings.limits.flows_per_source = sources
            .as_ref()
            .map_or(had.flows_per_source, |it| it.of(port));
    }
}

/// `1000`, or `80=1000, 443=500`, or both: the number alone is for the ports that are not named.
fn rates(
    text: &str,
    key: &str,
    listeners: &BTreeMap<Key, Settings>,
    notes: &mut Notes,
) -> Option<Rates> {
    let mut rates = Rates::default();
    let mut others = None;
    for item in text.split(',').map(str::trim) {
        let (port, number) = match item.split_once('=') {
            Some((port, number)) => (Some(port.trim()), number.trim()),
            None => (None, item),
        };
        let number = number.parse::<u32>().ok();
        let Some(number) = number.filter(|number| (1..=MOST).contains(number)) else {
            notes.error(
                annotation(key),
                format!("{} is no number of new flows per second", shown(item)),
                format!(
                    "write 1 to {MOST} for all listeners, or by port, such as `80=1000, 443=500`; without a limit \
                     remove it"
                ),
            );
            return None;
        };
        let Some(port) = port else {
            if others.replace(number).is_some() {
                notes.error(
                    annotation(key),
                    "has two numbers without a port",
                    "keep one of them, for the ports that are not named",
                );
                return None;
            }
            continue;
        };
        let Some(port) = port.parse::<u16>().ok().filter(|port| *port != 0) else {
            notes.error(
                annotation(key),
                format!("{} is not a port", shown(port)),
                "write 1 to 65535 before the equals sign",
            );
            return None;
        };
        if !listeners.keys().any(|(known, _)| *known == port) {
            notes.warning(
                annotation(key),
                format!("limits port {port}, which has no listener"),
                "correct the port, or remove this limit",
            );
        }
        if rates.ports.insert(port, number).is_some() {
            notes.error(
                annotation(key),
                format!("limits port {port} twice"),
                "keep one of the two numbers",
            );
            return None;
        }
    }
    rates.others = others.unwrap_or(0);
    Some(rates)
}
