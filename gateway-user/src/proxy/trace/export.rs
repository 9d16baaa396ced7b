//! Sends finished spans to a collector: OTLP 1.x over HTTP, as JSON.
//!
//! `worker: Finished -> bounded channel -> one thread -> POST /v1/traces`. Invariant: nobody waits for the collector. What
//! does not fit the channel, and what the collector refuses twice, is counted as lost.

mod document;
mod endpoint;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::Span;

pub use endpoint::Endpoint;

/// Spans that wait for the thread.
const WAITING: usize = 4096;
/// Spans of one request to the collector.
const BATCH: usize = 512;
/// A span waits this long for others to go with it.
const LINGER: Duration = Duration::from_secs(2);
/// Between the two attempts to deliver a batch.
const PAUSE: Duration = Duration::from_secs(1);
/// Warnings are this far apart.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The proxy's span of one request, when it has ended. Texts are shown up to 1 KiB.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its place in the trace.
    pub span: Span,
    /// When it began, in nanoseconds since 1970.
    pub start_unix_ns: u64,
    /// How long it took.
    pub duration: Duration,
    /// Method of the request.
    pub method: Box<str>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Host of the request, without its port.
    pub host: Box<str>,
    /// Path without the query, which often holds what is nobody's business.
    pub path: Box<str>,
    /// Status code sent to the client; 0 if none was.
    pub status: u16,
    /// Label of the reason if the proxy answered by itself.
    pub reason: Option<&'static str>,
    /// The client.
    pub client: SocketAddr,
    /// `namespace/name:port` of the service; empty if none was chosen.
    pub service: Box<str>,
    /// Member cluster of the backend; likewise.
    pub cluster: Box<str>,
    /// The backend that was tried last.
    pub backend: Option<SocketAddr>,
}

/// What became of the spans.
#[derive(Debug, Default)]
pub struct Counters {
    sent: AtomicU64,
    lost: AtomicU64,
}

impl Counters {
    /// Spans that the collector took.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Spans lost: too many at once, or the collector was away or refused them.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

/// Where workers give their spans; clones lead to the same collector.
#[derive(Clone, Debug)]
pub struct Exporter {
    spans: SyncSender<Finished>,
    counters: Arc<Counters>,
}

impl Exporter {
    /// Starts the thread. It ends when all clones are gone, with what was given until then.
    ///
    /// `node` tells the gateway nodes apart (`service.instance.id`).
    pub fn start(endpoint: Endpoint, node: String) -> io::Result<Self> {
        let (spans, waiting) = sync_channel(WAITING);
        let counters = Arc::new(Counters::default());
        let counting = Arc::clone(&counters);
        thread::Builder::new()
            .name("otlp".to_owned())
            .spawn(move || run(&waiting, &endpoint, &node, &counting))?;
        Ok(Self { spans, counters })
    }

    /// Gives a span to be sent, if it is sampled. Never waits.
    pub fn send(&self, span: Finished) {
        if span.span.sampled && self.spans.try_send(span).is_err() {
            self.counters.lost.fetch_add(1, Relaxed);
        }
    }

    /// What became of the spans.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
}

fn run(waiting: &Receiver<Finished>, endpoint: &Endpoint, node: &str, counters: &Counters) {
    let mut warned: Option<Instant> = None;
    while let Ok(first) = waiting.recv() {
        let until = Instant::now() + LINGER;
        let mut batch = vec![first];
        while batch.len() < BATCH {
            match waiting.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(span) => batch.push(span),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        let count = batch.len() as u64;
        let body = document::document(&batch, node).to_string();
        let delivered = endpoint.post(body.as_bytes()).or_else(|error| {
            if !error.passing() {
                return Err(error);
            }
            thread::sleep(PAUSE);
            endpoint.post(body.as_bytes())
        });
        match delivered {
            Ok(()) => {
                counters.sent.fetch_add(count, Relaxed);
            }
            Err(error) => {
                counters.lost.fetch_add(count, Relaxed);
                if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                    warned = Some(Instant::now());
                    tracing::warn!(%endpoint, %error, "spans are lost: the collector did not take them");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
