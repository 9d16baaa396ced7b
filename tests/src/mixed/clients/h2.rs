//! Clients that speak HTTP/2 through TLS: requests side by side, and calls of gRPC.

use std::time::Instant;

use bytes::Bytes;
use futures_util::future::{join_all, poll_fn};
use h2::{Reason, RecvStream, SendStream, client, client::SendRequest};
use http::{HeaderMap, Response};
use tokio::time::timeout;

use super::{Clients, PATIENCE, Request};
use crate::mixed::{
    grpc,
    world::{CANARY, HOST, Route},
};

/// Requests at once over a connection.
const AT_ONCE: usize = 3;
/// Rounds of requests over a connection, so that certificates are seen.
const ROUNDS: usize = 60;

/// Why there is no answer.
enum Lost {
    /// The connection was going away before the request was sent.
    Gone,
    /// The gateway says that it has not looked at it.
    Unread,
    /// Anything else.
    Failed(String),
}

impl Lost {
    /// Of a request that was sent. RFC 9113 sections 6.8 and 8.7: streams above the last one that a GOAWAY names, and
    /// refused ones, were not processed.
    fn sent(error: &h2::Error) -> Self {
        let unread = match error.reason() {
            Some(Reason::NO_ERROR) => error.is_go_away() && error.is_remote(),
            Some(Reason::REFUSED_STREAM) => error.is_remote(),
            _ => false,
        };
        match unread {
            true => Self::Unread,
            false => Self::Failed(error.to_string()),
        }
    }
}

/// What is asked over a connection.
#[derive(Clone, Debug)]
enum What {
    Request(Request),
    /// A call with so many messages.
    Call(usize),
}

type Sender = SendRequest<Bytes>;

