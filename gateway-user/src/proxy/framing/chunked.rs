//! The strict reading of a chunked body (RFC 9112 section 7.1).

use super::{bad, field};
use crate::proxy::{
    fields::{Fields, Name},
    reason::{Reason, Refusal},
};

/// Bytes of chunk extensions in one body, and bytes of its trailer section.
const EXTENSION_BYTES: usize = 4096;
const TRAILER_BYTES: usize = 16 * 1024;
const TRAILER_FIELDS: usize = 64;

/// Where in a chunked body the next byte belongs.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Chunked {
    at: At,
    extensions: usize,
    trailer: Vec<u8>,
    trailer_bytes: usize,
    trailers: Fields,
}

/// How many bytes of a chunked body were taken: first of its framing, then of data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::proxy) struct Taken {
    pub(in crate::proxy) framing: usize,
    pub(in crate::proxy) data: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    Size { digits: u8, value: u64 },
    Extension { value: u64 },
    SizeLf { value: u64 },
    Data(u64),
    DataCr,
    DataLf,
    Trailer,
    End,
}

impl Chunked {
    pub(in crate::proxy) fn new() -> Self {
        Self {
            at: At::Size {
                digits: 0,
                value: 0,
            },
            extensions: 0,
            trailer: Vec::new(),
            trailer_bytes: 0,
            trailers: Fields::default(),
        }
    }

    /// Whether the body is complete; the next byte belongs to the next request.
    pub(in crate::proxy) fn complete(&self) -> bool {
        self.at == At::End
    }

    /// Takes bytes of this body up to and with the next piece of data. All are taken, unless data or the end was met.
    pub(in crate::proxy) fn take(&mut self, bytes: &[u8]) -> Result<Taken, Refusal> {
        let mut at = 0;
        while at < bytes.len() && self.at != At::End {
            if let At::Data(left) = self.at {
                let rest = bytes.len() - at;
                let data = usize::try_from(left).map_or(rest, |left| left.min(rest));
                let left = left - data as u64;
                self.at = if left == 0 {
                    At::DataCr
                } else {
                    At::Data(left)
                };
                return Ok(Taken { framing: at, data });
            }
            self.at = self.step(bytes[at])?;
            at += 1;
        }
        Ok(Taken {
            framing: at,
            data: 0,
        })
    }

    /// The trailer fields, each a line of its own, without the empty line behind.
    pub(in crate::proxy) fn trailers(&self) -> &Fields {
        &self.trailers
    }

    fn step(&mut self, byte: u8) -> Result<At, Refusal> {
        match (self.at, byte) {
            (At::Size { digits, value }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                // 15 digits are more than any body; the shift cannot overflow.
                if digits == 15 {
                    Err(bad("a chunk size is too large"))
                } else {
                    Ok(At::Size {
                        digits: digits + 1,
                        value: value << 4 | u64::from(digit),
                    })
                }
            }
            (At::Size { digits: 1.., value }, b'\r') | (At::Extension { value }, b'\r') => {
                Ok(At::SizeLf { value })
            }
            (At::Size { digits: 1.., value }, b';') => Ok(At::Extension { value }),
            (At::Extension { value }, _) if super::is_value_byte(byte) => {
                self.extensions += 1;
                if self.extensions > EXTENSION_BYTES {
                    Err(bad("the chunk extensions are too long"))
                } else {
                    Ok(At::Extension { value })
                }
            }
            (At::SizeLf { value: 0 }, b'\n') => Ok(At::Trailer),
            (At::SizeLf { value }, b'\n') => Ok(At::Data(value)),
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => Ok(At::Size {
                digits: 0,
                value: 0,
            }),
            (At::Trailer, _) => self.trailer_byte(byte),
            (At::Size { .. }, _) => Err(bad("a chunk size is not a hexadecimal number")),
            _ => Err(bad("a chunk does not end where its size says")),
        }
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<At, Refusal> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES {
            return Err(Refusal::close(
                Reason::HeadersTooLarge,
                "the trailer section is too long",
            ));
        }
        if byte != b'\n' {
            self.trailer.push(byte);
            return Ok(At::Trailer);
        }
        let Some(line) = self.trailer.strip_suffix(b"\r") else {
            return Err(bad("a trailer line ends with LF instead of CRLF"));
        };
        if line.is_empty() {
            return Ok(At::End);
        }
        let (name, value) = field(line)?;
        // RFC 9110 section 6.5.1: fields that frame or route a message are not trailers.
        if matches!(
            Name::of(name),
            Name::TransferEncoding
                | Name::ContentLength
                | Name::Host
                | Name::Connection
                | Name::Te
                | Name::Trailer
                | Name::Upgrade
                | Name::Expect
        ) {
            return Err(bad("a trailer field would change the framing"));
        }
        if self.trailers.len() == TRAILER_FIELDS {
            return Err(Refusal::close(
                Reason::HeadersTooLarge,
                "the trailer section has too many fields",
            ));
        }
        // Nor are those that say who asks: they are left out, as RFC 9110 section 6.5.1 allows.
        let authenticates = [b"authorization".as_slice(), b"proxy-authorization"];
        if !Name::of(name).is_claim()
            && !authenticates.iter().any(|it| name.eq_ignore_ascii_case(it))
        {
            self.trailers.push(name, value);
        }
        self.trailer.clear();
        Ok(At::Trailer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_ends_at_the_same_byte_however_it_is_cut() {
        let body = b"5;a=b\r\nhello\r\n00a\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nGET /";
        for cut in 1..body.len() {
            let mut chunked = Chunked::new();
            let mut data = Vec::new();
            let mut used = 0;
            while !chunked.complete() {
                let piece = &body[used..(used + cut).min(body.len())];
                let taken = chunked.take(piece).expect("valid");
                data.extend_from_slice(&piece[taken.framing..][..taken.data]);
                used += taken.framing + taken.data;
            }
            assert_eq!(used, body.len() - 5, "cut {cut}");
            assert_eq!(data, b"hello0123456789");
            assert_eq!(
                chunked.trailers().named(b"x-sum").next(),
                Some(b"1".as_slice())
            );
        }
    }

    /// The first refusal in a body, or none.
    fn refusal(body: &[u8]) -> Option<Refusal> {
        let mut chunked = Chunked::new();
        let mut rest = body;
        while !rest.is_empty() && !chunked.complete() {
            match chunked.take(rest) {
                Ok(taken) => rest = &rest[taken.framing + taken.data..],
                Err(refusal) => return Some(refusal),
            }
        }
        None
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for body in [
            "0x1\r\na\r\n0\r\n\r\n",
            "1\na\r\n0\r\n\r\n",
            "1 \r\na\r\n0\r\n\r\n",
            "\r\na\r\n",
            "-1\r\n",
            "1\r\nab\r\n0\r\n\r\n",
            "1;\0\r\na\r\n0\r\n\r\n",
            "1;a\nb\r\na\r\n0\r\n\r\n",
            "ffffffffffffffff\r\n",
            "0\r\nContent-Length: 3\r\n\r\n",
            "0\r\nX : 3\r\n\r\n",
            "0\r\n\n",
        ] {
            assert!(refusal(body.as_bytes()).is_some(), "{body:?}");
        }
    }
}
