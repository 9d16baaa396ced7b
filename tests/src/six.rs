//! IPv6 frames and ICMP of both families, written from scratch: nothing here shares code with the pipeline.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};

use crate::packets::Mac;

/// IANA protocol numbers.
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;
/// See [`TCP`].
pub const ICMPV6: u8 = 58;

/// An end of a connection.
pub const fn end(addr: [u16; 8], port: u16) -> SocketAddrV6 {
    let [a, b, c, d, e, f, g, h] = addr;
    SocketAddrV6::new(Ipv6Addr::new(a, b, c, d, e, f, g, h), port, 0, 0)
}

/// An IPv6 frame in the making; [`Six::bytes`] fills in lengths and checksums.
#[derive(Clone, Debug)]
pub struct Six {
    macs: (Mac, Mac),
    src: Ipv6Addr,
    dst: Ipv6Addr,
    hop_limit: u8,
    extensions: Vec<(u8, Vec<u8>)>,
    proto: u8,
    header: Vec<u8>,
    payload: Vec<u8>,
    checksum: bool,
}

/// A TCP segment from one end to another.
pub fn tcp(src: SocketAddrV6, dst: SocketAddrV6, flags: u8) -> Six {
    let mut header = ports(src, dst);
    header.extend_from_slice(&[1, 2, 3, 4, 0, 0, 0, 0, 0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    Six::new(*src.ip(), *dst.ip(), TCP, header)
}

/// A UDP datagram from one end to another.
pub fn udp(src: SocketAddrV6, dst: SocketAddrV6) -> Six {
    let mut header = ports(src, dst);
    header.extend_from_slice(&[0; 4]);
    Six::new(*src.ip(), *dst.ip(), UDP, header)
}

/// An ICMPv6 message: type, code, the four bytes behind the checksum, and the rest.
pub fn icmp(src: Ipv6Addr, dst: Ipv6Addr, kind: u8, code: u8, word: [u8; 4], body: &[u8]) -> Six {
    let mut header = vec![kind, code, 0, 0];
    header.extend_from_slice(&word);
    Six::new(src, dst, ICMPV6, header).payload(body)
}

fn ports(src: SocketAddrV6, dst: SocketAddrV6) -> Vec<u8> {
    let mut bytes = src.port().to_be_bytes().to_vec();
    bytes.extend_from_slice(&dst.port().to_be_bytes());
    bytes
}

impl Six {
    fn new(src: Ipv6Addr, dst: Ipv6Addr, proto: u8, header: Vec<u8>) -> Self {
        Self {
            macs: ([0; 6], [2, 0, 0, 0, 0, 1]),
            src,
            dst,
            hop_limit: 64,
            extensions: Vec::new(),
            proto,
            header,
            payload: Vec::new(),
            checksum: true,
        }
    }

    /// Destination and source MAC address.
    #[must_use]
    pub fn macs(mut self, dst: Mac, src: Mac) -> Self {
        self.macs = (dst, src);
        self
    }

    /// Hop limit; 64 unless told.
    #[must_use]
    pub fn hop_limit(mut self, hop_limit: u8) -> Self {
        self.hop_limit = hop_limit;
        self
    }

    /// One more extension header before the last header: its number, and all of it but the number of
    /// the next.
    #[must_use]
    pub fn extension(mut self, number: u8, rest: &[u8]) -> Self {
        assert_eq!(rest.len() % 8, 7, "extension headers are units of 8 bytes");
        self.extensions.push((number, rest.to_vec()));
        self
    }

    /// Data behind the last header.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The checksum stays zero.
    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        self.checksum = false;
        self
    }

    /// The packet without its Ethernet header.
    pub fn packet(&self) -> Vec<u8> {
        let mut last = self.header.clone();
        last.extend_from_slice(&self.payload);
        let at = match self.proto {
            TCP => 16,
            UDP => {
                let len = last.len() as u16;
                last[4..6].copy_from_slice(&len.to_be_bytes());
                6
            }
            _ => 2,
        };
        if self.checksum {
            let mut pseudo = [self.src.octets(), self.dst.octets()].concat();
            pseudo.extend_from_slice(&(last.len() as u32).to_be_bytes());
            pseudo.extend_from_slice(&[0, 0, 0, self.proto]);
            pseudo.extend_from_slice(&last);
            let mut check = checksum(&pseudo);
            if self.proto == UDP && check == 0 {
                check = 0xffff;
            }
            last[at..at + 2].copy_from_slice(&check.to_be_bytes());
        }
        let mut body = Vec::new();
        let mut next = self.proto;
        for (number, rest) in self.extensions.iter().rev() {
            let mut header = vec![next];
            header.extend_from_slice(rest);
            body.splice(0..0, header);
            next = *number;
        }
        body.extend_from_slice(&last);
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend_from_slice(&(body.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&[next, self.hop_limit]);
        bytes.extend_from_slice(&self.src.octets());
        bytes.extend_from_slice(&self.dst.octets());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        ethernet(self.macs.0, self.macs.1, 0x86dd, &self.packet())
    }
}

/// An Ethernet frame.
pub fn ethernet(dst: Mac, src: Mac, ether_type: u16, packet: &[u8]) -> Vec<u8> {
    let mut bytes = dst.to_vec();
    bytes.extend_from_slice(&src);
    bytes.extend_from_slice(&ether_type.to_be_bytes());
    bytes.extend_from_slice(packet);
    bytes
}

/// An IPv4 packet of ICMP without options: time to live, and identification with the fragment word.
pub fn icmp4(src: Ipv4Addr, dst: Ipv4Addr, ttl: u8, ids: [u8; 4], message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0];
    bytes.extend_from_slice(&(20 + message.len() as u16).to_be_bytes());
    bytes.extend_from_slice(&ids);
    bytes.extend_from_slice(&[ttl, 1, 0, 0]);
    bytes.extend_from_slice(&src.octets());
    bytes.extend_from_slice(&dst.octets());
    let check = checksum(&bytes);
    bytes[10..12].copy_from_slice(&check.to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}

/// An ICMP message with its checksum: type, code, the four bytes behind the checksum, and the rest.
pub fn message(kind: u8, code: u8, word: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend_from_slice(&word);
    bytes.extend_from_slice(body);
    let check = checksum(&bytes);
    bytes[2..4].copy_from_slice(&check.to_be_bytes());
    bytes
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
