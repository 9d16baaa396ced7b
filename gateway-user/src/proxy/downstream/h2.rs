//! HTTP/2 with a client: one exchange for each stream, all on the connection's worker.

mod tasks;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    task::{Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, server};
use tokio::{task::yield_now, time::Instant};

pub(in crate::proxy) use self::tasks::Tasks;
use super::Downstream;
use crate::proxy::{
    abuse::Account,
    body::{Incoming, Outgoing},
    exchange::{self, Next},
    h1::Sink,
    http2::{Receiving, Sending, convert, duplex::Duplex, websocket},
    io::Io,
    message::Version,
    reason::Reason,
    reply::Reply,
    stats::ConnectionCount,
    timer::Timer,
    tunnel,
    worker::Worker,
};

/// Streams that a client may have open at once.
const STREAMS: u32 = 128;
/// So many of them need not wait for their turn.
const FEW: usize = 8;
/// Room for data of one stream, and of all of a connection, that the proxy has not handed on.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Answers of one connection that wait to be written, in bytes of each stream.
const SEND_BUFFER: usize = 128 * 1024;
/// CVE-2023-44487 (rapid reset), CVE-2025-8671 (MadeYouReset): beyond these the connection ends.
const PENDING_RESETS: usize = 32;
const LOCAL_RESETS: usize = 64;
/// Streams that were reset are known for so long: frames of theirs that are still on their way are no errors.
const KNOWN_RESETS: usize = 2 * STREAMS as usize;
const KNOWN: Duration = Duration::from_secs(5);
/// Points that a request takes which is none.
const MALFORMED: u32 = 20;
/// Who is told why the connection ends has this long to read it.
const CALMED: Duration = Duration::from_secs(1);
/// Who was told to go away, has no stream open, and does not.
const DRAIN: Duration = Duration::from_secs(30);

/// Serves to the end of the connection.
pub(in crate::proxy) async fn serve(
    worker: Rc<Worker>,
    (mut io, ahead): (Io, Vec<u8>),
    down: Downstream,
    idle_timeout: Duration,
    count: ConnectionCount,
) {
    let place = worker.connections.enter(down.local).await;
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(worker.limits.head.head_bytes).unwrap_or(u32::MAX))
        .enable_connect_protocol()
        .max_concurrent_reset_streams(KNOWN_RESETS)
        .reset_stream_duration(KNOWN)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(LOCAL_RESETS));
    let mut timer = Timer::default();
    let opened = Instant::now();
    let account = Rc::new(RefCell::new(Account::new(opened)));
    io.judge(&account);
    let until = opened + worker.limits.head_timeout;
    let handshake = async {
        begins(&io, ahead).await?;
        builder.handshake::<Io, Bytes>(io).await.ok()
    };
    let counted = Counted {
        account: &account,
        worker: &worker,
        count,
    };
    let Some(Some(mut connection)) = timer.limit(until, handshake).await else {
        return;
    };
    let down = Rc::new(down);
    let idle = Rc::new(Cell::new(idle_timeout));
    let mut told = false;
    let mut calmed = false;
    let mut idle_since = Instant::now();
    // Where many streams are open, others may soon have something to write, too: the event loop looks at its sockets once
    // before this connection goes on, and what is there by then goes out together.
    let mut slept = false;
    let mut turn = pin!(None);
    loop {
        let accepted = poll_fn(|cx| {
            if slept && down.open.get() > 1 {
                if turn.is_none() {
                    turn.set(Some(yield_now()));
                }
                if let Some(turn) = turn.as_mut().as_pin_mut() {
                    ready!(turn.poll(cx));
                }
                turn.set(None);
            }
            slept = true;
            loop {
                counted.count();
                if account.borrow().verdict().is_err() && !calmed {
                    calmed = true;
                    told = true;
                    idle_since = Instant::now();
                    worker.stats.reason(Reason::Flood);
                    connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                }
                if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                    return Poll::Ready(accepted);
                }
                if place.is_cut() {
                    return Poll::Ready(None);
                }
                if place.is_ending() && !told {
                    told = true;
                    idle_since = Instant::now();
                    connection.graceful_shutdown();
                    continue;
                }
                let span = match (calmed, told) {
                    (true, _) => CALMED,
                    (false, true) => DRAIN,
                    (false, false) => idle.get(),
                };
                // Streams have deadlines of their own, and tunnels that of the drain.
                if down.open.get() > 0 && !calmed {
                    idle_since = Instant::now();
                }
                ready!(timer.poll(cx, idle_since + span));
                if told {
                    return Poll::Ready(None);
                }
                told = true;
                idle_since = Instant::now();
                connection.graceful_shutdown();
            }
        })
        .await;
        slept = false;
        match accepted {
            Some(Ok((request, respond))) => {
                let stream = Stream {
                    request,
                    sending: Sending::answer(respond),
                    account: Rc::clone(&account),
                    worker: Rc::clone(&worker),
                    down: Rc::clone(&down),
                    idle: Rc::clone(&idle),
                    _open: Open::new(&down),
                };
                let crowd = down.open.get() > FEW;
                worker.stream_tasks.spawn(stream, crowd);
            }
            Some(Err(err)) => {
                tracing::debug!(client = %down.client, error = %err, "a client's HTTP/2 connection broke");
                return;
            }
            None => return,
        }
    }
}

