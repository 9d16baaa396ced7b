//! The two entries of a new flow: the reply entry claims the source port, the forward entry the flow.
//!
//! Tried at random here; `scanning` looks at all ports if none of these is free.

use super::{Claim, Packet, Tables, parse::parse};
use crate::{
    addr::{Addr, Port},
    backend::{Backend, Snat},
    csum,
    flow::{Flow, FlowKey, Life, Nat, TCP, flag, state},
    hash,
    verdict::{Choice, Reason, Verdict},
};

/// Source ports tried at random, before all are looked at. With 90 % of a backend's ports taken, one flow in five
/// needs the search.
const PORT_TRIES: u32 = 16;

/// Opens the chosen flow. CONTINUE: it is in the table; SCAN: none of the ports tried was free.
#[inline(never)]
pub(super) fn claiming<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    choice: Verdict,
) -> Verdict {
    let Ok(head) = parse(packet) else {
        return Verdict::PASS;
    };
    let key = head.key;
    let Some(backend) = tables.backend(choice.choice().backend) else {
        return Verdict::because(Reason::NoBackend);
    };
    let seed = match tables.config() {
        Some(config) => config.seed,
        None => 0,
    };
    let spread = spread(seed, &key);
    let pick = hash::scale(spread, backend.snat_count as u32);
    let Some(snat) = tables.snat(backend.snat_first as u32 + pick) else {
        return Verdict::because(Reason::SnatExhausted);
    };
    if backend.snat_count == 0 || snat.port_count == 0 {
        return Verdict::because(Reason::SnatExhausted);
    }
    let (mut reply, mut flow) = answer(tables, &key, backend, &choice.choice(), snat);
    let start = hash::mix(spread);
    let mut claimed = Claim::Taken;
    for step in 0..PORT_TRIES {
        // Scaled, so never outside the range.
        let random = hash::mix(start.wrapping_add(step));
        let offset = hash::scale(random, snat.port_count as u32);
        reply.dst_port = Port::from_host(snat.port_first.wrapping_add(offset as u16));
        claimed = tables.claim(&reply, &flow);
        if claimed != Claim::Taken {
            break;
        }
    }
    match claimed {
        Claim::Done => link(tables, &key, &reply, &mut flow, backend),
        Claim::Taken => Verdict::SCAN,
        Claim::Full => Verdict::because(Reason::FlowTableFull),
    }
}

/// Hash that spreads a flow over source addresses and ports.
#[inline(always)]
pub(super) fn spread(seed: u32, key: &FlowKey) -> u32 {
    hash::mix(hash::words(seed, key.words()))
}

/// What addresses add to checksums on the way to the pod.
#[inline(always)]
pub(super) fn addr_delta(client: Addr, vip: Addr, snat: Addr, pod: Addr) -> u16 {
    csum::fold(
        csum::change32(client.v4_word(), snat.v4_word())
            + csum::change32(vip.v4_word(), pod.v4_word()),
    )
}

/// The reply entry of a new flow, without its port. Its deltas are the complement of the forward ones; that of the
/// ports is written by `link`, before any packet can be answered.
#[inline(always)]
pub(super) fn answer<T: Tables>(
    tables: &T,
    key: &FlowKey,
    backend: &Backend,
    choice: &Choice,
    snat: &Snat,
) -> (FlowKey, Flow) {
    let flow = Flow {
        nat: Nat {
            src: key.dst,
            dst: key.src,
            src_port: key.dst_port,
            dst_port: key.src_port,
            addr_delta: !addr_delta(key.src, key.dst, snat.addr, backend.addr),
            port_delta: 0,
            backend: choice.backend,
            service: choice.service as u16,
            hop: choice.back as u16,
        },
        life: Life {
            last_seen: tables.now(),
            state: if key.proto == TCP {
                state::TCP_OPENING
            } else {
                state::UDP_OPENING
            },
            flags: flag::REPLY,
            generation: backend.generation,
            bytes: 0,
        },
    };
    let reply = FlowKey {
        src: backend.addr,
        dst: snat.addr,
        src_port: backend.port,
        dst_port: Port(0),
        proto: key.proto,
    };
    (reply, flow)
}

/// Adds the forward entry to a reply entry that was claimed.
#[inline(always)]
pub(super) fn link<T: Tables>(
    tables: &T,
    key: &FlowKey,
    reply: &FlowKey,
    flow: &mut Flow,
    backend: &Backend,
) -> Verdict {
    let (service, id, back) = (flow.nat.service as u32, flow.nat.backend, flow.nat.hop);
    let port_delta = csum::fold(
        csum::change16(key.src_port.0, reply.dst_port.0)
            + csum::change16(key.dst_port.0, backend.port.0),
    );
    if let Some(entry) = tables.flow(reply) {
        entry.set_port_delta(!port_delta);
    }
    let nat = &mut flow.nat;
    nat.src = reply.dst;
    nat.dst = backend.addr;
    nat.src_port = reply.dst_port;
    nat.dst_port = backend.port;
    nat.addr_delta = !nat.addr_delta;
    nat.port_delta = port_delta;
    nat.hop = backend.hop;
    let resolved = back != 0 && backend.hop != 0;
    flow.life.flags = if resolved { 0 } else { flag::UNRESOLVED };
    match tables.claim(key, flow) {
        Claim::Done => {
            tables.count_opened(service, id);
            Verdict::CONTINUE
        }
        // Another CPU opened the same flow first: its entry counts.
        Claim::Taken => {
            tables.free(reply);
            Verdict::CONTINUE
        }
        Claim::Full => {
            tables.free(reply);
            Verdict::because(Reason::FlowTableFull)
        }
    }
}
