//! Removes flows that are over, and tells which backends still have some.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use gateway_common::flow::{Flow, FlowKey, state};

use super::tables::Tables;

/// Result of one pass over the flow table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sweep {
    /// When it began.
    pub began: Instant,
    /// Entries seen.
    pub seen: u64,
    /// Entries removed.
    pub removed: u64,
    /// Backends that have live flows.
    pub busy: BTreeSet<u32>,
}

/// Whether an entry has been silent for longer than its state allows.
pub fn expired(flow: &Flow, now: u32, timeout_ticks: &[u32; state::COUNT]) -> bool {
    flow.life.silent(
        now,
        timeout_ticks[usize::from(flow.life.state) % state::COUNT],
    )
}

/// Walks the whole table once. A pair goes when both directions are silent, an entry without its
/// pair when it is silent itself.
pub fn sweep(
    tables: &mut Tables,
    began: Instant,
    now: u32,
    timeout_ticks: &[u32; state::COUNT],
) -> Sweep {
    let mut sweep = Sweep {
        began,
        seen: 0,
        removed: 0,
        busy: BTreeSet::new(),
    };
    let mut silent: BTreeMap<FlowKey, FlowKey> = BTreeMap::new();
    for (key, flow) in tables.flow_entries() {
        sweep.seen += 1;
        if expired(&flow, now, timeout_ticks) {
            silent.insert(key, flow.nat.reverse_key(key.proto));
        } else {
            sweep.busy.insert(flow.nat.backend);
        }
    }
    for (key, pair) in &silent {
        let alive = |key: &FlowKey| match tables.flows.get(key, 0) {
            Ok(flow) => !expired(&flow, now, timeout_ticks),
            Err(_) => false,
        };
        // Asked again just before: a packet may have come since.
        if alive(key) || alive(pair) {
            continue;
        }
        if tables.flows.remove(key).is_ok() {
            sweep.removed += 1;
        }
    }
    sweep
}
