//! A body that is read from a connection.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use crate::proxy::{
    buffer::Buffer,
    fields::Fields,
    framing::body::{Body, Piece},
    io::Io,
    reason::Refusal,
};

/// Why a body did not come to its end.
#[derive(Debug)]
pub(in crate::proxy) enum Fault {
    /// The sender left, or the connection broke.
    Broken,
    /// Its framing is wrong.
    Malformed(Refusal),
}

/// A body on its way in. What was lent is consumed with the next step.
#[derive(Debug)]
pub(in crate::proxy) struct Source<'a> {
    io: &'a Io,
    buffer: &'a mut Buffer,
    body: &'a mut Body,
    lent: usize,
}

impl<'a> Source<'a> {
    pub(in crate::proxy) fn new(io: &'a Io, buffer: &'a mut Buffer, body: &'a mut Body) -> Self {
        Self {
            io,
            buffer,
            body,
            lent: 0,
        }
    }

    /// Takes the next step: how many bytes of data are there, 0 at the end.
    pub(in crate::proxy) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        let len = ready!(self.poll_data(cx))?;
        self.lent = len;
        Poll::Ready(Ok(len))
    }

    /// The data of the last step.
    pub(in crate::proxy) fn data(&self) -> &[u8] {
        &self.buffer.bytes()[..self.lent]
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        self.buffer.consume(std::mem::take(&mut self.lent));
        loop {
            match self.body.take(self.buffer.bytes()) {
                Ok(Piece::Data { skip, len }) => {
                    self.buffer.consume(skip);
                    return Poll::Ready(Ok(len));
                }
                Ok(Piece::End { skip }) => {
                    self.buffer.consume(skip);
                    return Poll::Ready(Ok(0));
                }
                Ok(Piece::More { skip }) => self.buffer.consume(skip),
                Err(refusal) => return Poll::Ready(Err(Fault::Malformed(refusal))),
            }
            let expected = self.body.left().unwrap_or(0);
            match ready!(self.buffer.poll_fill(self.io, cx, expected)) {
                Ok(0) if self.body.close() => return Poll::Ready(Ok(0)),
                Ok(0) => {
                    return Poll::Ready(Err(Fault::Broken));
                }
                Ok(_) => {}
                Err(_) => return Poll::Ready(Err(Fault::Broken)),
            }
        }
    }

    /// Fields behind the body, once it has ended.
    pub(in crate::proxy) fn trailers(&self) -> Option<&Fields> {
        self.body.trailers()
    }

    /// Nobody would hear yet that the sender leaves.
    pub(in crate::proxy) fn is_fresh(&self) -> bool {
        self.io.is_fresh()
    }

    /// Waits until the sender leaves. What it sends meanwhile is kept, up to some; beyond that nobody looks.
    pub(in crate::proxy) async fn left(&mut self) {
        const AHEAD_BYTES: usize = 16 * 1024;
        poll_fn(|cx| {
            while self.buffer.bytes().len() < AHEAD_BYTES {
                match ready!(self.buffer.poll_fill(self.io, cx, 0)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(_) => {}
                }
            }
            Poll::Pending
        })
        .await;
    }
}
