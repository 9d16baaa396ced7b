//! A body as its bytes arrive: which of them are data, and where it ends.

use super::{Framing, chunked::Chunked};
use crate::proxy::{fields::Fields, message::Delimited, reason::Refusal};

/// What is left of a body.
#[derive(Clone, Debug)]
pub(in crate::proxy) enum Body {
    /// This many bytes.
    Fixed(u64),
    /// Chunks. Boxed: most messages have none.
    Chunked(Box<Chunked>),
    /// Everything until the sender closes.
    UntilClose,
    /// It was read to its end.
    Done,
}

/// What lies at the front of a buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::proxy) enum Piece {
    /// `skip` bytes of framing, then `len` of data.
    Data { skip: usize, len: usize },
    /// `skip` bytes of framing; more must arrive.
    More { skip: usize },
    /// `skip` bytes of framing end the body.
    End { skip: usize },
}

impl Body {
    /// That of a request over HTTP/1.x.
    pub(in crate::proxy) fn of_request(framing: Framing) -> Self {
        match framing {
            Framing::Fixed(0) => Self::Done,
            Framing::Fixed(length) => Self::Fixed(length),
            Framing::Chunked => Self::Chunked(Box::new(Chunked::new())),
            Framing::Stream => Self::UntilClose,
        }
    }

    /// That of a response over HTTP/1.x.
    pub(in crate::proxy) fn of_response(body: Delimited) -> Self {
        match body {
            Delimited::None | Delimited::Length(0) => Self::Done,
            Delimited::Length(length) => Self::Fixed(length),
            Delimited::Chunks => Self::Chunked(Box::new(Chunked::new())),
            Delimited::End => Self::UntilClose,
        }
    }

    pub(in crate::proxy) fn is_done(&self) -> bool {
        match self {
            Self::Done => true,
            Self::Chunked(chunked) => chunked.complete(),
            Self::Fixed(_) | Self::UntilClose => false,
        }
    }

    /// Bytes that are still to come, where that is known.
    pub(in crate::proxy) fn left(&self) -> Option<u64> {
        match self {
            Self::Fixed(left) => Some(*left),
            Self::Done => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Takes what `bytes` begin with.
    pub(in crate::proxy) fn take(&mut self, bytes: &[u8]) -> Result<Piece, Refusal> {
        if self.is_done() {
            return Ok(Piece::End { skip: 0 });
        }
        match self {
            Self::Done => Ok(Piece::End { skip: 0 }),
            _ if bytes.is_empty() => Ok(Piece::More { skip: 0 }),
            Self::Fixed(left) => {
                let len = usize::try_from(*left).map_or(bytes.len(), |it| it.min(bytes.len()));
                *left -= len as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Piece::Data { skip: 0, len })
            }
            Self::UntilClose => Ok(Piece::Data {
                skip: 0,
                len: bytes.len(),
            }),
            Self::Chunked(chunked) => {
                let taken = chunked.take(bytes)?;
                let skip = taken.framing;
                Ok(match (taken.data, chunked.complete()) {
                    (0, true) => Piece::End { skip },
                    (0, false) => Piece::More { skip },
                    (len, _) => Piece::Data { skip, len },
                })
            }
        }
    }

    /// The sender closed; whether the body is complete with that.
    pub(in crate::proxy) fn close(&mut self) -> bool {
        if matches!(self, Self::UntilClose) {
            *self = Self::Done;
        }
        self.is_done()
    }

    /// Fields that came behind the body.
    pub(in crate::proxy) fn trailers(&self) -> Option<&Fields> {
        match self {
            Self::Chunked(chunked) if chunked.trailers().len() > 0 => Some(chunked.trailers()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_body_ends_where_it_says() {
        let mut fixed = Body::of_request(Framing::Fixed(3));
        assert_eq!(fixed.take(b"ab"), Ok(Piece::Data { skip: 0, len: 2 }));
        assert!(!fixed.clone().close());
        assert_eq!(fixed.take(b"cGET"), Ok(Piece::Data { skip: 0, len: 1 }));
        assert_eq!(fixed.take(b"GET"), Ok(Piece::End { skip: 0 }));

        let mut chunked = Body::of_request(Framing::Chunked);
        assert_eq!(
            chunked.take(b"2\r\nab\r\n0\r\n\r\nGET"),
            Ok(Piece::Data { skip: 3, len: 2 })
        );
        assert_eq!(chunked.take(b"\r\n0\r"), Ok(Piece::More { skip: 4 }));
        assert_eq!(chunked.take(b"\n\r\nGET"), Ok(Piece::End { skip: 3 }));
        assert!(chunked.take(b"GET") == Ok(Piece::End { skip: 0 }));

        let mut open = Body::of_response(Delimited::End);
        assert_eq!(open.take(b"ab"), Ok(Piece::Data { skip: 0, len: 2 }));
        assert!(open.close() && open.is_done());
        assert!(Body::of_response(Delimited::Length(0)).is_done());
    }
}
