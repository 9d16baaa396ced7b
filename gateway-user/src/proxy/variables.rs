//! Addresses made of a request's parts: where a redirect leads, and what a rewrite sends on. Pure.

#[cfg(test)]
mod tests;

use std::{borrow::Cow, net::Ipv6Addr};

use regex::bytes::Captures;

use super::{
    framing::{
        path::unambiguous,
        spelling::{escaped, is_unreserved},
    },
    reason::Refusal,
};
use crate::ir::{Redirect, Rewrite};

/// What variables stand for: the parts of a request that the gate let pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// `http` or `https`.
    pub(super) protocol: &'a str,
    /// Without port; an IPv6 address in brackets.
    pub(super) host: &'a str,
    /// That the client connected to.
    pub(super) port: u16,
    /// As matched by the rule, without the query.
    pub(super) path: &'a str,
    /// Without its `?`.
    pub(super) query: Option<&'a str>,
}

/// What a pod is asked instead of what the client asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Rewritten {
    /// Host without port; `None` leaves that of the client.
    pub(super) authority: Option<Vec<u8>>,
    /// Starts with one `/`, unless it is the client's own.
    pub(super) path: Vec<u8>,
    /// Without its `?`.
    pub(super) query: Option<Vec<u8>>,
}

/// The value of `Location`: an absolute URI (RFC 3986 section 4.3) of ASCII, whatever the request holds.
///
/// The port is left out where it is the protocol's own, the query where it is empty. Where the host is none (HTTP/1.0
/// has requests without one) it is a path, which stays on the address that the client has.
pub(super) fn location(redirect: &Redirect, asked: &Asked<'_>) -> Vec<u8> {
    let protocol = chosen(&redirect.protocol, "${protocol}", asked.protocol);
    let host = chosen(&redirect.host, "${host}", asked.host);
    let (scheme, own_port) = if protocol.eq_ignore_ascii_case("https") {
        ("https://", 443)
    } else {
        ("http://", 80)
    };
    let port = redirect.port.parse().unwrap_or(asked.port);
    let mut out = Vec::new();
    let mut path = Vec::new();
    expand(&mut path, &redirect.path, asked, None, Place::Path);
    if is_host(host) {
        out.extend_from_slice(scheme.as_bytes());
        out.extend_from_slice(host.as_bytes());
        if port != own_port {
            out.extend_from_slice(format!(":{port}").as_bytes());
        }
        if !path.starts_with(b"/") {
            out.push(b'/');
        }
        out.append(&mut path);
    } else {
        // `//a` would name another host (RFC 3986 section 4.2).
        out = rooted(&path);
    }
    let query_at = out.len();
    out.push(b'?');
    expand(&mut out, &redirect.query, asked, None, Place::Query);
    if out.len() == query_at + 1 {
        out.pop();
    }
    out
}

/// What a pod is asked. A part that is its own variable alone stays as the client sent it, byte by byte, and so does
/// a path in which the expression of `captures` is not found: the rule has other paths, too.
///
/// Fails where what is put together holds a dot segment, as a request that came with one does.
pub(super) fn rewrite(rewrite: &Rewrite, asked: &Asked<'_>) -> Result<Rewritten, Refusal> {
    let regex = rewrite.captures.as_ref();
    let groups = regex.and_then(|regex| regex.regex()?.captures(asked.path.as_bytes()));
    let path = if rewrite.path == "${path}" || (regex.is_some() && groups.is_none()) {
        asked.path.as_bytes().to_vec()
    } else {
        let mut path = Vec::new();
        expand(
            &mut path,
            &rewrite.path,
            asked,
            groups.as_ref(),
            Place::Path,
        );
        // Applications that redirect to what they were asked would send clients of `//a` to the host a.
        rooted(&path)
    };
    unambiguous(&path)?;
    let query = if rewrite.query == "${query}" {
        asked.query.map(|query| query.as_bytes().to_vec())
    } else {
        let mut query = Vec::new();
        expand(&mut query, &rewrite.query, asked, None, Place::Query);
        Some(query).filter(|query| !query.is_empty())
    };
    let authority = Some(&rewrite.host).filter(|host| *host != "${host}" && is_host(host));
    Ok(Rewritten {
        authority: authority.map(|host| host.as_bytes().to_vec()),
        path,
        query,
    })
}

