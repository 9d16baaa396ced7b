//! One request: rule, backend, attempt, answer.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Body, Incoming},
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE},
    http::{request, uri},
    upgrade::OnUpgrade,
};
use tokio::time::Instant;

use super::{
    body::{Progress, RequestBody, ResponseBody},
    framing::bad,
    gate::{Exchanges, InFlight},
    headers,
    matching::first_match,
    reason::{Reason, Refusal},
    tunnel,
    upstream::{self, Lease, Upstream},
    worker::{GroupState, Worker},
};

/// Backends tried for one request.
const TRIES: usize = 3;
/// How long a backend may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The client's side of a connection.
#[derive(Debug)]
pub(super) struct Downstream {
    /// What the client connected to; selects the listener.
    pub(super) local: SocketAddr,
    pub(super) client: SocketAddr,
    pub(super) exchanges: Arc<Exchanges>,
}

/// Answers one request. Never fails: what goes wrong is a response, or a broken body.
pub(super) async fn serve(worker: Rc<Worker>, down: Rc<Downstream>, request: Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
    let mut in_flight = Some(InFlight(Arc::clone(&down.exchanges)));
    worker.stats.requests.fetch_add(1, Relaxed);
    let line = tracing::enabled!(target: "fleetgate::access", tracing::Level::DEBUG).then(|| (Instant::now(), format!("{} {}", request.method(), request.uri())));

    let outcome = exchange(&worker, &down, request, &mut in_flight).await;
    let (response, reason) = match outcome {
        Ok(response) => (response, None),
        Err(refusal) => {
            // A body that breaks its framing looks like a broken exchange from here.
            let refusal = down.exchanges.refusal().unwrap_or(refusal);
            worker.stats.reason(refusal.reason);
            (refusal.response(), Some(refusal.reason))
        }
    };
    worker.stats.response(response.status());
    if let Some((started, line)) = line {
        tracing::debug!(
            target: "fleetgate::access",
            client = %down.client, listener = %down.local, request = line, status = response.status().as_u16(),
            reason = reason.map(Reason::label), head_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            "request"
        );
    }
    Ok(match in_flight {
        Some(in_flight) => response.map(|body| body.hold(in_flight)),
        None => response,
    })
}

/// What an exchange is about, apart from the request itself.
struct Subject<'a> {
    worker: &'a Worker,
    down: &'a Downstream,
    group: Rc<GroupState>,
    progress: Option<Arc<Progress>>,
    started: Instant,
    timeout: Duration,
    replayable: bool,
}

async fn exchange(worker: &Worker, down: &Downstream, mut request: Request<Incoming>, in_flight: &mut Option<InFlight>) -> Result<Response<ResponseBody>, Refusal> {
    let current = worker.current();
    let routes = current.table.routes(down.local).ok_or(Refusal::keep(Reason::NoListener, "nothing is served at this address and port"))?;
    let listener = &routes.listener;
    down.exchanges.idle_timeout(listener.idle_timeout);

    let upgrade = down.exchanges.offers_upgrade().then(|| hyper::upgrade::on(&mut request));
    let (mut parts, incoming) = request.into_parts();
    parts.extensions.clear();
    let authority = normalise(&mut parts, down.local)?;
    let host = headers::host_of(authority.to_str().unwrap_or_default()).unwrap_or_default();
    let rule = first_match(listener, host, parts.uri.path(), &parts.headers)
        .ok_or(Refusal::keep(Reason::NoRule, "no rule of this listener matches the request"))?;
    let group = routes.groups.get(rule).and_then(|index| worker.group(&current, *index));
    let group = group.filter(|state| !state.group.backends.is_empty()).ok_or(Refusal::keep(Reason::NoServer, "the rule matched, but no backend is ready"))?;

    let empty = incoming.is_end_stream();
    let expects = !empty && parts.version == Version::HTTP_11 && parts.headers.contains_key(EXPECT);
    headers::prepare_request(&mut parts.headers, listener, down.client, authority.to_str().unwrap_or_default(), upgrade.is_some(), expects);
    parts.version = Version::HTTP_11;

    let started = Instant::now();
    let progress = (!empty).then(|| Arc::new(Progress::new(started)));
    let body = match &progress {
        None => RequestBody::Empty,
        Some(progress) => RequestBody::stream(incoming, Arc::clone(&down.exchanges), down.exchanges.current(), Arc::clone(progress), expects),
    };
    let replayable = empty && matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE) && upgrade.is_none();
    let mut request = Request::from_parts(parts, body);
    if let Some(progress) = progress.clone().filter(|_| expects) {
        hyper::ext::on_informational(&mut request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                progress.go();
            }
        });
    }
    let subject = Subject { worker, down, group, progress, started, timeout: listener.request_timeout, replayable };
    let (response, upstream) = attempt(&subject, request).await?;
    answer(&subject, response, upstream, upgrade, in_flight)
}

