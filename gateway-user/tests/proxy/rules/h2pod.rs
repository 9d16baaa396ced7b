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
use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};

/// A pod that does what the path says; it ends with the value.
pub(super) struct Pod {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
    /// Streams that the other side has reset.
    pub(super) resets: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
}

pub(super) fn pod() -> Pod {
    narrow(u32::MAX)
}

/// A pod that allows so many streams on a connection, and refuses further ones.
pub(super) fn narrow(streams: u32) -> Pod {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime
        .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .unwrap();
    let (stop, stopped) = oneshot::channel();
    let pod = Pod {
        address: listener.local_addr().unwrap(),
        connections: Arc::default(),
        resets: Arc::default(),
        _stop: stop,
    };
    let (connections, resets) = (Arc::clone(&pod.connections), Arc::clone(&pod.resets));
    thread::spawn(move || {
        runtime.block_on(async move {
            let accept = async {
                while let Ok((stream, _)) = listener.accept().await {
                    connections.fetch_add(1, SeqCst);
                    tokio::spawn(connection(stream, streams, Arc::clone(&resets)));
                }
            };
            tokio::select! { () = accept => {}, _ = stopped => {} }
        });
    });
    pod
}

async fn connection(stream: tokio::net::TcpStream, streams: u32, resets: Arc<AtomicUsize>) {
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(streams);
    let mut connection = builder.handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        if request.uri().path() == "/goaway" {
            connection.graceful_shutdown();
        }
        let resets = Arc::clone(&resets);
        tokio::spawn(async move {
            let outcome = answer(request, respond).await;
            if outcome.is_err_and(|err| err.is_remote() && err.is_reset()) {
                resets.fetch_add(1, SeqCst);
            }
        });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
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
