//! ICMP errors about packets that were translated here, translated by the packet they quote
//! (RFC 5508 section 4, RFC 792, RFC 4443).
//!
//! An error quotes the packet as it left us, so the flow entry of the opposite direction undoes it: it
//! tells whom the packet came from, and how it looked then. Eight bytes behind the quoted IP header are
//! enough. No flow is touched: anybody can forge an error.

use core::mem::offset_of;

use network_types::{
    eth::{EthHdr, EtherType},
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use super::{
    Outside, Packet, Tables, established::usable, other::ours, parse::L3, patched_l4,
    rewrite::TTL_STEP,
};
use crate::{
    addr::{Addr, Port},
    csum,
    flow::{FlowKey, TCP, UDP},
    verdict::{Reason, Verdict},
};

/// Bytes that may be touched: both IPv4 headers with all options, ICMP, and TCP up to its checksum.
const BYTES: u32 = 14 + 60 + 8 + 60 + 18;

/// Where everything is.
struct Quote {
    /// Source of the error.
    from: Addr,
    /// Where it was sent.
    to: Addr,
    /// Offset of the ICMP header.
    icmp: usize,
    /// Offset of the quoted L4 header.
    l4: usize,
    /// End of the packet that carries the error.
    end: usize,
    /// Time to live, or hop limit, of the error.
    ttl: u8,
    /// Flow entry that undoes the quoted packet's translation.
    key: FlowKey,
}

/// Translates an ICMP error. One that is about no flow passes.
#[inline(never)]
pub(super) fn relay<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    packet.reach(BYTES);
    let v6 = match packet.load::<u16>(offset_of!(EthHdr, ether_type)) {
        Ok(kind) => kind == EtherType::Ipv6 as u16,
        Err(_) => return Verdict::PASS,
    };
    let read = if v6 { read_v6(packet) } else { read_v4(packet) };
    let Ok((quote, known)) = read else {
        return Verdict::PASS;
    };
    // The quoted packet's source is whom an error is sent to; anything else is forged.
    let flow = if known && quote.to == quote.key.dst {
        tables.flow(&quote.key)
    } else {
        None
    };
    let Some(flow) = flow else {
        return ours(tables, quote.to, Reason::IcmpNoFlow);
    };
    let nat = flow.nat();
    if quote.ttl <= 1 {
        return Verdict::because(Reason::TtlExpired);
    }
    let hop = match tables.hop(nat.hop as u32) {
        Some(hop) if usable::<T>(hop, packet.ifindex()) => Some(hop),
        _ => None,
    };
    if T::NEEDS_HOP && hop.is_none() {
        return Verdict::because(Reason::NextHop);
    }
    if let Some(hop) = hop
        && packet.frame_len() > hop.mtu as u32 + L3 as u32
    {
        return Verdict::because(Reason::OverMtu);
    }
    // Where the quote holds it, the quoted L4 checksum.
    let udp = quote.key.proto == UDP;
    let check_at = quote.l4 + if udp { 6 } else { 16 };
    let (held, old) = match packet.load_far::<u16>(check_at) {
        Ok(old) if check_at + 2 <= quote.end => (true, old),
        _ => (false, 0),
    };
    // The difference of the ICMP checksum's own bytes, collected on the way. The quoted IPv4 header
    // with its checksum changes by nothing.
    let mut delta = nat.port_delta as u64;
    let written = (|| -> Result<(), Outside> {
        if let Some(hop) = hop {
            packet.store(offset_of!(EthHdr, dst_addr), hop.dmac)?;
            packet.store(offset_of!(EthHdr, src_addr), hop.smac)?;
        }
        packet.store_far(quote.l4, nat.dst_port.0)?;
        packet.store_far(quote.l4 + 2, nat.src_port.0)?;
        if held {
            let new = patched_l4(old, nat.addr_delta, nat.port_delta, udp);
            packet.store_far(check_at, new)?;
            delta += csum::change16(old, new);
        }
        let outer = changed(&quote.from, &nat.src) + changed(&quote.to, &nat.dst);
        let inner = quote.icmp + 8;
        if v6 {
            packet.store(L3 + offset_of!(Ipv6Hdr, hop_limit), quote.ttl - 1)?;
            packet.store(L3 + offset_of!(Ipv6Hdr, src_addr), nat.src.0)?;
            packet.store(L3 + offset_of!(Ipv6Hdr, dst_addr), nat.dst.0)?;
            packet.store_far(inner + offset_of!(Ipv6Hdr, src_addr), nat.dst.0)?;
            packet.store_far(inner + offset_of!(Ipv6Hdr, dst_addr), nat.src.0)?;
            delta += nat.addr_delta as u64 + outer;
        } else {
            let check_at = L3 + offset_of!(Ipv4Hdr, check);
            let check: u16 = packet.load(check_at)?;
            let changes = outer + csum::change16(TTL_STEP, 0);
            packet.store(check_at, csum::patch(check, changes))?;
            packet.store(L3 + offset_of!(Ipv4Hdr, ttl), quote.ttl - 1)?;
            packet.store(L3 + offset_of!(Ipv4Hdr, src_addr), nat.src.v4_word())?;
            packet.store(L3 + offset_of!(Ipv4Hdr, dst_addr), nat.dst.v4_word())?;
            let check_at = inner + offset_of!(Ipv4Hdr, check);
            let check: u16 = packet.load_far(check_at)?;
            packet.store_far(check_at, csum::patch(check, nat.addr_delta as u64))?;
            packet.store_far(inner + offset_of!(Ipv4Hdr, src_addr), nat.dst.v4_word())?;
            packet.store_far(inner + offset_of!(Ipv4Hdr, dst_addr), nat.src.v4_word())?;
        }
        let check: u16 = packet.load_far(quote.icmp + 2)?;
        packet.store_far(quote.icmp + 2, csum::patch(check, delta))
    })();
    match written {
        Ok(()) => Verdict::forward_as(
            Reason::IcmpTranslated,
            if hop.is_some() { nat.hop } else { 0 },
        ),
        Err(_) => Verdict::because(Reason::Rewrite),
    }
}

