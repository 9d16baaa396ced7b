//! Header fields that end at the proxy, and those it adds.

use std::net::SocketAddr;

use hyper::{
    HeaderMap,
    header::{
        CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
};

use crate::ir::{ForwardedFor, Listener};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_CLIENT_PORT: HeaderName = HeaderName::from_static("x-forwarded-client-srcport");

/// Removes what belongs to one connection only (RFC 9110 section 7.6.1). `Trailer` stays with a chunked message,
/// because it announces the fields that pass at its end.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let nominated: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            // Nobody may take the routing or the framing out of a message by naming it here.
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH && *name != TE)
            .collect();
        for name in nominated {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    // RFC 7540 section 3.2.1: part of an upgrade to h2c, whether or not Connection names it.
    headers.remove(HTTP2_SETTINGS);
    headers.remove(UPGRADE);
    if headers.remove(TRANSFER_ENCODING).is_none() {
        headers.remove(TRAILER);
    }
}

/// Makes a client's header fields those of the request to a backend.
pub(super) fn prepare_request(
    headers: &mut HeaderMap,
    listener: &Listener,
    client: SocketAddr,
    host: &str,
    upgrade: bool,
    expects: bool,
) {
    let upgrade = if upgrade {
        headers.get(UPGRADE).cloned()
    } else {
        None
    };
    let trailers = te_trailers(headers);
    remove_hop_by_hop(headers);
    headers.remove(TE);
    if !expects {
        headers.remove(EXPECT);
    }
    if trailers {
        // RFC 9110 section 10.1.4: who sends TE names it in Connection.
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    match listener.settings.forwarded_for {
        ForwardedFor::Append => append_forwarded_for(headers, client),
        ForwardedFor::Remove => drop(headers.remove(FORWARDED_FOR)),
        ForwardedFor::Keep => {}
    }
    if listener.settings.forwarded.proto {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if listener.settings.forwarded.port {
        headers.insert(FORWARDED_PORT, HeaderValue::from(listener.name.port));
    }
    if listener.settings.forwarded.host
        && let Ok(host) = HeaderValue::from_str(host)
    {
        headers.insert(FORWARDED_HOST, host);
    }
    if listener.settings.forwarded.client_port {
        headers.insert(FORWARDED_CLIENT_PORT, HeaderValue::from(client.port()));
    }
}

/// One list in one line, the peer last.
fn append_forwarded_for(headers: &mut HeaderMap, client: SocketAddr) {
    let peer = client.ip().to_canonical().to_string();
    let mut list: Vec<u8> = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        if !value.is_empty() {
            list.extend_from_slice(value.as_bytes());
            list.extend_from_slice(b", ");
        }
    }
    list.extend_from_slice(peer.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&list) {
        headers.insert(FORWARDED_FOR, value);
    }
}

fn te_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Whether the sender of these fields closes its connection after the message.
pub(super) fn says_close(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// The host of an authority, without its port; none if it is not one (RFC 9110 section 7.2: `uri-host [":" port]`).
pub(super) fn host_of(authority: &str) -> Option<&str> {
    let bytes = authority.as_bytes();
    let host_len = if bytes.first() == Some(&b'[') {
        let end = bytes.iter().position(|byte| *byte == b']')?;
        if !bytes[1..end]
            .iter()
            .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
        {
            return None;
        }
        end + 1
    } else {
        let end = bytes
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(bytes.len());
        // RFC 3986 section 3.2.2: reg-name.
        let allowed =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(byte);
        if !bytes[..end].iter().all(allowed) {
            return None;
        }
        end
    };
    let port_is_valid = match bytes.get(host_len) {
        None => true,
        Some(b':') => {
            bytes[host_len + 1..].len() <= 5 && bytes[host_len + 1..].iter().all(u8::is_ascii_digit)
        }
        Some(_) => false,
    };
    if port_is_valid {
        authority.get(..host_len)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_with_an_optional_port_is_an_authority() {
        for (authority, host) in [
            ("a.example:80", Some("a.example")),
            ("a", Some("a")),
            ("", Some("")),
            ("a:", Some("a")),
            ("[::1]:8080", Some("[::1]")),
            ("[::1", None),
            ("[::1]x", None),
            ("a:b", None),
            ("a:123456", None),
            ("a b", None),
            ("a/b", None),
            ("user@a", None),
        ] {
            assert_eq!(host_of(authority), host, "{authority}");
        }
    }

    #[test]
    fn what_connection_nominates_goes_but_framing_and_routing_stay() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-a, content-length, host"),
            ("connection", "X-B"),
            ("x-a", "1"),
            ("x-b", "1"),
            ("x-c", "1"),
            ("keep-alive", "5"),
            ("content-length", "3"),
            ("host", "h"),
            ("trailer", "x"),
        ] {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host", "x-c"]);
    }
}
