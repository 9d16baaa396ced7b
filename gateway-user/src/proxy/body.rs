//! Bodies on their way through: streamed, never collected, and never completed unless they were complete.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{
    exchanges::{Exchanges, InFlight},
    upstream::Lease,
};

/// RFC 9110 section 10.1.1: a client does not wait for 100 (Continue) forever.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// An upload slower than this is a way to hold a place, not to send something.
const LEAST_BYTES_PER_SECOND: u128 = 240;

/// Why a body ended before its end.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// How far a request body got; shared by the body (which the backend's connection owns) and the exchange.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    /// When a frame was last handed over, in microseconds after `started`.
    moved_us: AtomicU64,
    /// Bytes of data handed over.
    bytes: AtomicU64,
    /// How long the client was waited for, in microseconds, up to the last frame.
    waited_us: AtomicU64,
    /// Since when it is being waited for, in microseconds after `started`; meaningful while `starved`.
    waiting_since_us: AtomicU64,
    /// The last frame was handed over.
    done: AtomicBool,
    /// The exchange is over; what is left of the body is not sent.
    aborted: AtomicBool,
    /// The backend said 100 (Continue), or there is nothing to wait for.
    go: AtomicBool,
    /// The client is being waited for.
    starved: AtomicBool,
    waker: AtomicWaker,
}

impl Progress {
    pub(super) fn done(&self) -> bool {
        self.done.load(Relaxed)
    }

    pub(super) fn starved(&self) -> bool {
        self.starved.load(Relaxed)
    }

    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            moved_us: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
            waiting_since_us: AtomicU64::new(0),
            done: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            go: AtomicBool::new(true),
            starved: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Bytes handed over so far, and how long the client was waited for. Time the backend takes is not part of it.
    pub(super) fn pace(&self) -> Pace {
        let mut waited_us = self.waited_us.load(Relaxed);
        if self.starved() {
            waited_us += self
                .now_us()
                .saturating_sub(self.waiting_since_us.load(Relaxed));
        }
        Pace {
            bytes: self.bytes.load(Relaxed),
            waited: Duration::from_micros(waited_us),
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The client is waited for from now on.
    fn starve(&self) {
        if !self.starved.swap(true, Relaxed) {
            self.waiting_since_us.store(self.now_us(), Relaxed);
        }
    }

    /// The client sent something.
    fn feed(&self, bytes: usize) {
        let now = self.now_us();
        if self.starved.swap(false, Relaxed) {
            let waited = now.saturating_sub(self.waiting_since_us.load(Relaxed));
            self.waited_us.fetch_add(waited, Relaxed);
        }
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.moved_us.store(now, Relaxed);
    }

    /// When something last moved.
    pub(super) fn moved_at(&self) -> Instant {
        self.started + Duration::from_micros(self.moved_us.load(Relaxed))
    }

    pub(super) fn go(&self) {
        self.go.store(true, Relaxed);
        self.waker.wake();
    }

    pub(super) fn abort(&self) {
        if !self.done() {
            self.aborted.store(true, Relaxed);
            self.waker.wake();
        }
    }
}

/// What a client sent and how long that was waited for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    bytes: u64,
    waited: Duration,
}

impl Pace {
    /// Whether the client sent less than `LEAST_BYTES_PER_SECOND` since `before`, while it was waited for.
    pub(super) fn drips_since(&self, before: Self) -> bool {
        let waited_ms = self.waited.saturating_sub(before.waited).as_millis();
        let bytes = self.bytes.saturating_sub(before.bytes);
        u128::from(bytes) * 1000 < waited_ms * LEAST_BYTES_PER_SECOND
    }
}

/// A request body towards a backend.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// No body.
    Empty,
    /// As it arrives from the client.
    Stream(RequestStream),
}

#[derive(Debug)]
pub(super) struct RequestStream {
    incoming: Incoming,
    exchanges: Arc<Exchanges>,
    number: u64,
    progress: Arc<Progress>,
    /// Ends the wait for 100 (Continue).
    patience: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub(super) fn stream(
        incoming: Incoming,
        exchanges: Arc<Exchanges>,
        number: u64,
        progress: Arc<Progress>,
        expects: bool,
    ) -> Self {
        let patience = expects.then(|| Box::pin(tokio::time::sleep(CONTINUE_WAIT)));
        progress.go.store(!expects, Relaxed);
        Self::Stream(RequestStream {
            incoming,
            exchanges,
            number,
            progress,
            patience,
        })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self::Stream(stream) = self.get_mut() else {
            return Poll::Ready(None);
        };
        let progress = &stream.progress;
        progress.waker.register(cx.waker());
        if progress.aborted.load(Relaxed) {
            return Poll::Ready(Some(Err(
                "the exchange ended before the request body".into()
            )));
        }
        if let Some(patience) = &mut stream.patience {
            if !progress.go.load(Relaxed) && patience.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            stream.patience = None;
        }
        let polled = Pin::new(&mut stream.incoming).poll_frame(cx);
        if polled.is_pending() {
            progress.starve();
        }
        let frame = match std::task::ready!(polled) {
            Some(Ok(frame)) => {
                progress.feed(frame.data_ref().map_or(0, Bytes::len));
                Some(Ok(frame))
            }
            Some(Err(err)) => Some(Err(err.into())),
            // The codec also ends the stream when the connection is torn down; only the gate knows a real end.
            None if stream.exchanges.body_complete(stream.number) => {
                progress.done.store(true, Relaxed);
                None
            }
            None => Some(Err(
                "the client left before the end of its request body".into()
            )),
        };
        if stream.incoming.is_end_stream() && stream.exchanges.body_complete(stream.number) {
            progress.done.store(true, Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(stream) => stream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(stream) => stream.incoming.size_hint(),
        }
    }
}

/// A response body towards the client, with what must be held until it is written.
#[derive(Debug)]
pub(super) struct ResponseBody {
    source: Source,
    lease: Option<Lease>,
    in_flight: Option<InFlight>,
}

#[derive(Debug)]
enum Source {
    Full(Option<Bytes>),
    Stream(Incoming),
}

impl ResponseBody {
    pub(super) fn full(bytes: Bytes) -> Self {
        Self {
            source: Source::Full((!bytes.is_empty()).then_some(bytes)),
            lease: None,
            in_flight: None,
        }
    }

    pub(super) fn stream(incoming: Incoming, lease: Lease) -> Self {
        let mut body = Self {
            source: Source::Stream(incoming),
            lease: Some(lease),
            in_flight: None,
        };
        body.release_at_end();
        body
    }

    pub(super) fn hold(mut self, in_flight: InFlight) -> Self {
        self.in_flight = Some(in_flight);
        self
    }

    /// A backend's connection whose response is complete may serve the next request.
    fn release_at_end(&mut self) {
        if let Source::Stream(incoming) = &self.source
            && incoming.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.release();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        match &mut body.source {
            Source::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Stream(incoming) => {
                let frame = std::task::ready!(Pin::new(incoming).poll_frame(cx));
                match &frame {
                    Some(Ok(_)) => body.release_at_end(),
                    Some(Err(_)) => {}
                    None => {
                        if let Some(lease) = body.lease.take() {
                            lease.release();
                        }
                    }
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(bytes) => bytes.is_none(),
            Source::Stream(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Source::Stream(incoming) => incoming.size_hint(),
        }
    }
}
