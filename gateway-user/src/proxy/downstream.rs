//! The client's side: its connection, and one exchange after the other on it.

use std::{cell::Cell, io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use rustls::ProtocolVersion;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

use super::{
    io::Io,
    plain::Plain,
    reason::{Reason, Refusal},
    stats::ConnectionCount,
    table::Routes,
    worker::Worker,
};
use crate::{
    ir::ListenerProtocol,
    tls::{ClientIdentity, Server},
};

pub(super) mod h1;
pub(super) mod h2;

/// What is known of a client's connection.
#[derive(Debug)]
pub(super) struct Downstream {
    /// What the client connected to; selects the listener.
    pub(super) local: SocketAddr,
    /// Who connected.
    pub(super) peer: SocketAddr,
    /// Whom the connection is for: the source that a trusted peer names in a PROXY header, else the peer. The client of
    /// a request may be further away, see [`super::headers::client`].
    pub(super) client: SocketAddr,
    /// The client speaks TLS.
    pub(super) secured: Option<Secured>,
    /// Streams of HTTP/2 that are open.
    pub(super) open: Cell<usize>,
    /// There were several at once. Which of them is the last one says nothing: others were refused before it.
    pub(super) crowded: Cell<bool>,
}

impl Downstream {
    pub(super) fn is_tls(&self) -> bool {
        self.secured.is_some()
    }
}

/// What a handshake has told.
#[derive(Debug)]
pub(super) struct Secured {
    server: Arc<Server>,
    /// Server name the client asked for.
    pub(super) sni: Option<String>,
    /// As logs have it.
    pub(super) version: &'static str,
    /// From the client's certificate.
    pub(super) identity: Option<ClientIdentity>,
}

impl Secured {
    /// Whether the certificate that was shown is for this host, too (RFC 9110 section 15.5.20).
    pub(super) fn covers(&self, authority: &str) -> bool {
        self.server.covers(self.sni.as_deref(), authority)
    }
}

/// Serves a connection of a listener to its end, in plain or through TLS.
pub(super) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    down: Downstream,
    routes: &Routes,
    count: ConnectionCount,
) {
    let idle = routes.listener.settings.idle_timeout;
    match (&routes.tls, routes.listener.name.protocol) {
        (Some(server), _) => {
            secured(worker, stream, down, Arc::clone(server), idle, count).await;
        }
        (None, ListenerProtocol::Http) => plain(worker, stream, down, idle, count).await,
        // Nothing to end TLS with: never in plain instead.
        (None, _) => worker.stats.reason(Reason::HandshakeFailed),
    }
}

/// Serves a connection of a plain listener to its end.
pub(super) async fn plain(
    worker: Rc<Worker>,
    stream: impl Into<Plain>,
    down: Downstream,
    idle_timeout: Duration,
    count: ConnectionCount,
) {
    let io = Io::plain(stream);
    h1::Connection::new(&worker, io, down, idle_timeout, count)
        .serve()
        .await;
}

/// Ends TLS, and serves the connection to its end.
pub(super) async fn secured(
    worker: Rc<Worker>,
    stream: TcpStream,
    mut down: Downstream,
    server: Arc<Server>,
    idle_timeout: Duration,
    count: ConnectionCount,
) {
    let until = Instant::now() + worker.limits.head_timeout;
    let acceptor = TlsAcceptor::from(Arc::clone(server.config()));
    let handshake = acceptor.accept(stream).into_fallible();
    let stream = match tokio::time::timeout_at(until, handshake).await {
        Err(_) => return worker.stats.reason(Reason::RequestTimeout),
        Ok(Ok(stream)) => stream,
        Ok(Err((err, stream))) => {
            worker.stats.reason(Reason::HandshakeFailed);
            tracing::debug!(client = %down.client, error = %err, "a TLS handshake failed");
            if speaks_plain(&err) {
                plain_on_tls(stream).await;
            }
            return;
        }
    };
    let (_, session) = stream.get_ref();
    let identity = session.peer_certificates().and_then(|it| it.first());
    down.secured = Some(Secured {
        sni: session.server_name().map(str::to_owned),
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        },
        identity: identity.and_then(ClientIdentity::of),
        server,
    });
    let http2 = session.alpn_protocol() == Some(b"h2");
    let io = Io::tls(stream.into());
    if http2 {
        h2::serve(worker, (io, Vec::new()), down, idle_timeout, count).await;
    } else {
        h1::Connection::new(&worker, io, down, idle_timeout, count)
            .serve()
            .await;
    }
}

/// Whether what came was no TLS at all.
fn speaks_plain(err: &io::Error) -> bool {
    let tls = err.get_ref().and_then(|it| it.downcast_ref());
    matches!(tls, Some(rustls::Error::InvalidMessage(_)))
}

/// Contract section 15: plain HTTP on an HTTPS port is a 400.
async fn plain_on_tls(mut stream: TcpStream) {
    let refusal = Refusal::close(
        Reason::BadRequest,
        "this port speaks HTTPS, and the request came in plain HTTP",
    );
    // A client that left does not hear it; the reply fits an empty socket buffer.
    let _ = stream.write_all(&refusal.bytes()).await;
    let _ = stream.shutdown().await;
    // Closing with unread bytes sends a reset, which may destroy the reply on its way (RFC 9112 section 9.6).
    let mut scratch = [0; 4096];
    let drop = async { while matches!(stream.read(&mut scratch).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), drop).await;
}
