//! State of a flow: only packets that may change it come here.

use super::{
    Packet, Tables,
    established::{expired, gone, unwell},
    opening::from,
    parse::{ACK, FIN, RST, SYN, parse},
    sweeping::remove,
};
use crate::{
    flow::{Flow, UDP, flag, state},
    pod::Shared,
    verdict::{Reason, Verdict},
};

/// Moves both entries of a flow on. CONTINUE: forward the packet; MISS: the flow was over and has
/// been removed, the packet may open a new one.
#[inline(never)]
pub(super) fn track<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let Ok(head) = parse(packet) else {
        return Verdict::PASS;
    };
    let Some(flow) = tables.flow(&head.key) else {
        return Verdict::MISS;
    };
    if head.malformed() {
        return Verdict::because(Reason::Malformed);
    }
    let sibling_key = flow.nat().reverse_key(head.key.proto);
    let life = flow.life();
    let now = tables.now();
    let sibling = tables.flow(&sibling_key);
    // A flow lives as long as one of its directions speaks.
    let silent = expired(tables, life, now)
        && match sibling {
            Some(other) => expired(tables, other.life(), now),
            None => true,
        };
    let reply = life.flags & flag::REPLY != 0;
    // RFC 9293 section 3.6.1: a new SYN may take over the ports of a connection in TIME-WAIT.
    let anew = !reply
        && head.flags & (SYN | ACK) == SYN
        && matches!(life.state, state::TCP_CLOSING | state::TCP_CLOSED);
    // What a pod that is gone has not answered, or cannot answer any more, opens anew elsewhere; what one that fails
    // its checks has not answered, too.
    let opens = head.flags & (SYN | ACK) == SYN;
    let moves = matches!(life.state, state::UDP_OPENING | state::UDP_ESTABLISHED)
        || opens && life.state == state::TCP_OPENING && life.flags & flag::ANSWERED == 0;
    let lost = !reply
        && (moves && unwell(tables, flow.nat().backend, life.generation)
            || opens && gone(tables, flow.nat().backend, life.generation));
    if silent || anew || lost {
        let service = flow.nat().service as u32;
        remove(tables, &sibling_key, !reply, service);
        remove(tables, &head.key, reply, service);
        return Verdict::MISS;
    }
    let peer_flags = match sibling {
        Some(other) => other.life().flags,
        None => flag::FIN,
    };
    let (mut next, mut flags) = (life.state, life.flags);
    if flags & flag::UNRESOLVED != 0 && resolve(packet, tables, flow, sibling) {
        flags &= !flag::UNRESOLVED;
    }
    let plain = head.flags & (SYN | FIN | RST) == 0;
    if head.key.proto == UDP {
        if reply {
            next = state::UDP_ESTABLISHED;
        }
    } else if head.flags & RST != 0 {
        next = state::TCP_CLOSED;
    } else if head.flags & FIN != 0 {
        flags |= flag::FIN;
        // A FIN behind a RST closes no less.
        next = if peer_flags & flag::FIN != 0 || life.state == state::TCP_CLOSED {
            state::TCP_CLOSED
        } else {
            state::TCP_CLOSING
        };
    } else if life.state == state::TCP_CLOSED && plain && (flags | peer_flags) & flag::FIN == 0 {
        // Somebody did not believe the RST (RFC 5961 section 3.2): the connection may live on, but
        // is no longer trusted to be silent for long.
        next = state::TCP_CLOSING;
    } else if life.state == state::TCP_OPENING {
        // A forged SYN gets an answer too, but nobody confirms it: only then may it live for hours.
        if reply {
            if let Some(other) = sibling {
                other.set_flags(peer_flags | flag::ANSWERED);
            }
        } else if plain && flags & flag::ANSWERED != 0 {
            next = state::TCP_ESTABLISHED;
        }
    }
    flow.set_flags(flags);
    if next != life.state {
        flow.set_state(next);
        if let Some(other) = sibling {
            other.set_state(next);
        }
    }
    Verdict::CONTINUE
}

/// Looks for the next hops that were not known when the flow was opened. True once both are.
#[inline(always)]
fn resolve<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    flow: &Shared<Flow>,
    sibling: Option<&Shared<Flow>>,
) -> bool {
    let forward = match tables.backend(flow.nat().backend) {
        Some(backend) => backend.hop,
        None => 0,
    };
    let back = from(packet).map_or(0, |key| tables.neighbour(&key)) as u16;
    flow.set_hop(forward);
    if let Some(other) = sibling {
        other.set_hop(back);
    }
    forward != 0 && back != 0
}
