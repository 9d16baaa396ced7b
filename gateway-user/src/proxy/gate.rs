//! The client's socket as the codec sees it: strict framing, deadlines and counters below hyper.
//!
//! A head reaches the codec only when it is complete and unambiguous. What is refused is answered here, after the
//! responses that are still owed, so the codec never sees it.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{BufMut, Bytes};
use tokio::{
    io::{AsyncRead, Interest, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

mod waiting;
mod writing;

use self::{waiting::Wait, writing::Closing};
use super::{
    exchanges::Exchanges,
    framing::{Framing, HeadLimits, bad, chunked::Chunked, head},
    reason::{Reason, Refusal},
    stats::{ConnectionCount, WorkerStats},
};

/// Read from the socket at once while looking for a head.
const READ_BYTES: usize = 4096;
/// A stash larger than this is given back when it is empty.
const STASH_KEPT_BYTES: usize = 16 * 1024;

/// Empty lines skipped before one request.
const EMPTY_LINES: u8 = 8;

#[derive(Debug)]
enum Phase {
    Head(head::Scan),
    Fixed(u64),
    Chunked(Chunked),
    /// An upgrade was offered; nothing more is read as HTTP until it is decided.
    Offered,
    Tunnel,
    Refused,
}

/// Limits and deadlines of a client connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct GateLimits {
    pub(super) head: HeadLimits,
    /// From the first byte of a head to its last.
    pub(super) head_timeout: Duration,
}

/// The client's socket under the codec.
#[derive(Debug)]
pub(super) struct Gate {
    stream: TcpStream,
    exchanges: Arc<Exchanges>,
    stats: Arc<WorkerStats>,
    limits: GateLimits,
    phase: Phase,
    /// Bytes read and not yet handed up; `[at..ready]` may be, the rest was not judged yet.
    stash: Vec<u8>,
    at: usize,
    ready: usize,
    /// Empty lines skipped since the last head.
    empty_lines: u8,
    peer_closed: bool,
    wait: Option<(Wait, Instant)>,
    sleep: Option<Pin<Box<Sleep>>>,
    farewell: Bytes,
    closing: Closing,
    _count: ConnectionCount,
}

impl Gate {
    pub(super) fn new(
        stream: TcpStream,
        exchanges: Arc<Exchanges>,
        stats: Arc<WorkerStats>,
        limits: GateLimits,
        count: ConnectionCount,
    ) -> Self {
        Self {
            stream,
            exchanges,
            stats,
            limits,
            phase: Phase::Head(head::Scan::default()),
            stash: Vec::new(),
            at: 0,
            ready: 0,
            empty_lines: 0,
            peer_closed: false,
            wait: None,
            sleep: None,
            farewell: Bytes::new(),
            closing: Closing::No,
            _count: count,
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.stats.reason(refusal.reason);
        self.stats.response(refusal.reason.status());
        self.farewell = refusal.bytes();
        self.phase = Phase::Refused;
    }

    /// Judges stashed bytes; false when more are needed.
    fn judge(&mut self) -> io::Result<bool> {
        let fresh = self.stash.get(self.ready..).unwrap_or_default();
        match &mut self.phase {
            Phase::Head(scan) => {
                // RFC 9112 section 2.2: an empty line before a request is ignored.
                if fresh.starts_with(b"\r\n") && self.at == self.ready {
                    if self.empty_lines == EMPTY_LINES {
                        self.refuse(bad("too many empty lines stand before a request"));
                        return Ok(true);
                    }
                    self.empty_lines += 1;
                    self.ready += 2;
                    self.at = self.ready;
                    *scan = head::Scan::default();
                    return Ok(true);
                }
                let verdict = match scan.end(fresh, self.limits.head) {
                    Ok(None) => return Ok(false),
                    Ok(Some(end)) => {
                        head::read(&fresh[..end], self.limits.head).map(|head| (end, head))
                    }
                    Err(refusal) => Err(refusal),
                };
                match verdict {
                    Ok((end, head)) => self.admit(end, head),
                    Err(refusal) => self.refuse(refusal),
                }
                Ok(true)
            }
            Phase::Fixed(left) => {
                let step = fresh
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                self.ready += step;
                *left -= step as u64;
                if *left == 0 {
                    self.body_ended();
                }
                Ok(step > 0)
            }
            Phase::Chunked(chunked) => match chunked.take(fresh) {
                Ok(step) => {
                    self.ready += step;
                    if chunked.complete() {
                        self.body_ended();
                    }
                    Ok(step > 0)
                }
                Err(refusal) => Err(self.refuse_body(refusal)),
            },
            Phase::Tunnel => {
                let step = fresh.len();
                self.ready += step;
                Ok(step > 0)
            }
            Phase::Offered | Phase::Refused => Ok(false),
        }
    }

    fn admit(&mut self, end: usize, head: head::Head) {
        self.ready += end;
        self.empty_lines = 0;
        let offered = head.upgrade && head.framing == Framing::Fixed(0);
        self.exchanges.begin(offered);
        self.phase = match head.framing {
            Framing::Fixed(0) => {
                self.exchanges.body_ended();
                if offered {
                    Phase::Offered
                } else {
                    Phase::Head(head::Scan::default())
                }
            }
            Framing::Fixed(length) => Phase::Fixed(length),
            Framing::Chunked => Phase::Chunked(Chunked::new()),
        };
    }

    fn body_ended(&mut self) {
        self.exchanges.body_ended();
        self.phase = Phase::Head(head::Scan::default());
    }

    /// The head went to the backend already: the exchange is broken off by an error of the body.
    fn refuse_body(&mut self, refusal: Refusal) -> io::Error {
        self.exchanges.refuse_body(refusal);
        self.phase = Phase::Refused;
        io::Error::new(io::ErrorKind::InvalidData, refusal.detail)
    }

    /// Reads into the stash. `Ready(Ok(0))` is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.at == self.stash.len() {
            self.stash.clear();
            if self.stash.capacity() > STASH_KEPT_BYTES {
                self.stash = Vec::new();
            }
            (self.at, self.ready) = (0, 0);
        } else if self.at > 0 && self.at == self.ready {
            self.stash.drain(..self.at);
            (self.at, self.ready) = (0, 0);
        }
        self.stash.reserve(READ_BYTES);
        let outcome = poll_read_buf(&self.stream, cx, &mut (&mut self.stash).limit(READ_BYTES));
        if self.stash.is_empty() {
            // An idle connection holds no buffer.
            self.stash = Vec::new();
        }
        let read = ready!(outcome)?;
        self.count_read(read);
        self.peer_closed |= read == 0;
        Poll::Ready(Ok(read))
    }

    fn count_read(&self, bytes: usize) {
        self.stats
            .downstream_received
            .fetch_add(bytes as u64, Relaxed);
        self.exchanges.count(bytes);
    }

    /// Reads bytes that need no look straight into the codec's buffer.
    fn poll_through(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        most: u64,
    ) -> Poll<io::Result<usize>> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let read = ready!(poll_read_buf(&self.stream, cx, &mut buf.limit(most)))?;
        self.count_read(read);
        self.peer_closed |= read == 0;
        Poll::Ready(Ok(read))
    }
}

