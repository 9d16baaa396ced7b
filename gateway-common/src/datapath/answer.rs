//! Tells a sender why its packet cannot go on: fragmentation needed, packet too big, time exceeded.
//!
//! The answer comes from the address the packet was sent to and quotes the packet as it came, so it
//! means something to whoever sent it: a client hears from the listener, a pod from the source address
//! it answers. It goes back to the neighbour that handed us the frame.

use core::mem::offset_of;

use network_types::{
    eth::{EthHdr, EtherType},
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use super::{
    Answers, Outside, Packet, Tables,
    other::{ICMP, ICMPV6, OWN_TTL, one_host, unicast},
    parse::L3,
};
use crate::{
    addr::Addr,
    csum,
    flow::UDP,
    verdict::{Reason, Refusal, Verdict},
};

/// Bytes of an ICMP header.
const ICMP_LEN: usize = 8;
/// What goes in front of the quote.
const FRONT_V4: usize = Ipv4Hdr::LEN + ICMP_LEN;
/// The same for IPv6.
const FRONT_V6: usize = Ipv6Hdr::LEN + ICMP_LEN;
/// RFC 1812 section 4.3.2.3: as much as fits into 576 bytes.
const QUOTE_V4: usize = 576 - FRONT_V4;
/// RFC 4443 section 2.4 (c): as much as fits into the smallest MTU of IPv6.
const QUOTE_V6: usize = 1280 - FRONT_V6;
/// RFC 791: "don't fragment".
const DF: u16 = 0x4000;

/// Makes an answer of a frame that was refused. Where none is due, it is dropped by the reason's name.
#[inline(never)]
pub(super) fn answer<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    verdict: Verdict,
) -> Verdict {
    let Some(refusal) = verdict.refused() else {
        return Verdict::PASS;
    };
    let dropped = match refusal {
        Refusal::TooBig(_) => Reason::OverMtu,
        Refusal::TtlExpired => Reason::TtlExpired,
    };
    let made = match packet.load::<u16>(offset_of!(EthHdr, ether_type)) {
        Ok(kind) if kind == EtherType::Ipv6 as u16 => v6(packet, tables, refusal),
        _ => v4(packet, tables, refusal),
    };
    match made {
        Ok(Made::Answer) => Verdict::answer(match refusal {
            Refusal::TooBig(_) => Reason::TooBigAnswered,
            Refusal::TtlExpired => Reason::TtlAnswered,
        }),
        Ok(Made::TooMany) => Verdict::because(Reason::AnswerRate),
        Ok(Made::Nothing) | Err(_) => Verdict::because(dropped),
    }
}

/// What became of a refused frame.
enum Made {
    /// The frame is the answer now.
    Answer,
    /// No answer is due, or none can be made.
    Nothing,
    /// This CPU has sent all it may at the moment.
    TooMany,
}

