//! Limits of a service, judged for what opens flows: access list, budget of the client, budget of all.

use super::{
    Packet, Tables,
    parse::{ACK, RST, SYN, parse},
};
use crate::{
    flow::TCP,
    limits::{Bucket, SourceKey, cost},
    service::ServiceKey,
    verdict::{Reason, Verdict},
};

/// Judges a packet that `opening` would let on to a service with limits: the same verdict if the limits
/// let it in, else a drop.
///
/// The list is asked for every packet that meets no flow, so of a listener of the proxy for all of its
/// packets: a changed list also ends what is open there. Budgets are asked for packets that open a flow
/// or a connection, and spent once: a SYN to the proxy meets both hooks, and only the second spends.
#[inline(never)]
pub(super) fn guard<P: Packet, T: Tables>(packet: &mut P, tables: &T, verdict: Verdict) -> Verdict {
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
        return Verdict::because(Reason::Flipped);
    };
    let service = *service;
    // As in `opening`: what was read counts only if it still stands.
    match tables.service(&wanted) {
        Some(again) if *again == service => {}
        _ => return Verdict::because(Reason::Flipped),
    }
    if service.acl != 0 && !tables.allowed(service.acl, &head.key.src) {
        return refuse(tables, service.id, Reason::AclDenied);
    }
    let opens = verdict.opens();
    if !opens && (head.key.proto != TCP || head.flags & (SYN | ACK | RST) != SYN) {
        return verdict.let_in();
    }
    let spends = opens || !T::NEEDS_HOP;
    let now = tables.nanoseconds();
    if service.source_rate != 0 {
        let cost = cost(service.source_rate);
        let source = SourceKey {
            addr: head.key.src,
            service: service.id,
            zero: 0,
        };
        match tables.source(&source) {
            Some(bucket) => {
                let Some(ahead) = bucket.room(now, cost) else {
                    return refuse(tables, service.id, Reason::SourceBudget);
                };
                if spends {
                    spend(tables, bucket, ahead, now, cost);
                }
            }
            None if spends => tables.add_source(&source, &Bucket::begun(now, cost)),
            None => {}
        }
    }
    if service.flow_rate != 0
        && let Some(bucket) = tables.budget(service.id)
    {
        let cost = cost(service.flow_rate);
        let Some(ahead) = bucket.room(now, cost) else {
            return refuse(tables, service.id, Reason::FlowBudget);
        };
        if spends {
            spend(tables, bucket, ahead, now, cost);
        }
    }
    verdict.let_in()
}

#[inline(always)]
fn refuse<T: Tables>(tables: &T, service: u32, reason: Reason) -> Verdict {
    tables.count_refused(service);
    Verdict::because(reason)
}

/// Takes one flow out of a bucket. CPUs that read it at the same moment may all take its last token,
/// and all of them are counted: over time the rate holds.
#[inline(always)]
fn spend<T: Tables>(
    tables: &T,
    bucket: &crate::pod::Shared<Bucket>,
    ahead: u64,
    now: u64,
    cost: u64,
) {
    if ahead == 0 {
        bucket.set(now.wrapping_add(cost));
    } else {
        tables.spend(bucket, cost);
    }
}
