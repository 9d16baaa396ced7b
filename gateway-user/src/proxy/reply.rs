//! What a client gets: the answer of a backend, or one made here.

use std::{io, io::Write, time::SystemTime};

use super::{
    body::{Channel, Outgoing},
    fields::Name,
    h1::Coding,
    http2::convert,
    message::{Delimited, Request, Response, Version},
    reason::Refusal,
    stats::WorkerStats,
};

/// The client's end of one exchange.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    pub(super) to: Outgoing<'a>,
    stats: &'a WorkerStats,
    version: Version,
    head: bool,
    /// The connection may serve another request behind this answer.
    pub(super) keep: bool,
    /// Of the final head.
    pub(super) status: u16,
    /// A final head was written, or is about to be.
    pub(super) begun: bool,
    /// The connection's end is the end of the body.
    until_close: bool,
}

impl<'a> Reply<'a> {
    pub(super) fn new(
        to: Outgoing<'a>,
        request: &Request,
        keep: bool,
        stats: &'a WorkerStats,
    ) -> Self {
        Self {
            to,
            stats,
            version: request.version,
            head: request.is_head(),
            keep: keep && request.keep_alive,
            status: 0,
            begun: false,
            until_close: false,
        }
    }

    /// Whether the end of the connection must not be taken for the end of the body.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.until_close
    }

    /// Passes a 1xx on, where the client knows such.
    pub(super) async fn interim(&mut self, response: &Response) -> io::Result<()> {
        match &mut self.to.channel {
            Channel::H1(_) if self.version == Version::Http10 => Ok(()),
            Channel::H1(sink) => {
                sink.head(Coding::None, |out| {
                    status_line(response, out);
                    response.fields.write_h1(out);
                    out.extend_from_slice(b"\r\n");
                });
                sink.flush().await
            }
            Channel::H2(stream) => stream.interim(convert::to_response(response)),
        }
    }

    /// Begins the answer. Fields that delimit or belong to the connection were removed, but for Content-Length.
    pub(super) fn begin(&mut self, response: &Response) -> io::Result<()> {
        self.begun = true;
        self.status = response.status;
        // Who has read an answer finds it counted.
        self.stats.response(response.status);
        let has_length = response.fields.has(Name::ContentLength);
        match &mut self.to.channel {
            Channel::H1(sink) => {
                let coding = match response.body {
                    Delimited::None => Coding::None,
                    Delimited::Length(_) => Coding::Plain,
                    _ if self.version == Version::Http10 => {
                        self.keep = false;
                        self.until_close = true;
                        Coding::Plain
                    }
                    _ => Coding::Chunked,
                };
                let (keep, version) = (self.keep, self.version);
                sink.head(coding, |out| {
                    status_line(response, out);
                    response.fields.write_h1(out);
                    match response.body {
                        Delimited::Length(length) if !has_length => {
                            // Writing to memory does not fail.
                            let _ = write!(out, "content-length: {length}\r\n");
                        }
                        _ if coding == Coding::Chunked => {
                            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
                        }
                        _ => {}
                    }
                    if !keep {
                        out.extend_from_slice(b"connection: close\r\n");
                    } else if version == Version::Http10 {
                        out.extend_from_slice(b"connection: keep-alive\r\n");
                    }
                    out.extend_from_slice(b"\r\n");
                });
                Ok(())
            }
            Channel::H2(stream) => {
                let left = match response.body {
                    Delimited::None => Some(0),
                    Delimited::Length(length) => Some(length),
                    Delimited::Chunks | Delimited::End => None,
                };
                stream.head(convert::to_response(response), left)
            }
        }
    }

    /// Leaves HTTP: `response` is a 101 with its `Connection` and `Upgrade`. Over HTTP/2 it is a 200 (RFC 8441
    /// section 5), and the stream stays open.
    pub(super) async fn switch(&mut self, response: &Response) -> io::Result<()> {
        self.begun = true;
        self.status = match &self.to.channel {
            Channel::H1(_) => response.status,
            Channel::H2(_) => 200,
        };
        self.stats.response(self.status);
        match &self.to.channel {
            Channel::H1(_) => self.interim(response).await,
            Channel::H2(stream) => stream.head(convert::to_switched(response), None),
        }
    }

    /// Answers with a whole message made here.
    pub(super) async fn whole(&mut self, response: &mut Response, body: &[u8]) -> io::Result<()> {
        let none = Response::is_bodiless(response.status, self.head);
        let length = body.len() as u64;
        response.body = if none {
            Delimited::None
        } else {
            Delimited::Length(length)
        };
        if response.status != 204 {
            let mut text = Vec::with_capacity(20);
            let _ = write!(text, "{length}");
            response.fields.set(Name::ContentLength, &text);
        }
        response.fields.set(Name::Server, b"fleetgate");
        let date = httpdate::fmt_http_date(SystemTime::now());
        response.fields.set(Name::Date, date.as_bytes());
        self.begin(response)?;
        if !none {
            self.to.data(body).await?;
        }
        self.to.end(None).await
    }

    /// Answers why there is no other answer.
    pub(super) async fn refuse(
        &mut self,
        refusal: Refusal,
        response: &mut Response,
    ) -> io::Result<()> {
        response.clear();
        let text = refusal.answer(response);
        self.keep &= !refusal.close;
        self.whole(response, text.as_bytes()).await
    }
}

fn status_line(response: &Response, out: &mut Vec<u8>) {
    let words = response.fields.text(response.reason);
    let words = if words.is_empty() {
        let status = http::StatusCode::from_u16(response.status);
        let known = status.ok().and_then(|it| it.canonical_reason());
        known.unwrap_or_default().as_bytes()
    } else {
        words
    };
    out.extend_from_slice(b"HTTP/1.1 ");
    let status = response.status;
    out.extend([status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8));
    out.push(b' ');
    out.extend_from_slice(words);
    out.extend_from_slice(b"\r\n");
}
