//! What is not TCP or UDP behind a plain header: fragments, extension headers, ICMP. Outside of the hot
//! path; everything that is not for one of our addresses passes untouched and uncounted.

use core::mem::offset_of;

use network_types::{
    eth::{EthHdr, EtherType},
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use super::{Answers, Outside, Packet, Tables, parse::L3, rewrite::TTL_STEP};
use crate::{
    addr::Addr,
    csum,
    verdict::{Reason, Verdict},
};

/// IANA protocol number of ICMP.
pub(super) const ICMP: u8 = 1;
/// IANA protocol number of ICMP for IPv6.
pub(super) const ICMPV6: u8 = 58;
/// Time to live, or hop limit, of what this node sends by itself (RFC 1700).
pub(super) const OWN_TTL: u8 = 64;

/// Decides what becomes of a frame in which the hot path found no ports.
#[inline(never)]
pub(super) fn other<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    match packet.load::<u16>(offset_of!(EthHdr, ether_type)) {
        Ok(kind) if kind == EtherType::Ipv4 as u16 => v4(packet, tables),
        Ok(kind) if kind == EtherType::Ipv6 as u16 => v6(packet, tables),
        _ => Ok(Verdict::PASS),
    }
    .unwrap_or(Verdict::PASS)
}

#[inline(always)]
fn v4<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Result<Verdict, Outside> {
    let vihl: u8 = packet.load(L3 + offset_of!(Ipv4Hdr, vihl))?;
    let words = (vihl & 0x0f) as usize;
    if vihl >> 4 != 4 || words < 5 {
        return Ok(Verdict::PASS);
    }
    let frags = u16::from_be(packet.load(L3 + offset_of!(Ipv4Hdr, frags))?);
    let src: u32 = packet.load(L3 + offset_of!(Ipv4Hdr, src_addr))?;
    let dst: u32 = packet.load(L3 + offset_of!(Ipv4Hdr, dst_addr))?;
    // More fragments, or an offset.
    if frags & 0x3fff != 0 {
        return Ok(ours(tables, Addr::v4(dst), Reason::LaterFragment));
    }
    if packet.load::<u8>(L3 + offset_of!(Ipv4Hdr, proto))? != ICMP {
        return Ok(Verdict::PASS);
    }
    let kind: [u8; 2] = [
        packet.load_l4(L3 + words * 4)?,
        packet.load_l4(L3 + words * 4 + 1)?,
    ];
    match kind {
        // RFC 792: destination unreachable, time exceeded, parameter problem.
        [3 | 11 | 12, _] => return Ok(Verdict::ERROR),
        // An echo with options is the stack's: a source route would have to be turned around
        // (RFC 1122 section 3.2.2.6).
        [8, 0] if words == 5 => {}
        _ => return Ok(Verdict::PASS),
    }
    if !tables.vip(&Addr::v4(dst)) || !one_host(Addr::v4(src)) || !unicast(packet)? {
        return Ok(Verdict::PASS);
    }
    const AT: usize = L3 + Ipv4Hdr::LEN;
    let check: u16 = packet.load(AT + 2)?;
    if !tables.may_answer(Answers::Echo) {
        return Ok(Verdict::because(Reason::AnswerRate));
    }
    // The sum of the addresses stays as it is.
    let ttl_at = L3 + offset_of!(Ipv4Hdr, ttl);
    let old: u8 = packet.load(ttl_at)?;
    let ip_at = L3 + offset_of!(Ipv4Hdr, check);
    let ip_check: u16 = packet.load(ip_at)?;
    let delta = csum::change16(TTL_STEP * old as u16, TTL_STEP * OWN_TTL as u16);
    packet.store(ttl_at, OWN_TTL)?;
    packet.store(ip_at, csum::patch(ip_check, delta))?;
    packet.store(L3 + offset_of!(Ipv4Hdr, src_addr), dst)?;
    packet.store(L3 + offset_of!(Ipv4Hdr, dst_addr), src)?;
    packet.store(AT, 0_u8)?;
    let delta = csum::change16(u16::from_ne_bytes([8, 0]), 0);
    packet.store(AT + 2, csum::patch(check, delta))?;
    turn(packet)?;
    Ok(Verdict::answer(Reason::EchoAnswered))
}