/// The frame's and the quote's headers, and whether the quote is of TCP or UDP with its ports.
#[inline(always)]
fn read_v4<P: Packet>(packet: &P) -> Result<(Quote, bool), Outside> {
    let outer: u8 = packet.load(L3 + offset_of!(Ipv4Hdr, vihl))?;
    let len = u16::from_be(packet.load(L3 + offset_of!(Ipv4Hdr, tot_len))?);
    let icmp = L3 + (outer & 0x0f) as usize * 4;
    let inner = icmp + 8;
    let vihl: u8 = packet.load_far(inner)?;
    let frags = u16::from_be(packet.load_far(inner + offset_of!(Ipv4Hdr, frags))?);
    let proto = packet.load_far::<u8>(inner + offset_of!(Ipv4Hdr, proto))? as u32;
    let src = Addr::v4(packet.load_far(inner + offset_of!(Ipv4Hdr, src_addr))?);
    let dst = Addr::v4(packet.load_far(inner + offset_of!(Ipv4Hdr, dst_addr))?);
    let l4 = inner + (vihl & 0x0f) as usize * 4;
    // The quoted packet is turned around: it was our answer to what `key` finds.
    let mut quote = Quote {
        from: Addr::v4(packet.load(L3 + offset_of!(Ipv4Hdr, src_addr))?),
        to: Addr::v4(packet.load(L3 + offset_of!(Ipv4Hdr, dst_addr))?),
        icmp,
        l4,
        end: L3 + len as usize,
        ttl: packet.load(L3 + offset_of!(Ipv4Hdr, ttl))?,
        key: FlowKey {
            src: dst,
            dst: src,
            src_port: Port(0),
            dst_port: Port(0),
            proto,
        },
    };
    let known =
        vihl >> 4 == 4 && vihl & 0x0f >= 5 && frags & 0x1fff == 0 && ports(packet, &mut quote);
    Ok((quote, known))
}

#[inline(always)]
fn read_v6<P: Packet>(packet: &P) -> Result<(Quote, bool), Outside> {
    const ICMP: usize = L3 + Ipv6Hdr::LEN;
    const INNER: usize = ICMP + 8;
    let len = u16::from_be(packet.load(L3 + offset_of!(Ipv6Hdr, payload_len))?);
    let version: u8 = packet.load(INNER)?;
    let proto = packet.load::<u8>(INNER + offset_of!(Ipv6Hdr, next_hdr))? as u32;
    let src = Addr(packet.load(INNER + offset_of!(Ipv6Hdr, src_addr))?);
    let dst = Addr(packet.load(INNER + offset_of!(Ipv6Hdr, dst_addr))?);
    let mut quote = Quote {
        from: Addr(packet.load(L3 + offset_of!(Ipv6Hdr, src_addr))?),
        to: Addr(packet.load(L3 + offset_of!(Ipv6Hdr, dst_addr))?),
        icmp: ICMP,
        l4: INNER + Ipv6Hdr::LEN,
        end: ICMP + len as usize,
        ttl: packet.load(L3 + offset_of!(Ipv6Hdr, hop_limit))?,
        key: FlowKey {
            src: dst,
            dst: src,
            src_port: Port(0),
            dst_port: Port(0),
            proto,
        },
    };
    let known =
        version >> 4 == 6 && quote.to.0[0] | quote.to.0[1] != 0 && ports(packet, &mut quote);
    Ok((quote, known))
}

/// Reads the quoted ports; false without eight bytes of TCP or UDP.
#[inline(always)]
fn ports<P: Packet>(packet: &P, quote: &mut Quote) -> bool {
    if quote.key.proto != TCP && quote.key.proto != UDP || quote.l4 + 8 > quote.end {
        return false;
    }
    match (
        packet.load_far::<u16>(quote.l4),
        packet.load_far::<u16>(quote.l4 + 2),
        packet.load_far::<u16>(quote.l4 + 6),
    ) {
        (Ok(src), Ok(dst), Ok(_)) => {
            quote.key.src_port = Port(dst);
            quote.key.dst_port = Port(src);
            true
        }
        _ => false,
    }
}

/// `~old + new` over an address.
#[inline(always)]
fn changed(old: &Addr, new: &Addr) -> u64 {
    csum::change32(old.0[0], new.0[0])
        + csum::change32(old.0[1], new.0[1])
        + csum::change32(old.0[2], new.0[2])
        + csum::change32(old.0[3], new.0[3])
}