/// Checks Host and target, and rewrites an absolute-form target. Returns the authority the client asked for.
fn normalise(parts: &mut request::Parts, local: SocketAddr) -> Result<HeaderValue, Refusal> {
    if let Some(authority) = parts.uri.authority() {
        // RFC 9112 section 3.2.2: the target's authority replaces whatever Host says.
        let value = HeaderValue::from_str(authority.as_str()).map_err(|_| bad("the target's authority is not a host"))?;
        parts.headers.insert(HOST, value);
        let mut origin = uri::Parts::default();
        origin.path_and_query = parts.uri.path_and_query().cloned().or(Some(uri::PathAndQuery::from_static("/")));
        parts.uri = uri::Uri::from_parts(origin).map_err(|_| bad("the target's path is malformed"))?;
    }
    let value = match parts.headers.get(HOST) {
        Some(value) => value.clone(),
        None => {
            // Only HTTP/1.0 comes here; HTTP/1.1 towards the backend must name a host.
            let local = HeaderValue::from_str(&local.to_string()).map_err(|_| bad("Host is missing"))?;
            parts.headers.insert(HOST, local);
            HeaderValue::from_static("")
        }
    };
    let valid = value.to_str().is_ok_and(|authority| headers::host_of(authority).is_some());
    if valid { Ok(value) } else { Err(bad("Host is not a host with an optional port")) }
}

/// Sends the request to a backend, and to another one where that is safe: the request was not sent yet, or it
/// is idempotent, has no body, and met a pooled connection that closed before its first response byte.
async fn attempt(subject: &Subject<'_>, mut request: Request<RequestBody>) -> Result<(Response<Incoming>, Upstream), Refusal> {
    let worker = subject.worker;
    let mut tried: Vec<usize> = Vec::new();
    let mut failure = Refusal::keep(Reason::NoServer, "the rule matched, but no backend is ready");
    while tried.len() < TRIES {
        let Some(index) = worker.pick(&subject.group, subject.down.client.ip(), &tried, subject.started) else { break };
        let Some(address) = subject.group.group.backends.get(index).map(|backend| backend.address) else { break };
        let mut pooled = worker.pool.take(address, subject.started, !subject.replayable);
        loop {
            let mut upstream = match pooled.take() {
                Some(upstream) => upstream,
                None => match upstream::connect(address, CONNECT_TIMEOUT.min(subject.timeout)).await {
                    Ok(upstream) => upstream,
                    Err(err) => {
                        failure = refused(worker, address, &err);
                        tried.push(index);
                        worker.stats.retries.fetch_add(1, Relaxed);
                        break;
                    }
                },
            };
            let counter = if upstream.reused { &worker.stats.upstream_reused } else { &worker.stats.upstream_opened };
            counter.fetch_add(1, Relaxed);
            let spare = (upstream.reused && subject.replayable).then(|| copy_without_body(&request));
            let received = upstream.socket.received();
            match send(subject, &mut upstream, request).await {
                Ok(response) => {
                    subject.group.count(index);
                    return Ok((response, upstream));
                }
                Err(Failure::Timeout(refusal)) => return Err(refusal),
                Err(Failure::Unsent(unsent)) if upstream.reused => request = *unsent,
                Err(Failure::Closed) if upstream.reused && upstream.socket.received() == received && spare.is_some() => match spare {
                    Some(spare) => request = spare,
                    None => return Err(CLOSED),
                },
                Err(Failure::Malformed) => return Err(Refusal::keep(Reason::BadResponse, "the backend's answer is not HTTP/1.x")),
                Err(Failure::Closed | Failure::Unsent(_)) => return Err(CLOSED),
            }
            // Once more, to the same backend, on a connection that is new.
            worker.stats.retries.fetch_add(1, Relaxed);
        }
    }
    Err(failure)
}

const CLOSED: Refusal = Refusal::keep(Reason::BackendClosed, "the backend closed the connection before it answered");

