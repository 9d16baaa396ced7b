//! The strict reading of a request head.

use super::{Framing, HeadLimits, bad, field, is_token_byte, path};
use crate::proxy::{
    fields::{Fields, Name, Span},
    headers,
    message::{Request, Version},
    reason::{Reason, Refusal},
};

/// Finds the end of a head in bytes that arrive piece by piece; every byte is looked at once.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct Scan {
    /// Bytes already looked at.
    seen: usize,
    /// Start of the current line.
    line: usize,
    lines: usize,
}

impl Scan {
    /// Length of the head with its empty line, once that line is there. `bytes` always starts at the same place.
    pub(in crate::proxy) fn end(
        &mut self,
        bytes: &[u8],
        limits: HeadLimits,
    ) -> Result<Option<usize>, Refusal> {
        while let Some(offset) = memchr::memchr(b'\n', &bytes[self.seen..]) {
            let at = self.seen + offset;
            // RFC 9112 section 2.2 lets a recipient take a bare LF as a line end; readers differ, so we do not.
            if at == self.line || bytes[at - 1] != b'\r' {
                return Err(bad("a line ends with LF instead of CRLF"));
            }
            if self.lines == 0 && at > limits.target_bytes + REQUEST_LINE_REST {
                return Err(TARGET_TOO_LONG);
            }
            let empty = at - self.line == 1;
            self.seen = at + 1;
            self.line = at + 1;
            if empty {
                return if at < limits.head_bytes {
                    Ok(Some(at + 1))
                } else {
                    Err(TOO_LARGE)
                };
            }
            self.lines += 1;
            if self.lines > limits.fields + 1 {
                return Err(TOO_LARGE);
            }
        }
        self.seen = bytes.len();
        if self.lines == 0 && bytes.len() > limits.target_bytes + REQUEST_LINE_REST {
            return Err(TARGET_TOO_LONG);
        }
        if bytes.len() > limits.head_bytes {
            Err(TOO_LARGE)
        } else {
            Ok(None)
        }
    }
}

const TOO_LARGE: Refusal = Refusal::close(
    Reason::HeadersTooLarge,
    "the request head has too many bytes or fields",
);
const TARGET_TOO_LONG: Refusal =
    Refusal::close(Reason::TargetTooLong, "the request target is too long");
const METHOD_BYTES: usize = 32;
const REQUEST_LINE_REST: usize = METHOD_BYTES + " ".len() + " HTTP/1.1\r".len();

/// Reads one complete head, as [`Scan::end`] delimits it, into an empty `request`.
pub(in crate::proxy) fn read(
    bytes: &[u8],
    limits: HeadLimits,
    request: &mut Request,
) -> Result<(), Refusal> {
    let whole = request.fields.keep(bytes);
    let mut at = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    let line = bytes[..at].strip_suffix(b"\r").unwrap_or(&bytes[..at]);
    let target = request_line(line, whole, limits, request)?;
    at += 1;

    let mut seen = Seen::default();
    while let Some(rest) = bytes.get(at..)
        && let Some(length) = memchr::memchr(b'\n', rest)
    {
        let line = &rest[..length];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let (name, value) = field(line)?;
        // Both lie in the line: the name at its start, the value at its end but for blanks.
        let start = memchr::memchr(b':', line).unwrap_or_default() + 1;
        let blanks = line[start..].len() - line[start..].trim_ascii_start().len();
        let known = Name::of(name);
        seen.field(known, value)?;
        let text = Fields::part(whole, at, name.len());
        let value = Fields::part(whole, at + start + blanks, value.len());
        if known == Name::Host {
            request.authority = value;
        }
        request.fields.place(known, text, value);
        at += length + 1;
    }
    let version = request.version;
    // RFC 9112 section 3.2: more than one Host, or none in HTTP/1.1, is a 400.
    if seen.hosts == 0 && version == Version::Http11 {
        return Err(bad("Host is missing"));
    }
    if let Some(authority) = target {
        // RFC 9110 section 4.2.1: an empty host makes an http URI invalid.
        if matches!(request.fields.text(authority), [] | [b':', ..]) {
            return Err(bad("the request target is an http URL without a host"));
        }
        // RFC 9112 section 3.2.2: the target's authority replaces whatever Host says.
        let value = request.fields.text(authority).to_vec();
        request.fields.set(Name::Host, &value);
        request.authority = authority;
    }
    if headers::host_of(request.authority()).is_none()
        || (request.authority().is_empty() && !request.fields.text(request.authority).is_empty())
    {
        return Err(bad("Host is not a host with an optional port"));
    }
    request.asked_host = request.authority;
    request.spell()?;
    request.framing = seen.framing(version)?;
    request.upgrade = seen.upgrade
        && !seen.upgrade_to_http
        && seen.connection_upgrade
        && version == Version::Http11
        && request.framing == Framing::Fixed(0);
    request.expects =
        seen.expects && version == Version::Http11 && request.framing != Framing::Fixed(0);
    request.keep_alive = match version {
        Version::Http10 => seen.keep_alive && !seen.close,
        _ => !seen.close,
    };
    Ok(())
}

