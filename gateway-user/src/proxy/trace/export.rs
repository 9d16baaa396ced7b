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

use super::{Sample, Span, Tracer};

pub use endpoint::Endpoint;

/// Spans that wait for the thread, some 8 MiB.
const WAITING: usize = 8192;
/// Spans of one request to the collector.
const BATCH: usize = 512;
/// A span waits this long for others to go with it. Nobody wakes the thread meanwhile.
const LINGER: Duration = Duration::from_millis(500);
/// Between the two attempts to deliver a batch.
const PAUSE: Duration = Duration::from_secs(1);
/// Warnings are this far apart.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Traces that end wait this long for what is still to be sent.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Bytes kept of a text.
const TEXT_BYTES: usize = 1024;

/// Text from outside as a span keeps it: up to 1 KiB.
pub(in crate::proxy) fn text(bytes: &[u8]) -> Box<str> {
    let bytes = &bytes[..bytes.len().min(TEXT_BYTES)];
    String::from_utf8_lossy(bytes).into()
}

/// The proxy's span of one request, when it has ended.
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
    /// Version of HTTP that the client spoke: `1.0`, `1.1` or `2`.
    pub version: &'static str,
    /// Host of the request, without its port.
    pub host: Box<str>,
    /// Port of the listener.
    pub port: u16,
    /// Path without the query, which often holds what is nobody's business.
    pub path: Box<str>,
    /// `User-Agent`; empty if there was none.
    pub user_agent: Box<str>,
    /// Status code sent to the client; 0 if none was.
    pub status: u16,
    /// Label of the reason if the proxy answered by itself, or ended the exchange early.
    pub reason: Option<&'static str>,
    /// The answer did not come to its end.
    pub aborted: bool,
    /// The client.
    pub client: SocketAddr,
    /// Who connected.
    pub peer: SocketAddr,
    /// Name of the listener; empty if there was none.
    pub listener: Box<str>,
    /// `namespace/name` of the Ingress, and the number of the rule in its listener, from 1.
    pub rule: Option<(Arc<str>, u32)>,
    /// `namespace/name:port` of the service; empty if none was chosen.
    pub service: Box<str>,
    /// Member cluster of the backend; likewise.
    pub cluster: Box<str>,
    /// The backend that was tried last.
    pub backend: Option<SocketAddr>,
    /// Backends that were tried.
    pub attempts: u32,
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

/// Who gets the spans, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct Collector {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// What the gateway is called there (`service.name`).
    pub service: String,
    /// Tells the gateway nodes apart (`service.instance.id`).
    pub node: String,
    /// Which of the traces that begin here are recorded.
    pub sample: Sample,
}

/// Where a worker gives its spans.
#[derive(Clone, Debug)]
pub(super) struct Exporter {
    spans: SyncSender<Finished>,
    counters: Arc<Counters>,
}

impl Exporter {
    /// Gives a span to be sent. Never waits.
    pub(super) fn send(&self, span: Finished) {
        if self.spans.try_send(span).is_err() {
            self.counters.lost.fetch_add(1, Relaxed);
        }
    }
}

#[derive(Debug)]
struct Running {
    sample: Sample,
    exporter: Exporter,
    /// Hangs up when nobody is to linger any more.
    stop: SyncSender<()>,
    /// Hangs up when the thread ends.
    ended: Receiver<()>,
}

/// Spans on their way to a collector. What workers have of it outlives it harmlessly.
#[derive(Debug)]
pub struct Traces {
    running: Option<Running>,
    counters: Arc<Counters>,
}

impl Traces {
    /// No traces: requests keep the context that they came with.
    pub fn off() -> Self {
        Self {
            running: None,
            counters: Arc::default(),
        }
    }

    /// Starts the thread that sends; without a collector there is none.
    pub fn start(collector: Option<&Collector>) -> io::Result<Self> {
        let Some(collector) = collector.cloned() else {
            return Ok(Self::off());
        };
        let (spans, waiting) = sync_channel(WAITING);
        let (stop, stopped) = sync_channel(0);
        let (alive, ended) = sync_channel(0);
        let counters = Arc::new(Counters::default());
        let (sample, counting) = (collector.sample, Arc::clone(&counters));
        thread::Builder::new()
            .name("otlp".to_owned())
            .spawn(move || {
                run(&waiting, &stopped, &collector, &counting);
                drop(alive);
            })?;
        let exporter = Exporter {
            spans,
            counters: Arc::clone(&counters),
        };
        let running = Some(Running {
            sample,
            exporter,
            stop,
            ended,
        });
        Ok(Self { running, counters })
    }

    /// What a worker traces with; `None` if there are no traces.
    pub(in crate::proxy) fn worker(&self) -> Option<Tracer> {
        let running = self.running.as_ref()?;
        Some(Tracer::new(running.sample, running.exporter.clone()))
    }

    /// What became of the spans; they go on counting.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Waits until what workers gave is sent, two seconds at most. To be called when they are gone.
    pub fn finish(self) {
        let Some(running) = self.running else { return };
        let Running {
            exporter,
            stop,
            ended,
            ..
        } = running;
        drop((exporter, stop));
        // An error is the thread's end, which is what is waited for.
        if ended.recv_timeout(LAST_WORDS) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the collector of traces is too slow: the last spans are lost");
        }
    }
}

/// Sends until every exporter is gone.
fn run(
    waiting: &Receiver<Finished>,
    stopped: &Receiver<()>,
    collector: &Collector,
    counters: &Counters,
) {
    let mut warned: Option<Instant> = None;
    let mut behind = false;
    while let Ok(first) = waiting.recv() {
        if !behind {
            // Nobody says anything here: it times out, or has hung up, and then nobody lingers.
            let _ = stopped.recv_timeout(LINGER);
        }
        let mut batch = vec![first];
        batch.extend(waiting.try_iter().take(BATCH - 1));
        behind = batch.len() == BATCH;
        let count = batch.len() as u64;
        match deliver(&batch, collector) {
            Ok(()) => {
                counters.sent.fetch_add(count, Relaxed);
            }
            Err(error) => {
                counters.lost.fetch_add(count, Relaxed);
                if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                    warned = Some(Instant::now());
                    let endpoint = &collector.endpoint;
                    tracing::warn!(%endpoint, %error, "spans are lost: the collector did not take them");
                }
            }
        }
    }
}

fn deliver(batch: &[Finished], collector: &Collector) -> Result<(), endpoint::Refused> {
    let body = document::document(batch, &collector.service, &collector.node).to_string();
    let endpoint = &collector.endpoint;
    endpoint.post(body.as_bytes()).or_else(|error| {
        if !error.passing() {
            return Err(error);
        }
        thread::sleep(PAUSE);
        endpoint.post(body.as_bytes())
    })
}

#[cfg(test)]
mod tests;
