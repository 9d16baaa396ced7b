//! Addresses and ports as they lie in a packet.

/// IPv4 (as v4-mapped IPv6, RFC 4291 section 2.5.5.2) or IPv6 address: four words in network order,
/// held as they lie in memory. Words, because bytes would each become a value on the kernel's stack.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Addr(pub [u32; 4]);

/// Third word of a v4-mapped address: `0000:ffff` in network order.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Addr {
    /// From the 32 bits of an IPv4 address as they lie in memory (network order).
    #[inline(always)]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// The 32 bits of an IPv4 address in network order; meaningless for IPv6.
    #[inline(always)]
    pub const fn v4_word(self) -> u32 {
        self.0[3]
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.0[0] | self.0[1] | (self.0[2] ^ MAPPED) == 0
    }
}

/// TCP or UDP port in network order, held as it lies in memory.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Port(pub u16);

impl Port {
    /// From the number people write.
    #[inline(always)]
    pub const fn from_host(port: u16) -> Self {
        Self(port.to_be())
    }

    /// The number people write.
    #[inline(always)]
    pub const fn host(self) -> u16 {
        u16::from_be(self.0)
    }
}

#[cfg(any(test, feature = "user"))]
mod user {
    use std::net::{IpAddr, Ipv6Addr};

    use super::Addr;

    impl From<IpAddr> for Addr {
        fn from(ip: IpAddr) -> Self {
            let octets = match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            let word = |at: usize| {
                u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
            };
            Self([word(0), word(4), word(8), word(12)])
        }
    }

    impl From<Addr> for IpAddr {
        fn from(addr: Addr) -> Self {
            let mut octets = [0; 16];
            for (chunk, word) in octets.chunks_exact_mut(4).zip(addr.0) {
                chunk.copy_from_slice(&word.to_ne_bytes());
            }
            Ipv6Addr::from(octets).to_canonical()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn an_address_survives_the_way_into_words_and_back() {
        for text in ["10.0.0.1", "255.255.255.255", "2001:db8::1", "::"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Addr::from(ip)), ip);
        }
    }

    #[test]
    fn an_ipv4_word_is_the_same_address_as_its_mapped_form() {
        let ip: IpAddr = "192.0.2.7".parse().unwrap();
        assert_eq!(Addr::from(ip), Addr::v4(u32::from_ne_bytes([192, 0, 2, 7])));
    }
}
