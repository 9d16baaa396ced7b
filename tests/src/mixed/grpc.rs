//! gRPC over HTTP/2: messages of bytes, a method that echoes them, and its status in the trailers.
//! Source: gRPC over HTTP2, doc/PROTOCOL-HTTP2.md of the gRPC project.

use std::{io, rc::Rc};

use bytes::{Buf, Bytes, BytesMut};
use h2::{
    RecvStream,
    server::{self, SendResponse},
};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::{net::TcpStream, sync::watch, task::spawn_local};

/// The path of the one method.
pub(super) const METHOD: &str = "/mixed.Echo/Call";
/// Flag and length in front of a message.
const PREFIX: usize = 5;
/// No message is longer.
const MOST_BYTES: usize = 1 << 20;

/// A message with its prefix, not compressed.
pub(super) fn message(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX + payload.len());
    out.extend_from_slice(&[0]);
    out.extend_from_slice(
        &u32::try_from(payload.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    out.extend_from_slice(payload);
    out.freeze()
}

/// Messages as they come out of a body's pieces.
#[derive(Debug, Default)]
pub(super) struct Messages(BytesMut);

impl Messages {
    /// The next message of a body; `None` at its end.
    pub(super) async fn next(&mut self, body: &mut RecvStream) -> Result<Option<Bytes>, String> {
        loop {
            if let Some(&[flag, a, b, c, d]) = self.0.first_chunk() {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                if flag != 0 || length > MOST_BYTES {
                    return Err(format!("a message of flag {flag} and {length} bytes"));
                }
                if self.0.len() >= PREFIX + length {
                    self.0.advance(PREFIX);
                    return Ok(Some(self.0.split_to(length).freeze()));
                }
            }
            match body.data().await {
                Some(Ok(piece)) => {
                    let _ = body.flow_control().release_capacity(piece.len());
                    self.0.extend_from_slice(&piece);
                }
                Some(Err(error)) => return Err(error.to_string()),
                None if self.0.is_empty() => return Ok(None),
                None => return Err("half of a message".into()),
            }
        }
    }
}

/// A pod's end of a connection, until it is over or the pod ends.
pub(super) async fn serve(
    name: &str,
    stream: TcpStream,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut connection = server::handshake(stream).await.map_err(io::Error::other)?;
    let name: Rc<str> = name.into();
    let mut told = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            _ = stop.wait_for(|it| *it), if !told => {
                told = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(accepted) = accepted else {
            return Ok(());
        };
        let (request, respond) = accepted.map_err(io::Error::other)?;
        let name = Rc::clone(&name);
        // A call that breaks is the caller's affair.
        spawn_local(async move { echo(&name, request, respond).await.ok() });
    }
}

async fn echo(
    name: &str,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), String> {
    let said = |error: h2::Error| error.to_string();
    let pod = HeaderValue::from_str(name).map_err(|error| error.to_string())?;
    let mut head = Response::new(());
    head.headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    head.headers_mut().insert("x-pod", pod.clone());
    let known = request.uri().path() == METHOD;
    let mut stream = respond.send_response(head, false).map_err(said)?;
    let mut messages = Messages::default();
    let mut body = request.into_body();
    while let Some(message_in) = messages.next(&mut body).await? {
        stream
            .send_data(message(&message_in), false)
            .map_err(said)?;
    }
    let mut trailers = HeaderMap::new();
    // 12: unimplemented.
    let status = if known { "0" } else { "12" };
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("x-pod", pod);
    stream.send_trailers(trailers).map_err(said)
}
