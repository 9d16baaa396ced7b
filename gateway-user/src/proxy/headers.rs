//! Header fields that end at the proxy, and those it adds.

use std::net::{IpAddr, SocketAddr};

use super::{
    decimal::ip,
    downstream::Downstream,
    fields::{Fields, Name},
    message::{Request, Response, lists},
};
use crate::{
    ir::{ForwardedFor, Listener, matching::told_client},
    tls::client_auth::VERIFIED,
};

/// Removes what belongs to one connection only (RFC 9110 section 7.6.1). `Trailer` stays with a chunked message,
/// because it announces the fields that pass at its end.
/// `also` says what else goes.
fn remove_hop_by_hop(fields: &mut Fields, also: impl Fn(Name) -> bool) {
    if fields.has(Name::Connection) {
        let nominated: Vec<Vec<u8>> = fields
            .all(Name::Connection)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|name| {
                // Nobody may take the routing or the framing out of a message by naming it here.
                let known = Name::of(name);
                !matches!(
                    known,
                    Name::Host | Name::ContentLength | Name::Te | Name::Upgrade
                ) && !plain_option(name)
            })
            .map(<[u8]>::to_vec)
            .collect();
        for name in nominated {
            fields.remove_named(&name);
        }
    }
    let chunked = fields.has(Name::TransferEncoding);
    fields.remove_any(|name| match name {
        Name::Connection | Name::KeepAlive | Name::ProxyConnection | Name::TransferEncoding => true,
        // RFC 7540 section 3.2.1: part of an upgrade to h2c, whether or not Connection names it.
        Name::Http2Settings => true,
        Name::Trailer => !chunked,
        other => also(other),
    });
}

/// Options of `Connection` that are no names of fields.
fn plain_option(name: &[u8]) -> bool {
    [b"close".as_slice(), b"keep-alive"]
        .iter()
        .any(|option| name.eq_ignore_ascii_case(option))
}

/// Takes out of a request what belongs to the client's connection. Before any filter: what a rule inserts is not the
/// client's to take away.
pub(super) fn strip_request(request: &mut Request) {
    let trailers = lists(request.fields.all(Name::Te), b"trailers");
    let (upgrade, expects) = (request.upgrade, request.expects);
    remove_hop_by_hop(&mut request.fields, |name| match name {
        Name::Te => true,
        Name::Expect => !expects,
        Name::Upgrade => !upgrade,
        // Also where none is sent: a client must not tell of a certificate that it has not shown.
        other => other.is_identity() || other == Name::Disguised,
    });
    request.trailers = trailers;
}

/// Makes a client's header fields those of the request to a backend, behind [`strip_request`] and all filters.
pub(super) fn prepare_request(request: &mut Request, listener: &Listener, down: &Downstream) {
    let fields = &mut request.fields;
    if request.trailers {
        // RFC 9110 section 10.1.4: who sends TE names it in Connection.
        fields.push_known(Name::Te, b"trailers");
        fields.push_known(Name::Connection, b"te");
    }
    if request.upgrade {
        fields.push_known(Name::Connection, b"upgrade");
    }
    match listener.settings.forwarded_for {
        ForwardedFor::Append => append_forwarded_for(fields, down.client.ip()),
        ForwardedFor::Remove => drop(fields.remove(Name::ForwardedFor)),
        ForwardedFor::Keep => {}
    }
    let told = listener.settings.forwarded;
    if told.proto {
        let proto: &[u8] = if down.is_tls() { b"https" } else { b"http" };
        fields.set(Name::ForwardedProto, proto);
    }
    if told.port {
        set_number(fields, Name::ForwardedPort, listener.name.port);
    }
    if told.host {
        let host = fields.text(request.authority).to_vec();
        fields.set(Name::ForwardedHost, &host);
    }
    if told.client_port {
        set_number(fields, Name::ForwardedClientPort, down.client.port());
    }
    let identity = &listener.settings.identity;
    if identity.gateway_id {
        fields.set(Name::SlbId, listener.name.gateway.as_bytes());
    }
    let client = down.secured.as_ref().and_then(|it| it.identity.as_ref());
    for (header, value) in [
        (&identity.cert_subject, client.map(|it| it.subject.as_str())),
        (&identity.cert_issuer, client.map(|it| it.issuer.as_str())),
        (
            &identity.cert_fingerprint,
            client.map(|it| it.fingerprint.as_str()),
        ),
        (&identity.cert_verify, client.map(|_| VERIFIED)),
    ] {
        let Some(header) = header else { continue };
        // Whoever has none must not claim one.
        fields.remove_spellings(header.as_bytes());
        if let Some(value) = value {
            fields.push(header.as_bytes(), value.as_bytes());
        }
    }
}

fn set_number(fields: &mut Fields, name: Name, number: u16) {
    fields.set(name, number.to_string().as_bytes());
}

/// The client of a request, for conditions, balancing, limits, filters and logs: who `near` is, the one at the other end
/// of the connection, or, where that is a trusted proxy, whom it tells of. The port of who was told of is not known, and
/// so 0.
pub(super) fn client(request: &Request, listener: &Listener, near: SocketAddr) -> SocketAddr {
    let Some(trusted) = &listener.settings.trusted else {
        return near;
    };
    let lines: Vec<&[u8]> = request.fields.all(Name::ForwardedFor).collect();
    let told = told_client(trusted, near.ip(), &lines);
    told.map_or(near, |client| SocketAddr::new(client, 0))
}

/// Makes a backend's header fields those of the answer to a client.
pub(super) fn prepare_response(response: &mut Response) {
    remove_hop_by_hop(&mut response.fields, |name| name == Name::Upgrade);
}

/// The same for a 101: the protocol stays named.
pub(super) fn prepare_switch(response: &mut Response) {
    remove_hop_by_hop(&mut response.fields, |_| false);
    response.fields.push_known(Name::Connection, b"upgrade");
}

/// One list in one line, the peer last.
fn append_forwarded_for(fields: &mut Fields, client: IpAddr) {
    if !fields.has(Name::ForwardedFor) {
        return fields.push_written(Name::ForwardedFor, |out| ip(out, client));
    }
    let mut list: Vec<u8> = Vec::with_capacity(48);
    for value in fields.all(Name::ForwardedFor) {
        if !value.is_empty() {
            list.extend_from_slice(value);
            list.extend_from_slice(b", ");
        }
    }
    ip(&mut list, client);
    fields.set(Name::ForwardedFor, &list);
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
        if !bytes[..end].iter().all(allowed) || !is_escaped_well(&bytes[..end]) {
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

/// RFC 3986 section 2.1: a percent sign stands before two hexadecimal digits.
fn is_escaped_well(host: &[u8]) -> bool {
    let mut signs = host.iter().zip(1..).filter(|(byte, _)| **byte == b'%');
    signs.all(|(_, behind)| {
        let digits = host.get(behind..behind + 2);
        digits.is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit))
    })
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
            ("%", None),
            ("a%zz", None),
            ("a%4", None),
            ("a%41", Some("a%41")),
        ] {
            assert_eq!(host_of(authority), host, "{authority}");
        }
    }

    #[test]
    fn hop_by_hop_fields_go_and_framing_cannot_be_nominated() {
        let mut fields = Fields::default();
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
            fields.push(name.as_bytes(), value.as_bytes());
        }
        remove_hop_by_hop(&mut fields, |_| false);
        let left: Vec<_> = fields.iter().map(|(_, name, _)| name.to_vec()).collect();
        assert_eq!(left, [b"x-c".as_slice(), b"content-length", b"host"]);
    }
}
