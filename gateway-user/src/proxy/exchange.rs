//! One request: rule, backend, attempt, answer.

use std::{
    net::IpAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    attempt::{self, Answered},
    body::{Incoming, Outgoing},
    downstream::Downstream,
    fields::Name,
    filters::{self, Local, Surroundings},
    headers,
    limits::Exceeded,
    message::{Request, Response},
    mirror,
    reason::{Reason, Refusal},
    record::Record,
    reply::Reply,
    session::Session,
    table::Routes,
    timer::Timer,
    trace,
    upstream::Upstream,
    worker::{Current, Worker},
};
use crate::ir::{Rule, Target, matching::RequestParts};

/// What an exchange has around it.
pub(super) struct Scope<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) down: &'a Downstream,
    pub(super) timer: &'a mut Timer,
    /// How long the head took to arrive, where it came in pieces.
    pub(super) head: Option<Duration>,
    /// Bytes by now that belong to this exchange, of a connection also what comes after it: read, written.
    pub(super) bytes: &'a dyn Fn() -> (u64, u64),
}

/// What becomes of the client's connection.
#[derive(Debug)]
pub(super) enum Next {
    /// It may serve another request, if the body of this one was read to its end.
    Keep,
    /// It is closed; `unread` says that the client may still be sending.
    Close { unread: bool },
    /// It is broken off: what the client has is not whole.
    Abort,
    /// It belongs to another protocol now.
    Tunnel(Box<Upstream>),
}

/// Answers one request. Also yields the listener's idle timeout.
pub(super) async fn serve(
    scope: Scope<'_>,
    request: &mut Request,
    response: &mut Response,
    mut from: Incoming<'_>,
    to: Outgoing<'_>,
) -> (Next, Option<Duration>) {
    let Scope {
        worker,
        down,
        timer,
        head,
        bytes,
    } = scope;
    worker.stats.requests.fetch_add(1, Relaxed);
    let mut record = Record::new(Instant::now(), head, down.client);
    record.span = worker.tracer.as_ref().map(|it| it.begin(&request.fields));
    let keep = !worker.connections.is_ending(down.local);
    let mut reply = Reply::new(to, request, keep, &worker.stats);
    let current = worker.current();
    let routes = current.table.serving(down.local, down.is_tls());
    let idle = routes.map(|routes| routes.listener.settings.idle_timeout);
    let mut running = Running {
        worker,
        down,
        timer,
        record: &mut record,
    };
    let outcome = match (current.table.starting, routes) {
        (true, _) => Err(Refusal::keep(
            Reason::Starting,
            "the gateway has not read its configuration yet",
        )
        .into()),
        (false, None) => Err(Refusal::close(
            Reason::NoListener,
            "nothing is served at this address and port",
        )
        .into()),
        (false, Some(routes)) => {
            running.record.client = headers::client(request, &routes.listener, down.client);
            let messages = (&mut *request, &mut *response);
            running
                .exchange(&current, routes, messages, &mut from, &mut reply)
                .await
        }
    };
    let next = match outcome {
        Ok(Answered::Whole) => next(&reply),
        Ok(Answered::Switched(upstream)) => Next::Tunnel(upstream),
        Err(Broken::Gone) => {
            record.reason = Some(Reason::ClientGone);
            record.aborted = true;
            worker.stats.reason(Reason::ClientGone);
            Next::Abort
        }
        Err(Broken::Cut(reason)) => {
            record.reason = Some(reason);
            record.aborted = true;
            worker.stats.reason(reason);
            // What a slow client did not take is not left to the kernel either.
            if reply.ends_with_connection() || reason == Reason::SlowClient {
                Next::Abort
            } else {
                Next::Close { unread: true }
            }
        }
        Err(Broken::Refused(refusal)) => {
            record.reason = Some(refusal.reason);
            worker.stats.reason(refusal.reason);
            if request.has_body() && reply.keep && !refusal.close {
                reply.keep = !request.expects && drained(&mut from, timer).await;
            }
            let until = Instant::now() + worker.stall_timeout;
            match timer.limit(until, reply.refuse(refusal, response)).await {
                Some(Ok(())) => next(&reply),
                Some(Err(_)) | None => Next::Abort,
            }
        }
    };
    record.status = reply.status;
    let listener = routes.map(|it| worker.listener(&current, down.local, &it.listener));
    record.end(worker, listener.as_deref(), down, request, bytes());
    (next, idle)
}

