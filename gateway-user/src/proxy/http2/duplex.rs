//! A stream that carries bytes of another protocol, for the relay.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{Receiving, Sending};
use crate::proxy::wire::relay::RelayStream;

/// Both halves of a stream; END_STREAM is the end of one.
#[derive(Debug)]
pub(in crate::proxy) struct Duplex {
    from: Receiving,
    /// What of the last piece was handed on.
    used: usize,
    to: Sending,
}

impl Duplex {
    pub(in crate::proxy) fn new(from: Receiving, to: Sending) -> Self {
        Self { from, used: 0, to }
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.used == self.from.data().len() {
            self.used = 0;
            let step = ready!(self.from.poll(cx));
            step.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?;
        }
        let left = &self.from.data()[self.used..];
        let step = left.len().min(buf.remaining());
        buf.put_slice(&left[..step]);
        self.used += step;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.to.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's own task writes.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.to.end(None))
    }
}

impl RelayStream for Duplex {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}
