//! The agent's small HTTP server: probes, metrics, and its view as JSON.
//!
//! Invariant: read-only. It is bound to loopback unless an operator says otherwise, speaks to few
//! clients at once, and waits for none of them for long.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, Semaphore},
    time::{sleep, timeout},
};

use crate::{cli::views, dataplane::record::Record, metrics::Metrics, proxy::StatsSnapshot};

/// Connections at once; more wait in the listener's backlog.
const CONNECTIONS: usize = 64;
/// A client's request head must arrive within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection ends after this long, whatever it does.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after a failed accept (no descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Largest request head, in bytes.
const HEAD_BYTES: usize = 16 * 1024;

/// What the server shows.
pub struct AdminState {
    ready: Box<dyn Fn() -> bool + Send + Sync>,
    record: Box<dyn Fn() -> Arc<Record> + Send + Sync>,
    proxy: Box<dyn Fn() -> StatsSnapshot + Send + Sync>,
    metrics: Metrics,
    /// One scrape at a time: each reads all maps.
    scraping: Mutex<()>,
}

impl AdminState {
    /// `ready`: the plan is in the kernel. `record`: the agent's view at this moment. `proxy`: what the proxy counted.
    pub fn new(
        ready: impl Fn() -> bool + Send + Sync + 'static,
        record: impl Fn() -> Arc<Record> + Send + Sync + 'static,
        proxy: impl Fn() -> StatsSnapshot + Send + Sync + 'static,
        metrics: Metrics,
    ) -> Self {
        Self {
            ready: Box::new(ready),
            record: Box::new(record),
            proxy: Box::new(proxy),
            metrics,
            scraping: Mutex::new(()),
        }
    }
}

/// Serves until it is dropped. Needs a tokio runtime with io and time.
pub async fn serve(listener: TcpListener, state: Arc<AdminState>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = Arc::clone(&state);
                tokio::spawn(async move {
                    let _slot = slot;
                    connection(stream, state).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin server cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, state: Arc<AdminState>) {
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(&request, state).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // A client that went away, or was too slow, is its own affair.
    let _ = timeout(CONNECTION_TIMEOUT, served).await;
}

async fn answer(request: &Request<Incoming>, state: Arc<AdminState>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refused
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" if (state.ready)() => text(StatusCode::OK, "ready\n"),
        "/readyz" => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the plan is not in the kernel yet\n",
        ),
        "/metrics" => scrape(state).await,
        "/problems" => {
            let record = (state.record)();
            json(&Problems {
                problems: &record.problems,
                warnings: &record.warnings,
            })
        }
        "/routes" => {
            let record = (state.record)();
            json(&views::routes(&record.ir, &record.vips, &record.plan))
        }
        "/proxy" => json(&(state.proxy)()),
        _ => text(
            StatusCode::NOT_FOUND,
            "try /healthz, /readyz, /metrics, /problems, /routes or /proxy\n",
        ),
    }
}

#[derive(Serialize)]
struct Problems<'a> {
    problems: &'a [crate::problem::Problem],
    warnings: &'a [String],
}

async fn scrape(state: Arc<AdminState>) -> Response<Full<Bytes>> {
    let shown = Arc::clone(&state);
    let _one = state.scraping.lock().await;
    // Reads maps: thousands of system calls on a large node.
    let scraped = tokio::task::spawn_blocking(move || shown.metrics.text()).await;
    match scraped {
        Ok(Ok(body)) => response(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            body,
        ),
        _ => text(StatusCode::INTERNAL_SERVER_ERROR, "the scrape failed\n"),
    }
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string(value) {
        Ok(body) => response(StatusCode::OK, "application/json", body),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "not representable\n"),
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body)
}

fn response(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::atomic::{AtomicBool, Ordering::Relaxed},
    };

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{cli::views::sample, metrics::Scrape};

    async fn ask(at: SocketAddr, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn start(ready: Arc<AtomicBool>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let record = Arc::new(sample::record());
        let state = AdminState::new(
            move || ready.load(Relaxed),
            move || Arc::clone(&record),
            StatsSnapshot::default,
            Metrics::new(Scrape::default),
        );
        tokio::spawn(serve(listener, Arc::new(state)));
        at
    }

    #[tokio::test]
    async fn readiness_follows_the_plan_and_health_does_not() {
        let ready = Arc::new(AtomicBool::new(false));
        let at = start(Arc::clone(&ready)).await;
        assert!(ask(at, "GET", "/readyz").await.starts_with("HTTP/1.1 503"));
        assert!(ask(at, "GET", "/healthz").await.starts_with("HTTP/1.1 200"));
        ready.store(true, Relaxed);
        assert!(ask(at, "GET", "/readyz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn metrics_problems_and_routes_are_served_and_nothing_else() {
        let at = start(Arc::default()).await;
        let metrics = ask(at, "GET", "/metrics").await;
        assert!(metrics.contains("openmetrics-text") && metrics.ends_with("# EOF\n"));
        assert!(ask(at, "GET", "/problems").await.contains("create it"));
        assert!(ask(at, "GET", "/routes").await.contains("\"demo:80/HTTP\""));
        assert!(ask(at, "GET", "/proxy").await.contains("\"requests\":0"));
        assert!(ask(at, "GET", "/").await.starts_with("HTTP/1.1 404"));
        assert!(
            ask(at, "POST", "/healthz")
                .await
                .starts_with("HTTP/1.1 405")
        );
    }
}