impl Clients<'_> {
    /// Requests side by side over one connection, then over the next.
    pub(super) async fn h2(&self, kind: &'static str) {
        while !self.over() {
            self.over_a_connection(kind, |turn| What::Request(self.request(turn == 0)))
                .await;
        }
    }

    /// The same with calls.
    pub(super) async fn grpc(&self, kind: &'static str) {
        while !self.over() {
            self.over_a_connection(kind, |turn| What::Call(1 + 4 * (turn / 2)))
                .await;
        }
    }

    async fn over_a_connection(&self, kind: &'static str, what: impl Fn(usize) -> What) {
        let mut send: Option<Sender> = None;
        for _ in 0..ROUNDS {
            let mut left: Vec<What> = (0..AT_ONCE).map(&what).collect();
            left.iter().for_each(|_| self.ledger.asked(kind));
            while !left.is_empty() {
                if send.is_none() {
                    match timeout(PATIENCE, self.open(kind)).await {
                        Ok(Ok(open)) => send = Some(open),
                        other => {
                            let why = match other {
                                Ok(Err(why)) => why,
                                _ => format!("no connection in {PATIENCE:?}"),
                            };
                            left.iter().for_each(|_| {
                                self.ledger
                                    .failed(kind, format!("{why}, on a new connection"));
                            });
                            break;
                        }
                    }
                }
                let Some(open) = &send else { break };
                let asked = left
                    .iter()
                    .map(|one| timeout(PATIENCE, self.whatever(kind, open.clone(), one)));
                let outcomes = join_all(asked).await;
                let mut again = Vec::new();
                let mut gone = false;
                for (one, outcome) in left.iter().zip(outcomes) {
                    match outcome {
                        Ok(Ok(())) => {}
                        Ok(Err(Lost::Gone)) => {
                            gone = true;
                            again.push(one.clone());
                        }
                        Ok(Err(Lost::Unread)) => {
                            gone = true;
                            self.ledger.retried(kind);
                            again.push(one.clone());
                        }
                        Ok(Err(Lost::Failed(why))) => self.ledger.failed(kind, why),
                        Err(_) => self
                            .ledger
                            .failed(kind, format!("no answer in {PATIENCE:?}")),
                    }
                }
                if gone {
                    self.ledger.told(kind);
                    send = None;
                }
                left = again;
            }
            if self.over() {
                return;
            }
            self.pause().await;
        }
    }

    async fn whatever(&self, kind: &'static str, send: Sender, what: &What) -> Result<(), Lost> {
        match what {
            What::Request(request) => self.ask(kind, send, request).await,
            What::Call(messages) => self.call(kind, send, *messages).await,
        }
    }

    async fn open(&self, kind: &'static str) -> Result<Sender, String> {
        let stream = self.connect(kind, Some(1)).await;
        let (stream, _) = stream.map_err(|error| error.to_string())?;
        let shaken = client::handshake(stream).await;
        let (send, connection) = shaken.map_err(|error| error.to_string())?;
        // How it ends is told to its streams.
        tokio::spawn(async move { connection.await.ok() });
        Ok(send)
    }

    async fn ask(&self, kind: &'static str, send: Sender, request: &Request) -> Result<(), Lost> {
        let sent = Instant::now();
        let mut head = http::Request::builder()
            .method(if request.post { "POST" } else { "GET" })
            .uri(format!("https://{HOST}{}", request.target()));
        if request.canary {
            head = head.header(CANARY, "yes");
        }
        let (response, mut stream) = begin(send, head, !request.post).await?;
        if request.post {
            let body = Bytes::copy_from_slice(&request.body);
            write(&mut stream, body)
                .await
                .map_err(|it| Lost::sent(&it))?;
        }
        let response = response.await.map_err(|it| Lost::sent(&it))?;
        let (status, pod) = (response.status().as_u16(), named(response.headers()));
        let reason = response.headers().get("x-fleetgate-reason").cloned();
        let body = read(response).await?;
        let reason = reason.as_ref().and_then(|it| it.to_str().ok());
        match request.wrong(status, &pod, &body, reason) {
            Some(what) => return Err(Lost::Failed(what)),
            None => self
                .ledger
                .answered(kind, sent, sent, request.route(), &pod),
        }
        Ok(())
    }

    /// A call with so many messages, each sent after the echo of the one before.
    async fn call(&self, kind: &'static str, send: Sender, messages: usize) -> Result<(), Lost> {
        let failed = |what: &str| Lost::Failed(what.to_owned());
        let sent = Instant::now();
        let head = http::Request::builder()
            .method("POST")
            .uri(format!("https://{HOST}{}", grpc::METHOD))
            .header("te", "trailers")
            .header("content-type", "application/grpc");
        let (response, mut up) = begin(send, head, false).await?;
        let word = |turn: usize| vec![turn as u8; 10 + 700 * turn];
        write_message(&mut up, &word(0), messages == 1).await?;
        let response = response.await.map_err(|it| Lost::sent(&it))?;
        let status = response.status();
        let pod = named(response.headers());
        if status != 200 || response.headers().contains_key("grpc-status") {
            let reason = response.headers().get("x-fleetgate-reason");
            return Err(Lost::Failed(format!("status {status} ({reason:?})")));
        }
        let mut body = response.into_body();
        let mut incoming = grpc::Messages::default();
        for turn in 0..messages {
            if turn > 0 {
                write_message(&mut up, &word(turn), turn + 1 == messages).await?;
            }
            match incoming.next(&mut body).await.map_err(Lost::Failed)? {
                Some(echo) if echo == word(turn) => {}
                Some(_) => return Err(failed("another message than was sent")),
                None => return Err(failed("the call ended before its last message")),
            }
        }
        if incoming
            .next(&mut body)
            .await
            .map_err(Lost::Failed)?
            .is_some()
        {
            return Err(failed("a message more than was sent"));
        }
        let trailers = body.trailers().await.map_err(|it| Lost::sent(&it))?;
        let trailers = trailers.ok_or_else(|| failed("no trailers"))?;
        if trailers.get("grpc-status").is_none_or(|it| it != "0") || named(&trailers) != pod {
            return Err(Lost::Failed(format!("trailers {trailers:?}")));
        }
        self.ledger.answered(kind, sent, sent, Route::Grpc, &pod);
        Ok(())
    }
}

/// Sends a head; nothing was sent where this says [`Lost::Gone`].
async fn begin(
    send: Sender,
    head: http::request::Builder,
    ends: bool,
) -> Result<(client::ResponseFuture, SendStream<Bytes>), Lost> {
    let head = head.body(()).map_err(|it| Lost::Failed(it.to_string()))?;
    let mut send = send.ready().await.map_err(|_| Lost::Gone)?;
    send.send_request(head, ends).map_err(|_| Lost::Gone)
}

async fn write_message(
    stream: &mut SendStream<Bytes>,
    payload: &[u8],
    last: bool,
) -> Result<(), Lost> {
    let sent = stream.send_data(grpc::message(payload), last);
    sent.map_err(|it| Lost::sent(&it))
}

/// Sends a whole body, as room is made.
async fn write(stream: &mut SendStream<Bytes>, mut body: Bytes) -> Result<(), h2::Error> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        // An answer may be there before the end of the body; it says why.
        let Some(room) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return Ok(());
        };
        let piece = body.split_to(room?.min(body.len()));
        stream.send_data(piece, false)?;
    }
    stream.send_data(Bytes::new(), true)
}

async fn read(response: Response<RecvStream>) -> Result<Vec<u8>, Lost> {
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(|it| Lost::Failed(it.to_string()))?;
        let _ = body.flow_control().release_capacity(piece.len());
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

fn named(fields: &HeaderMap) -> String {
    let pod = fields.get("x-pod").and_then(|it| it.to_str().ok());
    pod.unwrap_or("nobody").to_owned()
}
