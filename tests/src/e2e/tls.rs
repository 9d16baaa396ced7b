//! Connections of TLS that look at what they are shown, and stay open as long as a test wants.

use std::net::TcpStream;

use anyhow::{Context, Result};
use gateway_user::tls::client::{Spoken, backends, server_name};
use tokio_rustls::rustls::{ClientConnection, StreamOwned, pki_types::CertificateDer};

use super::{VIP, wire::Conn};

/// HTTP/1.1 inside TLS.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Conn<Tls> {
    /// Connects to the VIP and asks for this name, or for none. Any certificate is taken: tests say which one it must be.
    pub fn encrypted(port: u16, name: Option<&str>) -> Result<Self> {
        let mut stream = Conn::open((VIP, port))?.stream;
        let name = server_name(name, VIP.into());
        let mut tls = ClientConnection::new(backends(Spoken::Http1), name)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).context("TLS handshake")?;
        }
        Ok(Self {
            stream: StreamOwned::new(tls, stream),
        })
    }

    /// The certificate that the gateway showed.
    pub fn shown(&self) -> Option<&CertificateDer<'static>> {
        self.stream.conn.peer_certificates()?.first()
    }

    /// Status and reason of a GET for this host.
    pub fn asked(&mut self, host: &str) -> Result<(u16, String)> {
        let answer = self.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))?;
        let reason = answer.headers.get("x-fleetgate-reason").cloned();
        Ok((answer.status, reason.unwrap_or_default()))
    }
}
