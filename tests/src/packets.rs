//! Frames written and checked from scratch: nothing here shares code with the pipeline.

use std::net::{Ipv4Addr, SocketAddrV4};

/// TCP flags (RFC 9293 section 3.1).
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends a connection at once.
    pub const RST: u8 = 0x04;
    /// Data should be handed on.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 0x10;
}

/// "More fragments" bit of the word that holds the fragment offset (RFC 791 section 3.1).
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// "Don't fragment" bit of the same word.
pub const DONT_FRAGMENT: u16 = 0x4000;

/// IANA protocol number of TCP.
const TCP: u8 = 6;
/// IANA protocol number of UDP.
const UDP: u8 = 17;
/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;

/// A MAC address.
pub type Mac = [u8; 6];

/// An IPv4 frame in the making; [`Builder::bytes`] fills in lengths and checksums.
#[derive(Clone, Debug)]
pub struct Builder {
    src_mac: Mac,
    dst_mac: Mac,
    vlan: Option<u16>,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    ttl: u8,
    fragment: u16,
    options: Vec<u8>,
    proto: u8,
    /// TCP or UDP header with an empty checksum, or nothing.
    header: Vec<u8>,
    payload: Vec<u8>,
    checksum: bool,
}

/// A TCP segment from one end to another.
pub fn tcp(src: SocketAddrV4, dst: SocketAddrV4, flags: u8) -> Builder {
    let mut header = ports(src, dst);
    header.extend_from_slice(&0x0102_0304_u32.to_be_bytes()); // sequence number
    let ack = if flags & flags::ACK == 0 {
        0
    } else {
        0x0a0b_0c0d_u32
    };
    header.extend_from_slice(&ack.to_be_bytes());
    // Five words of header, a window of 64 240 bytes, no checksum yet, no urgent pointer.
    header.extend_from_slice(&[0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    Builder::new(src, dst, TCP, header)
}

/// A UDP datagram from one end to another.
pub fn udp(src: SocketAddrV4, dst: SocketAddrV4) -> Builder {
    let mut header = ports(src, dst);
    header.extend_from_slice(&[0; 4]);
    Builder::new(src, dst, UDP, header)
}

/// An IPv4 packet of another protocol, without a header of its own.
pub fn other(src: Ipv4Addr, dst: Ipv4Addr, proto: u8) -> Builder {
    let end = |ip| SocketAddrV4::new(ip, 0);
    Builder::new(end(src), end(dst), proto, Vec::new())
}

/// A frame that is not IPv4: an EtherType and what follows it.
pub fn foreign(src_mac: Mac, ether_type: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 0xaa];
    bytes.extend_from_slice(&src_mac);
    bytes.extend_from_slice(&ether_type.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn ports(src: SocketAddrV4, dst: SocketAddrV4) -> Vec<u8> {
    let mut bytes = src.port().to_be_bytes().to_vec();
    bytes.extend_from_slice(&dst.port().to_be_bytes());
    bytes
}

impl Builder {
    fn new(src: SocketAddrV4, dst: SocketAddrV4, proto: u8, header: Vec<u8>) -> Self {
        Self {
            src_mac: [2, 0, 0, 0, 0, 1],
            // That of the device of a test run: frames for others are not ours.
            dst_mac: [0; 6],
            vlan: None,
            src: *src.ip(),
            dst: *dst.ip(),
            ttl: 64,
            fragment: DONT_FRAGMENT,
            options: Vec::new(),
            proto,
            header,
            payload: Vec::new(),
            checksum: true,
        }
    }

    /// Source MAC address.
    #[must_use]
    pub fn from_mac(mut self, mac: Mac) -> Self {
        self.src_mac = mac;
        self
    }

    /// 802.1Q tag with this VLAN number.
    #[must_use]
    pub fn vlan(mut self, id: u16) -> Self {
        self.vlan = Some(id);
        self
    }

    /// Time to live; 64 unless told.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// Word of fragment flags and offset (in units of 8 bytes). A fragment with an offset carries
    /// no L4 header.
    #[must_use]
    pub fn fragment(mut self, word: u16) -> Self {
        self.fragment = word;
        if word & 0x1fff != 0 {
            self.header.clear();
        }
        self
    }

    /// IPv4 options; at most 40 bytes, padded to whole words with "end of options".
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self.options.resize(options.len().next_multiple_of(4), 0);
        assert!(self.options.len() <= 40, "IPv4 has 40 bytes of options");
        self
    }

    /// Data behind the L4 header.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// UDP without a checksum (RFC 768: all zero).
    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        self.checksum = false;
        self
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        let mut l4 = self.header.clone();
        l4.extend_from_slice(&self.payload);
        if self.proto == UDP && self.header.len() == 8 {
            let len = l4.len() as u16;
            l4[4..6].copy_from_slice(&len.to_be_bytes());
        }
        if let Some(at) = checksum_offset(self.proto)
            && self.checksum
            && !self.header.is_empty()
        {
            let mut check = !l4_sum(self.src, self.dst, self.proto, &l4);
            if self.proto == UDP && check == 0 {
                check = 0xffff;
            }
            l4[at..at + 2].copy_from_slice(&check.to_be_bytes());
        }
        let mut ip = vec![0x40 | (5 + self.options.len() / 4) as u8, 0];
        let total = (20 + self.options.len() + l4.len()) as u16;
        ip.extend_from_slice(&total.to_be_bytes());
        ip.extend_from_slice(&0x1234_u16.to_be_bytes());
        ip.extend_from_slice(&self.fragment.to_be_bytes());
        ip.extend_from_slice(&[self.ttl, self.proto, 0, 0]);
        ip.extend_from_slice(&self.src.octets());
        ip.extend_from_slice(&self.dst.octets());
        ip.extend_from_slice(&self.options);
        let check = !sum(0, &ip);
        ip[10..12].copy_from_slice(&check.to_be_bytes());

        let mut bytes = self.dst_mac.to_vec();
        bytes.extend_from_slice(&self.src_mac);
        if let Some(id) = self.vlan {
            bytes.extend_from_slice(&0x8100_u16.to_be_bytes());
            bytes.extend_from_slice(&id.to_be_bytes());
        }
        bytes.extend_from_slice(&0x0800_u16.to_be_bytes());
        bytes.extend_from_slice(&ip);
        bytes.extend_from_slice(&l4);
        bytes
    }
}

/// What an untagged IPv4 TCP or UDP frame that holds at least its L4 checksum says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ends {
    /// Source.
    pub src: SocketAddrV4,
    /// Destination.
    pub dst: SocketAddrV4,
    /// IANA protocol number.
    pub proto: u8,
    /// Offset of the L4 header.
    pub l4: usize,
    /// Offset of its checksum.
    pub check: usize,
}

