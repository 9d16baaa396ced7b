//! Version 2, binary (section 2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Header, ProxyHeaderError, Ssl, Step, canonical, widened};

/// What the header begins with.
pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length.
const FIXED_BYTES: usize = 16;
/// Addresses and fields; more is refused. A header that is sent at once fits a segment of jumbo frames.
const MAX_REST_BYTES: usize = 4096;
/// The longest header.
pub(super) const MAX_BYTES: usize = FIXED_BYTES + MAX_REST_BYTES;
/// Section 2.2.5: "up to 128 bytes".
const MAX_UNIQUE_ID_BYTES: usize = 128;

const fn malformed(what: &'static str) -> ProxyHeaderError {
    ProxyHeaderError::Malformed(what)
}

/// Reads the header; the bytes begin as [`SIGNATURE`], as far as they go.
///
/// What is wrong is told as soon as it has arrived; addresses are read when all is there.
pub(super) fn parse(bytes: &[u8]) -> Result<Step, ProxyHeaderError> {
    // "it must always be sent as \x2 and the receiver must only accept this value"
    let local = match bytes.get(12) {
        None => return Ok(Step::NeedMore),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(byte) if byte >> 4 == 2 => return Err(malformed("a command that does not exist")),
        Some(_) => return Err(malformed("a version other than 2")),
    };
    let Some(family) = bytes.get(13).copied() else {
        return Ok(Step::NeedMore);
    };
    // LOCAL: "discard the protocol block including the family which is ignored"
    if !local && (family >> 4 > 3 || family & 0xf > 2) {
        return Err(malformed(
            "an address family or protocol that does not exist",
        ));
    }
    let Some(&[high, low]) = bytes.get(14..FIXED_BYTES) else {
        return Ok(Step::NeedMore);
    };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if rest > MAX_REST_BYTES {
        return Err(ProxyHeaderError::TooLong);
    }
    let length = FIXED_BYTES + rest;
    let Some(header) = bytes.get(..length) else {
        return Ok(Step::NeedMore);
    };
    let mut found = Header {
        length,
        ..Header::default()
    };
    if !local && let Some(fields) = addresses(header, family, &mut found)? {
        read_fields(header, fields, &mut found)?;
    }
    Ok(Step::Header(found))
}

/// Notes the addresses and tells where fields begin; nowhere where the length of addresses is not known.
fn addresses(
    header: &[u8],
    family: u8,
    found: &mut Header,
) -> Result<Option<usize>, ProxyHeaderError> {
    let rest = &header[FIXED_BYTES..];
    let short = malformed("addresses that are cut off");
    let port = |high, low| u16::from_be_bytes([high, low]);
    let (source, destination, taken) = match (family >> 4, family & 0xf) {
        // "The receiver should ignore address information": and with it, how long it is.
        (0, _) | (_, 0) => return Ok(None),
        (1, 1) => {
            let (&[a, b, c, d, e, f, g, h, i, j, k, l], _) =
                rest.split_first_chunk().ok_or(short)?;
            (
                canonical(Ipv4Addr::new(a, b, c, d).into(), port(i, j)),
                canonical(Ipv4Addr::new(e, f, g, h).into(), port(k, l)),
                12,
            )
        }
        (2, 1) => {
            let (source, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
            let (&[a, b, c, d], _) = rest.split_first_chunk().ok_or(short)?;
            (
                canonical(Ipv6Addr::from(*source).into(), port(a, b)),
                canonical(Ipv6Addr::from(*destination).into(), port(c, d)),
                36,
            )
        }
        // Valid, but not of a TCP connection over IP: "automatically falls back to the UNSPEC mode".
        (other, _) => {
            let taken = match other {
                1 => 12,
                2 => 36,
                _ => 216,
            };
            if rest.len() < taken {
                return Err(short);
            }
            return Ok(Some(FIXED_BYTES + taken));
        }
    };
    found.source = Some(source);
    found.destination = Some(destination);
    Ok(Some(FIXED_BYTES + taken))
}

/// Reads the fields from there to the end. A field that is known and stands twice is refused: another reader might
/// take the other one.
fn read_fields(header: &[u8], from: usize, found: &mut Header) -> Result<(), ProxyHeaderError> {
    let mut checked = false;
    let mut rest = &header[from..];
    while let Some((kind, value)) = next_field(&mut rest)? {
        match kind {
            0x02 => once(&mut found.authority, text(value)?)?,
            0x03 => {
                if checked {
                    return Err(malformed("a field that stands twice"));
                }
                checked = true;
                verify(header, header.len() - rest.len(), value)?;
            }
            0x05 if value.len() > MAX_UNIQUE_ID_BYTES => {
                return Err(malformed("a unique id of more than 128 bytes"));
            }
            0x05 => once(&mut found.unique_id, value.to_vec())?,
            0x20 => once(&mut found.ssl, ssl(value)?)?,
            // "A receiver may choose to skip over and ignore the TLVs it is not interested in".
            _ => {}
        }
    }
    Ok(())
}

/// Type, length and value; none at the end.
fn next_field<'a>(rest: &mut &'a [u8]) -> Result<Option<(u8, &'a [u8])>, ProxyHeaderError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let cut = malformed("a field that is cut off");
    let (&[kind, high, low], after) = rest.split_first_chunk().ok_or(cut)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (value, after) = after.split_at_checked(length).ok_or(cut)?;
    *rest = after;
    Ok(Some((kind, value)))
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), ProxyHeaderError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(malformed("a field that stands twice")),
    }
}