/// What the fields of a head say about the message itself.
#[derive(Debug, Default)]
struct Seen {
    length: Option<u64>,
    codings: usize,
    chunked: bool,
    hosts: usize,
    upgrade: bool,
    upgrade_to_http: bool,
    connection_upgrade: bool,
    close: bool,
    keep_alive: bool,
    expects: bool,
}

impl Seen {
    fn field(&mut self, name: Name, value: &[u8]) -> Result<(), Refusal> {
        match name {
            Name::Host => {
                self.hosts += 1;
                if self.hosts > 1 {
                    return Err(bad("Host is repeated"));
                }
            }
            Name::Expect => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal::close(
                        Reason::UnknownExpectation,
                        "only the expectation 100-continue is known",
                    ));
                }
                self.expects = true;
            }
            Name::Upgrade => {
                self.upgrade = !value.is_empty();
                self.upgrade_to_http |= value.split(|byte| *byte == b',').any(names_http);
            }
            Name::Connection => {
                for option in value.split(|byte| *byte == b',') {
                    let option = option.trim_ascii();
                    self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            Name::ContentLength => {
                // RFC 9112 section 6.3 allows equal repetitions; refusing them leaves nothing to interpret.
                if self.length.is_some() {
                    return Err(bad("Content-Length is repeated"));
                }
                self.length = Some(decimal(value)?);
            }
            Name::TransferEncoding => {
                self.codings += 1;
                self.chunked = value.eq_ignore_ascii_case(b"chunked");
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<Framing, Refusal> {
        if self.codings == 0 {
            return Ok(Framing::Fixed(self.length.unwrap_or(0)));
        }
        // RFC 9112 section 6.1: both framings, or a coding in HTTP/1.0, are signs of smuggling.
        if self.length.is_some() {
            return Err(bad("both Content-Length and Transfer-Encoding are given"));
        }
        if version == Version::Http10 {
            return Err(bad("Transfer-Encoding is not part of HTTP/1.0"));
        }
        if self.codings > 1 || !self.chunked {
            return Err(Refusal::close(
                Reason::UnknownCoding,
                "the only transfer coding served is a single chunked",
            ));
        }
        Ok(Framing::Chunked)
    }
}

/// Reads the request line; yields the authority of a target in absolute form.
fn request_line(
    line: &[u8],
    whole: Span,
    limits: HeadLimits,
    request: &mut Request,
) -> Result<Option<Span>, Refusal> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad("the request line is not `method target version`"));
    };
    self::method(method)?;
    request.version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Refusal::close(
                Reason::UnknownVersion,
                "HTTP/1.0 and HTTP/1.1 are served here",
            ));
        }
        _ => return Err(bad("the version is not an HTTP version")),
    };
    request.method = Fields::part(whole, 0, method.len());
    let start = method.len() + 1;
    request.asked_target = Fields::part(whole, start, target.len());
    self::target(target, method, limits)?;
    // RFC 9112 section 3.2: origin-form, absolute-form, or asterisk-form for OPTIONS.
    let authority = match absolute(target) {
        None => 0..0,
        Some(scheme) => {
            let rest = &target[scheme..];
            let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
            scheme..scheme + end.unwrap_or(rest.len())
        }
    };
    let path = &target[authority.end..];
    let query = memchr::memchr(b'?', path);
    let length = query.unwrap_or(path.len());
    request.path = if length == 0 {
        request.fields.keep(b"/")
    } else {
        Fields::part(whole, start + authority.end, length)
    };
    request.query = query.map(|at| {
        let behind = authority.end + at + 1;
        Fields::part(whole, start + behind, target.len() - behind)
    });
    let named = authority.start > 0;
    Ok(named.then(|| Fields::part(whole, start + authority.start, authority.len())))
}

/// Checks a method.
pub(in crate::proxy) fn method(method: &[u8]) -> Result<(), Refusal> {
    if method.is_empty()
        || method.len() > METHOD_BYTES
        || !method.iter().copied().all(is_token_byte)
    {
        return Err(bad("the method is not a token"));
    }
    if method == b"CONNECT" || method == b"TRACE" {
        return Err(Refusal::close(
            Reason::MethodNotAllowed,
            "CONNECT and TRACE are not served",
        ));
    }
    Ok(())
}

/// Checks a request target.
pub(in crate::proxy) fn target(
    target: &[u8],
    method: &[u8],
    limits: HeadLimits,
) -> Result<(), Refusal> {
    if target.len() > limits.target_bytes {
        return Err(TARGET_TOO_LONG);
    }
    if target.is_empty() || target.iter().any(|byte| *byte <= b' ' || *byte >= 0x7f) {
        return Err(bad(
            "the request target is empty or holds a character that is not allowed",
        ));
    }
    if target.contains(&b'#') {
        return Err(bad("the request target holds a fragment"));
    }
    let form_is_known =
        target[0] == b'/' || (target == b"*" && method == b"OPTIONS") || absolute(target).is_some();
    if !form_is_known {
        return Err(bad("the request target is neither a path nor an http URL"));
    }
    path::unambiguous(target)
}

