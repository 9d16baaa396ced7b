//! Sending a request to a backend, and once more where that is safe.

mod held;
mod leg;

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    task::{Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

pub(super) use self::{held::Held, leg::Leg};
use super::{
    balance::Choice,
    body::{self, Break, Incoming},
    cors::Marked,
    downstream::Downstream,
    exchange::Broken,
    filters::{self, Local, Surroundings},
    group::GroupState,
    gzip,
    h1::source::Fault,
    headers,
    http2::websocket,
    message::{Request, Response, Version},
    meter::{Late, Meter},
    mirror::Tee,
    outlier::Outcome,
    reason::{Reason, Refusal},
    record::Record,
    reply::Reply,
    session::Session,
    timer::Timer,
    upstream::{Place, Upstream},
    worker::Worker,
};
use crate::ir::BackendProtocol;

/// Backends tried for one request.
const TRIES: usize = 3;
/// How long a backend may take to accept a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether a client that was not waited for yet has left is not asked before: most answers are there long before.
const UNWATCHED: Duration = Duration::from_millis(20);

/// What an exchange is about, apart from the request itself.
pub(super) struct Subject<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) down: &'a Downstream,
    pub(super) timer: &'a mut Timer,
    pub(super) record: &'a mut Record,
    pub(super) around: Surroundings<'a>,
    pub(super) group: Rc<GroupState>,
    pub(super) timeout: Duration,
    /// Rules for responses whose conditions on the request are met.
    pub(super) responses: &'a [usize],
    /// How the answer is marked for browsers.
    pub(super) cors: Option<Marked>,
    pub(super) session: Option<Session>,
    /// Takes a copy of the request's body.
    pub(super) tee: Option<Tee>,
    /// What was sent of the body, where the backend can say that it has not looked at it.
    pub(super) held: Option<Held>,
}

/// The client has its answer.
#[derive(Debug)]
pub(super) enum Answered {
    /// All of it.
    Whole,
    /// A 101: both sides leave HTTP.
    Switched(Box<Upstream>),
}

/// How one attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The backend closed before it said anything.
    Closed,
    /// The backend says that it has not looked at the request.
    Unprocessed,
    /// What is wrong is told or is no matter of this backend.
    Final(Broken),
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self::Final(broken)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Final(Broken::Refused(refusal))
    }
}

/// Sends the request to a backend, and to another one where that is safe and the budget for retries allows it: the
/// request was not sent yet; or the backend says that it was not processed, and what was sent of its body is held; or it
/// is idempotent, has no body, and met a pooled connection that closed before its first response byte.
pub(super) async fn attempt(
    mut subject: Subject<'_>,
    request: &Request,
    response: &mut Response,
    from: &mut Incoming<'_>,
    reply: &mut Reply<'_>,
) -> Result<Answered, Broken> {
    let worker = Rc::clone(subject.worker);
    let group = Rc::clone(&subject.group);
    let started = subject.record.started;
    let _begun = group.begin(started);
    let choice = Choice {
        client: subject.record.client.ip(),
        v6: subject.down.local.ip().to_canonical().is_ipv6(),
        query: request.query(),
        sticky: subject.session.as_ref().and_then(|it| it.asked),
        now: started.into_std(),
    };
    let replayable = request.is_idempotent() && !request.has_body() && !request.upgrade;
    let protocol = group.group.policy.protocol;
    // Only over HTTP/2 can a backend say that it has not looked.
    let may_say = protocol == BackendProtocol::Grpc && !request.upgrade;
    subject.held = may_say.then(Held::default);
    let mut tried: Vec<usize> = Vec::new();
    let mut failure = Refusal::keep(
        Reason::NoServer,
        "the rule matched, but no backend is ready",
    );
    let deadline = started + subject.timeout;
    while tried.len() < TRIES && (tried.is_empty() || group.may_retry()) {
        let marked = |address| worker.is_marked(address, started);
        let Some(picked) = group.pick(&choice, &tried, marked) else {
            break;
        };
        if !tried.is_empty() {
            worker.stats.retries.fetch_add(1, Relaxed);
        }
        let record = &mut *subject.record;
        record.backend = Some((picked.index, picked.address));
        record.attempts += 1;
        let client = (record.client, subject.down.local);
        let place = Place {
            address: picked.address,
            tls: protocol == BackendProtocol::Https,
            client: group.group.policy.proxy_header.then_some(client),
            beside: subject.down.crowded.get(),
        };
        let mut pooled = Leg::kept(&worker, place, protocol, started, !replayable);
        let mut refused_before = false;
        loop {
            let mut upstream = match pooled.take() {
                Some(upstream) => upstream,
                None => {
                    let now = Instant::now();
                    let patience = CONNECT_TIMEOUT.min(deadline.saturating_duration_since(now));
                    let record = &mut *subject.record;
                    record.pick = Some(now - started);
                    let connected = Leg::open(&worker, place, protocol, patience).await;
                    record.connect = Some(now.elapsed());
                    match connected {
                        Ok(upstream) => upstream,
                        Err(err) => {
                            failure = refused(&worker, picked.address, &err);
                            if failure.reason != Reason::BackendBusy {
                                group.note(&picked, Outcome::GatewayFailure);
                            }
                            tried.push(picked.index);
                            break;
                        }
                    }
                }
            };
            let reused = upstream.is_reused();
            let counter = if reused {
                &worker.stats.upstream_reused
            } else {
                &worker.stats.upstream_opened
            };
            counter.fetch_add(1, Relaxed);
            let kept = converse(
                &mut subject,
                picked.index,
                &mut upstream,
                request,
                response,
                from,
                reply,
            )
            .await;
            let may_repeat = subject.held.as_ref().is_some_and(Held::is_whole);
            match kept {
                Ok(kept) => {
                    group.note(&picked, of_status(subject.record.backend_status));
                    return Ok(match (kept, upstream) {
                        (Kept::Switched, Leg::Own(upstream)) => {
                            worker.stats.upgrades.fetch_add(1, Relaxed);
                            Answered::Switched(Box::new(upstream))
                        }
                        (Kept::Yes, Leg::Own(upstream)) => {
                            worker.pool.put(upstream, Instant::now());
                            Answered::Whole
                        }
                        _ => Answered::Whole,
                    });
                }
                Err(Failure::Closed) if reused && replayable && group.may_retry() => {
                    // Once more, to the same backend, on a connection that is new.
                    worker.stats.retries.fetch_add(1, Relaxed);
                }
                Err(Failure::Unprocessed) if may_repeat && !refused_before && group.may_retry() => {
                    // Its connection goes away, or was full: once more, to the same backend.
                    refused_before = true;
                    worker.stats.retries.fetch_add(1, Relaxed);
                }
                Err(Failure::Unprocessed) if may_repeat => {
                    group.note(&picked, Outcome::GatewayFailure);
                    failure = Refusal::keep(
                        Reason::BackendClosed,
                        "the backends refused the request before they looked at it",
                    );
                    tried.push(picked.index);
                    break;
                }
                Err(Failure::Closed | Failure::Unprocessed) => {
                    group.note(&picked, Outcome::GatewayFailure);
                    return Err(Refusal::keep(
                        Reason::BackendClosed,
                        "the backend closed the connection before it answered",
                    )
                    .into());
                }
                Err(Failure::Final(broken)) => {
                    if let Broken::Refused(refusal) = &broken
                        && matches!(
                            refusal.reason,
                            Reason::BadResponse | Reason::Timeout | Reason::BackendClosed
                        )
                    {
                        group.note(&picked, Outcome::GatewayFailure);
                    }
                    return Err(broken);
                }
            }
        }
    }
    Err(failure.into())
}

