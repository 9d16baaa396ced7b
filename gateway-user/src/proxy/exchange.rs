//! One request: rule, backend, attempt, answer.

use std::{net::IpAddr, rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::Instant;

use super::{
    attempt::{self, Answered},
    body::{Incoming, Outgoing},
    downstream::Downstream,
    fields::Name,
    headers::{self, Peer},
    message::{Request, Response},
    reason::{Reason, Refusal},
    reply::Reply,
    timer::Timer,
    upstream::Upstream,
    worker::{GroupState, Worker},
};
use crate::ir::{Listener, matching::RequestParts};

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
        let group = route(worker, &current, routes, request, down)?;
        name_host(request, down);
        let peer = Peer {
            address: down.client,
            tls: false,
        };
        headers::prepare_request(request, &routes.listener, peer);
        let subject = attempt::Subject {
            scope: Scope {
                worker,
                down,
                timer: &mut *timer,
            },
            group,
            started,
            timeout: routes.listener.settings.request_timeout,
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

/// The group that serves a request.
fn route(
    worker: &Worker,
    current: &super::worker::Current,
    routes: &super::table::Routes,
    request: &Request,
    down: &Downstream,
) -> Result<Rc<GroupState>, Refusal> {
    let listener: &Listener = &routes.listener;
    let asked = Asked {
        request,
        client: down.client.ip(),
    };
    let rule = listener.first_match(&asked).ok_or(Refusal::keep(
        Reason::NoRule,
        "no rule of this listener matches the request",
    ))?;
    let refused = listener.rules.get(rule).and_then(|it| it.refused.as_ref());
    if refused.is_some() || listener.refused_response(&asked).is_some() {
        return Err(Refusal::keep(
            Reason::RuleRefused,
            "the rule asks for what this gateway cannot do yet",
        ));
    }
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
