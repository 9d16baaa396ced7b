//! gRPC: one call over HTTP/2 without TLS.
//!
//! Source: gRPC over HTTP/2 (PROTOCOL-HTTP2.md) and its health checking protocol (`grpc.health.v1.Health/Check`).

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::pin,
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use h2::client::{Builder, SendRequest};
use hyper::http::{HeaderMap, Request, StatusCode, Uri, uri::Scheme};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
    time::timeout,
};

use super::{Met, host, message};
use crate::ir::{HealthCheck, ProbeFailure};

/// What path `/` asks for.
const CHECK: &str = "/grpc.health.v1.Health/Check";
/// The message of every call: five bytes of prefix (not compressed, length 0), and nothing. As a `HealthCheckRequest` it
/// names the empty service, which stands for the whole server.
const EMPTY: [u8; 5] = [0; 5];
/// Most of an answer's message. It is also the window, so a pod cannot send more; a serving one needs 7 bytes.
const MESSAGE: u32 = 4096;
/// Most of an answer's headers and of its trailers, in bytes as RFC 9113 section 6.5.2 counts them.
const HEADERS: u32 = 16 * 1024;
/// The connection is closed in order if the pod lets that happen within this.
const REST: Duration = Duration::from_millis(200);

/// `stream` must end by itself after a number of bytes: frames that are no answer are not counted here.
pub(super) async fn ask<S>(stream: S, address: SocketAddr, check: &HealthCheck) -> io::Result<Met>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let request = request(address, check)?;
    let shaken = Builder::new()
        .enable_push(false)
        .initial_window_size(MESSAGE)
        .max_header_list_size(HEADERS)
        .handshake::<_, Bytes>(stream)
        .await;
    let (send, connection) = match shaken {
        Ok(both) => both,
        Err(error) => return failed(error),
    };
    let mut connection = Box::pin(connection);
    let mut call = pin!(call(send, request, check));
    let (met, open) = select! {
        biased;
        met = &mut call => (met, true),
        ended = &mut connection => {
            // An answer that came before the end is there by now; without one, the connection knows what happened.
            let met = match call.now_or_never() {
                Some(Ok(met)) => Ok(met),
                _ => ended.map(|()| Err(ProbeFailure::Closed)),
            };
            (met, false)
        }
    };
    match met {
        // With its only call over, it says GOAWAY and ends.
        Ok(Ok(())) => Ok(Met::good(async move {
            if open {
                let _ = timeout(REST, connection).await;
            }
        })),
        Ok(Err(why)) => Ok(Met::bad(why)),
        Err(error) => failed(error),
    }
}

/// RFC 9113 breaches of the pod are its answer; what the socket met is an error as everywhere.
fn failed(error: h2::Error) -> io::Result<Met> {
    let remote = error.is_remote();
    match error.into_io() {
        Some(error) => Err(error),
        None if remote => Ok(Met::bad(ProbeFailure::Closed)),
        None => Ok(Met::bad(ProbeFailure::NotGrpc)),
    }
}

/// Fails only where the path is none that HTTP/2 could carry.
fn request(address: SocketAddr, check: &HealthCheck) -> io::Result<Request<()>> {
    let uri = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(host(address))
        .path_and_query(method(check))
        .build();
    uri.and_then(|uri| {
        Request::builder()
            .method(check.method.as_str())
            .uri(uri)
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("user-agent", "fleetgate-health")
            .body(())
    })
    .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))
}

/// The method that is called, `/service/method`.
fn method(check: &HealthCheck) -> &str {
    match check.path.as_str() {
        "/" => CHECK,
        path => path,
    }
}

async fn call(
    send: SendRequest<Bytes>,
    request: Request<()>,
    check: &HealthCheck,
) -> Result<Result<(), ProbeFailure>, h2::Error> {
    let mut send = send.ready().await?;
    let (response, mut body) = send.send_request(request, false)?;
    body.send_data(Bytes::from_static(&EMPTY), true)?;
    let (head, mut body) = response.await?.into_parts();
    // "Trailers-Only": the headers say it all.
    if head.headers.contains_key(STATUS) {
        return Ok(judge(&head.headers, &[], check));
    }
    // "Clients must synthesize a status" where there is none; who sent this speaks HTTP, so its own status says more.
    if head.status != StatusCode::OK {
        return Ok(Err(ProbeFailure::Status(head.status.as_u16())));
    }
    let mut message = Vec::new();
    while let Some(piece) = body.data().await {
        message.extend_from_slice(&piece?);
        // The window is never opened again, so more would not come.
        if message.len() >= MESSAGE as usize {
            return Ok(Err(ProbeFailure::NotGrpc));
        }
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok(judge(&trailers, &message, check))
}

const STATUS: &str = "grpc-status";

/// What the trailers and the message before them say.
fn judge(trailers: &HeaderMap, message: &[u8], check: &HealthCheck) -> Result<(), ProbeFailure> {
    let status = trailers.get(STATUS).and_then(|it| it.to_str().ok());
    let status: u16 = status
        .and_then(|it| it.parse().ok())
        .ok_or(ProbeFailure::NotGrpc)?;
    if !check.codes.contains(&status) {
        return Err(ProbeFailure::GrpcStatus(status));
    }
    // Only an answer that is OK has a message, and only the message of `Check` is known.
    if status != 0 || method(check) != CHECK {
        return Ok(());
    }
    match message::serving(message) {
        Some(true) => Ok(()),
        Some(false) => Err(ProbeFailure::NotServing),
        None => Err(ProbeFailure::NotGrpc),
    }
}