/// An exchange that has a listener.
struct Running<'a> {
    worker: &'a Rc<Worker>,
    down: &'a Downstream,
    timer: &'a mut Timer,
    record: &'a mut Record,
}

impl Running<'_> {
    /// Finds the rule and does what it says.
    async fn exchange(
        &mut self,
        current: &Current,
        routes: &Routes,
        (request, response): (&mut Request, &mut Response),
        from: &mut Incoming<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Answered, Broken> {
        let (down, client) = (self.down, self.record.client);
        let source = client.ip();
        let around = Surroundings {
            listener: &routes.listener,
            client: source,
            client_port: down.client.port(),
            tls: down.is_tls(),
        };
        if let Some(secured) = &down.secured
            && !secured.covers(request.authority())
        {
            return Err(Refusal::keep(
                Reason::Misdirected,
                "the certificate shown on this connection is not for the host that is asked for",
            )
            .into());
        }
        let (index, rule) = first_match(routes, request, source)?;
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        self.record.rule = Some((number, Arc::clone(&rule.ingress)));
        let responses = match routes.index.responses() {
            [] => Vec::new(),
            known => {
                let asked = Asked {
                    request,
                    client: source,
                };
                filters::responses(&routes.listener, &asked, known)
            }
        };
        if let Some(limit) = routes.limits.get(&index) {
            let epoch = self.worker.common.epoch;
            let since = self.record.started.saturating_duration_since(epoch);
            let now_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
            limit.admit(source, now_ns).map_err(too_many)?;
        }
        headers::strip_request(request);
        if let Some(span) = &self.record.span {
            trace::hand_on(span, &mut request.fields);
        }
        let done = filters::request(rule, request, response, around)?;
        let answer = match (&rule.target, done.answer) {
            (_, Some(local)) => Some(local),
            (Target::Redirect(to), None) => Some(filters::redirect(to, request, response, around)),
            (Target::Respond(fixed), None) => Some(filters::fixed_response(fixed, response)),
            (Target::Forward(_) | Target::Pass, None) => None,
        };
        if let Some(Local(body)) = answer {
            if request.has_body() && reply.keep {
                reply.keep = !request.expects && drained(from, self.timer).await;
            }
            if let Some(cors) = done.cors {
                cors.mark(response);
            }
            self.record.response_body = body.len() as u64;
            // Who asks and does not read holds the answer only so long.
            let until = Instant::now() + self.worker.stall_timeout;
            let written = self.timer.limit(until, reply.whole(response, &body)).await;
            return match written {
                Some(Ok(())) => Ok(Answered::Whole),
                Some(Err(_)) | None => Err(Broken::Gone),
            };
        }
        let groups = routes.tokens.get(&index);
        let asked_group = groups.and_then(|it| it.asked(request.fields.all(Name::Cookie)));
        let place = asked_group.or_else(|| routes.share(index, || self.worker.turn()));
        let group = place
            .and_then(|place| self.worker.group(current, routes.group(index, place)?))
            .filter(|state| !state.group.backends.is_empty())
            .ok_or(Refusal::keep(
                Reason::NoServer,
                "the rule matched, but no backend is ready",
            ))?;
        self.record.group = Some(Rc::clone(&group));
        let places = (place, asked_group);
        let session = Session::begin(request, &group, groups, places, down.is_tls());
        name_host(request, down);
        headers::prepare_request(request, &routes.listener, down);
        let mirror = routes.mirror(index, || self.worker.turn());
        let mirror = mirror.and_then(|it| self.worker.group(current, it));
        let timeout = routes.listener.settings.request_timeout;
        let client = (self.record.client, down.local);
        let tee =
            mirror.and_then(|group| mirror::send(self.worker, group, request, client, timeout));
        let subject = attempt::Subject {
            tee,
            worker: self.worker,
            down,
            timer: self.timer,
            record: self.record,
            around,
            group,
            timeout,
            responses: &responses,
            cors: done.cors,
            session,
            held: None,
        };
        attempt::attempt(subject, request, response, from, reply).await
    }
}

