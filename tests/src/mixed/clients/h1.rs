//! Clients that speak HTTP/1.1.

use std::{fmt::Write, io, time::Instant};

use tokio::time::timeout;

use super::{Clients, PATIENCE, Request, Stream};
use crate::mixed::{
    http1::Conn,
    world::{CANARY, HOST},
};

/// How a client behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habit {
    /// Sends bodies, in every other request in chunks.
    pub(super) post: bool,
    /// Through TLS.
    pub(super) tls: bool,
    /// Requests over one connection; 0: as many as the gateway lets it.
    pub(super) most: usize,
}

/// Why there is no answer.
enum Lost {
    /// The connection ended before a byte of it.
    Unanswered(io::Error),
    /// In its middle.
    Broken(io::Error),
}

/// What came back.
struct Answer {
    status: u16,
    pod: String,
    reason: Option<String>,
    body: Vec<u8>,
    closes: bool,
}

type Open = Option<Conn<Box<dyn Stream>>>;

impl Clients<'_> {
    /// One request after the other.
    pub(super) async fn h1(&self, kind: &'static str, habit: Habit) {
        let mut conn: Open = None;
        let mut used = 0;
        while !self.over() {
            if let Some(open) = &mut conn
                && open.is_over()
            {
                self.ledger.unused(kind);
                conn = None;
            }
            if conn.is_none() {
                used = 0;
            }
            used += 1;
            let last = used == habit.most;
            self.one(kind, habit, &mut conn, last).await;
            if last {
                conn = None;
            }
            self.pause().await;
        }
    }

    /// Asks until there is an answer, or none may be expected.
    async fn one(&self, kind: &'static str, habit: Habit, conn: &mut Open, last: bool) {
        let request = self.request(habit.post);
        self.ledger.asked(kind);
        let sent = Instant::now();
        loop {
            let reused = conn.is_some();
            let asked = self.attempt(kind, habit, conn, &request, last);
            let why = match timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) => {
                    if answer.closes {
                        *conn = None;
                    }
                    if answer.closes && !last {
                        self.ledger.told(kind);
                    }
                    let Answer {
                        status,
                        pod,
                        body,
                        reason,
                        ..
                    } = answer;
                    match request.wrong(status, &pod, &body, reason.as_deref()) {
                        Some(what) => self.ledger.failed(kind, what),
                        None => {
                            let route = request.route();
                            self.ledger.answered(kind, sent, sent, route, &pod);
                        }
                    }
                    return;
                }
                // RFC 9110 section 9.2.2: what may be sent twice is sent again; the next connection is a new one.
                Ok(Err(Lost::Unanswered(_))) if reused && !request.post => {
                    self.ledger.retried(kind);
                    *conn = None;
                    continue;
                }
                Ok(Err(Lost::Unanswered(error))) => format!("no byte of an answer: {error}"),
                Ok(Err(Lost::Broken(error))) => format!("the answer broke off: {error}"),
                Err(_) => format!("no answer in {PATIENCE:?}"),
            };
            let on = if reused { "kept" } else { "new" };
            self.ledger
                .failed(kind, format!("{why}, on a {on} connection"));
            *conn = None;
            return;
        }
    }

    async fn attempt(
        &self,
        kind: &'static str,
        habit: Habit,
        conn: &mut Open,
        request: &Request,
        last: bool,
    ) -> Result<Answer, Lost> {
        let conn = match conn {
            Some(conn) => conn,
            None => {
                let tls = habit.tls.then_some(0);
                let stream = self.connect(kind, tls).await;
                let (stream, _) = stream.map_err(Lost::Unanswered)?;
                conn.insert(Conn::new(stream))
            }
        };
        let bytes = written(request, last);
        conn.write(&bytes).await.map_err(Lost::Unanswered)?;
        let head = match conn.head().await {
            Ok(Some(head)) => head,
            Ok(None) => return Err(Lost::Unanswered(io::ErrorKind::UnexpectedEof.into())),
            Err(error) if !conn.has_more() => return Err(Lost::Unanswered(error)),
            Err(error) => return Err(Lost::Broken(error)),
        };
        let body = conn.body(&head).await.map_err(Lost::Broken)?;
        Ok(Answer {
            status: head.status(),
            pod: head.field("x-pod").unwrap_or("nobody").to_owned(),
            reason: head.field("x-fleetgate-reason").map(str::to_owned),
            body,
            closes: head.closes() || last,
        })
    }
}

/// A request as it is sent.
fn written(request: &Request, last: bool) -> Vec<u8> {
    let method = if request.post { "POST" } else { "GET" };
    let mut head = format!("{method} {} HTTP/1.1\r\nHost: {HOST}\r\n", request.target());
    // Writing to a String cannot fail.
    if request.canary {
        let _ = write!(head, "{CANARY}: yes\r\n");
    }
    if last {
        head.push_str("Connection: close\r\n");
    }
    let chunked = request.post && request.asked.id.is_multiple_of(2);
    if chunked {
        head.push_str("Transfer-Encoding: chunked\r\n");
    } else if request.post {
        let _ = write!(head, "Content-Length: {}\r\n", request.body.len());
    }
    let mut out = (head + "\r\n").into_bytes();
    if chunked {
        for piece in request.body.chunks(3_000) {
            out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n\r\n");
    } else {
        out.extend_from_slice(&request.body);
    }
    out
}
