//! A message that is written to a connection.

use std::{
    future::poll_fn,
    io::{self, IoSlice, Write},
    task::{Context, Poll, ready},
};

use crate::proxy::{fields::Fields, io::Io};

/// Data up to this is copied behind what waits to be written; more is written from where it lies.
const COPIED_BYTES: usize = 4 * 1024;

/// How a body is delimited for its receiver.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::proxy) enum Coding {
    /// There is none, or a HEAD asked.
    #[default]
    None,
    /// As it is: its length was told, or the connection ends with it.
    Plain,
    /// Chunked.
    Chunked,
}

/// A message on its way out. Bytes are held until they are worth a system call or nothing follows at once.
#[derive(Debug)]
pub(in crate::proxy) struct Sink<'a> {
    io: &'a Io,
    out: &'a mut Vec<u8>,
    coding: Coding,
}

impl<'a> Sink<'a> {
    /// `out` holds what is to be written first.
    pub(in crate::proxy) fn new(io: &'a Io, out: &'a mut Vec<u8>) -> Self {
        Self {
            io,
            out,
            coding: Coding::None,
        }
    }

    /// What it writes to.
    pub(in crate::proxy) fn io(&self) -> &'a Io {
        self.io
    }

    /// Begins a message whose head `write` writes.
    pub(in crate::proxy) fn head(&mut self, coding: Coding, write: impl FnOnce(&mut Vec<u8>)) {
        write(self.out);
        self.coding = coding;
    }

    /// A piece of the body.
    pub(in crate::proxy) async fn data(&mut self, data: &[u8]) -> io::Result<()> {
        if self.coding == Coding::None || data.is_empty() {
            return Ok(());
        }
        let chunked = self.coding == Coding::Chunked;
        if chunked {
            // Writing to memory does not fail.
            let _ = write!(self.out, "{:x}\r\n", data.len());
        }
        let tail: &[u8] = if chunked { b"\r\n" } else { b"" };
        if self.out.len() + data.len() <= COPIED_BYTES {
            self.out.extend_from_slice(data);
            self.out.extend_from_slice(tail);
            return Ok(());
        }
        let mut sent = 0;
        let out = std::mem::take(self.out);
        let whole = out.len() + data.len();
        let outcome = poll_fn(|cx| {
            while sent < whole {
                let head = out.get(sent..).unwrap_or_default();
                let rest = &data[sent.saturating_sub(out.len())..];
                let slices = [IoSlice::new(head), IoSlice::new(rest)];
                let slices = if head.is_empty() {
                    &slices[1..]
                } else {
                    &slices[..]
                };
                match ready!(self.io.poll_write(cx, slices)) {
                    Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Ok(written) => sent += written,
                    Err(err) => return Poll::Ready(Err(err)),
                }
            }
            Poll::Ready(Ok(()))
        })
        .await;
        *self.out = out;
        self.out.clear();
        self.out.extend_from_slice(tail);
        outcome
    }

    /// Writes what is held.
    pub(in crate::proxy) async fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() && !self.io.is_tls() {
            return Ok(());
        }
        let mut sent = 0;
        let outcome = poll_fn(|cx| self.poll_flush(cx, &mut sent)).await;
        self.out.clear();
        outcome
    }

    fn poll_flush(&self, cx: &mut Context<'_>, sent: &mut usize) -> Poll<io::Result<()>> {
        while *sent < self.out.len() {
            match ready!(self.io.poll_write(cx, &[IoSlice::new(&self.out[*sent..])])) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => *sent += written,
                Err(err) => return Poll::Ready(Err(err)),
            }
        }
        self.io.poll_flush(cx)
    }

    /// The body is complete; trailers pass where the receiver can tell them from data.
    pub(in crate::proxy) async fn end(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        if self.coding == Coding::Chunked {
            self.out.extend_from_slice(b"0\r\n");
            if let Some(trailers) = trailers {
                trailers.write_h1(self.out);
            }
            self.out.extend_from_slice(b"\r\n");
        }
        self.flush().await
    }
}
