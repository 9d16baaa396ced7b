//! HTTP/2 messages as ours, and ours as HTTP/2's; bodies as streams (RFC 9113).

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::HeaderMap;

use super::{
    fields::{Fields, Name},
    h1::source::Fault,
};

pub(super) mod convert;
pub(super) mod duplex;
pub(super) mod websocket;

/// Most data in one write to a stream.
const PIECE_BYTES: usize = 64 * 1024;

/// The sending half of a stream: shared, because who reads the other half must hear when the peer resets it.
#[derive(Clone, Debug)]
pub(super) struct Sending(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    half: RefCell<Half>,
    /// Bytes of data and of fields: received, sent.
    bytes: Cell<(u64, u64)>,
    /// Bytes of the body that the peer had room for.
    taken: Cell<u64>,
}

#[derive(Debug)]
enum Half {
    /// A server's, before its head.
    Head(SendResponse<Bytes>),
    Body {
        stream: SendStream<Bytes>,
        /// Bytes still to come, where that is known: the last of them ends the stream.
        left: Option<u64>,
    },
    /// Everything was sent.
    Done,
}

impl Sending {
    /// A server's stream.
    pub(super) fn answer(respond: SendResponse<Bytes>) -> Self {
        Self::new(Half::Head(respond))
    }

    fn new(half: Half) -> Self {
        Self(Rc::new(Shared {
            half: RefCell::new(half),
            bytes: Cell::new((0, 0)),
            taken: Cell::new(0),
        }))
    }

    /// Bytes of the stream so far: received, sent. Heads and trailers count as they are before compression.
    pub(super) fn bytes(&self) -> (u64, u64) {
        self.0.bytes.get()
    }

    /// So much was received.
    pub(super) fn received(&self, more: u64) {
        let (received, sent) = self.0.bytes.get();
        self.0.bytes.set((received + more, sent));
    }

    fn sent(&self, more: u64) {
        let (received, sent) = self.0.bytes.get();
        self.0.bytes.set((received, sent + more));
    }

    /// A client's stream, behind its head; `left` bytes follow.
    pub(super) fn body(stream: SendStream<Bytes>, left: Option<u64>) -> Self {
        let half = match left {
            Some(0) => Half::Done,
            left => Half::Body { stream, left },
        };
        Self::new(half)
    }

    /// Bytes of the body that the peer had room for so far.
    pub(super) fn taken(&self) -> u64 {
        self.0.taken.get()
    }

    /// Sends an interim head (1xx).
    pub(super) fn interim(&self, head: http::Response<()>) -> io::Result<()> {
        self.sent(convert::size(head.headers()));
        match &mut *self.0.half.borrow_mut() {
            Half::Head(respond) => respond.send_informational(head).map_err(broken),
            Half::Body { .. } | Half::Done => Ok(()),
        }
    }

    /// Sends the head; `left` bytes follow, 0 for none.
    pub(super) fn head(&self, head: http::Response<()>, left: Option<u64>) -> io::Result<()> {
        let mut half = self.0.half.borrow_mut();
        let Half::Head(respond) = &mut *half else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        self.sent(convert::size(head.headers()));
        let stream = respond
            .send_response(head, left == Some(0))
            .map_err(broken)?;
        *half = match left {
            Some(0) => Half::Done,
            left => Half::Body { stream, left },
        };
        Ok(())
    }

