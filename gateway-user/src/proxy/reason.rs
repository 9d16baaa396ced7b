//! Why the proxy answered by itself, and the answer.

use bytes::Bytes;
use http::StatusCode;

use super::{fields::Name, message::Response};

/// Why a request was answered by the proxy and not by a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(usize)]
pub enum Reason {
    /// The proxy was not yet told what to serve.
    Starting,
    /// The connection came in on an address without a listener.
    NoListener,
    /// No rule of the listener matches.
    NoRule,
    /// The rule's group has no ready backend.
    NoServer,
    /// Every backend that was tried refused the connection.
    ConnectRefused,
    /// Every backend that was tried left the connection attempt unanswered.
    ConnectTimeout,
    /// The backend closed the connection before its answer.
    BackendClosed,
    /// The backend answered with something that is not HTTP/1.x.
    BadResponse,
    /// The backend did not answer within the listener's request timeout.
    Timeout,
    /// The client did not finish its request in time.
    RequestTimeout,
    /// The request breaks RFC 9110 or RFC 9112.
    BadRequest,
    /// `CONNECT` and `TRACE` are not proxied.
    MethodNotAllowed,
    /// The request target is too long.
    TargetTooLong,
    /// The request head has too many bytes or too many fields.
    HeadersTooLarge,
    /// An expectation other than `100-continue`.
    UnknownExpectation,
    /// A transfer coding other than a single `chunked`.
    UnknownCoding,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    UnknownVersion,
    /// The process holds as many client connections as it may.
    Overloaded,
    /// The rule asks for what cannot be executed yet.
    RuleRefused,
    /// The rule's traffic limit is used up.
    RateLimited,
    /// The certificate that the client was shown is not for the host it asks for.
    Misdirected,
    /// The client left before its answer was whole.
    ClientGone,
    /// The TLS handshake failed or was not finished.
    HandshakeFailed,
    /// An HTTP/2 client made work instead of requests.
    Flood,
    /// HTTP/2: a `:protocol` other than `websocket`.
    UnknownProtocol,
    /// A load balancer's connection began without a whole PROXY header.
    BadProxyHeader,
    /// The client took next to nothing of an answer that was there.
    SlowClient,
    /// The backends have as many connections as they may, and none became free in time.
    BackendBusy,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 28] = [
        Self::Starting,
        Self::NoListener,
        Self::NoRule,
        Self::NoServer,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::BackendClosed,
        Self::BadResponse,
        Self::Timeout,
        Self::RequestTimeout,
        Self::BadRequest,
        Self::MethodNotAllowed,
        Self::TargetTooLong,
        Self::HeadersTooLarge,
        Self::UnknownExpectation,
        Self::UnknownCoding,
        Self::UnknownVersion,
        Self::Overloaded,
        Self::RuleRefused,
        Self::RateLimited,
        Self::Misdirected,
        Self::ClientGone,
        Self::HandshakeFailed,
        Self::Flood,
        Self::UnknownProtocol,
        Self::BadProxyHeader,
        Self::SlowClient,
        Self::BackendBusy,
    ];

    /// The value of `x-fleetgate-reason` and of the metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::NoListener => "no-listener",
            Self::NoRule => "no-rule",
            Self::NoServer => "no-server",
            Self::ConnectRefused => "connect-refused",
            Self::ConnectTimeout => "connect-timeout",
            Self::BackendClosed => "backend-closed",
            Self::BadResponse => "bad-response",
            Self::Timeout => "timeout",
            Self::RequestTimeout => "request-timeout",
            Self::BadRequest => "bad-request",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::TargetTooLong => "target-too-long",
            Self::HeadersTooLarge => "headers-too-large",
            Self::UnknownExpectation => "unknown-expectation",
            Self::UnknownCoding => "unknown-coding",
            Self::UnknownVersion => "unknown-version",
            Self::Overloaded => "overloaded",
            Self::RuleRefused => "rule-refused",
            Self::RateLimited => "rate-limited",
            Self::Misdirected => "misdirected",
            Self::ClientGone => "client-gone",
            Self::HandshakeFailed => "handshake-failed",
            Self::Flood => "flood",
            Self::UnknownProtocol => "unknown-protocol",
            Self::BadProxyHeader => "bad-proxy-header",
            Self::SlowClient => "slow-client",
            Self::BackendBusy => "backend-busy",
        }
    }

    /// The status code that carries this reason.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoListener | Self::NoRule => StatusCode::NOT_FOUND,
            Self::Starting
            | Self::NoServer
            | Self::Overloaded
            | Self::BackendBusy
            | Self::RuleRefused
            | Self::RateLimited => StatusCode::SERVICE_UNAVAILABLE,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::ConnectRefused | Self::BackendClosed | Self::BadResponse => {
                StatusCode::BAD_GATEWAY
            }
            Self::ConnectTimeout | Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            // Never sent: there is nobody to read it.
            Self::RequestTimeout
            | Self::ClientGone
            | Self::HandshakeFailed
            | Self::Flood
            | Self::BadProxyHeader
            | Self::SlowClient => StatusCode::REQUEST_TIMEOUT,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnknownExpectation => StatusCode::EXPECTATION_FAILED,
            Self::UnknownCoding | Self::UnknownProtocol => StatusCode::NOT_IMPLEMENTED,
            Self::UnknownVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }
}

/// A request the proxy answers itself: the reason and one sentence for people.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    pub(super) detail: &'static str,
    /// Whether the connection ends with this reply.
    pub(super) close: bool,
}

impl Refusal {
    /// The connection may serve further requests.
    pub(super) const fn keep(reason: Reason, detail: &'static str) -> Self {
        Self {
            reason,
            detail,
            close: false,
        }
    }

    /// Where the next request starts is unknown, or not to be trusted.
    pub(super) const fn close(reason: Reason, detail: &'static str) -> Self {
        Self {
            reason,
            detail,
            close: true,
        }
    }

    /// As a response, whose body is returned.
    pub(super) fn answer(self, response: &mut Response) -> String {
        response.status = self.reason.status().as_u16();
        let fields = &mut response.fields;
        fields.push_known(Name::ContentType, b"text/plain; charset=utf-8");
        fields.push_known(Name::Reason, self.reason.label().as_bytes());
        if self.reason == Reason::MethodNotAllowed {
            // RFC 9110 section 15.5.6: a 405 lists what is allowed.
            fields.push_known(Name::Allow, b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        }
        format!("{}: {}\n", self.reason.label(), self.detail)
    }

    /// As raw bytes, for a connection without an exchange.
    pub(super) fn bytes(self) -> Bytes {
        let status = self.reason.status();
        let text = format!("{}: {}\n", self.reason.label(), self.detail);
        // RFC 9110 section 15.5.6: a 405 lists what is allowed.
        let allow = match self.reason {
            Reason::MethodNotAllowed => "allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n",
            _ => "",
        };
        Bytes::from(format!(
            "HTTP/1.1 {} {}\r\n{allow}server: fleetgate\r\ncontent-type: text/plain; charset=utf-8\r\n\
             x-fleetgate-reason: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            self.reason.label(),
            text.len(),
        ))
    }
}
