//! The strict reading of a request head.

use super::{Framing, HeadLimits, bad, field, is_token_byte, path};
use crate::proxy::reason::{Reason, Refusal};

/// What the gate must know of a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::proxy) struct Head {
    pub(in crate::proxy) framing: Framing,
    /// The client offers to leave HTTP after this request (`Connection: upgrade`, no body, not to HTTP/2).
    pub(in crate::proxy) upgrade: bool,
}

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
        while let Some(offset) = bytes[self.seen..].iter().position(|byte| *byte == b'\n') {
            let at = self.seen + offset;
            // RFC 9112 section 2.2 lets a recipient take a bare LF as a line end; readers differ, so we do not.
            if at == self.line || bytes[at - 1] != b'\r' {
                return Err(bad("a line ends with LF instead of CRLF"));
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

/// Reads one complete head, as [`Scan::end`] delimits it.
pub(in crate::proxy) fn read(bytes: &[u8], limits: HeadLimits) -> Result<Head, Refusal> {
    let mut lines = bytes
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let version = request_line(lines.next().unwrap_or_default(), limits)?;

    let mut length: Option<u64> = None;
    let mut codings: usize = 0;
    let mut chunked = false;
    let mut hosts = 0;
    let (mut upgrade, mut connection_upgrade) = (false, false);
    let mut upgrade_to_http = false;
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = field(line)?;
        // Only names of these lengths matter here.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => hosts += 1,
            6 if name.eq_ignore_ascii_case(b"expect")
                && !value.eq_ignore_ascii_case(b"100-continue") =>
            {
                return Err(Refusal::close(
                    Reason::UnknownExpectation,
                    "only the expectation 100-continue is known",
                ));
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                upgrade = !value.is_empty();
                upgrade_to_http |= value.split(|byte| *byte == b',').any(names_http);
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                connection_upgrade |= value
                    .split(|byte| *byte == b',')
                    .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                // RFC 9112 section 6.3 allows equal repetitions; refusing them leaves nothing to interpret.
                if length.is_some() {
                    return Err(bad("Content-Length is repeated"));
                }
                length = Some(decimal(value)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                codings += 1;
                chunked = value.eq_ignore_ascii_case(b"chunked");
            }
            _ => {}
        }
    }
    // RFC 9112 section 3.2: more than one Host, or none in HTTP/1.1, is a 400.
    if hosts > 1 {
        return Err(bad("Host is repeated"));
    }
    if hosts == 0 && version == Version::Http11 {
        return Err(bad("Host is missing"));
    }
    let framing = if codings > 0 {
        // RFC 9112 section 6.1: both framings, or a coding in HTTP/1.0, are signs of smuggling.
        if length.is_some() {
            return Err(bad("both Content-Length and Transfer-Encoding are given"));
        }
        if version == Version::Http10 {
            return Err(bad("Transfer-Encoding is not part of HTTP/1.0"));
        }
        if codings > 1 || !chunked {
            return Err(Refusal::close(
                Reason::UnknownCoding,
                "the only transfer coding served is a single chunked",
            ));
        }
        Framing::Chunked
    } else {
        Framing::Fixed(length.unwrap_or(0))
    };
    let upgrade = upgrade
        && !upgrade_to_http
        && connection_upgrade
        && version == Version::Http11
        && framing == Framing::Fixed(0);
    Ok(Head { framing, upgrade })
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Version {
    Http10,
    Http11,
}

fn request_line(line: &[u8], limits: HeadLimits) -> Result<Version, Refusal> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad("the request line is not `method target version`"));
    };
    if method.is_empty()
        || method.len() > METHOD_BYTES
        || !method.iter().copied().all(is_token_byte)
    {
        return Err(bad("the method is not a token"));
    }
    let version = match version {
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
    if target.len() > limits.target_bytes {
        return Err(TARGET_TOO_LONG);
    }
    if method == b"CONNECT" || method == b"TRACE" {
        return Err(Refusal::close(
            Reason::MethodNotAllowed,
            "CONNECT and TRACE are not served",
        ));
    }
    if target.is_empty() || target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err(bad(
            "the request target is empty or holds a control character",
        ));
    }
    if target.contains(&b'#') {
        return Err(bad("the request target holds a fragment"));
    }
    // RFC 9112 section 3.2: origin-form, absolute-form, or asterisk-form for OPTIONS.
    let form_is_known = target[0] == b'/'
        || (target == b"*" && method == b"OPTIONS")
        || target
            .get(..7)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"http://"));
    if !form_is_known {
        return Err(bad("the request target is neither a path nor an http URL"));
    }
    path::unambiguous(target)?;
    Ok(version)
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
fn decimal(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(bad("Content-Length is not a number"));
    }
    let number = value.iter().try_fold(0_u64, |sum, digit| {
        sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    });
    // hyper keeps the two largest values for itself.
    number
        .filter(|number| *number < u64::MAX - 2)
        .ok_or(bad("Content-Length is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        head_bytes: 1024,
        target_bytes: 100,
        fields: 5,
    };

    fn judge(bytes: &[u8]) -> Result<Head, Refusal> {
        let end = Scan::default()
            .end(bytes, LIMITS)?
            .expect("the head is complete");
        assert_eq!(end, bytes.len());
        read(bytes, LIMITS)
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
            assert_eq!(
                judge(head.as_bytes()),
                Ok(Head { framing, upgrade }),
                "{head:?}"
            );
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
