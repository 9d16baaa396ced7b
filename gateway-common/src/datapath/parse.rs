//! From a frame to its flow key.

use core::mem::offset_of;

use network_types::{
    eth::{EthHdr, EtherType},
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};

use super::{Outside, Packet};
use crate::{
    addr::{Addr, Port},
    flow::{FlowKey, TCP, UDP},
};

/// Offset of the IP header: 802.1Q-tagged frames are left to the VLAN device above.
pub(super) const L3: usize = EthHdr::LEN;

/// TCP flags byte: FIN.
pub(super) const FIN: u8 = 0x01;
/// TCP flags byte: SYN.
pub(super) const SYN: u8 = 0x02;
/// TCP flags byte: RST.
pub(super) const RST: u8 = 0x04;
/// TCP flags byte: ACK.
pub(super) const ACK: u8 = 0x10;
/// Offset of the flags in a TCP header (RFC 9293 section 3.1).
const TCP_FLAGS: usize = 13;

/// What the pipeline needs of the headers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Flow this frame belongs to.
    pub key: FlowKey,
    /// Offset of the TCP or UDP header.
    pub l4: usize,
    /// Offset of its checksum.
    pub check: usize,
    /// TCP flags; 0 for UDP.
    pub flags: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// First fragment of a datagram that has more.
    pub fragment: bool,
    /// IPv6.
    pub v6: bool,
}

impl Head {
    /// A SYN that ends its connection as well. No TCP sends one (the transactions of RFC 1644 did, made historic by RFC
    /// 6247), and hosts and firewalls differ in which bit they believe; Linux drops it.
    #[inline(always)]
    pub(super) const fn malformed(&self) -> bool {
        self.flags & SYN != 0 && self.flags & (FIN | RST) != 0
    }
}

/// Reads the headers. `Err` is a frame without TCP or UDP ports behind a plain IP header: another
/// protocol, a later fragment, extension headers, or cut short. The stage `other` knows what to do
/// with it.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P) -> Result<Head, Outside> {
    let ether_type: u16 = packet.load(offset_of!(EthHdr, ether_type))?;
    if ether_type == EtherType::Ipv4 as u16 {
        parse_v4(packet)
    } else if ether_type == EtherType::Ipv6 as u16 {
        parse_v6(packet)
    } else {
        Err(Outside)
    }
}

/// Bytes that [`parse`] and the rewriting of a packet touch, if it is TCP or UDP behind a plain IP header.
///
/// The head of a socket buffer often ends right behind them, with all payload in pages. To pull some of that into the
/// head would be to copy a head that TCP holds another reference to, and to take one more of each page.
#[inline(always)]
pub fn touched<P: Packet>(packet: &P) -> Result<u32, Outside> {
    let ether_type: u16 = packet.load(offset_of!(EthHdr, ether_type))?;
    let (l4, proto): (usize, u8) = if ether_type == EtherType::Ipv4 as u16 {
        // Version 4, no options.
        if packet.load::<u8>(L3)? != 0x45 {
            return Err(Outside);
        }
        (
            L3 + Ipv4Hdr::LEN,
            packet.load(L3 + offset_of!(Ipv4Hdr, proto))?,
        )
    } else if ether_type == EtherType::Ipv6 as u16 {
        (
            L3 + Ipv6Hdr::LEN,
            packet.load(L3 + offset_of!(Ipv6Hdr, next_hdr))?,
        )
    } else {
        return Err(Outside);
    };
    match proto as u32 {
        TCP => Ok((l4 + offset_of!(TcpHdr, check) + 2) as u32),
        UDP => Ok((l4 + UdpHdr::LEN) as u32),
        _ => Err(Outside),
    }
}

/// An IPv6 packet whose first header is TCP or UDP.
#[inline(always)]
fn parse_v6<P: Packet>(packet: &P) -> Result<Head, Outside> {
    const L4: usize = L3 + Ipv6Hdr::LEN;
    let version: u8 = packet.load(L3)?;
    if version >> 4 != 6 {
        return Err(Outside);
    }
    let proto = packet.load::<u8>(L3 + offset_of!(Ipv6Hdr, next_hdr))? as u32;
    let (check, flags) = match proto {
        TCP => (
            L4 + offset_of!(TcpHdr, check),
            packet.load_l4(L4 + TCP_FLAGS)?,
        ),
        UDP => (L4 + offset_of!(UdpHdr, check), 0),
        _ => return Err(Outside),
    };
    // As for IPv4: after this load nothing fails half-way.
    let _: u16 = packet.load_l4(check)?;
    let key = FlowKey {
        src: Addr(packet.load(L3 + offset_of!(Ipv6Hdr, src_addr))?),
        dst: Addr(packet.load(L3 + offset_of!(Ipv6Hdr, dst_addr))?),
        src_port: Port(packet.load(L4)?),
        dst_port: Port(packet.load(L4 + 2)?),
        proto,
    };
    // No listener and no source address lies in ::/64, but IPv4 does in our tables, and nobody may
    // reach it through an IPv6 header.
    if key.dst.0[0] | key.dst.0[1] == 0 {
        return Err(Outside);
    }
    Ok(Head {
        key,
        l4: L4,
        check,
        flags,
        ttl: packet.load(L3 + offset_of!(Ipv6Hdr, hop_limit))?,
        fragment: false,
        v6: true,
    })
}

#[inline(always)]
fn parse_v4<P: Packet>(packet: &P) -> Result<Head, Outside> {
    let vihl: u8 = packet.load(L3 + offset_of!(Ipv4Hdr, vihl))?;
    let words = (vihl & 0x0f) as usize;
    if vihl >> 4 != 4 || words < 5 {
        return Err(Outside);
    }
    // RFC 791: one reserved bit, DF, MF, then the offset in units of 8 bytes.
    let frags = u16::from_be(packet.load(L3 + offset_of!(Ipv4Hdr, frags))?);
    if frags & 0x1fff != 0 {
        return Err(Outside);
    }
    let proto = packet.load::<u8>(L3 + offset_of!(Ipv4Hdr, proto))? as u32;
    let l4 = L3 + words * 4;
    let (check, flags) = match proto {
        TCP => (
            l4 + offset_of!(TcpHdr, check),
            packet.load_l4(l4 + TCP_FLAGS)?,
        ),
        UDP => (l4 + offset_of!(UdpHdr, check), 0),
        _ => return Err(Outside),
    };
    // Everything that will be written lies before the end of the checksum field: after this load
    // no later access can fail half-way.
    let _: u16 = packet.load_l4(check)?;
    let key = FlowKey {
        src: Addr::v4(packet.load(L3 + offset_of!(Ipv4Hdr, src_addr))?),
        dst: Addr::v4(packet.load(L3 + offset_of!(Ipv4Hdr, dst_addr))?),
        src_port: Port(packet.load_l4(l4)?),
        dst_port: Port(packet.load_l4(l4 + 2)?),
        proto,
    };
    let ttl = packet.load(L3 + offset_of!(Ipv4Hdr, ttl))?;
    Ok(Head {
        key,
        l4,
        check,
        flags,
        ttl,
        fragment: frags & 0x2000 != 0,
        v6: false,
    })
}