/// Where the authority of a target in absolute form begins.
fn absolute(target: &[u8]) -> Option<usize> {
    let starts = |scheme: &[u8]| {
        target
            .get(..scheme.len())
            .is_some_and(|it| it.eq_ignore_ascii_case(scheme))
            .then_some(scheme.len())
    };
    starts(b"http://").or_else(|| starts(b"https://"))
}

/// Whether a protocol of `Upgrade` is HTTP again: requests in such a tunnel would pass no rule.
fn names_http(protocol: &[u8]) -> bool {
    let name = protocol.split(|byte| *byte == b'/').next();
    let name = name.unwrap_or_default().trim_ascii();
    [b"h2c".as_slice(), b"h2", b"http"]
        .iter()
        .any(|http| name.eq_ignore_ascii_case(http))
}

/// RFC 9110 section 8.6: `1*DIGIT`; a list, a sign or an overflow is refused.
pub(in crate::proxy) fn decimal(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(bad("Content-Length is not a number"));
    }
    let number = value.iter().try_fold(0_u64, |sum, digit| {
        sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    });
    number.ok_or(bad("Content-Length is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        head_bytes: 1024,
        target_bytes: 100,
        fields: 5,
    };

    fn judge(bytes: &[u8]) -> Result<Request, Refusal> {
        let end = Scan::default()
            .end(bytes, LIMITS)?
            .expect("the head is complete");
        assert_eq!(end, bytes.len());
        let mut request = Request::default();
        read(bytes, LIMITS, &mut request).map(|()| request)
    }

    #[test]
    fn ambiguous_heads_are_refused_with_the_strictest_answer() {
        for (head, status) in [
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
                400,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
                400,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\n",
                400,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\n",
                400,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
                400,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
                501,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n",
                501,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                501,
            ),
            (
                "GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                400,
            ),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http://:80/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a,b\\c\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: \u{e4}\r\n\r\n", 400),
            ("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417),
        ] {
            let refusal = judge(head.as_bytes()).expect_err(head);
            assert_eq!(
                refusal.reason.status().as_u16(),
                status,
                "{head:?}: {}",
                refusal.detail
            );
            assert!(refusal.close, "{head:?}");
        }
    }

    #[test]
    fn plain_heads_tell_their_framing() {
        for (head, framing, upgrade) in [
            (
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                Framing::Fixed(0),
                false,
            ),
            ("GET / HTTP/1.0\r\n\r\n", Framing::Fixed(0), false),
            (
                "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
                Framing::Fixed(0),
                false,
            ),
            (
                "POST http://b/c?d HTTP/1.1\r\nHost: a\r\ncontent-length:\t7 \r\n\r\n",
                Framing::Fixed(7),
                false,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: Chunked\r\n\r\n",
                Framing::Chunked,
                false,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
                Framing::Fixed(0),
                true,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
                Framing::Fixed(0),
                false,
            ),
        ] {
            let request = judge(head.as_bytes()).expect(head);
            assert_eq!(
                (request.framing, request.upgrade),
                (framing, upgrade),
                "{head:?}"
            );
        }
    }

    #[test]
    fn the_target_is_taken_apart() {
        for (target, authority, path, query) in [
            ("/", "h:1", "/", None),
            ("/a/b?c=d?e", "h:1", "/a/b", Some("c=d?e")),
            ("/?", "h:1", "/", Some("")),
            ("http://b", "b", "/", None),
            ("HTTP://b:8?x", "b:8", "/", Some("x")),
            ("https://b/c?d", "b", "/c", Some("d")),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nX: 1\r\nHost:  h:1\t\r\nY:\r\n\r\n");
            let request = judge(head.as_bytes()).expect(target);
            assert_eq!(request.method(), b"GET");
            assert_eq!(request.authority(), authority, "{target}");
            assert_eq!(request.path(), path, "{target}");
            assert_eq!(request.query(), query, "{target}");
            assert_eq!(request.fields.get(Name::Host), Some(authority.as_bytes()));
            assert_eq!(request.fields.named(b"y").next(), Some(b"".as_slice()));
        }
    }

    #[test]
    fn a_bare_line_feed_is_refused_before_the_head_ends() {
        assert!(
            Scan::default()
                .end(b"GET / HTTP/1.1\nHost: a\n", LIMITS)
                .is_err()
        );
    }

    #[test]
    fn too_long_heads_are_refused_before_they_end() {
        let status = |bytes: &str| {
            Scan::default()
                .end(bytes.as_bytes(), LIMITS)
                .expect_err("too long")
                .reason
                .status()
                .as_u16()
        };
        assert_eq!(status(&format!("GET /{}", "a".repeat(200))), 414);
        assert_eq!(
            status(&format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(1100))),
            431
        );
        assert_eq!(
            status(&format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(6))),
            431
        );
    }

    #[test]
    fn a_head_is_found_at_the_same_place_however_it_is_cut() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next";
        let mut scan = Scan::default();
        let found = (0..=head.len()).find_map(|len| scan.end(&head[..len], LIMITS).expect("valid"));
        assert_eq!(found, Some(27));
    }
}
