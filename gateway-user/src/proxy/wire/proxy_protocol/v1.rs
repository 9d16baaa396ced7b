//! Version 1, one line of text (section 2.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Header, ProxyHeaderError, Step, canonical};

/// The longest line with its CRLF: `UNKNOWN` with two IPv6 addresses.
pub(super) const MAX_BYTES: usize = 107;
/// What the line begins with.
pub(super) const SIGNATURE: &[u8] = b"PROXY ";

const fn malformed(what: &'static str) -> ProxyHeaderError {
    ProxyHeaderError::Malformed(what)
}

/// Reads the line; the bytes begin as [`SIGNATURE`], as far as they go.
pub(super) fn parse(bytes: &[u8]) -> Result<Step, ProxyHeaderError> {
    let within = &bytes[..bytes.len().min(MAX_BYTES)];
    // Section 2.1: "The receiver must not tolerate a single CR or LF character to end the line".
    let Some(end) = within.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return more(within);
    };
    if within[end] == b'\n' {
        return Err(malformed("a line feed without carriage return"));
    }
    match within.get(end + 1) {
        Some(b'\n') => {}
        Some(_) => return Err(malformed("a carriage return without line feed")),
        None => return more(within),
    }
    let (source, destination) = match endpoints(&within[SIGNATURE.len()..end])? {
        Some((source, destination)) => (Some(source), Some(destination)),
        None => (None, None),
    };
    Ok(Step::Header(Header {
        length: end + 2,
        source,
        destination,
        ..Header::default()
    }))
}

/// "If the CRLF sequence is not found in the first 107 characters, the receiver should declare the line invalid."
fn more(within: &[u8]) -> Result<Step, ProxyHeaderError> {
    if within.len() == MAX_BYTES {
        return Err(ProxyHeaderError::TooLong);
    }
    Ok(Step::NeedMore)
}

/// What stands between `PROXY ` and the CRLF.
fn endpoints(line: &[u8]) -> Result<Option<(SocketAddr, SocketAddr)>, ProxyHeaderError> {
    // "the receiver must ignore anything presented before the CRLF is found"
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(None);
    }
    let line = str::from_utf8(line).map_err(|_| malformed("a line that is not text"))?;
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or(malformed("a word is missing"));
    let family: fn(&str) -> Option<IpAddr> = match word()? {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err(malformed("a protocol other than TCP4, TCP6 and UNKNOWN")),
    };
    let mut address = || {
        let text = word()?;
        family(text).ok_or(malformed("an address that is not of its family"))
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || port(word()?).ok_or(malformed("a port that is no number from 0 to 65535"));
    let (source_port, destination_port) = (port()?, port()?);
    if words.next().is_some() {
        return Err(malformed("a word too many"));
    }
    Ok(Some((
        canonical(source, source_port),
        canonical(destination, destination_port),
    )))
}

/// "Heading zeroes are not permitted in front of numbers"
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let shortest = text == "0" || !text.starts_with('0');
    (digits && shortest).then(|| text.parse().ok()).flatten()
}
