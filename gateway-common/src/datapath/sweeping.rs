//! Removes a flow that is over. Run by the agent's sweeper over the keys it found, not by packets.
//!
//! The look that decides and the removal are a few instructions apart, in the kernel: a flow that a packet renewed
//! since the sweeper read it stays.

use super::{
    Tables,
    established::{expired, gone},
};
use crate::flow::{FlowKey, flag, state};

/// Keys that one run of the program takes.
pub const KEYS: usize = 64;
/// Where they begin in the frame it is given, in bytes.
pub const KEYS_AT: usize = 16;

/// Removes the flow of this entry, both of its entries, if it is over: silent for longer than its state allows in both
/// directions; or without a backend, and UDP or not yet open. Returns how many entries went.
#[inline(always)]
pub fn sweep<T: Tables>(tables: &T, key: &FlowKey) -> u32 {
    let Some(flow) = tables.flow(key) else {
        return 0;
    };
    let nat = flow.nat();
    let life = flow.life();
    let now = tables.now();
    let other_key = nat.reverse_key(key.proto);
    // An entry whose sibling is lost may find another flow's in its place.
    let other = match tables.flow(&other_key) {
        Some(other) if other.nat().reverse_key(key.proto) == *key => Some(other),
        _ => None,
    };
    let silent = expired(tables, life, now)
        && match other {
            Some(other) => expired(tables, other.life(), now),
            None => true,
        };
    let lost = matches!(
        life.state,
        state::TCP_OPENING | state::UDP_OPENING | state::UDP_ESTABLISHED
    ) && gone(tables, nat.backend, life.generation);
    if !silent && !lost {
        return 0;
    }
    let service = nat.service as u32;
    let mut removed = 0;
    if other.is_some() {
        removed += remove(tables, &other_key, life.flags & flag::REPLY == 0, service);
    }
    removed + remove(tables, key, life.flags & flag::REPLY != 0, service)
}

/// Removes one entry of a flow; a reply entry frees its source port, the other one is counted.
#[inline(always)]
pub(super) fn remove<T: Tables>(tables: &T, key: &FlowKey, reply: bool, service: u32) -> u32 {
    if reply {
        return tables.free(key) as u32;
    }
    let removed = tables.forget(key);
    if removed {
        tables.count_closed(service);
    }
    removed as u32
}
