//! Sending a request to a backend, and once more where that is safe.

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use hyper::{Request, Response, body::Incoming};
use tokio::time::Instant;

use super::{
    body::{Pace, Progress, RequestBody},
    exchange::Downstream,
    exchanges::Exchanges,
    reason::{Reason, Refusal},
    upstream::{self, Upstream},
    worker::{GroupState, Worker},
};

/// Backends tried for one request.
const TRIES: usize = 3;
/// How long a backend may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What an exchange is about, apart from the request itself.
pub(super) struct Subject<'a> {
    pub(super) worker: &'a Worker,
    pub(super) down: &'a Downstream,
    pub(super) group: Rc<GroupState>,
    pub(super) progress: Option<Arc<Progress>>,
    pub(super) started: Instant,
    pub(super) timeout: Duration,
    /// It may be sent twice: idempotent, without a body.
    pub(super) replayable: bool,
}

/// Sends the request to a backend, and to another one where that is safe: the request was not sent yet, or it
/// is idempotent, has no body, and met a pooled connection that closed before its first response byte.
pub(super) async fn attempt(
    subject: &Subject<'_>,
    mut request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Upstream), Refusal> {
    let worker = subject.worker;
    let mut tried: Vec<usize> = Vec::new();
    let mut failure = Refusal::keep(
        Reason::NoServer,
        "the rule matched, but no backend is ready",
    );
    let deadline = subject.started + subject.timeout;
    while tried.len() < TRIES {
        let patience = CONNECT_TIMEOUT.min(deadline.saturating_duration_since(Instant::now()));
        let Some(index) = worker.pick(
            &subject.group,
            (subject.down.local.ip(), subject.down.client.ip()),
            &tried,
            subject.started,
        ) else {
            break;
        };
        let Some(address) = subject
            .group
            .group
            .backends
            .get(index)
            .map(|backend| backend.address)
        else {
            break;
        };
        let mut pooled = worker
            .pool
            .take(address, subject.started, !subject.replayable);
        loop {
            let mut upstream = match pooled.take() {
                Some(upstream) => upstream,
                None => match upstream::connect(address, patience).await {
                    Ok(upstream) => upstream,
                    Err(err) => {
                        failure = refused(worker, address, &err);
                        tried.push(index);
                        worker.stats.retries.fetch_add(1, Relaxed);
                        break;
                    }
                },
            };
            let counter = if upstream.reused {
                &worker.stats.upstream_reused
            } else {
                &worker.stats.upstream_opened
            };
            counter.fetch_add(1, Relaxed);
            let spare =
                (upstream.reused && subject.replayable).then(|| copy_without_body(&request));
            let received = upstream.socket.received();
            match send(subject, &mut upstream, request).await {
                Ok(response) => {
                    subject.group.count(index);
                    return Ok((response, upstream));
                }
                Err(Failure::Timeout(refusal)) => return Err(refusal),
                Err(Failure::Unsent(unsent)) if upstream.reused => request = *unsent,
                Err(Failure::Closed)
                    if upstream.reused
                        && upstream.socket.received() == received
                        && spare.is_some() =>
                {
                    match spare {
                        Some(spare) => request = spare,
                        None => return Err(CLOSED),
                    }
                }
                Err(Failure::Malformed) => {
                    return Err(Refusal::keep(
                        Reason::BadResponse,
                        "the backend's answer is not HTTP/1.x",
                    ));
                }
                Err(Failure::Closed | Failure::Unsent(_)) => return Err(CLOSED),
            }
            // Once more, to the same backend, on a connection that is new.
            worker.stats.retries.fetch_add(1, Relaxed);
        }
    }
    Err(failure)
}

const CLOSED: Refusal = Refusal::keep(
    Reason::BackendClosed,
    "the backend closed the connection before it answered",
);

enum Failure {
    /// Not a byte of it was written; here it is again.
    Unsent(Box<Request<RequestBody>>),
    Closed,
    Malformed,
    Timeout(Refusal),
}

/// Sends on one connection and waits for the response head.
async fn send(
    subject: &Subject<'_>,
    upstream: &mut Upstream,
    request: Request<RequestBody>,
) -> Result<Response<Incoming>, Failure> {
    let mut deadline = subject.started + subject.timeout;
    let exchanges = &subject.down.exchanges;
    exchanges.awaiting.store(true, Relaxed);
    let _awaiting = Awaiting(exchanges);
    let exchange = async {
        // The codec of a pooled connection may have one more turn to take before it is free.
        if upstream.sender.ready().await.is_err() {
            return Err(Failure::Unsent(Box::new(request)));
        }
        upstream
            .sender
            .try_send_request(request)
            .await
            .map_err(|mut err| match err.take_message() {
                Some(request) => Failure::Unsent(Box::new(request)),
                None if err.error().is_parse() => Failure::Malformed,
                None => Failure::Closed,
            })
    };
    tokio::pin!(exchange);
    let (mut judged_at, mut judged) = (subject.started, Pace::default());
    loop {
        match tokio::time::timeout_at(deadline, &mut exchange).await {
            Ok(outcome) => return outcome,
            Err(_) => {
                // An upload that moves is not late: the backend's time runs from the body's last byte.
                let moved = subject
                    .progress
                    .as_ref()
                    .map_or(subject.started, |progress| progress.moved_at());
                let extended = moved + subject.timeout;
                let upload = subject.progress.as_ref().filter(|upload| !upload.done());
                // But a drip is no upload: each span of the timeout must bring something worth the wait.
                let now = Instant::now();
                let mut drips = false;
                if let Some(upload) = upload
                    && now.saturating_duration_since(judged_at) >= subject.timeout
                {
                    let pace = upload.pace();
                    drips = pace.drips_since(judged);
                    (judged_at, judged) = (now, pace);
                }
                if extended > deadline && !drips {
                    deadline = extended;
                    continue;
                }
                let moves = extended > deadline;
                let client_is_late = upload.is_some_and(|upload| moves || upload.starved());
                return Err(Failure::Timeout(if client_is_late {
                    Refusal::close(
                        Reason::RequestTimeout,
                        "the request body did not arrive in time or came at less than 240 bytes/s",
                    )
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
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut,
    };
    tracing::debug!(backend = %address, error = %err, "cannot connect to a backend");
    if matches!(
        err.kind(),
        ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable | TimedOut
    ) {
        worker.mark(address);
    }
    if err.kind() == TimedOut {
        Refusal::keep(
            Reason::ConnectTimeout,
            "the backends did not accept a connection in time",
        )
    } else {
        Refusal::keep(
            Reason::ConnectRefused,
            "the backends refused the connection",
        )
    }
}
