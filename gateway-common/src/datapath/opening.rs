//! The first packet of a flow: service, ring slot, backend.

use super::{
    Head, Packet, Tables,
    established::usable,
    parse::{ACK, RST, SYN, parse},
};
use crate::{
    backend::{self, NeighbourKey},
    flow::TCP,
    hash,
    service::{Service, ServiceKey, mode},
    verdict::{Choice, Reason, Refusal, Verdict},
};

/// Offset of the source MAC address in an Ethernet header.
const SOURCE_MAC: usize = 6;

/// Chooses where the flow of a packet that has none goes; the next stage claims it.
#[inline(never)]
pub(super) fn opening<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let Ok(head) = parse(packet) else {
        return Verdict::PASS;
    };
    let wanted = ServiceKey {
        addr: head.key.dst,
        port: head.key.dst_port,
        proto: head.key.proto as u16,
        zero: 0,
    };
    let Some(service) = tables.service(&wanted) else {
        return Verdict::PASS;
    };
    let service = *service;
    if head.malformed() {
        return Verdict::because(Reason::Malformed);
    }
    match service.mode {
        mode::NAT | mode::L4 => {}
        mode::L7 => return Verdict::because(Reason::Proxy).guard(&service),
        _ => return Verdict::PASS,
    }
    if head.fragment {
        return Verdict::because(Reason::Fragment);
    }
    // The flow would not get its first packet.
    if head.ttl <= 1 {
        return Verdict::refuse(Refusal::TtlExpired);
    }
    if head.key.proto == TCP && head.flags & (SYN | ACK | RST) != SYN {
        return Verdict::because(Reason::NoFlow).guard(&service);
    }
    let seed = match tables.config() {
        Some(config) => config.seed,
        None => 0,
    };
    let Some(id) = select(tables, &service, &head, seed) else {
        // Not the proxy's, so `sk_lookup` refuses it and the stack answers RST: the client knows at once.
        if service.mode == mode::L4 && head.key.proto == TCP {
            return Verdict::left(Reason::NoBackend);
        }
        return Verdict::because(Reason::NoBackend);
    };
    // The kernel may give the memory of a replaced entry to another service at once: what was read
    // counts only if it still stands. A flip in between costs this packet, which is sent again.
    match tables.service(&wanted) {
        Some(again) if *again == service => {}
        _ => return Verdict::because(Reason::Flipped),
    }
    let Some(backend) = tables.backend(id) else {
        return Verdict::because(Reason::NoBackend);
    };
    if backend.state != backend::state::ACTIVE {
        return Verdict::because(Reason::NoBackend);
    }
    let Some(from) = from(packet) else {
        return Verdict::PASS;
    };
    let back = tables.neighbour(&from);
    let ifindex = packet.ifindex();
    if T::NEEDS_HOP
        && !(resolved(tables, back, ifindex) && resolved(tables, backend.hop as u32, ifindex))
    {
        return Verdict::because(Reason::NextHop);
    }
    let chosen = Verdict::open(Choice {
        service: service.id,
        backend: id,
        back,
    })
    .guard(&service);
    match service.affinity_ticks {
        0 => chosen,
        _ => chosen.sticky(),
    }
}

/// Backend id for a new flow.
#[inline(always)]
fn select<T: Tables>(tables: &T, service: &Service, head: &Head, seed: u32) -> Option<u32> {
    if service.ring_len == 0 {
        return None;
    }
    let hash = match service.affinity {
        0 => hash::words(seed, head.key.words()),
        _ => hash::words(seed, head.key.src.0),
    };
    tables.slot(
        service
            .ring_off
            .wrapping_add(hash::scale(hash, service.ring_len)),
    )
}

#[inline(always)]
pub(super) fn resolved<T: Tables>(tables: &T, id: u32, ifindex: u32) -> bool {
    match tables.hop(id) {
        Some(hop) => usable::<T>(hop, ifindex),
        None => false,
    }
}

/// Who handed us this frame.
#[inline(always)]
pub(super) fn from<P: Packet>(packet: &P) -> Option<NeighbourKey> {
    let mac = packet.load::<[u16; 3]>(SOURCE_MAC).ok()?;
    Some(NeighbourKey {
        ifindex: packet.ifindex(),
        mac,
        zero: 0,
    })
}
