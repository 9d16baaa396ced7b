//! A way to a backend: a connection of its own, or a stream of a shared one.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use h2::client::ResponseFuture;

use super::Failure;
use crate::proxy::{
    body::{Incoming, Outgoing},
    buffer::Buffer,
    framing::{Framing, answer, body::Body},
    h1::{Coding, Sink, Source},
    http2::{Receiving, Sending, convert},
    io::Io,
    message::{Request, Response},
    reason::{Reason, Refusal},
    upstream::{Upstream, shared::Room},
};

/// A way to a backend.
#[derive(Debug)]
pub(super) enum Leg {
    /// A connection for this request alone.
    Own(Upstream),
    /// A stream of a connection.
    Shared { room: Room, reused: bool },
}

impl Leg {
    pub(super) fn shared(room: Room) -> Self {
        Self::Shared { room, reused: true }
    }

    /// It has served a request before.
    pub(super) fn is_reused(&self) -> bool {
        match self {
            Self::Own(upstream) => upstream.reused,
            Self::Shared { reused, .. } => *reused,
        }
    }

    /// Begins the request; the head may wait for more to be written with it.
    pub(super) fn begin(
        &mut self,
        request: &Request,
    ) -> Result<(Outgoing<'_>, Answers<'_>), Failure> {
        match self {
            Self::Own(Upstream {
                io, buffer, out, ..
            }) => {
                let io = &*io;
                let answers = Answers::Own {
                    before: io.read(),
                    io,
                    buffer,
                    body: Body::Done,
                };
                Ok((Outgoing::h1(head(request, Sink::new(io, out))), answers))
            }
            Self::Shared { room, .. } => {
                let head = convert::to_request(request, "http").ok_or(Refusal::close(
                    Reason::BadRequest,
                    "the request cannot be told in HTTP/2",
                ))?;
                let begun = room.send.send_request(head, !request.has_body());
                let (response, stream) = begun.map_err(|_| Failure::Closed)?;
                let left = match request.framing {
                    Framing::Fixed(left) => Some(left),
                    Framing::Chunked | Framing::Stream => None,
                };
                let answers = Answers::Shared(Some(response));
                Ok((Outgoing::h2(Sending::body(stream, left)), answers))
            }
        }
    }
}

/// Where an answer comes from.
pub(super) enum Answers<'a> {
    Own {
        io: &'a Io,
        buffer: &'a mut Buffer,
        /// Bytes read before the request.
        before: u64,
        body: Body,
    },
    Shared(Option<ResponseFuture>),
}

impl Answers<'_> {
    /// The next head, and the body behind it.
    pub(super) async fn next(
        &mut self,
        is_head: bool,
        response: &mut Response,
    ) -> Result<Incoming<'_>, Failure> {
        match self {
            Self::Own {
                io,
                buffer,
                before,
                body,
            } => {
                let end = poll_fn(|cx| poll_head(io, buffer, *before, cx)).await?;
                response.clear();
                let read = answer::read(&buffer.bytes()[..end], is_head, response);
                buffer.consume(end);
                read.map_err(malformed)?;
                *body = Body::of_response(response.body);
                Ok(Incoming::H1(Source::new(io, buffer, body)))
            }
            Self::Shared(future) => {
                let future = future.take().ok_or(Failure::Closed)?;
                let (parts, stream) = future.await.map_err(broken_stream)?.into_parts();
                response.clear();
                convert::response(&parts, stream.is_end_stream(), response);
                Ok(Incoming::H2(Box::new(Receiving::new(stream, None))))
            }
        }
    }
}

/// Reads until the head of an answer is whole; its length.
pub(in crate::proxy) fn poll_head(
    io: &Io,
    buffer: &mut Buffer,
    before: u64,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, Failure>> {
    loop {
        // Heads come whole nearly always, so nobody remembers where the last look ended.
        match answer::end(buffer.bytes(), &mut 0) {
            Ok(None) => {}
            Ok(Some(end)) => return Poll::Ready(Ok(end)),
            Err(unreadable) => return Poll::Ready(Err(malformed(unreadable))),
        }
        match ready!(buffer.poll_fill(io, cx, 0)) {
            Ok(1..) => {}
            Ok(0) | Err(_) if io.read() == before => return Poll::Ready(Err(Failure::Closed)),
            Ok(0) | Err(_) => {
                return Poll::Ready(Err(Refusal::keep(
                    Reason::BackendClosed,
                    "the backend closed the connection in the middle of its answer's head",
                )
                .into()));
            }
        }
    }
}

/// Why a stream has no answer.
pub(super) fn broken_stream(err: h2::Error) -> Failure {
    tracing::debug!(error = %err, "a backend ended a stream without an answer");
    match err.reason() {
        // RFC 9113 section 8.7: not processed at all.
        Some(h2::Reason::REFUSED_STREAM) => Failure::Closed,
        _ if err.is_io() || err.is_go_away() => Failure::Closed,
        _ => Refusal::keep(
            Reason::BadResponse,
            "the backend ended the stream without an answer",
        )
        .into(),
    }
}

pub(super) fn malformed(unreadable: answer::Unreadable) -> Failure {
    tracing::debug!(why = unreadable.0, "a backend's answer is refused");
    Refusal::keep(
        Reason::BadResponse,
        "the backend's answer is not HTTP/1.x, or can be read in two ways",
    )
    .into()
}

/// Writes the head of a request to a backend.
pub(in crate::proxy) fn head<'a>(request: &Request, mut sink: Sink<'a>) -> Sink<'a> {
    let coding = match request.framing {
        Framing::Fixed(0) => Coding::None,
        Framing::Fixed(_) => Coding::Plain,
        Framing::Chunked | Framing::Stream => Coding::Chunked,
    };
    sink.head(coding, |out| {
        out.extend_from_slice(request.method());
        out.push(b' ');
        out.extend_from_slice(request.path().as_bytes());
        if let Some(query) = request.query() {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        request.fields.write_h1(out);
        if coding == Coding::Chunked {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        out.extend_from_slice(b"\r\n");
    });
    sink
}