fn text(value: &[u8]) -> Result<String, ProxyHeaderError> {
    let text = str::from_utf8(value).map_err(|_| malformed("a text that is not UTF-8"))?;
    Ok(text.to_owned())
}

/// Section 2.2.6.
fn ssl(value: &[u8]) -> Result<Ssl, ProxyHeaderError> {
    let cut = malformed("a field about TLS that is cut off");
    let (&[client, verify @ ..], mut rest) = value.split_first_chunk::<5>().ok_or(cut)?;
    let certificate = client & 0x06 != 0;
    let mut ssl = Ssl {
        tls: client & 0x01 != 0,
        certificate,
        verified: certificate && verify == [0; 4],
        ..Ssl::default()
    };
    while let Some((kind, value)) = next_field(&mut rest)? {
        match kind {
            0x21 => once(&mut ssl.version, text(value)?)?,
            0x22 => once(&mut ssl.common_name, text(value)?)?,
            _ => {}
        }
    }
    Ok(ssl)
}

/// Section 2.2.3: over the whole header, with zeros where the checksum stands. `end` is where its value ends.
fn verify(header: &[u8], end: usize, value: &[u8]) -> Result<(), ProxyHeaderError> {
    let sent = value
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| malformed("a checksum that is not 4 bytes long"))?;
    let crc = crc32c(u32::MAX, &header[..end - 4]);
    let crc = crc32c(crc, &[0; 4]);
    let crc = !crc32c(crc, &header[end..]);
    if crc == sent {
        Ok(())
    } else {
        Err(ProxyHeaderError::Checksum)
    }
}

/// Takes bytes into a CRC32c (RFC 4960 appendix B), which begins with all ones and ends inverted. Bit by bit: headers
/// are short, and one a connection.
pub(super) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    // The polynomial 0x1edc6f41, bits reversed.
    bytes.iter().fold(crc, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

/// Appends a version 2 header that tells a backend who connected to where over TCP. 28 or 52 bytes.
///
/// If either address is IPv6, both are written as such. [`super::parse`] gives the same two back.
pub(in crate::proxy) fn write_v2(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(&SIGNATURE);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend_from_slice(&[0x21, 0x11, 0, 12]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        (from, to) => {
            out.extend_from_slice(&[0x21, 0x21, 0, 36]);
            out.extend_from_slice(&widened(from).octets());
            out.extend_from_slice(&widened(to).octets());
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}
