//! One request: rule, backend, attempt, answer.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
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
    attempt::{Subject, attempt},
    body::{Progress, RequestBody, ResponseBody},
    exchanges::{Exchanges, InFlight},
    framing::bad,
    headers,
    reason::{Reason, Refusal},
    tunnel,
    upstream::{Lease, Upstream},
    worker::Worker,
};
use crate::ir::matching::RequestParts;

/// The client's side of a connection.
#[derive(Debug)]
pub(super) struct Downstream {
    /// What the client connected to; selects the listener.
    pub(super) local: SocketAddr,
    pub(super) client: SocketAddr,
    pub(super) exchanges: Arc<Exchanges>,
}

/// Answers one request. Never fails: what goes wrong is a response, or a broken body.
pub(super) async fn serve(
    worker: Rc<Worker>,
    down: Rc<Downstream>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let mut in_flight = Some(InFlight(Arc::clone(&down.exchanges)));
    worker.stats.requests.fetch_add(1, Relaxed);
    let line = tracing::enabled!(target: "fleetgate::access", tracing::Level::DEBUG).then(|| {
        (
            Instant::now(),
            format!("{} {}", request.method(), request.uri()),
        )
    });

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

async fn exchange(
    worker: &Worker,
    down: &Downstream,
    mut request: Request<Incoming>,
    in_flight: &mut Option<InFlight>,
) -> Result<Response<ResponseBody>, Refusal> {
    let current = worker.current();
    if current.table.starting {
        return Err(Refusal::keep(
            Reason::Starting,
            "the gateway has not read its configuration yet",
        ));
    }
    let routes = current.table.routes(down.local).ok_or(Refusal::keep(
        Reason::NoListener,
        "nothing is served at this address and port",
    ))?;
    let listener = &routes.listener;
    down.exchanges.idle_timeout(listener.settings.idle_timeout);

    let upgrade = down
        .exchanges
        .offers_upgrade()
        .then(|| hyper::upgrade::on(&mut request));
    let (mut parts, incoming) = request.into_parts();
    parts.extensions.clear();
    let authority = normalise(&mut parts, down.local)?;
    let host = headers::host_of(authority.to_str().unwrap_or_default()).unwrap_or_default();
    let asked = Asked {
        host,
        parts: &parts,
        client: down.client.ip(),
    };
    let rule = listener.first_match(&asked).ok_or(Refusal::keep(
        Reason::NoRule,
        "no rule of this listener matches the request",
    ))?;
    let refused_response = listener.refused_response(&asked).is_some();
    if listener
        .rules
        .get(rule)
        .is_some_and(|it| it.refused.is_some())
        || refused_response
    {
        return Err(Refusal::keep(
            Reason::RuleRefused,
            "the rule asks for what this gateway cannot do yet",
        ));
    }
    let group = routes
        .share(rule, || worker.turn())
        .and_then(|index| worker.group(&current, index));
    let group = group
        .filter(|state| !state.group.backends.is_empty())
        .ok_or(Refusal::keep(
            Reason::NoServer,
            "the rule matched, but no backend is ready",
        ))?;

    let empty = incoming.is_end_stream();
    let expects = !empty && parts.version == Version::HTTP_11 && parts.headers.contains_key(EXPECT);
    headers::prepare_request(
        &mut parts.headers,
        listener,
        down.client,
        authority.to_str().unwrap_or_default(),
        upgrade.is_some(),
        expects,
    );
    parts.version = Version::HTTP_11;

    let started = Instant::now();
    let progress = (!empty).then(|| Arc::new(Progress::new(started)));
    let body = match &progress {
        None => RequestBody::Empty,
        Some(progress) => RequestBody::stream(
            incoming,
            Arc::clone(&down.exchanges),
            down.exchanges.current(),
            Arc::clone(progress),
            expects,
        ),
    };
    let replayable = empty
        && matches!(
            parts.method,
            Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
        )
        && upgrade.is_none();
    let mut request = Request::from_parts(parts, body);
    if let Some(progress) = progress.clone().filter(|_| expects) {
        hyper::ext::on_informational(&mut request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                progress.go();
            }
        });
    }
    let subject = Subject {
        worker,
        down,
        group,
        progress,
        started,
        timeout: listener.settings.request_timeout,
        replayable,
    };
    let (response, upstream) = attempt(&subject, request).await?;
    answer(&subject, response, upstream, upgrade, in_flight)
}

