//! Writing to the client, the last words, and an end that does not destroy them.

use std::{
    io,
    pin::Pin,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Gate, Phase, READ_BYTES};

/// After the last reply, what the client still sends is read and dropped: this much, this long.
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// How far the end of the connection got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Closing {
    No,
    Lingering { left: usize },
}

impl AsyncWrite for Gate {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        let written = ready!(Pin::new(&mut gate.stream).poll_write(cx, bytes))?;
        gate.count_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        let written = ready!(Pin::new(&mut gate.stream).poll_write_vectored(cx, slices))?;
        gate.count_written(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        while gate.farewell.has_remaining() {
            let written = ready!(Pin::new(&mut gate.stream).poll_write(cx, &gate.farewell))?;
            gate.count_written(written);
            gate.farewell.advance(written);
        }
        if gate.closing == Closing::No {
            ready!(Pin::new(&mut gate.stream).poll_shutdown(cx))?;
            let unread =
                gate.stash.len() > gate.at || !matches!(gate.phase, Phase::Head(_) | Phase::Tunnel);
            if gate.peer_closed || !unread {
                return Poll::Ready(Ok(()));
            }
            // Closing with unread bytes sends a reset, which may destroy the reply on its way (RFC 9112 section 9.6).
            gate.closing = Closing::Lingering { left: LINGER_BYTES };
            gate.sleep = Some(Box::pin(tokio::time::sleep(LINGER)));
        }
        let mut scratch = [0_u8; READ_BYTES];
        while let Closing::Lingering { left } = gate.closing {
            let mut sink = ReadBuf::new(&mut scratch);
            match Pin::new(&mut gate.stream).poll_read(cx, &mut sink) {
                Poll::Ready(Ok(())) if !sink.filled().is_empty() && left > 0 => {
                    gate.closing = Closing::Lingering {
                        left: left.saturating_sub(sink.filled().len()),
                    };
                }
                Poll::Ready(_) => break,
                Poll::Pending => match &mut gate.sleep {
                    Some(sleep) => {
                        ready!(sleep.as_mut().poll(cx));
                        break;
                    }
                    None => break,
                },
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Gate {
    fn count_written(&self, bytes: usize) {
        self.stats.downstream_sent.fetch_add(bytes as u64, Relaxed);
        self.exchanges.count(bytes);
    }
}
