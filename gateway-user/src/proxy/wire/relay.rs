//! Carries bytes both ways between two streams until both sides are done: tunnels and TLS passthrough.
//!
//! A direction begins with read and write, so that a short chat pays for nothing else. Between plain TCP sockets it
//! goes on with splice(2) once it has moved 64 KiB: bytes then pass through a pipe inside of the kernel.
//!
//! Backpressure: a direction reads again when all it holds is written, at most a buffer or a pipe. An idle relay over
//! plain sockets holds neither.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::yield_now,
    time::{Instant, sleep},
};
use tokio_rustls::{client, server};

mod direction;
mod pipes;

use self::direction::{Broken, Direction};
pub(in crate::proxy) use self::pipes::Pipes;

/// One side of a relay.
pub(in crate::proxy) trait RelayStream: AsyncRead + AsyncWrite + Unpin {
    /// The socket, if what the stream reads and writes are the very bytes on it, and it holds none of them back.
    fn plain(&self) -> Option<&TcpStream>;
}

impl RelayStream for TcpStream {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RelayStream for server::TlsStream<S> {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RelayStream for client::TlsStream<S> {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

/// A relay that is to end does so when the pod has said the last word, and nothing has moved for this long: whoever waits
/// for an answer still gets it.
const QUIET: Duration = Duration::from_millis(10);

/// How a relay runs.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct RelayOptions<'a> {
    /// It ends when no byte has moved either way for this long.
    pub(in crate::proxy) idle: Duration,
    /// It is to end at the next good moment. Whoever says so wakes its task.
    pub(in crate::proxy) ending: &'a Cell<bool>,
    /// The worker's pipes.
    pub(in crate::proxy) pipes: &'a Pipes,
}

/// What a relay did. Bytes are counted when the stream they go to has taken them, those that came early too.
#[derive(Debug)]
pub(in crate::proxy) struct Outcome {
    /// Bytes written to the upstream.
    pub(in crate::proxy) to_upstream: u64,
    /// Bytes written to the downstream.
    pub(in crate::proxy) to_downstream: u64,
    /// Why it ended.
    pub(in crate::proxy) ended: Ended,
}

/// Why a relay ended.
#[derive(Debug)]
pub(in crate::proxy) enum Ended {
    /// Both sides said that they are done, and were told so of each other.
    Closed,
    /// Nothing moved for too long.
    Idle,
    /// It was to end, and nothing was under way.
    Told,
    /// The stream of this side broke.
    Error(Side, io::Error),
}

/// Whose stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::proxy) enum Side {
    /// The client's.
    Downstream,
    /// The pod's.
    Upstream,
}

/// Carries bytes until both sides are done, nothing moves, or a stream breaks. Closes neither stream.
///
/// `early_up` and `early_down` are written first: bytes for the upstream and for the downstream that were read before.
/// The end of one side is passed on to the other, which may go on sending (half-close). When a side takes no more
/// bytes, what it had sent before still reaches the other side: a server may answer early and reset.
pub(in crate::proxy) async fn relay<D: RelayStream, U: RelayStream>(
    down: &mut D,
    up: &mut U,
    early_up: &[u8],
    early_down: &[u8],
    options: RelayOptions<'_>,
) -> Outcome {
    let mut both = Both {
        to_upstream: Direction::new(early_up, options.pipes),
        to_downstream: Direction::new(early_down, options.pipes),
        broken: None,
    };
    let mut timer = pin!(sleep(options.idle));
    let mut moved = (0, 0);
    // What came early is the client's, if anything.
    let mut answered = early_up.is_empty();
    let mut moved_at = Instant::now();
    let mut looked = None;
    let ended = loop {
        let ended = poll_fn(|cx| {
            if let Poll::Ready(ended) = both.poll(cx, down, up) {
                return Poll::Ready(ended);
            }
            if both.moved() != moved {
                answered = both.moved().0 == moved.0;
                moved = both.moved();
                moved_at = Instant::now();
            }
            let told = options.ending.get() && answered && both.holds_nothing();
            let due = moved_at + if told { QUIET } else { options.idle };
            if due < timer.deadline() {
                timer.as_mut().reset(due);
            }
            // The timer is moved only when it is over: most of the time it is wrong, and that costs nothing.
            while timer.as_mut().poll(cx).is_ready() {
                if due <= Instant::now() {
                    let why = if told { Ended::Told } else { Ended::Idle };
                    return Poll::Ready(both.broken.take().unwrap_or(why));
                }
                timer.as_mut().reset(due);
            }
            Poll::Pending
        })
        .await;
        if !matches!(ended, Ended::Told) || looked == Some(moved) {
            break ended;
        }
        // A question may have come that the event loop has not heard of yet: it looks at its sockets before this goes on.
        looked = Some(moved);
        yield_now().await;
    };
    Outcome {
        to_upstream: both.to_upstream.moved(),
        to_downstream: both.to_downstream.moved(),
        ended,
    }
}

struct Both<'a> {
    to_upstream: Direction<'a>,
    to_downstream: Direction<'a>,
    /// A side that takes no more bytes.
    broken: Option<Ended>,
}

impl Both<'_> {
    /// To the upstream, and to the downstream.
    fn moved(&self) -> (u64, u64) {
        (self.to_upstream.moved(), self.to_downstream.moved())
    }

    fn holds_nothing(&self) -> bool {
        self.to_upstream.holds_nothing() && self.to_downstream.holds_nothing()
    }

    fn poll<D: RelayStream, U: RelayStream>(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut D,
        up: &mut U,
    ) -> Poll<Ended> {
        let to_upstream = self.to_upstream.poll(cx, down, up);
        let to_downstream = self.to_downstream.poll(cx, up, down);
        let open = to_upstream.is_pending() || to_downstream.is_pending();
        for (result, from, to) in [
            (to_upstream, Side::Downstream, Side::Upstream),
            (to_downstream, Side::Upstream, Side::Downstream),
        ] {
            match result {
                Poll::Pending | Poll::Ready(Ok(())) => {}
                // Whoever cannot be read is gone: it takes nothing either.
                Poll::Ready(Err(Broken::Read(cause))) => {
                    return Poll::Ready(self.broken.take().unwrap_or(Ended::Error(from, cause)));
                }
                Poll::Ready(Err(Broken::Write(cause))) => {
                    self.broken.get_or_insert(Ended::Error(to, cause));
                }
            }
        }
        if open {
            return Poll::Pending;
        }
        Poll::Ready(self.broken.take().unwrap_or(Ended::Closed))
    }
}

#[cfg(test)]
mod tests;
