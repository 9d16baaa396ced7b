//! The hot path: a packet of a known flow costs one hash lookup and a few arrays.

use super::{
    Packet, Tables,
    parse::{FIN, RST, SYN, parse},
    rewrite::rewrite,
};
use crate::{
    backend::{self, NextHop},
    flow::{Life, UDP, flag, state},
    verdict::{Reason, Verdict},
};

/// Translates a packet of a live flow. `tracked`: its state has been looked at already.
///
/// MISS without a flow, TRACK when the state machine must see the packet first.
#[inline(never)]
pub(super) fn established<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    tracked: bool,
) -> Verdict {
    let Ok(head) = parse(packet) else {
        return Verdict::PASS;
    };
    let Some(flow) = tables.flow(&head.key) else {
        return Verdict::MISS;
    };
    let nat = flow.nat();
    let life = flow.life();
    let now = tables.now();
    if !tracked {
        let steady = !matches!(
            life.state,
            state::TCP_OPENING | state::TCP_CLOSED | state::UDP_OPENING
        );
        if !steady
            || life.flags & flag::UNRESOLVED != 0
            || head.flags & (SYN | FIN | RST) != 0
            || expired(tables, life, now)
            || head.key.proto == UDP && unwell(tables, nat.backend, life.generation)
        {
            return Verdict::TRACK;
        }
    }
    if head.fragment {
        return Verdict::because(Reason::Fragment);
    }
    if head.ttl <= 1 {
        return Verdict::because(Reason::TtlExpired);
    }
    let hop = match tables.hop(nat.hop as u32) {
        Some(hop) if usable::<T>(hop, packet.ifindex()) => Some(hop),
        _ => None,
    };
    if T::NEEDS_HOP && hop.is_none() {
        return Verdict::because(Reason::NextHop);
    }
    let bytes = packet.frame_len();
    if let Some(hop) = hop
        && bytes > hop.mtu as u32 + super::parse::L3 as u32
        && !packet.segmented()
    {
        return Verdict::because(Reason::OverMtu);
    }
    flow.touch(now, life.bytes.wrapping_add(bytes as u64));
    let reply = life.flags & flag::REPLY != 0;
    tables.count_traffic(nat.service as u32, nat.backend, reply, bytes);
    match rewrite(packet, &head, &nat, hop) {
        Ok(()) => Verdict::forward(if hop.is_some() { nat.hop } else { 0 }),
        Err(_) => Verdict::because(Reason::Rewrite),
    }
}

/// Whether a frame can be sent by a next hop. XDP reaches only devices that take XDP frames, and
/// the one the frame came in on.
#[inline(always)]
pub(super) fn usable<T: Tables>(hop: &NextHop, ifindex: u32) -> bool {
    hop.ifindex != 0 && (!T::NEEDS_HOP || hop.flags & backend::XDP != 0 || hop.ifindex == ifindex)
}

/// Whether a flow has been silent for longer than its state allows. A table without configuration
/// lets nothing expire.
#[inline(always)]
pub(super) fn expired<T: Tables>(tables: &T, life: Life, now: u32) -> bool {
    match tables.config() {
        Some(config) => life.silent(
            now,
            config.timeout_ticks[life.state as usize & (state::COUNT - 1)],
        ),
        None => false,
    }
}

/// Whether the backend that a flow was opened to is no longer there.
#[inline(always)]
pub(super) fn gone<T: Tables>(tables: &T, id: u32, generation: u16) -> bool {
    match tables.backend(id) {
        Some(backend) => {
            backend.generation != generation
                || backend.state == backend::state::DOWN
                || backend.state == 0
        }
        None => true,
    }
}

/// Whether flows that can move should leave their backend: it is gone, or fails its health checks.
#[inline(always)]
pub(super) fn unwell<T: Tables>(tables: &T, id: u32, generation: u16) -> bool {
    match tables.backend(id) {
        Some(backend) => {
            backend.generation != generation
                || !matches!(
                    backend.state,
                    backend::state::ACTIVE | backend::state::DRAINING
                )
        }
        None => true,
    }
}
