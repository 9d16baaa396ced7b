//! Clients that keep a WebSocket open and have messages echoed.

use std::{io, mem::MaybeUninit, time::Instant};

use socket2::Socket;
use tokio::time::timeout;

use super::{Clients, PATIENCE, Stream};
use crate::mixed::{
    http1::Conn,
    websocket::{self, CLOSE, TEXT},
    world::{HOST, Route},
};

/// A message that the next tunnel carries first.
type Pending = Option<Vec<u8>>;

/// An open WebSocket.
struct Tunnel {
    conn: Conn<Box<dyn Stream>>,
    socket: Socket,
    pod: String,
}

/// Whether something came just now, be it the end, that the event loop may not have heard of yet.
fn has_come(socket: &Socket) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let peeked = socket.peek(&mut byte);
    !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl Clients<'_> {
    /// One tunnel after the other, each for as long as it lasts.
    pub(super) async fn websocket(&self, kind: &'static str, tls: bool) {
        let mut pending = None;
        while !self.over() {
            self.ledger.asked(kind);
            let sent = Instant::now();
            let open = timeout(PATIENCE, self.shake_hands(kind, tls)).await;
            let open = open.unwrap_or_else(|_| Err(format!("no answer in {PATIENCE:?}")));
            match open {
                Ok(tunnel) => {
                    let pod = &tunnel.pod;
                    self.ledger.answered(kind, sent, sent, Route::Web, pod);
                    pending = self.talk(kind, tunnel, pending).await;
                }
                Err(why) => {
                    self.ledger.failed(kind, format!("{why}, at the handshake"));
                }
            }
            self.pause().await;
        }
    }

    async fn shake_hands(&self, kind: &'static str, tls: bool) -> Result<Tunnel, String> {
        let said = |error: io::Error| error.to_string();
        let stream = self.connect(kind, tls.then_some(0)).await;
        let (stream, socket) = stream.map_err(said)?;
        let mut conn = Conn::new(stream);
        let head = format!(
            "GET /web/socket HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
            websocket::KEY
        );
        conn.write(head.as_bytes()).await.map_err(said)?;
        let head = conn.head().await.map_err(said)?;
        let head = head.ok_or("the connection ended without an answer")?;
        let accepted = head.field("sec-websocket-accept") == Some(websocket::ACCEPT);
        if head.status() != 101 || !accepted {
            return Err(format!("{head:?}"));
        }
        let pod = head.field("x-pod").unwrap_or("nobody").to_owned();
        Ok(Tunnel { conn, socket, pod })
    }

    /// Has messages echoed until one side goes. What is returned was sent, and the pod has gone without reading it.
    async fn talk(&self, kind: &'static str, tunnel: Tunnel, mut pending: Pending) -> Pending {
        let Tunnel {
            mut conn,
            socket,
            pod,
        } = tunnel;
        let opened = Instant::now();
        for turn in 0_u64.. {
            tokio::select! {
                biased;
                came = conn.fill() => {
                    match came {
                        // Nobody has asked for anything else.
                        Ok(()) => self.good_bye(kind, &mut conn).await,
                        Err(_) => self.ledger.cut(kind),
                    }
                    return pending;
                }
                () = self.pause() => {}
            }
            // Whoever sends looks first whether the other side has ended.
            if has_come(&socket) {
                continue;
            }
            if self.over() && pending.is_none() {
                let bye = websocket::frame(CLOSE, &[], true);
                if conn.write(&bye).await.is_err() {
                    self.ledger.cut(kind);
                    return None;
                }
                // The pod's closing frame ends it in order.
                self.good_bye(kind, &mut conn).await;
                return None;
            }
            let message = match pending.take() {
                Some(message) => message,
                None => {
                    self.ledger.asked(kind);
                    let text = format!("message {turn} ");
                    text.repeat(1 + self.below(40)).into_bytes()
                }
            };
            let sent = Instant::now();
            let echoed = async {
                conn.write(&websocket::frame(TEXT, &message, true)).await?;
                websocket::read(&mut conn).await
            };
            match timeout(PATIENCE, echoed).await {
                Ok(Ok((TEXT, echo))) if echo == message => {
                    self.ledger.answered(kind, sent, opened, Route::Web, &pod);
                }
                Ok(Ok((CLOSE, _))) => {
                    self.ledger.told(kind);
                    self.ledger.retried(kind);
                    let _ = conn.write(&websocket::frame(CLOSE, &[], true)).await;
                    return Some(message);
                }
                Ok(Ok((opcode, echo))) => {
                    let what = format!("a frame of opcode {opcode} and {} bytes", echo.len());
                    self.ledger.failed(kind, what);
                    return None;
                }
                Ok(Err(error)) => {
                    let what =
                        format!("the tunnel to {pod} ended with a message under way: {error}");
                    self.ledger.failed(kind, what);
                    return None;
                }
                Err(_) => {
                    self.ledger.failed(kind, format!("no echo in {PATIENCE:?}"));
                    return None;
                }
            }
        }
        None
    }

    /// Reads the pod's closing frame, and answers it.
    async fn good_bye(&self, kind: &'static str, conn: &mut Conn<Box<dyn Stream>>) {
        match timeout(PATIENCE, websocket::read(conn)).await {
            Ok(Ok((CLOSE, _))) => {
                self.ledger.told(kind);
                // The pod may have had ours before.
                let _ = conn.write(&websocket::frame(CLOSE, &[], true)).await;
            }
            Ok(Ok((opcode, _))) => {
                let what = format!("a frame of opcode {opcode} that nobody asked for");
                self.ledger.failed(kind, what);
            }
            _ => self.ledger.failed(kind, "half of a closing frame".into()),
        }
    }
}
