//! Name and protocols of a TLS ClientHello, for connections whose TLS goes on to the backend. Pure.
//!
//! Source: RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3 (SNI), RFC 7301 section 3.1 (ALPN). Own code, not the
//! `Acceptor` of rustls: that one keeps a second copy of up to 64 KiB in a connection made for it, and refuses hellos
//! without signature algorithms (TLS 1.1 and older), while here the backend is to judge.

use std::net::IpAddr;

/// Bytes of records that may hold a hello; a longer one is refused. Those of browsers take up to 2 KiB.
pub(in crate::proxy) const MAX_HELLO_BYTES: usize = 16 * 1024;

/// What the first bytes of a connection tell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::proxy) enum Step {
    /// As far as they go these may be a hello: read on, then ask again with all bytes.
    NeedMore,
    /// All of a hello.
    Hello(Hello),
    /// They begin as no TLS connection of a client does.
    NotTls,
    /// TLS, but not as it is specified, and where; or too long.
    Malformed(&'static str),
}

/// What a client asks for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::proxy) struct Hello {
    /// The host name in lower case; none if there is none or it is an IP address, which RFC 6066 does not allow.
    pub(in crate::proxy) sni: Option<String>,
    /// Protocols in the client's order, such as `h2`; empty without the extension.
    pub(in crate::proxy) alpn: Vec<Vec<u8>>,
}

type Parsed<T> = Result<T, &'static str>;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const CUT: &str = "a field ends before its content does";

/// Reads the ClientHello at the start of a connection from all bytes that have arrived so far.
///
/// At most [`MAX_HELLO_BYTES`] are needed for an answer other than [`Step::NeedMore`].
pub(in crate::proxy) fn parse(bytes: &[u8]) -> Step {
    let within = &bytes[..bytes.len().min(MAX_HELLO_BYTES)];
    match message(within) {
        Ok(Message::Whole(message)) => {
            client_hello(&message).map_or_else(Step::Malformed, Step::Hello)
        }
        Ok(Message::Other) => Step::NotTls,
        Ok(Message::Cut) if within.len() == MAX_HELLO_BYTES => {
            Step::Malformed("a hello of more than 16 KiB")
        }
        Ok(Message::Cut) => Step::NeedMore,
        Err(what) => Step::Malformed(what),
    }
}

/// The first handshake message.
enum Message {
    /// Its content, without type and length.
    Whole(Vec<u8>),
    Cut,
    Other,
}

/// Joins the fragments of the first handshake message.
fn message(bytes: &[u8]) -> Parsed<Message> {
    let mut joined = Vec::new();
    let mut rest = bytes;
    loop {
        let first = rest.len() == bytes.len();
        // RFC 8446 section 5.1: type, legacy version, length. What comes first tells whether this is TLS.
        match (rest.first(), rest.get(1)) {
            (None, _) => return Ok(Message::Cut),
            (Some(&HANDSHAKE), None | Some(3)) => {}
            _ if first => return Ok(Message::Other),
            // "Handshake messages MUST NOT be interleaved with other record types."
            _ => return Err("another record inside of the hello"),
        }
        let Some(&[high, low]) = rest.get(3..5) else {
            return Ok(Message::Cut);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        // "Implementations MUST NOT send zero-length fragments of Handshake types"
        if length == 0 || length > 1 << 14 {
            return Err("a record of a length that is not allowed");
        }
        let end = rest.len().min(5 + length);
        joined.extend_from_slice(&rest[5..end]);
        if joined.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Ok(Message::Other);
        }
        if let Some(&[_, high, middle, low]) = joined.get(..4) {
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if length > MAX_HELLO_BYTES - 9 {
                return Err("a hello of more than 16 KiB");
            }
            if let Some(content) = joined.get(4..4 + length) {
                return Ok(Message::Whole(content.to_vec()));
            }
        }
        rest = &rest[end..];
    }
}

/// RFC 8446 section 4.1.2; the same in all versions since TLS 1.0 with extensions.
fn client_hello(content: &[u8]) -> Parsed<Hello> {
    let mut rest = content;
    take(&mut rest, 2 + 32)?; // legacy_version, random
    vector8(&mut rest)?; // legacy_session_id
    vector16(&mut rest)?; // cipher_suites
    vector8(&mut rest)?; // legacy_compression_methods
    let mut hello = Hello::default();
    if rest.is_empty() {
        return Ok(hello);
    }
    let mut extensions = vector16(&mut rest)?;
    if !rest.is_empty() {
        return Err("bytes behind the extensions");
    }
    let (mut named, mut offered) = (false, false);
    while !extensions.is_empty() {
        let kind = take(&mut extensions, 2)?;
        let content = vector16(&mut extensions)?;
        // Section 4.2: "There MUST NOT be more than one extension of the same type".
        let seen = match kind {
            [0, 0] => &mut named,
            [0, 16] => &mut offered,
            _ => continue,
        };
        if std::mem::replace(seen, true) {
            return Err("an extension that stands twice");
        }
        match kind {
            [0, 0] => hello.sni = server_name(content)?,
            _ => hello.alpn = protocols(content)?,
        }
    }
    Ok(hello)
}

/// RFC 6066 section 3: a list of names, of which there is only the kind `host_name`.
fn server_name(mut content: &[u8]) -> Parsed<Option<String>> {
    let mut list = vector16(&mut content)?;
    if !content.is_empty() || list.is_empty() {
        return Err("a list of names that is empty or not as long as it says");
    }
    let mut found = None;
    while !list.is_empty() {
        let kind = take(&mut list, 1)?;
        let name = vector16(&mut list)?;
        // "The ServerNameList MUST NOT contain more than one name of the same name_type."
        if kind == [0] && found.replace(host_name(name)?).is_some() {
            return Err("a second host name");
        }
    }
    Ok(found.flatten())
}

/// "HostName" is a DNS name without a trailing dot: letters, digits, hyphens; and underscores, which are in use.
fn host_name(name: &[u8]) -> Parsed<Option<String>> {
    let text = str::from_utf8(name).map_err(|_| "a host name that is not text")?;
    // "Literal IPv4 and IPv6 addresses are not permitted": who sends one has no name to ask for.
    if text.parse::<IpAddr>().is_ok() {
        return Ok(None);
    }
    let label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(allowed)
    };
    if text.len() > 253 || !text.split('.').all(label) {
        return Err("a host name that is none");
    }
    Ok(Some(text.to_ascii_lowercase()))
}

/// RFC 7301 section 3.1: "Empty strings MUST NOT be included".
fn protocols(mut content: &[u8]) -> Parsed<Vec<Vec<u8>>> {
    let mut list = vector16(&mut content)?;
    if !content.is_empty() || list.is_empty() {
        return Err("a list of protocols that is empty or not as long as it says");
    }
    let mut found = Vec::new();
    while !list.is_empty() {
        match vector8(&mut list)? {
            [] => return Err("a protocol without a name"),
            protocol => found.push(protocol.to_vec()),
        }
    }
    Ok(found)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Parsed<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length).ok_or(CUT)?;
    *rest = after;
    Ok(taken)
}

/// A vector with one byte of length.
fn vector8<'a>(rest: &mut &'a [u8]) -> Parsed<&'a [u8]> {
    let length = take(rest, 1)?[0];
    take(rest, usize::from(length))
}

/// A vector with two bytes of length.
fn vector16<'a>(rest: &mut &'a [u8]) -> Parsed<&'a [u8]> {
    let &[high, low] = take(rest, 2)? else {
        return Err(CUT);
    };
    take(rest, usize::from(u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests;
