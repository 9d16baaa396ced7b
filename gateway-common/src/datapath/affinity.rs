//! Client affinity: a new flow of a client goes where its last one went, for a while, whatever became of the ring.

use super::{Packet, Tables, opening::resolved, parse::parse};
use crate::{
    affinity::{Affinity, AffinityKey, members},
    backend::{Backend, state},
    service::{Service, ServiceKey},
    verdict::{Choice, Reason, Verdict},
};

/// Replaces the ring's choice by the backend that the client had, if it may still have it; notes who it has now.
///
/// A stage of its own, for the sake of its stack. Without a service that stands still there is no affinity: the ring's
/// choice counts.
#[inline(never)]
pub(super) fn affinity<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    chosen: Verdict,
) -> Verdict {
    let Ok(head) = parse(packet) else {
        return Verdict::PASS;
    };
    let choice = chosen.choice();
    let wanted = ServiceKey {
        addr: head.key.dst,
        port: head.key.dst_port,
        proto: head.key.proto as u16,
        zero: 0,
    };
    let Some(service) = tables.service(&wanted) else {
        return chosen;
    };
    let service = *service;
    let key = AffinityKey {
        client: head.key.src,
        service: choice.service,
        zero: 0,
    };
    let now = tables.now();
    if let Some(had) = tables.affinity(&key) {
        let last = had.read();
        let kept = stays(tables, &service, last, now);
        // As in `opening`: what was read of the service counts only if it still stands.
        let stands = match tables.service(&wanted) {
            Some(again) => *again == service && service.id == choice.service,
            None => false,
        };
        if !stands {
            return chosen;
        }
        if let Some(backend) = kept {
            if T::NEEDS_HOP && !resolved(tables, backend.hop as u32, packet.ifindex()) {
                return Verdict::because(Reason::NextHop);
            }
            had.renew(now);
            return Verdict::open(Choice {
                backend: last.backend,
                ..choice
            });
        }
    }
    if let Some(backend) = tables.backend(choice.backend) {
        let note = Affinity {
            backend: choice.backend,
            generation: backend.generation,
            zero: 0,
            last: now,
        };
        tables.remember(&key, &note);
    }
    chosen
}

/// The backend of an earlier flow, if a new one may go there: in time, the same pod, serving, and a member of the ring.
/// Other services may use the same pod, so that it serves does not say that this one has it.
#[inline(always)]
fn stays<'a, T: Tables>(
    tables: &'a T,
    service: &Service,
    had: Affinity,
    now: u32,
) -> Option<&'a Backend> {
    // Signed, as in `Life::silent`.
    let age = now.wrapping_sub(had.last) as i32;
    if age > 0 && age as u32 > service.affinity_ticks {
        return None;
    }
    let backend = tables.backend(had.backend)?;
    if backend.generation != had.generation || backend.state != state::ACTIVE {
        return None;
    }
    let place = service
        .ring_off
        .wrapping_add(service.ring_len)
        .wrapping_add(members::place(had.backend, service.ring_len));
    for step in 0..members::TRIES {
        if tables.slot(place.wrapping_add(step)) == Some(had.backend) {
            return Some(backend);
        }
    }
    None
}
