//! The two entries of a new flow: the reply entry claims the source port, the forward entry the flow.

use super::{Claim, Packet, Tables, parse::parse};
use crate::{
    addr::Port,
    csum,
    flow::{Flow, FlowKey, Life, Nat, TCP, flag, state},
    hash,
    verdict::{Choice, Reason, Verdict},
};

/// Source ports tried for one flow. With 90 % of a backend's ports taken, one flow in 900 finds none.
const PORT_TRIES: u32 = 64;
/// Distance of two tries, of a range of 2^32, where they are spaced evenly.
const PORT_STEP: u32 = u32::MAX / PORT_TRIES + 1;
/// Ranges up to this long are tried evenly, so that one no longer than the tries is tried in full;
/// longer ones at random, so that all flows share all ports.
const EVEN_RANGE: u16 = 256;

/// Opens the chosen flow. CONTINUE: it is in the table.
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
    let Choice {
        service,
        backend: id,
        back,
    } = choice.choice();
    let Some(backend) = tables.backend(id) else {
        return Verdict::because(Reason::NoBackend);
    };
    let seed = match tables.config() {
        Some(config) => config.seed,
        None => 0,
    };
    let spread = hash::mix(hash::words(seed, key.words()));
    let pick = hash::scale(spread, backend.snat_count as u32);
    let Some(snat) = tables.snat(backend.snat_first as u32 + pick) else {
        return Verdict::because(Reason::SnatExhausted);
    };
    if backend.snat_count == 0 || snat.port_count == 0 {
        return Verdict::because(Reason::SnatExhausted);
    }
    let addr_delta = csum::fold(
        csum::change32(key.src.v4_word(), snat.addr.v4_word())
            + csum::change32(key.dst.v4_word(), backend.addr.v4_word()),
    );
    // The reply entry first. Its deltas are the complement of the forward ones; that of the ports
    // is written below, before any packet can be answered.
    let mut flow = Flow {
        nat: Nat {
            src: key.dst,
            dst: key.src,
            src_port: key.dst_port,
            dst_port: key.src_port,
            addr_delta: !addr_delta,
            port_delta: 0,
            backend: id,
            service: service as u16,
            hop: back as u16,
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
    let mut reply = FlowKey {
        src: backend.addr,
        dst: snat.addr,
        src_port: backend.port,
        dst_port: Port(0),
        proto: key.proto,
    };
    let start = hash::mix(spread);
    let evenly = if snat.port_count <= EVEN_RANGE {
        u32::MAX
    } else {
        0
    };
    let mut claimed = Claim::Taken;
    for step in 0..PORT_TRIES {
        // Scaled, so never outside the range; by masks, because a branch would cost the verifier a
        // state a try.
        let even = start.wrapping_add(step * PORT_STEP);
        let random = hash::mix(start.wrapping_add(step));
        let offset = hash::scale(even & evenly | random & !evenly, snat.port_count as u32);
        reply.dst_port = Port::from_host(snat.port_first.wrapping_add(offset as u16));
        claimed = tables.claim(&reply, &flow);
        if claimed != Claim::Taken {
            break;
        }
    }
    match claimed {
        Claim::Done => {}
        Claim::Taken => return Verdict::because(Reason::SnatExhausted),
        Claim::Full => return Verdict::because(Reason::FlowTableFull),
    }
    let port_delta = csum::fold(
        csum::change16(key.src_port.0, reply.dst_port.0)
            + csum::change16(key.dst_port.0, backend.port.0),
    );
    if let Some(entry) = tables.flow(&reply) {
        entry.set_port_delta(!port_delta);
    }
    flow.nat = Nat {
        src: snat.addr,
        dst: backend.addr,
        src_port: reply.dst_port,
        dst_port: backend.port,
        addr_delta,
        port_delta,
        hop: backend.hop,
        ..flow.nat
    };
    let resolved = back != 0 && backend.hop != 0;
    flow.life.flags = if resolved { 0 } else { flag::UNRESOLVED };
    match tables.claim(&key, &flow) {
        Claim::Done => {
            tables.count_opened(service, id);
            Verdict::CONTINUE
        }
        // Another CPU opened the same flow first: its entry counts.
        Claim::Taken => {
            tables.forget(&reply);
            Verdict::CONTINUE
        }
        Claim::Full => {
            tables.forget(&reply);
            Verdict::because(Reason::FlowTableFull)
        }
    }
}
