//! TLS towards pods whose certificate nobody verifies.
//!
//! A probe asks whether a pod answers, not who it is: pods mostly carry certificates that they made themselves, for names
//! that are not the address probed. The cloud does not verify them either. A probe carries no secret that a pod in the
//! middle could take.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, Error, client::Resumption, crypto::ring, pki_types::ServerName},
};

use crate::tls::Unverified;

/// Shakes hands. Without SNI: RFC 6066 section 3 permits no address there. A failure of TLS itself is an error that
/// [`is_tls`] knows.
pub(super) async fn connect<S>(stream: S, address: SocketAddr) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::IpAddress(address.ip().into());
    CONNECTOR.connect(name, stream).await
}

/// Whether it was TLS that failed, not the connection below.
pub(super) fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Error>())
}

static CONNECTOR: LazyLock<TlsConnector> = LazyLock::new(|| {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has suites for TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified))
        .with_no_client_auth();
    // Each probe is a handshake of its own: nothing is remembered of a pod.
    config.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(config))
});
