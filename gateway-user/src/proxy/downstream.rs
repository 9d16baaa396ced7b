//! The client's side: its connection, and one exchange after the other on it.

use std::net::SocketAddr;

pub(super) mod h1;
pub(super) mod h2;

/// What is known of a client's connection.
#[derive(Debug)]
pub(super) struct Downstream {
    /// What the client connected to; selects the listener.
    pub(super) local: SocketAddr,
    pub(super) client: SocketAddr,
    /// The client speaks TLS.
    pub(super) tls: bool,
}