/// Reads without writing zeros first, and without asking a socket that was just emptied whether it is empty.
pub(super) fn poll_read_buf(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    buf: &mut impl BufMut,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let room = buf.chunk_mut().len();
        match stream.try_read_buf(buf) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            Ok(read) => {
                if read > 0 && read < room {
                    // The events are edge-triggered and this thread also runs the event loop, so whatever comes
                    // after a short read is announced anew. Saves one system call per message.
                    let emptied = || Err(io::ErrorKind::WouldBlock.into());
                    let _: io::Result<()> = stream.try_io(Interest::READABLE, emptied);
                }
                return Poll::Ready(Ok(read));
            }
            Err(err) => return Poll::Ready(Err(err)),
        }
    }
}

impl AsyncRead for Gate {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if gate.at < gate.ready {
                let step = (gate.ready - gate.at).min(buf.remaining());
                buf.put_slice(&gate.stash[gate.at..gate.at + step]);
                gate.at += step;
                return Poll::Ready(Ok(()));
            }
            match &gate.phase {
                Phase::Refused => {
                    gate.exchanges.register(cx.waker());
                    // The end is reported once nothing is owed, so that replies stay in order.
                    return if gate.exchanges.in_flight() {
                        Poll::Pending
                    } else {
                        Poll::Ready(Ok(()))
                    };
                }
                Phase::Offered => {
                    gate.exchanges.register(cx.waker());
                    match gate.exchanges.upgrade_granted() {
                        Some(true) => {
                            gate.phase = Phase::Tunnel;
                            continue;
                        }
                        Some(false) => {
                            gate.phase = Phase::Head(head::Scan::default());
                            continue;
                        }
                        None if gate.stash.len() - gate.ready >= STASH_KEPT_BYTES => {
                            return Poll::Pending;
                        }
                        None => {}
                    }
                }
                _ => {}
            }
            if gate.judge()? {
                continue;
            }
            let through = match &gate.phase {
                _ if gate.stash.len() > gate.ready => 0,
                Phase::Fixed(left) => *left,
                Phase::Chunked(chunked) => chunked.opaque(),
                Phase::Tunnel => u64::MAX,
                _ => 0,
            };
            if through > 0 {
                let read = ready!(gate.poll_through(cx, buf, through))?;
                match &mut gate.phase {
                    Phase::Fixed(left) => {
                        *left -= read as u64;
                        if *left == 0 {
                            gate.body_ended();
                        }
                    }
                    Phase::Chunked(chunked) => {
                        let filled = buf.filled();
                        if let Err(refusal) = chunked.take(&filled[filled.len() - read..]) {
                            return Poll::Ready(Err(gate.refuse_body(refusal)));
                        }
                    }
                    _ => {}
                }
                return Poll::Ready(Ok(()));
            }
            match gate.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(err)) => return Poll::Ready(Err(err)),
                Poll::Pending => {
                    gate.exchanges.register(cx.waker());
                    match ready!(gate.poll_expired(cx)) {
                        Wait::Idle(_) => return Poll::Ready(Ok(())),
                        Wait::Head(_) => gate.refuse(Refusal::close(
                            Reason::RequestTimeout,
                            "the request head did not arrive in time",
                        )),
                    }
                }
            }
        }
    }
}
