//! One line of the access log.

use std::{net::SocketAddr, time::Duration};

use super::json::{address, text};
use crate::proxy::{
    decimal::number,
    trace::{SpanId, TraceId},
};

/// Bytes shown of a path with its query.
const PATH_BYTES: usize = 1024;
/// Bytes shown of every other text that a client or a name gives.
const TEXT_BYTES: usize = 256;
/// A byte that is escaped takes six.
const ESCAPED: usize = 6;
/// Texts of a line beside the path.
const TEXTS: usize = 14;
/// No line is longer: names and numbers take less than 1536 bytes.
pub(super) const MAX_LINE_BYTES: usize = ESCAPED * (PATH_BYTES + TEXTS * TEXT_BYTES) + 1536;

/// What is known of a request when it has ended. Texts are shown up to a bound (the path 1 KiB, others 256 bytes), behind
/// which `…` stands; what is `None` or empty is left out, but for `reason`, which is null.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry<'a> {
    /// When its first byte came, in milliseconds since 1970.
    pub time_ms: u64,
    /// Address and port of the client; behind a trusted proxy the one it tells, whose port is 0 and not shown where it
    /// is not known.
    pub client: Option<SocketAddr>,
    /// Who connected, if that is another.
    pub peer: Option<SocketAddr>,
    /// Name of the listener, as [`crate::ir::ListenerName`] shows it.
    pub listener: &'a str,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`; `TLS` for a connection that was passed on to a pod.
    pub protocol: &'a str,
    /// As the client sent it.
    pub method: &'a [u8],
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host or `:authority`, as the client sent it.
    pub host: &'a [u8],
    /// Path with query, as the client sent it.
    pub path: &'a [u8],
    /// Status code sent to the client; 0 if none was.
    pub status: u16,
    /// Label of the reason if the proxy answered by itself, or ended the exchange early.
    pub reason: Option<&'a str>,
    /// `namespace/name` of the Ingress, and the number of the rule in its listener, from 1.
    pub rule: Option<(&'a str, u32)>,
    /// Name of the service, as [`crate::ir::ServiceName`] shows it.
    pub service: &'a str,
    /// Member cluster of the backend.
    pub cluster: &'a str,
    /// The backend that was tried last.
    pub backend: Option<SocketAddr>,
    /// Backends that were tried.
    pub attempts: u32,
    /// Bytes of the request's body.
    pub request_body_bytes: u64,
    /// All bytes of the request, as they were framed; of HTTP/2 the body and, before compression, the fields.
    pub received_bytes: u64,
    /// Bytes of the response's body.
    pub response_body_bytes: u64,
    /// All bytes of the response, likewise.
    pub sent_bytes: u64,
    /// How long what took.
    pub timers: Timers,
    /// `TLSv1.2` or `TLSv1.3`; empty without TLS.
    pub tls: &'a str,
    /// Server name the client asked for (RFC 6066 section 3).
    pub sni: &'a [u8],
    /// The trace that the request belongs to.
    pub trace_id: Option<TraceId>,
    /// The proxy's span in it.
    pub span_id: Option<SpanId>,
    /// `User-Agent`.
    pub user_agent: &'a [u8],
    /// `Referer`.
    pub referer: &'a [u8],
}

/// How long the parts of an exchange took; `None`: it did not come to that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timers {
    /// From the first byte of the request head to its last.
    pub head: Option<Duration>,
    /// From there until a backend was chosen, waiting for one included.
    pub pick: Option<Duration>,
    /// Connecting to it; none on a connection that was open already.
    pub connect: Option<Duration>,
    /// From the request's head sent until the first byte of the response.
    pub first_byte: Option<Duration>,
    /// From the first byte of the request to the last of the response.
    pub total: Duration,
}

fn micros(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(1_000_000)
        .saturating_add(u64::from(duration.subsec_micros()))
}

impl Entry<'_> {
    /// Appends the line; `time` is [`Self::time_ms`] as text.
    pub(super) fn write(&self, time: &[u8; 24], out: &mut Vec<u8>) {
        // One look at the room instead of one for every part.
        out.reserve(MAX_LINE_BYTES);
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(time);
        // Every field from here on closes the string before it.
        if let Some(client) = self.client {
            out.extend_from_slice(b"\",\"client\":\"");
            address(out, client);
        }
        if let Some(peer) = self.peer {
            out.extend_from_slice(b"\",\"peer\":\"");
            address(out, peer);
        }
        let mut string = |name: &[u8], value: &[u8]| {
            out.extend_from_slice(name);
            text(out, value, TEXT_BYTES);
        };
        string(b"\",\"listener\":\"", self.listener.as_bytes());
        string(b"\",\"protocol\":\"", self.protocol.as_bytes());
        string(b"\",\"method\":\"", self.method);
        string(b"\",\"scheme\":\"", self.scheme.as_bytes());
        string(b"\",\"host\":\"", self.host);
        out.extend_from_slice(b"\",\"path\":\"");
        text(out, self.path, PATH_BYTES);
        out.extend_from_slice(b"\",\"status\":");
        number(out, self.status.into());
        match self.reason {
            None => out.extend_from_slice(b",\"reason\":null"),
            Some(reason) => {
                out.extend_from_slice(b",\"reason\":\"");
                text(out, reason.as_bytes(), TEXT_BYTES);
                out.push(b'"');
            }
        }
        if let Some((ingress, place)) = self.rule {
            optional(out, b",\"rule\":\"", ingress.as_bytes());
            out.extend_from_slice(b",\"rule_number\":");
            number(out, place.into());
        }
        optional(out, b",\"service\":\"", self.service.as_bytes());
        optional(out, b",\"cluster\":\"", self.cluster.as_bytes());
        if let Some(backend) = self.backend {
            out.extend_from_slice(b",\"backend\":\"");
            address(out, backend);
            out.push(b'"');
        }
        let mut count = |name: &[u8], value: u64| {
            out.extend_from_slice(name);
            number(out, value);
        };
        count(b",\"attempts\":", self.attempts.into());
        count(b",\"request_body_bytes\":", self.request_body_bytes);
        count(b",\"received_bytes\":", self.received_bytes);
        count(b",\"response_body_bytes\":", self.response_body_bytes);
        count(b",\"sent_bytes\":", self.sent_bytes);
        let timers = [
            (&b",\"head_us\":"[..], self.timers.head),
            (b",\"pick_us\":", self.timers.pick),
            (b",\"connect_us\":", self.timers.connect),
            (b",\"first_byte_us\":", self.timers.first_byte),
            (b",\"total_us\":", Some(self.timers.total)),
        ];
        for (name, timer) in timers {
            if let Some(timer) = timer {
                count(name, micros(timer));
            }
        }
        optional(out, b",\"tls\":\"", self.tls.as_bytes());
        optional(out, b",\"sni\":\"", self.sni);
        if let Some(trace) = self.trace_id {
            optional(out, b",\"trace_id\":\"", &trace.text());
        }
        if let Some(span) = self.span_id {
            optional(out, b",\"span_id\":\"", &span.text());
        }
        optional(out, b",\"user_agent\":\"", self.user_agent);
        optional(out, b",\"referer\":\"", self.referer);
        out.extend_from_slice(b"}\n");
    }
}

fn optional(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if !value.is_empty() {
        out.extend_from_slice(name);
        text(out, value, TEXT_BYTES);
        out.push(b'"');
    }
}
