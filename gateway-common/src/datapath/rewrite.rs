//! Writes a translation into a frame.

use core::mem::offset_of;

use network_types::{
    eth::{EthHdr, EtherType},
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use super::{Head, Outside, Packet, parse::L3};
use crate::{
    backend::NextHop,
    csum,
    flow::{Nat, UDP},
};

/// TTL and protocol share a 16-bit word of the IPv4 checksum; TTL is its first byte.
pub(super) const TTL_STEP: u16 = u16::from_ne_bytes([1, 0]);

/// Addresses, ports, TTL, checksums and, with a next hop, MAC addresses. The L4 checksum is last:
/// TC patches it by a helper after which no pointer into the packet holds.
#[inline(always)]
pub(super) fn rewrite<P: Packet>(
    packet: &mut P,
    head: &Head,
    nat: &Nat,
    hop: Option<&NextHop>,
) -> Result<(), Outside> {
    if let Some(hop) = hop {
        packet.store(offset_of!(EthHdr, dst_addr), hop.dmac)?;
        packet.store(offset_of!(EthHdr, src_addr), hop.smac)?;
    }
    // From the frame, not from `head`: the verifier then walks both ways once, and not once for each
    // way through `parse`.
    let ether_type: u16 = packet.load(offset_of!(EthHdr, ether_type))?;
    if ether_type == EtherType::Ipv6 as u16 {
        // No header checksum to keep; hop limit and addresses lie behind each other.
        packet.store(L3 + offset_of!(Ipv6Hdr, hop_limit), head.ttl - 1)?;
        packet.store(L3 + offset_of!(Ipv6Hdr, src_addr), nat.src.0)?;
        packet.store(L3 + offset_of!(Ipv6Hdr, dst_addr), nat.dst.0)?;
    } else {
        packet.store(L3 + offset_of!(Ipv4Hdr, src_addr), nat.src.v4_word())?;
        packet.store(L3 + offset_of!(Ipv4Hdr, dst_addr), nat.dst.v4_word())?;
        packet.store(L3 + offset_of!(Ipv4Hdr, ttl), head.ttl - 1)?;
        let check_at = L3 + offset_of!(Ipv4Hdr, check);
        let check: u16 = packet.load(check_at)?;
        let delta = nat.addr_delta as u64 + csum::change16(TTL_STEP, 0);
        packet.store(check_at, csum::patch(check, delta))?;
    }
    packet.store_l4(head.l4, nat.src_port.0)?;
    packet.store_l4(head.l4 + 2, nat.dst_port.0)?;
    packet.patch_l4(
        head.check,
        nat.addr_delta,
        nat.port_delta,
        head.key.proto == UDP,
    )
}

/// The update of an L4 checksum that lies complete in the frame. RFC 768: a UDP checksum of zero
/// means none and stays, and a computed zero is sent as all ones. IPv6 forbids it (RFC 8200 section
/// 8.1) except for tunnels (RFC 6935); there it stays too, and the receiver judges.
#[inline(always)]
pub fn patched_l4(check: u16, addrs: u16, ports: u16, udp: bool) -> u16 {
    if udp && check == 0 {
        return 0;
    }
    let new = csum::patch(check, addrs as u64 + ports as u64);
    if udp && new == 0 { 0xffff } else { new }
}