/// What rules read of a request.
struct Asked<'a> {
    host: &'a str,
    parts: &'a request::Parts,
    client: IpAddr,
}

impl RequestParts for Asked<'_> {
    fn host(&self) -> Option<&str> {
        Some(self.host)
    }

    fn method(&self) -> &str {
        self.parts.method.as_str()
    }

    fn path(&self) -> &str {
        self.parts.uri.path()
    }

    fn query(&self) -> Option<&str> {
        self.parts.uri.query()
    }

    fn source(&self) -> Option<IpAddr> {
        Some(self.client)
    }

    fn header_lines(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let lines = self.parts.headers.get_all(name).iter();
        lines.map(|value| value.as_bytes())
    }
}

/// Checks Host and target, and rewrites an absolute-form target. Returns the authority the client asked for.
fn normalise(parts: &mut request::Parts, local: SocketAddr) -> Result<HeaderValue, Refusal> {
    if let Some(authority) = parts.uri.authority() {
        // RFC 9112 section 3.2.2: the target's authority replaces whatever Host says.
        let value = HeaderValue::from_str(authority.as_str())
            .map_err(|_| bad("the target's authority is not a host"))?;
        parts.headers.insert(HOST, value);
        let mut origin = uri::Parts::default();
        origin.path_and_query = parts
            .uri
            .path_and_query()
            .cloned()
            .or(Some(uri::PathAndQuery::from_static("/")));
        parts.uri =
            uri::Uri::from_parts(origin).map_err(|_| bad("the target's path is malformed"))?;
    }
    let value = match parts.headers.get(HOST) {
        Some(value) => value.clone(),
        None => {
            // Only HTTP/1.0 comes here; HTTP/1.1 towards the backend must name a host.
            let local =
                HeaderValue::from_str(&local.to_string()).map_err(|_| bad("Host is missing"))?;
            parts.headers.insert(HOST, local);
            HeaderValue::from_static("")
        }
    };
    let valid = value
        .to_str()
        .is_ok_and(|authority| headers::host_of(authority).is_some());
    if valid {
        Ok(value)
    } else {
        Err(bad("Host is not a host with an optional port"))
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
    let mut lease = Lease {
        upstream: Some(upstream),
        pool: Rc::clone(&subject.worker.pool),
        progress: subject.progress.clone(),
        keep: false,
    };
    if !framing_is_clear(&response) {
        let detail = "the backend's answer is framed in a way that can be read in two";
        return Err(Refusal::keep(Reason::BadResponse, detail));
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (Some(client), Some(in_flight)) = (upgrade, in_flight.take()) else {
            return Err(Refusal::close(
                Reason::BadResponse,
                "the backend left HTTP without being asked to",
            ));
        };
        let protocol = response.headers().get(UPGRADE).cloned();
        let backend = hyper::upgrade::on(&mut response);
        let (mut parts, _) = response.into_parts();
        headers::remove_hop_by_hop(&mut parts.headers);
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            parts.headers.insert(UPGRADE, protocol);
        }
        let exchanges = Arc::clone(&subject.down.exchanges);
        exchanges.grant_upgrade();
        subject.worker.stats.upgrades.fetch_add(1, Relaxed);
        tokio::task::spawn_local(tunnel::carry(
            client,
            backend,
            exchanges,
            subject.worker.stall_timeout,
            in_flight,
        ));
        return Ok(Response::from_parts(
            parts,
            ResponseBody::full(bytes::Bytes::new()),
        ));
    }
    let keep = response.version() == Version::HTTP_11 && !headers::says_close(response.headers());
    let (mut parts, incoming) = response.into_parts();
    headers::remove_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    lease.keep = keep;
    Ok(Response::from_parts(
        parts,
        ResponseBody::stream(incoming, lease),
    ))
}

/// What another reader might delimit differently is not passed on (RFC 9112 section 6.3).
fn framing_is_clear(response: &Response<Incoming>) -> bool {
    let headers = response.headers();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (lengths.next(), codings.next()) {
        (None, None) => true,
        (Some(length), None) => {
            lengths.next().is_none() && length.as_bytes().iter().all(u8::is_ascii_digit)
        }
        // No coding but chunked was offered to the backend.
        (None, Some(coding)) => {
            codings.next().is_none()
                && coding.as_bytes().eq_ignore_ascii_case(b"chunked")
                && response.version() == Version::HTTP_11
        }
        (Some(_), Some(_)) => false,
    }
}