/// Reads a frame; `None` for anything but a whole set of headers of an unfragmented or first
/// fragment.
pub fn ends(frame: &[u8]) -> Option<Ends> {
    let ip = frame.get(ETHERNET..)?;
    if frame.get(12..14)? != [0x08, 0x00] || ip.first()? >> 4 != 4 {
        return None;
    }
    let words = usize::from(ip.first()? & 0x0f);
    let later = word(ip, 6)? & 0x1fff != 0;
    if words < 5 || later {
        return None;
    }
    let proto = *ip.get(9)?;
    let l4 = ETHERNET + words * 4;
    let check = l4 + checksum_offset(proto)?;
    frame.get(..check + 2)?;
    let end = |addr: usize, port: usize| {
        let octets: [u8; 4] = ip.get(addr..addr + 4)?.try_into().ok()?;
        Some(SocketAddrV4::new(octets.into(), word(frame, port)?))
    };
    Some(Ends {
        src: end(12, l4)?,
        dst: end(16, l4 + 2)?,
        proto,
        l4,
        check,
    })
}

/// One's-complement sum of the IPv4 header with its checksum: 0 when the checksum is right, and
/// unchanged by a correct update.
pub fn ip_residue(frame: &[u8]) -> Option<u16> {
    let at = ends(frame)?;
    Some(residue(sum(0, &frame[ETHERNET..at.l4])))
}

/// The same for TCP or UDP over pseudo header and all bytes up to the end of the frame; `None` too
/// for a UDP datagram without a checksum.
pub fn l4_residue(frame: &[u8]) -> Option<u16> {
    let at = ends(frame)?;
    if at.proto == UDP && word(frame, at.check)? == 0 {
        return None;
    }
    let l4 = &frame[at.l4..];
    Some(residue(l4_sum(*at.src.ip(), *at.dst.ip(), at.proto, l4)))
}

/// Both zeros of one's complement are one.
fn residue(sum: u16) -> u16 {
    if sum == 0xffff { 0 } else { sum }
}

/// Offset of the checksum in the L4 header.
fn checksum_offset(proto: u8) -> Option<usize> {
    match proto {
        TCP => Some(16),
        UDP => Some(6),
        _ => None,
    }
}

/// Sum over the pseudo header (RFC 9293 section 3.1, RFC 768) and the segment.
fn l4_sum(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, l4: &[u8]) -> u16 {
    let start = sum(sum(0, &src.octets()), &dst.octets());
    let start = sum(start, &[0, proto]);
    let start = sum(start, &(l4.len() as u16).to_be_bytes());
    sum(start, l4)
}

/// RFC 1071, one word at a time in network order, an odd byte padded with zero.
fn sum(start: u16, bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(start, |sum, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        let (sum, carry) = sum.overflowing_add(u16::from_be_bytes([pair[0], low]));
        sum + u16::from(carry)
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_agrees_with_the_example_of_rfc_1071() {
        // Section 3: the words 0001 f203 f4f5 f6f7 add up to ddf2.
        assert_eq!(
            sum(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            0xddf2
        );
    }

    #[test]
    fn a_built_frame_is_read_back_and_every_flipped_bit_is_noticed() {
        let src = SocketAddrV4::new([192, 0, 2, 1].into(), 4711);
        let dst = SocketAddrV4::new([198, 51, 100, 2].into(), 80);
        for frame in [
            tcp(src, dst, flags::SYN)
                .options(&[7, 3, 0])
                .payload(b"odd"),
            udp(src, dst).payload(b"even"),
        ] {
            let frame = frame.bytes();
            let read = ends(&frame).unwrap();
            assert_eq!((read.src, read.dst), (src, dst));
            assert_eq!((ip_residue(&frame), l4_residue(&frame)), (Some(0), Some(0)));
            for bit in read.l4 * 8..frame.len() * 8 {
                let mut broken = frame.clone();
                broken[bit / 8] ^= 0x80 >> (bit % 8);
                assert_ne!(l4_residue(&broken), Some(0), "bit {bit}");
            }
        }
    }
}