#[inline(always)]
fn v4<P: Packet, T: Tables>(packet: &mut P, tables: &T, refusal: Refusal) -> Result<Made, Outside> {
    const IP: usize = L3;
    const AT: usize = IP + Ipv4Hdr::LEN;
    let frags = u16::from_be(packet.load(L3 + offset_of!(Ipv4Hdr, frags))?);
    // Whoever allows fragments expects them and no answer; we make none.
    if matches!(refusal, Refusal::TooBig(_)) && frags & DF == 0 {
        return Ok(Made::Nothing);
    }
    let src: u32 = packet.load(L3 + offset_of!(Ipv4Hdr, src_addr))?;
    let dst: u32 = packet.load(L3 + offset_of!(Ipv4Hdr, dst_addr))?;
    let vihl: u8 = packet.load(L3 + offset_of!(Ipv4Hdr, vihl))?;
    let l4 = (vihl & 0x0f) as usize * 4;
    let proto: u8 = packet.load(L3 + offset_of!(Ipv4Hdr, proto))?;
    let check = L3 + l4 + check_at(proto);
    let told = u16::from_be(packet.load(L3 + offset_of!(Ipv4Hdr, tot_len))?);
    let len = quoted(packet, told as usize, QUOTE_V4);
    if !one_host(Addr::v4(src)) || !unicast(packet)? || len < l4 + 8 {
        return Ok(Made::Nothing);
    }
    let Some(before) = room(packet, tables, refusal, check, FRONT_V4, len)? else {
        return Ok(Made::TooMany);
    };
    // What the card completes adds up to the complement of what its field holds now, whatever else is
    // in it; and an IPv4 header adds up to nothing.
    let sum = match before.pending {
        Some(field) => !field as u64,
        None => sum::<P, QUOTE_V4>(packet, L3 + FRONT_V4),
    };

    packet.store(offset_of!(EthHdr, dst_addr), before.from)?;
    packet.store(offset_of!(EthHdr, src_addr), before.to)?;
    packet.store(offset_of!(EthHdr, ether_type), EtherType::Ipv4 as u16)?;
    // Version and length, precedence "internetwork control" (RFC 1812 section 4.3.2.5).
    let first = 0x45c0_u16.to_be();
    let total = ((FRONT_V4 + len) as u16).to_be();
    let life = ((OWN_TTL as u16) << 8 | ICMP as u16).to_be();
    let ip =
        csum::change32(!src, dst) + first as u64 + total as u64 + DF.to_be() as u64 + life as u64;
    packet.store(IP, first)?;
    packet.store(IP + 2, total)?;
    packet.store(IP + 4, 0_u16)?;
    packet.store(IP + 6, DF.to_be())?;
    packet.store(IP + 8, life)?;
    packet.store(IP + 10, !csum::fold(ip))?;
    packet.store(IP + 12, dst)?;
    packet.store(IP + 16, src)?;

    // RFC 792 and RFC 1191 section 4.
    let (kind, mtu) = match refusal {
        Refusal::TooBig(mtu) => (u16::from_ne_bytes([3, 4]), mtu.to_be()),
        Refusal::TtlExpired => (u16::from_ne_bytes([11, 0]), 0),
    };
    packet.store(AT, kind)?;
    packet.store(AT + 2, !csum::fold(sum + kind as u64 + mtu as u64))?;
    packet.store(AT + 4, 0_u16)?;
    packet.store(AT + 6, mtu)?;
    Ok(Made::Answer)
}

#[inline(always)]
fn v6<P: Packet, T: Tables>(packet: &mut P, tables: &T, refusal: Refusal) -> Result<Made, Outside> {
    const IP: usize = L3;
    const AT: usize = IP + Ipv6Hdr::LEN;
    let src: [u32; 4] = packet.load(L3 + offset_of!(Ipv6Hdr, src_addr))?;
    let dst: [u32; 4] = packet.load(L3 + offset_of!(Ipv6Hdr, dst_addr))?;
    let proto: u8 = packet.load(L3 + offset_of!(Ipv6Hdr, next_hdr))?;
    let check = L3 + Ipv6Hdr::LEN + check_at(proto);
    let told = u16::from_be(packet.load(L3 + offset_of!(Ipv6Hdr, payload_len))?);
    // No length is a jumbogram, or a super-packet.
    let told = if told == 0 {
        0
    } else {
        told as usize + Ipv6Hdr::LEN
    };
    let len = quoted(packet, told, QUOTE_V6);
    if !one_host(Addr(src)) || !unicast(packet)? || len < Ipv6Hdr::LEN + 8 {
        return Ok(Made::Nothing);
    }
    let Some(before) = room(packet, tables, refusal, check, FRONT_V6, len)? else {
        return Ok(Made::TooMany);
    };
    let sum = match before.pending {
        Some(field) => header(packet, L3 + FRONT_V6)? + !field as u64,
        None => sum::<P, QUOTE_V6>(packet, L3 + FRONT_V6),
    };

    packet.store(offset_of!(EthHdr, dst_addr), before.from)?;
    packet.store(offset_of!(EthHdr, src_addr), before.to)?;
    packet.store(offset_of!(EthHdr, ether_type), EtherType::Ipv6 as u16)?;
    packet.store(IP, 0x6000_u16.to_be())?;
    packet.store(IP + 2, 0_u16)?;
    packet.store(IP + 4, ((ICMP_LEN + len) as u16).to_be())?;
    packet.store(IP + 6, ICMPV6)?;
    packet.store(IP + 7, OWN_TTL)?;
    packet.store(IP + 8, dst)?;
    packet.store(IP + 24, src)?;

    // RFC 4443 sections 3.2 and 3.3; the sum covers a pseudo header (RFC 8200 section 8.1).
    let (kind, mtu) = match refusal {
        Refusal::TooBig(mtu) => (u16::from_ne_bytes([2, 0]), (mtu as u32).to_be()),
        Refusal::TtlExpired => (u16::from_ne_bytes([3, 0]), 0),
    };
    let pseudo = ((ICMP_LEN + len) as u32).to_be() as u64 + (ICMPV6 as u32).to_be() as u64;
    let ends = csum::change32(!src[0], dst[0])
        + csum::change32(!src[1], dst[1])
        + csum::change32(!src[2], dst[2])
        + csum::change32(!src[3], dst[3]);
    let all = sum + pseudo + ends + kind as u64 + mtu as u64;
    packet.store(AT, kind)?;
    packet.store(AT + 2, !csum::fold(all))?;
    packet.store(AT + 4, mtu)?;
    Ok(Made::Answer)
}

