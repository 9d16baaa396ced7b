//! The server's thread: accepts connections, obeys orders.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::UnboundedReceiver,
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::CertificateDer},
};

use super::{Shared, gate::Gated, http};

/// Where the outcome of an order is told.
pub(super) type Done = std::sync::mpsc::SyncSender<io::Result<()>>;

/// How often the port is tried again after a restart: something else may hold it for a moment.
const BIND_TRIES: u32 = 40;
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// What the handle orders.
pub(super) enum Command {
    /// Reset all connections, close the port.
    Kill(Done),
    /// Open the port.
    Listen(SocketAddr, Done),
}

/// Serves until the sender of the orders is dropped.
pub(super) fn serve(
    shared: &Arc<Shared>,
    listener: std::net::TcpListener,
    tls: Option<ServerConfig>,
    mut orders: UnboundedReceiver<Command>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime of one thread needs an epoll and an event descriptor");
    let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    runtime.block_on(async {
        let mut listener = TcpListener::from_std(listener).ok();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    None => return,
                    Some(Command::Kill(done)) => {
                        listener = None;
                        shared.gate.reset_on_drop(true);
                        connections.shutdown().await;
                        shared.gate.reset_on_drop(false);
                        // A handle that no longer waits does not need the answer.
                        let _ = done.send(Ok(()));
                    }
                    Some(Command::Listen(address, done)) => {
                        let bound = match listener.take() {
                            Some(open) => Ok(open),
                            None => bind(shared, address).await,
                        };
                        let outcome = bound.map(|open| listener = Some(open));
                        let _ = done.send(outcome);
                    }
                },
                stream = accept(listener.as_ref()) => {
                    connections.spawn(connection(Arc::clone(shared), stream, tls.clone()));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    });
}

async fn bind(shared: &Shared, address: SocketAddr) -> io::Result<TcpListener> {
    let mut tries = 0;
    loop {
        match shared.bind(address).and_then(TcpListener::from_std) {
            Err(cause) if cause.kind() == io::ErrorKind::AddrInUse && tries < BIND_TRIES => {
                tries += 1;
                sleep(BIND_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// The next connection; never, while the port is closed.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Out of descriptors, most likely: others will be closed.
            Err(_) => sleep(BIND_PAUSE).await,
        }
    }
}

/// One connection until its end. That it breaks is the client's to see.
async fn connection(shared: Arc<Shared>, stream: TcpStream, tls: Option<TlsAcceptor>) {
    let _ = stream.set_nodelay(true);
    let stream = Gated::new(stream, Arc::clone(&shared.gate));
    let Some(tls) = tls else {
        return requests(shared, TokioIo::new(stream), None).await;
    };
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let shown = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    let certificate = shown.cloned().map(CertificateDer::into_owned);
    requests(shared, TokioIo::new(stream), certificate).await;
}

async fn requests<S>(
    shared: Arc<Shared>,
    io: TokioIo<S>,
    certificate: Option<CertificateDer<'static>>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service =
        service_fn(move |request| http::answer(Arc::clone(&shared), certificate.clone(), request));
    let _ = http1::Builder::new().serve_connection(io, service).await;
}
