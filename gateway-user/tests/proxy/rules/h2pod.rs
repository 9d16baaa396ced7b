//! A pod that speaks HTTP/2 without TLS.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};
use http::{HeaderMap, Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::Builder,
    sync::oneshot,
};

use crate::h2frames::{code, goaway, settings};

/// A pod that does what the path says; it ends with the value.
pub(super) struct Pod {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
    /// Streams that the other side has reset.
    pub(super) resets: Arc<AtomicUsize>,
    /// Calls whose body came to its end.
    pub(super) whole: Arc<AtomicUsize>,
    /// Calls of `/busy` that it refuses once it has read them.
    pub(super) refuses: Arc<AtomicUsize>,
    /// Connections that end with a GOAWAY that names no stream.
    pub(super) leaves: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
}

pub(super) fn pod() -> Pod {
    allowing(1000)
}

/// One that lets so many streams be open on a connection.
pub(super) fn allowing(streams: u32) -> Pod {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime
        .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .unwrap();
    let (stop, stopped) = oneshot::channel();
    let pod = Pod {
        address: listener.local_addr().unwrap(),
        connections: Arc::default(),
        resets: Arc::default(),
        whole: Arc::default(),
        refuses: Arc::default(),
        leaves: Arc::default(),
        _stop: stop,
    };
    let (connections, resets) = (Arc::clone(&pod.connections), Arc::clone(&pod.resets));
    let (whole, refuses) = (Arc::clone(&pod.whole), Arc::clone(&pod.refuses));
    let leaves = Arc::clone(&pod.leaves);
    thread::spawn(move || {
        runtime.block_on(async move {
            let accept = async {
                while let Ok((stream, _)) = listener.accept().await {
                    connections.fetch_add(1, SeqCst);
                    if one_less(&leaves) {
                        tokio::spawn(leave(stream));
                        continue;
                    }
                    let (resets, whole) = (Arc::clone(&resets), Arc::clone(&whole));
                    let refuses = Arc::clone(&refuses);
                    tokio::spawn(connection(stream, streams, resets, (whole, refuses)));
                }
            };
            tokio::select! { () = accept => {}, _ = stopped => {} }
        });
    });
    pod
}

/// Takes one off, if there is one.
fn one_less(count: &AtomicUsize) -> bool {
    let less = count.fetch_update(SeqCst, SeqCst, |it| it.checked_sub(1));
    less.is_ok()
}

/// Says, when a call has come, that it has looked at none.
async fn leave(mut stream: tokio::net::TcpStream) {
    let mut bytes = [0; 4096];
    stream.write_all(&settings(&[]).bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !has_headers(&seen) {
        let read = stream.read(&mut bytes).await.unwrap();
        assert!(read > 0);
        seen.extend_from_slice(&bytes[..read]);
    }
    let said = goaway(0, code::NO_ERROR).bytes();
    stream.write_all(&said).await.unwrap();
    while let Ok(1..) = stream.read(&mut bytes).await {}
}

/// Whether a HEADERS frame (RFC 9113 section 6.2) has begun behind the preface.
fn has_headers(seen: &[u8]) -> bool {
    let mut rest = seen.get(24..).unwrap_or_default();
    while let [a, b, c, kind, ..] = *rest {
        if kind == 1 {
            return true;
        }
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    false
}

async fn connection(
    stream: tokio::net::TcpStream,
    streams: u32,
    resets: Arc<AtomicUsize>,
    (whole, refuses): (Arc<AtomicUsize>, Arc<AtomicUsize>),
) {
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(streams);
    let mut connection = builder.handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        if request.uri().path() == "/goaway" {
            connection.graceful_shutdown();
        }
        let (resets, whole) = (Arc::clone(&resets), Arc::clone(&whole));
        let refuses = Arc::clone(&refuses);
        tokio::spawn(async move {
            let outcome = answer(request, respond, &whole, &refuses).await;
            if outcome.is_err_and(|err| err.is_remote() && err.is_reset()) {
                resets.fetch_add(1, SeqCst);
            }
        });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    whole: &AtomicUsize,
    refuses: &AtomicUsize,
) -> Result<(), h2::Error> {
    let head = || {
        Response::builder()
            .header("content-type", "application/grpc")
            .body(())
            .unwrap()
    };
    let (parts, mut body) = request.into_parts();
    match parts.uri.path() {
        "/refuse" => respond.send_reset(Reason::REFUSED_STREAM),
        "/busy" if one_less(refuses) => {
            while let Some(piece) = body.data().await {
                body.flow_control().release_capacity(piece?.len())?;
            }
            respond.send_reset(Reason::REFUSED_STREAM);
        }
        "/fail" => respond.send_reset(Reason::INTERNAL_ERROR),
        "/break" => {
            let mut stream = respond.send_response(head(), false)?;
            stream.send_data(Bytes::from_static(b"half"), false)?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        "/only-trailers" => {
            let mut head = head();
            head.headers_mut()
                .insert("grpc-status", "12".parse().unwrap());
            respond.send_response(head, true)?;
        }
        _ => {
            let mut stream = respond.send_response(head(), false)?;
            let mut bytes = 0;
            while let Some(piece) = body.data().await {
                let piece = piece?;
                body.flow_control().release_capacity(piece.len())?;
                bytes += piece.len();
                stream.send_data(piece, false)?;
            }
            let sent = body.trailers().await?.unwrap_or_default();
            whole.fetch_add(1, SeqCst);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            trailers.insert("x-bytes", bytes.into());
            trailers.insert(
                "x-te",
                parts
                    .headers
                    .get("te")
                    .cloned()
                    .unwrap_or("none".parse().unwrap()),
            );
            trailers.extend(sent);
            stream.send_trailers(trailers)?;
        }
    }
    Ok(())
}
