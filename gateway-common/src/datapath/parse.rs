//! From a frame to its flow key.

use core::mem::offset_of;

use network_types::{
    eth::{EthHdr, EtherType},
    ip::Ipv4Hdr,
    tcp::TcpHdr,
    udp::UdpHdr,
};

use super::{Outside, Packet};
use crate::{
    addr::{Addr, Port},
    flow::{FlowKey, TCP, UDP},
};

/// Offset of the IPv4 header: 802.1Q-tagged frames are left to the VLAN device above.
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
    /// Time to live.
    pub ttl: u8,
    /// First fragment of a datagram that has more.
    pub fragment: bool,
}

/// Reads the headers. `Err` is a frame that is not ours: no IPv4, no TCP or UDP, a later fragment
/// (it has no ports), or cut short. The stack knows what to do with it.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P) -> Result<Head, Outside> {
    let ether_type: u16 = packet.load(offset_of!(EthHdr, ether_type))?;
    if ether_type != EtherType::Ipv4 as u16 {
        return Err(Outside);
    }
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
    })
}
