//! The two entries of a new flow: the reply entry claims the source port, the forward entry the flow.

use super::{Claim, Packet, Tables, parse::parse};
use crate::{
    addr::{Addr, Port},
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
    let mut key = FlowKey::default();
    if read_key(packet, &mut key) == 0 {
        return Verdict::PASS;
    }
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
    // NAT does not translate between families (that would be RFC 6145): configuration refuses it, and
    // a client with a v4-mapped address in an IPv6 header is told apart here.
    let v4 = key.dst.is_v4();
    if key.src.is_v4() != v4 || backend.addr.is_v4() != v4 || snat.addr.is_v4() != v4 {
        return Verdict::because(Reason::Family);
    }
    let addr_delta = csum::fold(changed(&key.src, &snat.addr) + changed(&key.dst, &backend.addr));
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

/// Puts the key of a packet into memory; 0 if it has none. A function of its own: inlined, each word
/// of the key would be a value on the stack, of eight bytes, beside the key.
#[inline(never)]
fn read_key<P: Packet>(packet: &P, key: &mut FlowKey) -> u32 {
    match parse(packet) {
        Ok(head) => {
            *key = head.key;
            1
        }
        Err(_) => 0,
    }
}

/// `~old + new` over an address; the prefix of a v4-mapped one cancels. A function of its own, for
/// the same reason.
#[inline(never)]
fn changed(old: &Addr, new: &Addr) -> u64 {
    csum::change32(old.0[0], new.0[0])
        + csum::change32(old.0[1], new.0[1])
        + csum::change32(old.0[2], new.0[2])
        + csum::change32(old.0[3], new.0[3])
}