/// RFC 9113 section 3.4: the preface, and then a SETTINGS frame before any other. The codec would take others too.
/// What was read is put back; `None`: the connection is over.
async fn begins(io: &Io, mut bytes: Vec<u8>) -> Option<()> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const TYPE: usize = PREFACE.len() + 3;
    const SETTINGS: u8 = 4;
    /// An empty SETTINGS, and GOAWAY with PROTOCOL_ERROR.
    const GOAWAY: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01";
    bytes.reserve(16 * 1024);
    loop {
        let known = bytes.len().min(PREFACE.len());
        let begins = bytes[..known] == PREFACE[..known];
        match bytes.get(TYPE) {
            _ if !begins => break,
            None => {}
            Some(&SETTINGS) => {
                io.unread(&bytes);
                return Some(());
            }
            Some(_) => break,
        }
        let read = poll_fn(|cx| io.poll_read(cx, &mut bytes)).await;
        if !matches!(read, Ok(1..)) {
            return None;
        }
    }
    let mut out = GOAWAY.to_vec();
    let mut sink = Sink::new(io, &mut out);
    // Who breaks the protocol from the start need not hear of it.
    let _ = sink.flush().await;
    let _ = poll_fn(|cx| io.poll_shutdown(cx)).await;
    None
}

/// Counts the bytes of a connection, also those of its end.
struct Counted<'a> {
    account: &'a RefCell<Account>,
    worker: &'a Worker,
    count: ConnectionCount,
}

impl Counted<'_> {
    fn count(&self) {
        let (read, written) = self.account.borrow_mut().moved();
        if read + written > 0 {
            self.worker.stats.bytes(read, written);
            self.count.bytes(read, written);
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.count();
    }
}

/// Counts a stream as open.
struct Open(Rc<Downstream>);

impl Open {
    fn new(down: &Rc<Downstream>) -> Self {
        down.open.set(down.open.get() + 1);
        if down.open.get() > 1 {
            down.crowded.set(true);
        }
        Self(Rc::clone(down))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// One request and its answer.
pub(in crate::proxy) struct Stream {
    request: http::Request<RecvStream>,
    sending: Sending,
    account: Rc<RefCell<Account>>,
    worker: Rc<Worker>,
    down: Rc<Downstream>,
    idle: Rc<Cell<Duration>>,
    _open: Open,
}

impl tasks::Job for Stream {
    async fn run(self) {
        let Self {
            request,
            sending,
            account,
            worker,
            down,
            idle: idle_timeout,
            _open,
        } = self;
        let worker = &worker;
        // What a client took back before its turn came is not begun: that would be work for nothing.
        if poll_fn(|cx| Poll::Ready(sending.poll_reset(cx).is_ready())).await {
            worker.stats.requests.fetch_add(1, Relaxed);
            worker.stats.reason(Reason::ClientGone);
            return;
        }
        let mut messages = worker.messages.take();
        let (head, response) = &mut *messages;
        let (parts, body) = request.into_parts();
        let ended = body.is_end_stream();
        sending.received(convert::request_size(&parts));
        let read = convert::request(&parts, ended, worker.limits.head, head);
        drop(parts);
        let to = Outgoing::h2(sending.clone());
        let mut switched = None;
        if let Err(refusal) = read {
            worker.stats.reason(refusal.reason);
            head.version = Version::Http2;
            let mut reply = Reply::new(to, head, true, &worker.stats);
            // Reading what is refused costs more than answering it.
            let _ = account.borrow_mut().charge(MALFORMED);
            let until = Instant::now() + worker.stall_timeout;
            // A client that left does not hear why.
            let _ = tokio::time::timeout_at(until, reply.refuse(refusal, response)).await;
        } else {
            let from = Receiving::new(body, Some(sending.clone()));
            let behind = head.upgrade.then(|| from.successor());
            if head.upgrade {
                websocket::offer(head, websocket::nonce());
            }
            let from = Incoming::H2(Box::new(from));
            let mut timer = worker.timers.take();
            let scope = exchange::Scope {
                worker,
                down: &down,
                timer: &mut timer,
                head: None,
                bytes: &|| sending.bytes(),
            };
            let (next, idle) = exchange::serve(scope, head, response, from, to).await;
            worker.timers.put(timer);
            if let Some(idle) = idle {
                idle_timeout.set(idle);
            }
            match next {
                Next::Keep => account.borrow_mut().answered(),
                Next::Tunnel(upstream) => switched = behind.zip(Some(upstream)),
                Next::Close { .. } | Next::Abort => sending.reset(h2::Reason::INTERNAL_ERROR),
            }
        }
        worker.messages.put(messages);
        if let Some((from, upstream)) = switched {
            let client = Duplex::new(from, sending.clone());
            tunnel::carry_stream(worker, down.local, client, &sending, *upstream).await;
        }
    }
}