/// What an answer says of the pod.
pub(super) fn of_status(status: u16) -> Outcome {
    if status >= 500 {
        Outcome::ServerError
    } else {
        Outcome::Fine
    }
}

/// What becomes of a backend's connection.
#[derive(Debug)]
enum Kept {
    Yes,
    No,
    Switched,
}

/// One exchange on one connection: the body goes up while the answer comes down.
async fn converse(
    subject: &mut Subject<'_>,
    backend: usize,
    leg: &mut Leg,
    request: &Request,
    response: &mut Response,
    from: &mut Incoming<'_>,
    reply: &mut Reply<'_>,
) -> Result<Kept, Failure> {
    let Subject {
        worker,
        down: client,
        timer,
        record,
        around,
        group,
        timeout,
        responses,
        cors,
        session,
        tee,
        held,
    } = subject;
    let expects = request.expects;
    let (started, stall) = (record.started, worker.stall_timeout);
    let meter = Meter::new(started, *timeout, stall, request.has_body(), expects);
    let body_bytes = Cell::new(0);
    let first_byte = Cell::new(None);
    let backend_status = Cell::new(0);
    let sent = started + record.pick.unwrap_or_default() + record.connect.unwrap_or_default();
    let (mut to_backend, mut answers) = leg.begin(request)?;
    let lost = Cell::new(None);
    let watched = Cell::new(!from.is_fresh());
    let taken = reply.to.taken();
    let up = async {
        let begun = held.as_ref().is_some_and(|it| it.bytes() > 0);
        if expects && !begun && to_backend.flush().await.is_ok() {
            poll_fn(|_| match meter.is_expecting() {
                true => Poll::Pending,
                false => Poll::Ready(()),
            })
            .await;
        }
        let sent = match request.has_body() {
            true => body::upload(from, &mut to_backend, &meter, tee.as_mut(), held.as_mut()).await,
            false => to_backend.end(None).await.map_err(|_| Break::Write),
        };
        match sent {
            Ok(()) => {
                poll_fn(|_| match watched.get() {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                })
                .await;
                from.left().await;
            }
            Err(Break::Read(fault)) => return fault,
            // It may have answered before it closed.
            Err(Break::Write) => std::future::pending().await,
        }
        if meter.is_answered() {
            // Who says no more may still listen; whether it does shows when it is written to.
            std::future::pending().await
        }
        Fault::Broken
    };
    let down = async {
        let mut source = loop {
            let source = answers.next(request.is_head(), response).await?;
            if !(100..200).contains(&response.status) || response.status == 101 {
                break source;
            }
            drop(source);
            meter.go();
            headers::prepare_response(response);
            if response.status != 100 || expects {
                reply.interim(response).await.map_err(|_| Broken::Gone)?;
            }
        };
        let now = Instant::now();
        meter.answer(now);
        backend_status.set(response.status);
        first_byte.set(Some(now.saturating_duration_since(sent)));
        group.count(backend, now.saturating_duration_since(sent));
        if response.status == 101 {
            if !request.upgrade {
                return Err(Refusal::close(
                    Reason::BadResponse,
                    "the backend left HTTP without being asked to",
                )
                .into());
            }
            if request.version == Version::Http2 && !websocket::agrees(request, response) {
                return Err(Refusal::keep(
                    Reason::BadResponse,
                    "the backend's handshake does not answer the key it was sent",
                )
                .into());
            }
            headers::prepare_switch(response);
            reply.switch(response).await.map_err(|_| Broken::Gone)?;
            return Ok(Kept::Switched);
        }
        headers::prepare_response(response);
        let local = filters::response(responses, request, response, *around);
        if let Some(cors) = cors {
            cors.mark(response);
        }
        if let Some(session) = session {
            session.answer(backend, client.is_tls(), response);
        }
        if let Some(Local(body)) = local {
            reply.keep &= meter.is_uploaded();
            reply
                .whole(response, &body)
                .await
                .map_err(|_| Broken::Gone)?;
            return Ok(Kept::No);
        }
        let encoded = around.listener.settings.gzip;
        reply.to.gzip = encoded.then(|| gzip::begin(request, response)).flatten();
        // A client that is still sending cannot be told where its next request begins.
        reply.keep &= meter.is_uploaded() && !worker.connections.is_ending(client.local);
        reply.begin(response).map_err(|_| Broken::Gone)?;
        match body::pump(&mut source, &mut reply.to, &body_bytes, &meter).await {
            Ok(()) => Ok(match response.keep_alive && meter.is_uploaded() {
                true => Kept::Yes,
                false => Kept::No,
            }),
            Err(Break::Write) => Err(Broken::Gone.into()),
            Err(Break::Read(_)) => Err(Broken::Cut(Reason::BackendClosed).into()),
        }
    };
    let outcome = {
        let (mut up, mut down) = (pin!(up), pin!(down));
        let mut over = false;
        poll_fn(|cx| {
            loop {
                if !over && let Poll::Ready(fault) = up.as_mut().poll(cx) {
                    over = true;
                    lost.set(Some(fault));
                    return Poll::Ready(None);
                }
                let expecting = meter.is_expecting();
                if let Poll::Ready(outcome) = down.as_mut().poll(cx) {
                    return Poll::Ready(Some(outcome));
                }
                if expecting && !meter.is_expecting() {
                    continue;
                }
                let unwatched = (!watched.get()).then(|| started + UNWATCHED);
                let deadline = meter.deadline();
                ready!(timer.poll(cx, unwatched.map_or(deadline, |it| it.min(deadline))));
                if unwatched.is_some_and(|it| Instant::now() >= it) {
                    watched.set(true);
                    continue;
                }
                let taken = taken.bytes();
                let carried = 1 + body_bytes.get() + meter.bytes() + taken;
                if let Some(late) = meter.late(Instant::now(), carried, taken) {
                    return Poll::Ready(Some(Err(too_late(late))));
                }
            }
        })
        .await
    };
    record.first_byte = first_byte.get();
    record.backend_status = backend_status.get();
    record.request_body = meter.bytes();
    record.response_body = body_bytes.get();
    if let Some(outcome) = outcome {
        return outcome;
    }
    Err(match (lost.take(), reply.begun) {
        (Some(Fault::Malformed(refusal)), false) => refusal.into(),
        (Some(Fault::Malformed(refusal)), true) => Broken::Cut(refusal.reason).into(),
        _ => Broken::Gone.into(),
    })
}

fn too_late(late: Late) -> Failure {
    match late {
        Late::Answer => Refusal::keep(Reason::Timeout, "the backend did not answer in time").into(),
        Late::Upload => Refusal::close(
            Reason::RequestTimeout,
            "the request body did not arrive in time or came at less than 240 bytes/s",
        )
        .into(),
        Late::Stall => Broken::Cut(Reason::Timeout).into(),
        Late::Taking => Broken::Cut(Reason::SlowClient).into(),
    }
}

/// A backend that could not be reached.
pub(super) fn refused(worker: &Worker, address: SocketAddr, err: &io::Error) -> Refusal {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, ResourceBusy,
        TimedOut,
    };
    tracing::debug!(backend = %address, error = %err, "cannot connect to a backend");
    if matches!(
        err.kind(),
        ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable | TimedOut
    ) {
        worker.mark(address);
    }
    if err.kind() == ResourceBusy {
        return Refusal::keep(
            Reason::BackendBusy,
            "the backends have as many connections as this gateway may open, and none became free in time",
        );
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
