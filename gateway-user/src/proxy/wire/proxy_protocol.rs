//! The PROXY protocol, versions 1 and 2: the addresses that a load balancer in front of us saw. Pure.
//!
//! Source: `proxy-protocol.txt` of HAProxy; sections below are of that text. Own code, not the crate `ppp` (2.3): that
//! one knows no checksum, takes `+80` for a port, bounds version 2 by 64 KiB only and hands on repeated fields.
//!
//! Section 5: whether a header is expected is a matter of configuration (of who connects), never of what the bytes
//! look like; [`Step::NotProxy`] is for saying so, not for serving whoever left it out.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

mod v1;
mod v2;

pub(in crate::proxy) use v2::write_v2;

/// What the first bytes of a connection tell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::proxy) enum Step {
    /// As far as they go these may be a header: read on, then ask again with all bytes.
    NeedMore,
    /// They begin as no version does.
    NotProxy,
    /// All of a header.
    Header(Header),
}

/// A whole header. Without addresses (`LOCAL`, `UNKNOWN`, families other than TCP over IP) those of the connection hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::proxy) struct Header {
    /// Bytes it takes; the client's own follow.
    pub(in crate::proxy) length: usize,
    /// Who connected. IPv4 in IPv6 (`::ffff:192.0.2.1`) is given as IPv4: an address has one spelling for lists.
    pub(in crate::proxy) source: Option<SocketAddr>,
    /// To where; `Some` exactly if `source` is.
    pub(in crate::proxy) destination: Option<SocketAddr>,
    /// The name the client asked for, most often its SNI (section 2.2.2); as sent, neither lowered nor checked.
    pub(in crate::proxy) authority: Option<String>,
    /// Opaque name of the connection, 0 to 128 bytes (section 2.2.5).
    pub(in crate::proxy) unique_id: Option<Vec<u8>>,
    /// What is told of the client's TLS (section 2.2.6).
    pub(in crate::proxy) ssl: Option<Ssl>,
}

/// The client's TLS, which ended in front of us.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::proxy) struct Ssl {
    /// The client spoke TLS.
    pub(in crate::proxy) tls: bool,
    /// The client showed a certificate, on this connection or earlier in its TLS session.
    pub(in crate::proxy) certificate: bool,
    /// A certificate was shown and found good.
    pub(in crate::proxy) verified: bool,
    /// Such as `TLSv1.3`.
    pub(in crate::proxy) version: Option<String>,
    /// Common name of the client certificate.
    pub(in crate::proxy) common_name: Option<String>,
}

/// Why a header is refused; section 2: the connection is to be aborted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::proxy) enum ProxyHeaderError {
    /// Longer than is accepted.
    TooLong,
    /// Not what the specification says, and where.
    Malformed(&'static str),
    /// The checksum is that of other bytes.
    Checksum,
}

impl fmt::Display for ProxyHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(
                f,
                "the PROXY header is longer than {} bytes of text or {} bytes of version 2; does the load balancer add too many fields?",
                v1::MAX_BYTES,
                v2::MAX_BYTES
            ),
            Self::Malformed(what) => write!(
                f,
                "the PROXY header is malformed: {what}; does the peer really speak the PROXY protocol?"
            ),
            Self::Checksum => write!(
                f,
                "the PROXY header does not match its CRC32c; what lies between us and the load balancer changes bytes"
            ),
        }
    }
}

impl std::error::Error for ProxyHeaderError {}

/// Reads the header at the start of a connection from all bytes that have arrived so far.
///
/// At most 4112 bytes are needed for an answer other than [`Step::NeedMore`].
pub(in crate::proxy) fn parse(bytes: &[u8]) -> Result<Step, ProxyHeaderError> {
    let begins = |with: &[u8]| {
        let both = bytes.len().min(with.len());
        bytes[..both] == with[..both]
    };
    if begins(&v2::SIGNATURE) {
        v2::parse(bytes)
    } else if begins(v1::SIGNATURE) {
        v1::parse(bytes)
    } else {
        Ok(Step::NotProxy)
    }
}

/// An address as lists of addresses know it.
fn canonical(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

/// An address where both must be IPv6.
fn widened(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests;
