//! The reading of a response head.
//!
//! Backends are believed more than clients: lines may end with LF alone. What two readers could delimit differently is
//! still no answer (RFC 9112 section 6.3).

use super::{field, head::decimal};
use crate::proxy::{
    fields::{Fields, Name},
    message::{Delimited, Response, Version, lists},
};

/// Most bytes and fields of a response head.
const HEAD_BYTES: usize = 96 * 1024;
const FIELDS: usize = 256;

/// What a backend said cannot be read, or can be read in two ways.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::proxy) struct Unreadable(pub(in crate::proxy) &'static str);

/// Length of a head with its empty line; `None` while that has not come. `seen` is where to go on looking.
pub(in crate::proxy) fn end(bytes: &[u8], seen: &mut usize) -> Result<Option<usize>, Unreadable> {
    while let Some(offset) = memchr::memchr(b'\n', bytes.get(*seen..).unwrap_or_default()) {
        let at = *seen + offset;
        let empty = matches!(bytes.get(at + 1..), Some([b'\n', ..]));
        let empty_crlf = matches!(bytes.get(at + 1..), Some([b'\r', b'\n', ..]));
        if empty || empty_crlf {
            let end = at + if empty { 2 } else { 3 };
            return match end <= HEAD_BYTES {
                true => Ok(Some(end)),
                false => Err(Unreadable("its head is too long")),
            };
        }
        if at + 2 >= bytes.len() {
            // The empty line may be on its way: this line end is looked at again.
            *seen = at;
            break;
        }
        *seen = at + 1;
    }
    match bytes.len() > HEAD_BYTES {
        true => Err(Unreadable("its head is too long")),
        false => Ok(None),
    }
}

/// Reads one complete head into an empty `response`; `head` says that it answers HEAD.
pub(in crate::proxy) fn read(
    bytes: &[u8],
    head: bool,
    response: &mut Response,
) -> Result<(), Unreadable> {
    let whole = response.fields.keep(bytes);
    let mut at = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    let line = bytes[..at].strip_suffix(b"\r").unwrap_or(&bytes[..at]);
    status_line(line, response)?;
    at += 1;
    let mut length = None;
    let mut codings = 0;
    let mut chunked = false;
    let mut fields = 0;
    while let Some(rest) = bytes.get(at..)
        && let Some(end) = memchr::memchr(b'\n', rest)
    {
        let line = &rest[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let (name, value) = field(line).map_err(|refusal| Unreadable(refusal.detail))?;
        fields += 1;
        if fields > FIELDS {
            return Err(Unreadable("it has too many fields"));
        }
        let start = name.len() + 1;
        let blanks = line[start..].len() - line[start..].trim_ascii_start().len();
        let known = Name::of(name);
        match known {
            Name::ContentLength => {
                let number =
                    decimal(value).map_err(|_| Unreadable("its Content-Length is not a number"))?;
                if length.replace(number).is_some() {
                    return Err(Unreadable("its Content-Length is repeated"));
                }
            }
            Name::TransferEncoding => {
                codings += 1;
                chunked = value.eq_ignore_ascii_case(b"chunked");
            }
            _ => {}
        }
        let text = Fields::part(whole, at, name.len());
        let value = Fields::part(whole, at + start + blanks, value.len());
        response.fields.place(known, text, value);
        at += end + 1;
    }
    let close = lists(response.fields.all(Name::Connection), b"close");
    let keep = lists(response.fields.all(Name::Connection), b"keep-alive");
    response.keep_alive = match response.version {
        Version::Http10 => keep && !close,
        _ => !close,
    };
    // No coding but chunked was offered to the backend.
    let body = match (length, codings) {
        (length, 0) => length.map_or(Delimited::End, Delimited::Length),
        (None, 1) if chunked && response.version == Version::Http11 => Delimited::Chunks,
        (Some(_), _) => return Err(Unreadable("it has Content-Length and Transfer-Encoding")),
        _ => return Err(Unreadable("its Transfer-Encoding is not a single chunked")),
    };
    response.body = match Response::is_bodiless(response.status, head) {
        true => Delimited::None,
        false => body,
    };
    if response.body == Delimited::End {
        response.keep_alive = false;
    }
    Ok(())
}

/// `HTTP/1.1 200 OK`; the words may be missing.
fn status_line(line: &[u8], response: &mut Response) -> Result<(), Unreadable> {
    let version = match line.get(..9) {
        Some(b"HTTP/1.1 ") => Version::Http11,
        Some(b"HTTP/1.0 ") => Version::Http10,
        _ => return Err(Unreadable("it is not HTTP/1.x")),
    };
    let digits = line.get(9..12).unwrap_or_default();
    let words = match line.get(12..) {
        Some([]) => &[],
        Some([b' ', words @ ..]) => words,
        _ => return Err(Unreadable("its status is not a number")),
    };
    let status = digits.iter().try_fold(0_u16, |sum, digit| {
        digit
            .is_ascii_digit()
            .then(|| sum * 10 + u16::from(digit - b'0'))
    });
    let status = status.filter(|it| (100..=599).contains(it));
    if !words.iter().copied().all(super::is_value_byte) {
        return Err(Unreadable("its status line holds a control character"));
    }
    response.status = status.ok_or(Unreadable("its status is not from 100 to 599"))?;
    response.version = version;
    response.reason = response.fields.keep(words);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str, head: bool) -> Result<Response, Unreadable> {
        let mut seen = 0;
        let end = end(text.as_bytes(), &mut seen)?.expect("complete");
        assert_eq!(end, text.len());
        let mut response = Response::default();
        read(text.as_bytes(), head, &mut response).map(|()| response)
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_is_cut() {
        for text in [
            "HTTP/1.1 200 OK\r\nA: b\r\n\r\nrest",
            "HTTP/1.1 200\nA: b\n\nrest",
        ] {
            let mut seen = 0;
            let found = (0..=text.len())
                .find_map(|len| end(&text.as_bytes()[..len], &mut seen).expect("short"));
            assert_eq!(found, Some(text.len() - 4), "{text:?}");
        }
        assert!(end(&vec![b'a'; 100 * 1024], &mut 0).is_err());
    }

    #[test]
    fn a_response_tells_where_its_body_ends() {
        for (text, head, body, keep) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
                false,
                Delimited::Length(7),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
                true,
                Delimited::None,
                true,
            ),
            (
                "HTTP/1.1 304\r\nContent-Length: 7\r\n\r\n",
                false,
                Delimited::None,
                true,
            ),
            ("HTTP/1.1 204 x\r\n\r\n", false, Delimited::None, true),
            (
                "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n",
                false,
                Delimited::Chunks,
                true,
            ),
            ("HTTP/1.1 200 \r\n\r\n", false, Delimited::End, false),
            (
                "HTTP/1.0 200 \r\nContent-Length: 0\r\n\r\n",
                false,
                Delimited::Length(0),
                false,
            ),
            (
                "HTTP/1.0 200 \r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
                false,
                Delimited::Length(0),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n",
                false,
                Delimited::Length(0),
                false,
            ),
        ] {
            let response = judge(text, head).expect(text);
            assert_eq!(
                (response.body, response.keep_alive),
                (body, keep),
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_is_no_answer_or_two_is_refused() {
        for text in [
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 99 x\r\n\r\n",
            "HTTP/1.1 600 x\r\n\r\n",
            "HTTP/1.1 20 x\r\n\r\n",
            "HTTP/1.1 2000\r\n\r\n",
            "HTTP/1.1 200 a\x07\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(judge(text, false).is_err(), "{text:?}");
        }
    }
}