/// Sum over an IPv6 header.
#[inline(always)]
fn header<P: Packet>(packet: &P, at: usize) -> Result<u64, Outside> {
    let first: [u32; 2] = [packet.load(at)?, packet.load(at + 4)?];
    let src: [u32; 4] = packet.load(at + 8)?;
    let dst: [u32; 4] = packet.load(at + 24)?;
    let mut sum = first[0] as u64 + first[1] as u64;
    for at in 0..4 {
        sum += src[at] as u64 + dst[at] as u64;
    }
    Ok(sum)
}

/// Bytes to quote: of a packet that says how long it is, without what pads its frame; whole words, so
/// that they can be added up.
#[inline(always)]
fn quoted<P: Packet>(packet: &P, told: usize, most: usize) -> usize {
    let here = (packet.frame_len() as usize).saturating_sub(L3);
    let len = if told == 0 || told > here { here } else { told };
    (if len > most { most } else { len }) & !3
}

/// Offset of the checksum in a TCP or UDP header; only those are refused.
#[inline(always)]
fn check_at(proto: u8) -> usize {
    if proto as u32 == UDP { 6 } else { 16 }
}

/// What must be known of a frame before it is moved.
struct Before {
    /// Its destination MAC address.
    to: [u8; 6],
    /// Its source MAC address.
    from: [u8; 6],
    /// The L4 checksum's field, if the card completes it.
    pending: Option<u16>,
}

/// Makes room before the quote and cuts off what is not quoted. None: no answer may be sent now.
#[inline(always)]
fn room<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    refusal: Refusal,
    check: usize,
    front: usize,
    len: usize,
) -> Result<Option<Before>, Outside> {
    let kind = match refusal {
        Refusal::TooBig(_) => Answers::TooBig,
        Refusal::TtlExpired => Answers::TtlExpired,
    };
    if !tables.may_answer(kind) {
        return Ok(None);
    }
    let pending = packet.pending(check)?;
    let before = Before {
        to: packet.load(offset_of!(EthHdr, dst_addr))?,
        from: packet.load(offset_of!(EthHdr, src_addr))?,
        pending,
    };
    packet.make_room(front, L3 + front + len)?;
    Ok(Some(before))
}

/// Folded sum over all whole words from an offset to the end of the frame.
///
/// A function of its own, which stops at the end of the frame alone: each way out of its loop is a
/// state for the verifier, and they must be alike when they come back. So what it learnt of the frame
/// is forgotten, too.
#[inline(always)]
fn sum<P: Packet, const MOST: usize>(packet: &mut P, at: usize) -> u64 {
    let sum = words::<P, MOST>(packet, at);
    packet.look();
    sum
}

#[inline(never)]
fn words<P: Packet, const MOST: usize>(packet: &P, at: usize) -> u64 {
    let mut sum = 0;
    let mut from = 0;
    while from < MOST {
        let Ok(word) = packet.load_far::<u32>(at + from) else {
            break;
        };
        sum += word as u64;
        from += 4;
    }
    csum::fold(sum) as u64
}
