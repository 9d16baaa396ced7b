//! TLS towards pods: `backend-protocol: https` and `grpc`.
//!
//! Certificates of pods are not verified, as the contract's gateway does not (section 11.1 has no setting for it): TLS
//! keeps out who only listens, not who answers in the pod's place. Networks between gateway and pods are to be trusted
//! with that, as they are with plain HTTP.

use std::{net::IpAddr, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};

use super::{policy, unverified::Unverified};

/// What is spoken to pods inside TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spoken {
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone, for gRPC.
    Http2,
}

/// How to connect to pods, whatever they show. Worth keeping: sessions are resumed from it.
pub fn backends(spoken: Spoken) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(policy::provider());
    let mut config = builder
        .with_protocol_versions(policy::versions(""))
        .expect("ring has suites of both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified))
        .with_no_client_auth();
    config.alpn_protocols = match spoken {
        Spoken::Http1 => vec![b"http/1.1".to_vec()],
        Spoken::Http2 => vec![b"h2".to_vec()],
    };
    Arc::new(config)
}

/// The name asked for in SNI: the request's host, without its port. None is sent where it is no DNS name (RFC 6066
/// section 3), or not given: then the pod's address stands for it.
pub fn server_name(host: Option<&str>, pod: IpAddr) -> ServerName<'static> {
    let named = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
    match named {
        Some(ServerName::DnsName(name)) => ServerName::DnsName(name),
        _ => ServerName::IpAddress(pod.into()),
    }
}
