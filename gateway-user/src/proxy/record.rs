//! What is known of an exchange when it has ended, for the access log and the metrics.

use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use super::{
    access_log::{Entry, Timers},
    downstream::Downstream,
    fields::Name,
    group::GroupState,
    headers::host_of,
    message::{Request, Version},
    reason::Reason,
    trace::{
        Parent, Span,
        export::{Finished, text},
    },
    worker::{ListenerState, Worker},
};

/// Filled in as an exchange goes on.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) started: Instant,
    pub(super) time: SystemTime,
    /// How long the head took to arrive, where it came in pieces.
    pub(super) head: Option<Duration>,
    /// The client of the request; at first whom the connection is for.
    pub(super) client: SocketAddr,
    /// Number of the rule from 1, and its Ingress.
    pub(super) rule: Option<(u32, std::sync::Arc<str>)>,
    pub(super) group: Option<Rc<GroupState>>,
    /// The backend that was tried last.
    pub(super) backend: Option<(usize, SocketAddr)>,
    pub(super) attempts: u32,
    pub(super) pick: Option<Duration>,
    pub(super) connect: Option<Duration>,
    pub(super) first_byte: Option<Duration>,
    pub(super) reason: Option<Reason>,
    pub(super) status: u16,
    /// That of the backend, whatever rules made of it.
    pub(super) backend_status: u16,
    pub(super) request_body: u64,
    pub(super) response_body: u64,
    /// The proxy's span, where requests are traced.
    pub(super) span: Option<Span>,
    /// The answer did not come to its end.
    pub(super) aborted: bool,
}

impl Record {
    pub(super) fn new(started: Instant, head: Option<Duration>, client: SocketAddr) -> Self {
        Self {
            started,
            time: SystemTime::now(),
            head,
            client,
            rule: None,
            group: None,
            backend: None,
            attempts: 0,
            pick: None,
            connect: None,
            first_byte: None,
            reason: None,
            status: 0,
            backend_status: 0,
            request_body: 0,
            response_body: 0,
            span: None,
            aborted: false,
        }
    }

    /// Counts it, gives its span away, and writes its line.
    pub(super) fn end(
        &self,
        worker: &Worker,
        listener: Option<&ListenerState>,
        down: &Downstream,
        request: &Request,
        bytes: (u64, u64),
    ) {
        let total = self.started.elapsed() + self.head.unwrap_or_default();
        if let Some(listener) = listener {
            listener.stats.observe(self.status, total);
            // A connection of HTTP/2 counts by itself, as the bytes are on it.
            if request.version != Version::Http2 {
                listener.stats.received_bytes.add(bytes.0);
                listener.stats.sent_bytes.add(bytes.1);
            }
        }
        if let (Some(tracer), Some(span)) = (&worker.tracer, &self.span) {
            tracer.end(span, || {
                self.finished(*span, listener, down, request, total)
            });
        }
        let mut log = worker.log.borrow_mut();
        if !log.is_on() {
            return;
        }
        // Untraced requests are found by what the caller says: it was passed on as it came.
        let trace = match self.span {
            Some(span) => Some(span.trace),
            None => Parent::of(request.fields.all(Name::Traceparent)).map(|it| it.trace),
        };
        let rule = self
            .rule
            .as_ref()
            .map(|(number, ingress)| (&**ingress, *number));
        log.write(&Entry {
            time_ms: u64::try_from(self.began().as_millis()).unwrap_or(u64::MAX),
            client: Some(self.client),
            peer: Some(down.peer).filter(|it| *it != self.client),
            listener: listener.map_or("", |it| &it.name),
            protocol: request.version.text(),
            method: request.method(),
            scheme: if down.is_tls() { "https" } else { "http" },
            host: request.asked_host(),
            path: request.asked_target(),
            status: self.status,
            reason: self.reason.map(Reason::label),
            rule,
            service: self.group.as_ref().map_or("", |it| &it.service),
            cluster: self.cluster().unwrap_or_default(),
            backend: self.backend.map(|it| it.1),
            attempts: self.attempts,
            request_body_bytes: self.request_body,
            received_bytes: bytes.0,
            response_body_bytes: self.response_body,
            sent_bytes: bytes.1,
            timers: Timers {
                head: self.head,
                pick: self.pick,
                connect: self.connect,
                first_byte: self.first_byte,
                total,
            },
            tls: down.secured.as_ref().map_or("", |it| it.version),
            sni: down
                .secured
                .as_ref()
                .and_then(|it| it.sni.as_deref())
                .unwrap_or_default()
                .as_bytes(),
            trace_id: trace,
            span_id: self.span.map(|it| it.id),
            user_agent: request.fields.get(Name::UserAgent).unwrap_or_default(),
            referer: request.fields.get(Name::Referer).unwrap_or_default(),
        });
    }

    /// When it began, since 1970.
    fn began(&self) -> Duration {
        self.time.duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// Member cluster of the backend that was tried last.
    fn cluster(&self) -> Option<&str> {
        let (group, (index, _)) = self.group.as_ref().zip(self.backend)?;
        Some(&*group.group.backends.get(index)?.cluster.0)
    }

    fn finished(
        &self,
        span: Span,
        listener: Option<&ListenerState>,
        down: &Downstream,
        request: &Request,
        total: Duration,
    ) -> Finished {
        let host = str::from_utf8(request.asked_host()).ok().and_then(host_of);
        let target = request.asked_target();
        let path = target.split(|byte| *byte == b'?').next();
        let user_agent = request.fields.get(Name::UserAgent);
        Finished {
            span,
            start_unix_ns: u64::try_from(self.began().as_nanos()).unwrap_or(u64::MAX),
            duration: total,
            method: text(request.method()),
            scheme: if down.is_tls() { "https" } else { "http" },
            version: request.version.number(),
            host: text(host.unwrap_or_default().as_bytes()),
            port: down.local.port(),
            path: text(path.unwrap_or_default()),
            user_agent: text(user_agent.unwrap_or_default()),
            status: self.status,
            reason: self.reason.map(Reason::label),
            aborted: self.aborted,
            client: self.client,
            peer: down.peer,
            listener: listener.map_or("", |it| &it.name).into(),
            rule: (self.rule.as_ref()).map(|(number, ingress)| (ingress.clone(), *number)),
            service: self.group.as_ref().map_or("", |it| &*it.service).into(),
            cluster: self.cluster().unwrap_or_default().into(),
            backend: self.backend.map(|it| it.1),
            attempts: self.attempts,
        }
    }
}