enum Failure {
    /// Not a byte of it was written; here it is again.
    Unsent(Box<Request<RequestBody>>),
    Closed,
    Malformed,
    Timeout(Refusal),
}

/// Sends on one connection and waits for the response head.
async fn send(subject: &Subject<'_>, upstream: &mut Upstream, request: Request<RequestBody>) -> Result<Response<Incoming>, Failure> {
    let mut deadline = subject.started + subject.timeout;
    let exchanges = &subject.down.exchanges;
    exchanges.awaiting.store(true, Relaxed);
    let _awaiting = Awaiting(exchanges);
    let exchange = async {
        // The codec of a pooled connection may have one more turn to take before it is free.
        if upstream.sender.ready().await.is_err() {
            return Err(Failure::Unsent(Box::new(request)));
        }
        upstream.sender.try_send_request(request).await.map_err(|mut err| match err.take_message() {
            Some(request) => Failure::Unsent(Box::new(request)),
            None if err.error().is_parse() => Failure::Malformed,
            None => Failure::Closed,
        })
    };
    tokio::pin!(exchange);
    loop {
        match tokio::time::timeout_at(deadline, &mut exchange).await {
            Ok(outcome) => return outcome,
            Err(_) => {
                // An upload that moves is not late: the backend's time runs from the body's last byte.
                let moved = subject.progress.as_ref().map_or(subject.started, |progress| progress.moved_at());
                let extended = moved + subject.timeout;
                if extended > deadline {
                    deadline = extended;
                    continue;
                }
                let client_is_late = subject.progress.as_ref().is_some_and(|progress| !progress.done() && progress.starved());
                return Err(Failure::Timeout(if client_is_late {
                    Refusal::close(Reason::RequestTimeout, "the request body did not arrive in time")
                } else {
                    Refusal::keep(Reason::Timeout, "the backend did not answer in time")
                }));
            }
        }
    }
}

struct Awaiting<'a>(&'a Exchanges);

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.awaiting.store(false, Relaxed);
    }
}

fn copy_without_body(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn refused(worker: &Worker, address: SocketAddr, err: &io::Error) -> Refusal {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};
    tracing::debug!(backend = %address, error = %err, "cannot connect to a backend");
    if matches!(err.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable | TimedOut) {
        worker.mark(address);
    }
    if err.kind() == TimedOut {
        Refusal::keep(Reason::ConnectTimeout, "the backends did not accept a connection in time")
    } else {
        Refusal::keep(Reason::ConnectRefused, "the backends refused the connection")
    }
}

/// Makes the backend's response the client's.
fn answer(
    subject: &Subject<'_>,
    mut response: Response<Incoming>,
    upstream: Upstream,
    upgrade: Option<OnUpgrade>,
    in_flight: &mut Option<InFlight>,
) -> Result<Response<ResponseBody>, Refusal> {
    let mut lease = Lease { upstream: Some(upstream), pool: Rc::clone(&subject.worker.pool), progress: subject.progress.clone(), keep: false };
    if response.headers().contains_key(TRANSFER_ENCODING) && response.headers().contains_key(CONTENT_LENGTH) {
        return Err(Refusal::keep(Reason::BadResponse, "the backend framed its answer in two ways"));
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (Some(client), Some(in_flight)) = (upgrade, in_flight.take()) else {
            return Err(Refusal::close(Reason::BadResponse, "the backend left HTTP without being asked to"));
        };
        let protocol = response.headers().get(UPGRADE).cloned();
        let backend = hyper::upgrade::on(&mut response);
        let (mut parts, _) = response.into_parts();
        headers::remove_hop_by_hop(&mut parts.headers);
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            parts.headers.insert(UPGRADE, protocol);
        }
        let exchanges = Arc::clone(&subject.down.exchanges);
        exchanges.grant_upgrade();
        subject.worker.stats.upgrades.fetch_add(1, Relaxed);
        tokio::task::spawn_local(tunnel::carry(client, backend, exchanges, subject.worker.stall_timeout, in_flight));
        return Ok(Response::from_parts(parts, ResponseBody::full(bytes::Bytes::new())));
    }
    let keep = response.version() == Version::HTTP_11 && !headers::says_close(response.headers());
    let (mut parts, incoming) = response.into_parts();
    headers::remove_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    lease.keep = keep;
    Ok(Response::from_parts(parts, ResponseBody::stream(incoming, lease)))
}
