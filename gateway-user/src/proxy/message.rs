//! A request or response, whatever version of HTTP it came by.

use std::borrow::Cow;

use super::{
    fields::{Fields, Span},
    framing::{Framing, spelling},
    reason::Refusal,
};

/// How a message came.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
}

impl Version {
    /// The number alone.
    pub(super) const fn number(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => "2",
        }
    }

    /// As logs have it.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// A request as a client sent it; filters change it on its way.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    pub(super) fields: Fields,
    pub(super) version: Version,
    pub(super) method: Span,
    /// The target as the client sent it, for the log.
    pub(super) asked_target: Span,
    /// Host and port as the client sent them, for the log.
    pub(super) asked_host: Span,
    /// Host and port that the client asked for; empty where HTTP/1.0 names none.
    pub(super) authority: Span,
    /// Without the query; `*` of OPTIONS.
    pub(super) path: Span,
    /// Without its `?`.
    pub(super) query: Option<Span>,
    pub(super) framing: Framing,
    /// The client offers to leave HTTP after this request (`Connection: upgrade`, no body, not to HTTP/2).
    pub(super) upgrade: bool,
    /// The client waits for 100 (Continue) before it sends the body.
    pub(super) expects: bool,
    /// The client takes trailers (`TE: trailers`).
    pub(super) trailers: bool,
    /// The client may send another request on this connection.
    pub(super) keep_alive: bool,
}

impl Request {
    /// Forgets the message, keeps some memory.
    pub(super) fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::default()
        };
    }

    pub(super) fn method(&self) -> &[u8] {
        self.fields.text(self.method)
    }

    /// Text of the method; methods are tokens, so nothing is lost.
    pub(super) fn method_text(&self) -> &str {
        text(self.method())
    }

    /// Target as the client sent it, whatever filters have made of it.
    pub(super) fn asked_target(&self) -> &[u8] {
        self.fields.text(self.asked_target)
    }

    /// Host as the client sent it.
    pub(super) fn asked_host(&self) -> &[u8] {
        self.fields.text(self.asked_host)
    }

    pub(super) fn authority(&self) -> &str {
        text(self.fields.text(self.authority))
    }

    pub(super) fn path(&self) -> &str {
        text(self.fields.text(self.path))
    }

    pub(super) fn query(&self) -> Option<&str> {
        self.query.map(|it| text(self.fields.text(it)))
    }

    pub(super) fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }

    /// RFC 9110 section 9.2.2, without those that are not proxied.
    pub(super) fn is_idempotent(&self) -> bool {
        matches!(
            self.method(),
            b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE"
        )
    }

    /// Gives the path the spelling that rules have, which is also the one a backend gets.
    pub(super) fn spell(&mut self) -> Result<(), Refusal> {
        if let Cow::Owned(path) = spelling::normal(self.fields.text(self.path))? {
            self.path = self.fields.keep(&path);
        }
        Ok(())
    }

    /// Whether a body follows.
    pub(super) fn has_body(&self) -> bool {
        self.framing != Framing::Fixed(0)
    }
}

/// A response as a backend sent it; filters change it on its way.
#[derive(Clone, Debug, Default)]
pub(super) struct Response {
    pub(super) fields: Fields,
    pub(super) version: Version,
    pub(super) status: u16,
    /// The words behind the status; HTTP/2 has none.
    pub(super) reason: Span,
    pub(super) body: Delimited,
    /// The backend keeps the connection.
    pub(super) keep_alive: bool,
}

/// Where the body of a response ends.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Delimited {
    /// There is none, whatever the fields say (HEAD, 1xx, 204, 304).
    #[default]
    None,
    /// After this many bytes.
    Length(u64),
    /// By its chunks.
    Chunks,
    /// With the connection, or with the stream.
    End,
}

impl Response {
    /// Forgets the message, keeps some memory.
    pub(super) fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::default()
        };
    }

    /// RFC 9112 section 6.3, rules 1 and 2: such a message never has a body.
    pub(super) fn is_bodiless(status: u16, head: bool) -> bool {
        head || matches!(status, 100..=199 | 204 | 304)
    }
}

/// Whether one of these lines lists a value, compared without regard to case.
pub(super) fn lists<'a>(mut lines: impl Iterator<Item = &'a [u8]>, wanted: &[u8]) -> bool {
    lines.any(|line| {
        line.split(|byte| *byte == b',')
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(wanted))
    })
}

/// What was checked to be ASCII when it was read.
fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or_default()
}