/// A part that may be its own variable, but holds none.
fn chosen<'a>(part: &'a str, variable: &str, own: &'a str) -> &'a str {
    if part == variable { own } else { part }
}

/// With exactly one slash in front.
fn rooted(path: &[u8]) -> Vec<u8> {
    let slashes = path.iter().take_while(|byte| **byte == b'/').count();
    [b"/", &path[slashes..]].concat()
}

/// RFC 3986 section 3.2.2, without what names have no use for: `sub-delims` and escapes.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(is_unreserved),
    }
}

/// Where text is put.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Path,
    Query,
    /// One value among the parameters of a query.
    Value,
}

impl Place {
    /// RFC 3986 sections 3.3 and 3.4: `pchar`, slashes, and in a query question marks.
    fn allows(self, byte: u8) -> bool {
        match byte {
            b'&' | b'+' | b';' => self != Self::Value,
            b'?' => self != Self::Path,
            _ => is_unreserved(byte) || b"!$'()*,=:@/".contains(&byte),
        }
    }
}

/// Puts a template with its variables in place of `out`'s end. Values are data: what looks like a variable in one is none,
/// and in a query those other than `${query}` cannot add parameters. What has no place in a URI is escaped.
fn expand(
    out: &mut Vec<u8>,
    template: &str,
    asked: &Asked<'_>,
    groups: Option<&Captures<'_>>,
    place: Place,
) {
    let mut rest = template;
    while let Some(start) = rest.find("${") {
        let (text, behind) = rest.split_at(start);
        put(out, text.as_bytes(), place);
        let end = behind.find('}').map_or(behind.len(), |end| end + 1);
        let (variable, behind) = behind.split_at(end);
        match value(variable, asked, groups) {
            Some(value) if place == Place::Query && variable != "${query}" => {
                put(out, &value, Place::Value);
            }
            Some(value) => put(out, &value, place),
            None => put(out, variable.as_bytes(), place),
        }
        rest = behind;
    }
    put(out, rest.as_bytes(), place);
}

/// What a variable stands for; a group that took no part is empty. `None`: there is no such variable.
fn value<'a>(
    variable: &str,
    asked: &Asked<'a>,
    groups: Option<&Captures<'a>>,
) -> Option<Cow<'a, [u8]>> {
    let group = |number| {
        let found = groups.and_then(|groups| groups.get(number));
        Cow::Borrowed(found.map_or(&b""[..], |found| found.as_bytes()))
    };
    Some(match variable {
        "${protocol}" => Cow::Borrowed(asked.protocol.as_bytes()),
        "${host}" => Cow::Borrowed(asked.host.as_bytes()),
        "${port}" => Cow::Owned(asked.port.to_string().into_bytes()),
        "${path}" => Cow::Borrowed(asked.path.as_bytes()),
        "${query}" => Cow::Borrowed(asked.query.unwrap_or_default().as_bytes()),
        "${1}" => group(1),
        "${2}" => group(2),
        "${3}" => group(3),
        _ => return None,
    })
}

/// Appends text; escapes that are there stay.
fn put(out: &mut Vec<u8>, mut text: &[u8], place: Place) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    while let Some((byte, behind)) = text.split_first() {
        let whole = matches!(text, [b'%', high, low, ..] if escaped(*high, *low).is_some());
        if whole || place.allows(*byte) {
            out.push(*byte);
        } else {
            let digit = |half: u8| DIGITS[usize::from(half)];
            out.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        }
        text = behind;
    }
}