#[inline(always)]
fn v6<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Result<Verdict, Outside> {
    const AT: usize = L3 + Ipv6Hdr::LEN;
    let version: u8 = packet.load(L3)?;
    if version >> 4 != 6 {
        return Ok(Verdict::PASS);
    }
    let src = Addr(packet.load(L3 + offset_of!(Ipv6Hdr, src_addr))?);
    let dst = Addr(packet.load(L3 + offset_of!(Ipv6Hdr, dst_addr))?);
    match packet.load::<u8>(L3 + offset_of!(Ipv6Hdr, next_hdr))? {
        ICMPV6 => {}
        // RFC 8200 section 4.5: also of a first fragment only the stack knows where its ports are.
        44 => return Ok(ours(tables, dst, Reason::LaterFragment)),
        // Hop-by-hop, routing, authentication, destination options, mobility, HIP, shim6.
        0 | 43 | 51 | 60 | 135 | 139 | 140 => return Ok(ours(tables, dst, Reason::Extensions)),
        _ => return Ok(Verdict::PASS),
    }
    let kind: [u8; 2] = [packet.load(AT)?, packet.load(AT + 1)?];
    match kind {
        // RFC 4443 section 2.1: unreachable, too big, time exceeded, parameter problem.
        [1..=4, _] => return Ok(Verdict::ERROR),
        [128, 0] => {}
        _ => return Ok(Verdict::PASS),
    }
    if !tables.vip(&dst) || !one_host(src) || !unicast(packet)? {
        return Ok(Verdict::PASS);
    }
    let check: u16 = packet.load(AT + 2)?;
    if !tables.may_answer(Answers::Echo) {
        return Ok(Verdict::because(Reason::AnswerRate));
    }
    // The pseudo header's sum stays as it is too.
    packet.store(L3 + offset_of!(Ipv6Hdr, hop_limit), OWN_TTL)?;
    packet.store(L3 + offset_of!(Ipv6Hdr, src_addr), dst.0)?;
    packet.store(L3 + offset_of!(Ipv6Hdr, dst_addr), src.0)?;
    packet.store(AT, 129_u8)?;
    let delta = csum::change16(u16::from_ne_bytes([128, 0]), u16::from_ne_bytes([129, 0]));
    packet.store(AT + 2, csum::patch(check, delta))?;
    turn(packet)?;
    Ok(Verdict::answer(Reason::EchoAnswered))
}

/// A pass that is counted if it is about one of our addresses.
#[inline(always)]
pub(super) fn ours<T: Tables>(tables: &T, addr: Addr, reason: Reason) -> Verdict {
    if tables.vip(&addr) {
        Verdict::because(reason)
    } else {
        Verdict::PASS
    }
}

/// Whether an address names one host, so that it may be answered (RFC 1122 section 3.2.2, RFC 4443
/// section 2.4 (e)): not "this network", loopback, multicast, reserved or broadcast.
#[inline(always)]
pub(super) fn one_host(addr: Addr) -> bool {
    let first = u32::from_be(addr.0[0]);
    if addr.is_v4() {
        let first = u32::from_be(addr.v4_word()) >> 24;
        first != 0 && first != 127 && first < 224
    } else {
        // ::/32 holds "unspecified" and loopback.
        first != 0 && first >> 24 != 0xff
    }
}

/// Whether a frame was sent to one station (RFC 1122 section 3.2.2: others are not answered).
#[inline(always)]
pub(super) fn unicast<P: Packet>(packet: &P) -> Result<bool, Outside> {
    let first: u8 = packet.load(offset_of!(EthHdr, dst_addr))?;
    Ok(first & 1 == 0)
}

/// Sends a frame back to the neighbour that handed it to us.
#[inline(always)]
fn turn<P: Packet>(packet: &mut P) -> Result<(), Outside> {
    let to: [u8; 6] = packet.load(offset_of!(EthHdr, src_addr))?;
    let from: [u8; 6] = packet.load(offset_of!(EthHdr, dst_addr))?;
    packet.store(offset_of!(EthHdr, dst_addr), to)?;
    packet.store(offset_of!(EthHdr, src_addr), from)
}
