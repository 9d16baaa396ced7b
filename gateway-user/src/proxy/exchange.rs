//! One request: rule, backend, attempt, answer.

use std::{net::IpAddr, rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::Instant;

use super::{
    attempt::{self, Answered},
    body::{Incoming, Outgoing},
    downstream::Downstream,
    fields::Name,
    filters::{self, Local, Surroundings},
    headers::{self, Peer},
    message::{Request, Response},
    reason::{Reason, Refusal},
    reply::Reply,
    table::Routes,
    timer::Timer,
    upstream::Upstream,
    worker::{Current, GroupState, Worker},
};
use crate::ir::{Rule, Target, matching::RequestParts};

/// What an exchange has around it.
pub(super) struct Scope<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) down: &'a Downstream,
    pub(super) timer: &'a mut Timer,
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
    } = scope;
    worker.stats.requests.fetch_add(1, Relaxed);
    let started = Instant::now();
    let keep = !worker.connections.is_stopping();
    let mut reply = Reply::new(to, request, keep, &worker.stats);
    let current = worker.current();
    let routes = current.table.routes(down.local);
    let idle = routes.map(|routes| routes.listener.settings.idle_timeout);
    let outcome = async {
        if current.table.starting {
            return Err(Refusal::keep(
                Reason::Starting,
                "the gateway has not read its configuration yet",
            )
            .into());
        }
        let routes = routes.ok_or(Refusal::keep(
            Reason::NoListener,
            "nothing is served at this address and port",
        ))?;
        let around = Surroundings {
            listener: &routes.listener,
            client: down.client,
            tls: down.tls,
        };
        let rule = first_match(routes, request, down)?;
        let asked = Asked {
            request,
            client: down.client.ip(),
        };
        let responses = filters::responses(&routes.listener, &asked, &routes.responses);
        let done = filters::request(rule.1, request, response, around)?;
        let answer = match (&rule.1.target, done.answer) {
            (_, Some(local)) => Some(local),
            (Target::Redirect(to), None) => Some(filters::redirect(to, request, response, around)),
            (Target::Respond(fixed), None) => Some(filters::fixed_response(fixed, response)),
            (Target::Forward(_) | Target::Pass, None) => None,
        };
        if let Some(Local(body)) = answer {
            if request.has_body() && reply.keep {
                reply.keep = !request.expects && drained(&mut from, timer).await;
            }
            if let Some(cors) = done.cors {
                cors.mark(response);
            }
            let written = reply.whole(response, &body).await;
            return written.map(|()| Answered::Whole).map_err(|_| Broken::Gone);
        }
        let group = group(worker, &current, routes, rule.0)?;
        name_host(request, down);
        let peer = Peer {
            address: down.client,
            tls: down.tls,
        };
        headers::prepare_request(request, &routes.listener, peer);
        let subject = attempt::Subject {
            scope: Scope {
                worker,
                down,
                timer: &mut *timer,
            },
            around,
            group,
            started,
            timeout: routes.listener.settings.request_timeout,
            responses: &responses,
            cors: done.cors,
        };
        attempt::attempt(subject, request, response, &mut from, &mut reply).await
    }
    .await;
    let next = match outcome {
        Ok(Answered::Whole) => next(&reply),
        Ok(Answered::Switched(upstream)) => Next::Tunnel(upstream),
        Err(Broken::Gone) => Next::Abort,
        Err(Broken::Cut(reason)) => {
            worker.stats.reason(reason);
            if reply.ends_with_connection() {
                Next::Abort
            } else {
                Next::Close { unread: true }
            }
        }
        Err(Broken::Refused(refusal)) => {
            worker.stats.reason(refusal.reason);
            if request.has_body() && reply.keep && !refusal.close {
                reply.keep = !request.expects && drained(&mut from, timer).await;
            }
            match reply.refuse(refusal, response).await {
                Ok(()) => next(&reply),
                Err(_) => Next::Abort,
            }
        }
    };
    (next, idle)
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

/// Reads the rest of a body that nobody wants, if it is short and comes soon: then the connection stays in step.
async fn drained(from: &mut Incoming<'_>, timer: &mut Timer) -> bool {
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
    down: &Downstream,
) -> Result<(usize, &'a Rule), Refusal> {
    let listener = &routes.listener;
    let asked = Asked {
        request,
        client: down.client.ip(),
    };
    let index = listener.first_match(&asked).ok_or(Refusal::keep(
        Reason::NoRule,
        "no rule of this listener matches the request",
    ))?;
    let rule = listener.rules.get(index).filter(|it| it.refused.is_none());
    match rule {
        Some(rule) if listener.refused_response(&asked).is_none() => Ok((index, rule)),
        _ => Err(Refusal::keep(
            Reason::RuleRefused,
            "the rule asks for what this gateway cannot do yet",
        )),
    }
}

/// The group that serves a request.
fn group(
    worker: &Worker,
    current: &Current,
    routes: &Routes,
    rule: usize,
) -> Result<Rc<GroupState>, Refusal> {
    routes
        .share(rule, || worker.turn())
        .and_then(|index| worker.group(current, index))
        .filter(|state| !state.group.backends.is_empty())
        .ok_or(Refusal::keep(
            Reason::NoServer,
            "the rule matched, but no backend is ready",
        ))
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
