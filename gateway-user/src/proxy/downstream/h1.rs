//! HTTP/1.x with a client.

use std::{
    future::poll_fn,
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use super::Downstream;
use crate::proxy::{
    body::{Incoming, Outgoing},
    buffer::Buffer,
    connections::Place,
    exchange::{self, Next},
    framing::{bad, body::Body, head},
    h1::{Sink, Source},
    io::Io,
    message::{Request, Response},
    messages::Pair,
    reason::{Reason, Refusal},
    stats::ConnectionCount,
    timer::Timer,
    tunnel,
    worker::Worker,
};

/// Empty lines skipped before a request.
const EMPTY_LINES: u8 = 4;
/// After the last reply, what the client still sends is read and dropped: this much, this long.
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// A connection that begins while the proxy stops has this long to ask something.
const LATE: Duration = Duration::from_secs(1);

/// One client connection.
pub(in crate::proxy) struct Connection {
    worker: Rc<Worker>,
    io: Io,
    down: Downstream,
    buffer: Buffer,
    out: Vec<u8>,
    timer: Timer,
    /// Bytes counted so far: read, written.
    counted: (u64, u64),
    /// How long the last head took to arrive, where it came in pieces.
    head_took: Option<Duration>,
    idle_timeout: Duration,
    count: ConnectionCount,
}

/// What came instead of a request.
enum NoRequest {
    /// The client left, or was idle for too long.
    Over,
    /// What it sent is none.
    Refused(Refusal),
    /// It speaks HTTP/2.
    Http2,
}

/// How serving ended.
enum End {
    /// The connection is done with.
    Over,
    /// Its time was over, whatever was under way: what the client has may not be whole.
    Cut,
    /// The client speaks HTTP/2.
    Http2,
}

/// RFC 9113 section 3.4: how a client that speaks HTTP/2 begins. The first line alone is enough to know it by.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

impl Connection {
    pub(in crate::proxy) fn new(
        worker: &Rc<Worker>,
        io: Io,
        down: Downstream,
        idle_timeout: Duration,
        count: ConnectionCount,
    ) -> Self {
        Self {
            worker: Rc::clone(worker),
            io,
            down,
            buffer: Buffer::new(&worker.spare),
            out: Vec::new(),
            timer: Timer::default(),
            counted: (0, 0),
            head_took: None,
            idle_timeout,
            count,
        }
    }

    /// Serves to the end of the connection.
    pub(in crate::proxy) async fn serve(mut self) {
        let worker = Rc::clone(&self.worker);
        let place = worker.connections.enter(self.down.local).await;
        let end = {
            let mut served = pin!(self.serve_at(&place));
            poll_fn(|cx| match place.is_cut() {
                true => Poll::Ready(End::Cut),
                false => served.as_mut().poll(cx),
            })
            .await
        };
        match end {
            End::Over => self.count(),
            End::Cut => {
                self.count();
                self.io.close_abruptly();
            }
            // Its bytes are counted there.
            End::Http2 => {
                drop(place);
                let ahead = self.buffer.bytes().to_vec();
                let Self {
                    io,
                    down,
                    idle_timeout,
                    count,
                    ..
                } = self;
                let io = (io, ahead);
                super::h2::serve(Rc::clone(&worker), io, down, idle_timeout, count).await;
            }
        }
    }

    async fn serve_at(&mut self, place: &Place<'_>) -> End {
        let worker = Rc::clone(&self.worker);
        let stopping = worker.connections.is_stopping();
        let late = stopping.then(|| Instant::now() + LATE);
        loop {
            let next = match self.request(place, late).await {
                Ok(mut messages) => {
                    let next = self.exchange(&mut messages).await;
                    worker.messages.put(messages);
                    next
                }
                Err(NoRequest::Over) => break,
                Err(NoRequest::Http2) => return End::Http2,
                Err(NoRequest::Refused(refusal)) => {
                    worker.stats.reason(refusal.reason);
                    worker.stats.response(refusal.reason.status().as_u16());
                    self.out.extend_from_slice(&refusal.bytes());
                    let flushed = self.flush().await;
                    if flushed.is_ok() {
                        self.linger().await;
                    }
                    break;
                }
            };
            self.count();
            match next {
                Next::Keep => {}
                // Closing says it all.
                Next::Close { unread: false } if self.buffer.is_empty() && !self.io.is_tls() => {
                    break;
                }
                Next::Close { unread } => {
                    let shut = poll_fn(|cx| self.io.poll_shutdown(cx)).await;
                    // Closing with unread bytes sends a reset, which may destroy the reply on its way (RFC 9112
                    // section 9.6).
                    if shut.is_ok() && (unread || !self.buffer.is_empty()) {
                        self.linger().await;
                    }
                    break;
                }
                Next::Abort => break,
                Next::Tunnel(upstream) => {
                    let ahead = self.buffer.bytes().to_vec();
                    self.buffer.consume(usize::MAX);
                    self.buffer.release();
                    if tunnel::carry(&worker, &mut self.io, &ahead, *upstream, &self.count).await {
                        self.linger().await;
                    }
                    break;
                }
            }
        }
        End::Over
    }

    /// Waits for a request and reads its head.
    async fn request(
        &mut self,
        place: &Place<'_>,
        late: Option<Instant>,
    ) -> Result<Pair, NoRequest> {
        let mut scan = head::Scan::default();
        let mut empty_lines = 0;
        let idle_until = Instant::now() + self.idle_timeout;
        let limits = self.worker.limits;
        // When the first byte of a head came, if not all of it did.
        let mut head_since: Option<Instant> = None;
        let Self {
            worker,
            io,
            buffer,
            timer,
            down,
            head_took,
            ..
        } = self;
        let first = io.written() == 0;
        poll_fn(|cx| {
            loop {
                // RFC 9112 section 2.2: an empty line before a request is ignored.
                while buffer.bytes().starts_with(b"\r\n") {
                    if empty_lines == EMPTY_LINES {
                        let refusal = bad("too many empty lines stand before a request");
                        return Poll::Ready(Err(NoRequest::Refused(refusal)));
                    }
                    empty_lines += 1;
                    buffer.consume(2);
                    scan = head::Scan::default();
                }
                match scan.end(buffer.bytes(), limits.head) {
                    Ok(Some(_))
                        if first
                            && buffer.bytes().starts_with(PREFACE)
                            && worker.speaks_h2c(down.local) =>
                    {
                        return Poll::Ready(Err(NoRequest::Http2));
                    }
                    Ok(Some(end)) => {
                        let mut messages = worker.messages.take();
                        let read = head::read(&buffer.bytes()[..end], limits.head, &mut messages.0);
                        buffer.consume(end);
                        *head_took = head_since.map(|it| it.elapsed());
                        return Poll::Ready(match read {
                            Ok(()) => Ok(messages),
                            Err(refusal) => {
                                worker.messages.put(messages);
                                Err(NoRequest::Refused(refusal))
                            }
                        });
                    }
                    Ok(None) => {}
                    Err(refusal) => return Poll::Ready(Err(NoRequest::Refused(refusal))),
                }
                match buffer.poll_fill(io, cx, 0) {
                    Poll::Ready(Ok(1..)) => continue,
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(NoRequest::Over)),
                    Poll::Pending => {}
                }
                // A lone CR may be half of an empty line.
                if matches!(buffer.bytes(), [] | b"\r") {
                    if place.is_gone() {
                        return Poll::Ready(Err(NoRequest::Over));
                    }
                    let stopping = worker.connections.idle_until();
                    let stopping = stopping.map(|it| late.map_or(it, |late| late.max(it)));
                    let until = stopping.map_or(idle_until, |it| it.min(idle_until));
                    ready!(timer.poll(cx, until));
                    return Poll::Ready(Err(NoRequest::Over));
                }
                let since = *head_since.get_or_insert_with(Instant::now);
                let until = since + limits.head_timeout;
                ready!(timer.poll(cx, until));
                return Poll::Ready(Err(NoRequest::Refused(Refusal::close(
                    Reason::RequestTimeout,
                    "the request head did not arrive in time",
                ))));
            }
        })
        .await
    }

    async fn exchange(&mut self, messages: &mut (Request, Response)) -> Next {
        let (request, response) = messages;
        let mut body = Body::of_request(request.framing);
        let from = Incoming::H1(Source::new(&self.io, &mut self.buffer, &mut body));
        let to = Outgoing::h1(Sink::new(&self.io, &mut self.out));
        let (io, counted) = (&self.io, self.counted);
        let scope = exchange::Scope {
            worker: &self.worker,
            down: &self.down,
            timer: &mut self.timer,
            head: self.head_took,
            bytes: &|| (io.read() - counted.0, io.written() - counted.1),
        };
        let (next, idle_timeout) = exchange::serve(scope, request, response, from, to).await;
        self.idle_timeout = idle_timeout.unwrap_or(self.idle_timeout);
        match next {
            // Where the next request would begin is not known.
            Next::Keep | Next::Close { .. } if !body.is_done() => Next::Close { unread: true },
            Next::Abort => {
                self.io.close_abruptly();
                Next::Abort
            }
            next => next,
        }
    }

    fn count(&mut self) {
        let now = (self.io.read(), self.io.written());
        self.worker
            .stats
            .bytes(now.0 - self.counted.0, now.1 - self.counted.1);
        self.counted = now;
    }

    async fn flush(&mut self) -> io::Result<()> {
        let until = Instant::now() + LINGER;
        let mut sink = Sink::new(&self.io, &mut self.out);
        let flushed = self.timer.limit(until, sink.flush()).await;
        flushed.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
        poll_fn(|cx| self.io.poll_shutdown(cx)).await
    }

    /// Reads and drops what the client still sends.
    async fn linger(&mut self) {
        let until = Instant::now() + LINGER;
        let Self { io, buffer, .. } = self;
        let mut left = LINGER_BYTES;
        let drop = poll_fn(|cx: &mut Context<'_>| {
            loop {
                left = left.saturating_sub(buffer.bytes().len());
                buffer.consume(usize::MAX);
                if left == 0 {
                    return Poll::Ready(());
                }
                match ready!(buffer.poll_fill(io, cx, 0)) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Poll::Ready(()),
                }
            }
        });
        self.timer.limit(until, drop).await;
    }
}