fn too_many(exceeded: Exceeded) -> Refusal {
    Refusal::keep(
        Reason::RateLimited,
        match exceeded {
            Exceeded::Client => "this client's share of the rule's traffic limit is used up",
            Exceeded::Rule => "the rule's traffic limit is used up",
        },
    )
}

/// Why there is no whole answer.
#[derive(Debug)]
pub(super) enum Broken {
    /// Nothing was sent to the client yet: it gets a reason.
    Refused(Refusal),
    /// The answer broke off.
    Cut(Reason),
    /// The client left.
    Gone,
}

impl From<Refusal> for Broken {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Reads the rest of a body that nobody wants, if it is short and comes soon: then the connection stays in step. Over
/// HTTP/2 it is in nobody's way.
async fn drained(from: &mut Incoming<'_>, timer: &mut Timer) -> bool {
    if from.is_stream() {
        return true;
    }
    const MOST_BYTES: usize = 64 * 1024;
    const PATIENCE: Duration = Duration::from_secs(1);
    let mut left = MOST_BYTES;
    let drain = async {
        loop {
            match from.step().await {
                Ok(0) => return true,
                Ok(len) if len <= left => left -= len,
                Ok(_) | Err(_) => return false,
            }
        }
    };
    let drained = timer.limit(Instant::now() + PATIENCE, drain).await;
    drained.unwrap_or(false)
}

fn next(reply: &Reply<'_>) -> Next {
    if reply.keep {
        Next::Keep
    } else {
        Next::Close { unread: false }
    }
}

/// The rule that decides.
fn first_match<'a>(
    routes: &'a Routes,
    request: &Request,
    source: IpAddr,
) -> Result<(usize, &'a Rule), Refusal> {
    let rules = &routes.listener.rules;
    let asked = Asked {
        request,
        client: source,
    };
    let index = routes.index.first_match(rules, &asked);
    let index = index.ok_or(Refusal::keep(
        Reason::NoRule,
        "no rule of this listener matches the request",
    ))?;
    let rule = rules.get(index).filter(|it| it.refused.is_none());
    match rule {
        Some(rule) if routes.index.refused_response(rules, &asked).is_none() => Ok((index, rule)),
        _ => Err(Refusal::keep(
            Reason::RuleRefused,
            "the rule asks for what this gateway cannot do yet",
        )),
    }
}

/// Only HTTP/1.0 names no host; HTTP/1.1 towards the backend must.
fn name_host(request: &mut Request, down: &Downstream) {
    if !request.fields.has(Name::Host) {
        let local = down.local.to_string();
        request.fields.push_known(Name::Host, local.as_bytes());
    }
}

/// What rules read of a request.
struct Asked<'a> {
    request: &'a Request,
    client: IpAddr,
}

impl RequestParts for Asked<'_> {
    fn host(&self) -> Option<&str> {
        Some(self.request.authority())
    }

    fn method(&self) -> &str {
        self.request.method_text()
    }

    fn path(&self) -> &str {
        self.request.path()
    }

    fn query(&self) -> Option<&str> {
        self.request.query()
    }

    fn source(&self) -> Option<IpAddr> {
        Some(self.client)
    }

    fn header_lines(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.request.fields.named(name.as_bytes())
    }
}
