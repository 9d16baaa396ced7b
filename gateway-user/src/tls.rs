//! TLS: from the Secrets that the routing model names to what rustls serves by.
//!
//! `Secret -> certificate -> table of a resolver -> ServerConfig`. A [`Server`] is what one HTTPS listener ends TLS with:
//! its certificates are swapped in place, so that connections that are open, and sessions that may be resumed, go on.
//!
//! Invariant: keys stay in here. What this room tells (problems, names) holds no part of a Secret. It opens no socket
//! and knows no runtime; `certificate`, `client_auth` and `names` know nothing of the routing model, which asks them
//! whether a Secret can serve.

pub mod certificate;
pub mod client;
pub mod client_auth;
pub mod names;
pub mod policy;
pub mod resolver;
pub mod server;
pub mod servers;
#[cfg(test)]
pub(crate) mod tests;
mod unverified;

pub(crate) use self::unverified::Unverified;
pub use self::{
    certificate::{Certificate, Fault},
    client_auth::ClientIdentity,
    server::Server,
    servers::Servers,
};