    /// Sends a piece of the body as the peer makes room for it.
    pub(super) async fn data(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let sent = poll_fn(|cx| self.poll_write(cx, data)).await?;
            data = &data[sent..];
        }
        Ok(())
    }

    /// Sends what the peer has room for; how much that was. Behind the end, all is taken and dropped.
    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(cx, data.len()))?;
        let mut half = self.0.half.borrow_mut();
        let Half::Body { stream, left } = &mut *half else {
            return Poll::Ready(Ok(data.len()));
        };
        let piece = &data[..room.min(data.len())];
        self.sent(piece.len() as u64);
        let last = match left {
            Some(left) => {
                *left = left.saturating_sub(piece.len() as u64);
                *left == 0
            }
            None => false,
        };
        stream
            .send_data(Bytes::copy_from_slice(piece), last)
            .map_err(broken)?;
        self.0.taken.set(self.0.taken.get() + piece.len() as u64);
        if last {
            *half = Half::Done;
        }
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_room(&self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let mut half = self.0.half.borrow_mut();
        let Half::Body { stream, .. } = &mut *half else {
            return Poll::Ready(Ok(wanted));
        };
        stream.reserve_capacity(wanted.min(PIECE_BYTES));
        loop {
            if stream.capacity() > 0 {
                return Poll::Ready(Ok(stream.capacity()));
            }
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(err)) => return Poll::Ready(Err(broken(err))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }

    /// Ends the stream.
    pub(super) fn end(&self, trailers: Option<&Fields>) -> io::Result<()> {
        let mut half = self.0.half.borrow_mut();
        if let Half::Body { stream, left } = &mut *half {
            match trailers {
                // A length that was told and not kept: the peer finds out.
                None if left.is_some_and(|left| left > 0) => {
                    stream.send_reset(h2::Reason::INTERNAL_ERROR);
                }
                None => stream.send_data(Bytes::new(), true).map_err(broken)?,
                Some(trailers) => {
                    let trailers = convert::map(trailers);
                    self.sent(convert::size(&trailers));
                    stream.send_trailers(trailers).map_err(broken)?;
                }
            }
        }
        *half = Half::Done;
        Ok(())
    }

    /// Breaks the stream off.
    pub(super) fn reset(&self, reason: h2::Reason) {
        match &mut *self.0.half.borrow_mut() {
            Half::Head(respond) => respond.send_reset(reason),
            Half::Body { stream, .. } => stream.send_reset(reason),
            Half::Done => {}
        }
    }

    /// Ready when the peer has no interest any more.
    pub(super) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.0.half.borrow_mut() {
            Half::Head(respond) => respond.poll_reset(cx).map(drop),
            Half::Body { stream, .. } => stream.poll_reset(cx).map(drop),
            Half::Done => Poll::Pending,
        }
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub(super) struct Receiving {
    /// Shared with who reads on when the exchange is over.
    stream: Rc<RefCell<RecvStream>>,
    piece: Bytes,
    trailers: Option<Fields>,
    ended: bool,
    /// The other half.
    sending: Option<Sending>,
}

impl Receiving {
    pub(super) fn new(stream: RecvStream, sending: Option<Sending>) -> Self {
        Self {
            ended: stream.is_end_stream(),
            stream: Rc::new(RefCell::new(stream)),
            piece: Bytes::new(),
            trailers: None,
            sending,
        }
    }

    /// Reads on behind this one, of which no step was taken.
    pub(super) fn successor(&self) -> Self {
        Self {
            stream: Rc::clone(&self.stream),
            piece: Bytes::new(),
            trailers: None,
            ended: self.ended,
            sending: self.sending.clone(),
        }
    }

    /// Takes the next step: how many bytes of data are there, 0 at the end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        let used = std::mem::take(&mut self.piece).len();
        let mut stream = self.stream.borrow_mut();
        if used > 0 {
            // The window opens as bytes are handed on: that is all the backpressure there is.
            stream
                .flow_control()
                .release_capacity(used)
                .map_err(fault)?;
        }
        while !self.ended {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => {
                    if let Some(sending) = &self.sending {
                        sending.received(piece.len() as u64);
                    }
                    self.piece = piece;
                    return Poll::Ready(Ok(self.piece.len()));
                }
                Some(Err(err)) => return Poll::Ready(Err(fault(err))),
                None => {
                    let trailers = ready!(stream.poll_trailers(cx)).map_err(fault)?;
                    if let (Some(sending), Some(map)) = (&self.sending, &trailers) {
                        sending.received(convert::size(map));
                    }
                    self.trailers = trailers.map(|map| convert::fields(&map));
                    self.ended = true;
                }
            }
        }
        Poll::Ready(Ok(0))
    }

    /// The data of the last step.
    pub(super) fn data(&self) -> &[u8] {
        &self.piece
    }

    /// The same, to be kept.
    pub(super) fn piece(&self) -> Bytes {
        self.piece.clone()
    }

    /// Fields behind the body.
    pub(super) fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref()
    }

    /// Waits until the peer has no interest in the other half any more.
    pub(super) async fn left(&mut self) {
        match &self.sending {
            Some(sending) => poll_fn(|cx| sending.poll_reset(cx)).await,
            None => std::future::pending().await,
        }
    }
}

fn broken(err: h2::Error) -> io::Error {
    match err.is_io() {
        true => err.into_io().unwrap_or(io::ErrorKind::BrokenPipe.into()),
        false => io::Error::other(err),
    }
}

fn fault(_: h2::Error) -> Fault {
    Fault::Broken
}

/// Trailers may hold what has no meaning behind a body.
fn is_forbidden(name: &str) -> bool {
    matches!(
        name,
        "authorization"
            | "proxy-authorization"
            | "transfer-encoding"
            | "content-length"
            | "host"
            | "connection"
            | "te"
            | "trailer"
            | "upgrade"
    )
}

/// Fields of a trailer section.
fn trailer_fields(map: &HeaderMap) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in map {
        if !is_forbidden(name.as_str()) && !Name::of(name.as_str().as_bytes()).is_claim() {
            fields.push(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    fields
}
