//! What one HTTPS listener ends TLS with.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::ring::Ticketer,
    server::{NoServerSessionStorage, ServerSessionMemoryCache},
};

use super::{
    certificate::Fault,
    client_auth,
    policy::{provider, versions},
    resolver::{Entry, Resolver},
};
use crate::{ir::Tls, manifest::Sealed};

/// Sessions of TLS 1.2 that are kept for clients that take no tickets, by listener; the oldest are forgotten.
const SESSIONS: usize = 1_024;

/// TLS of a listener; what it shows may be replaced while connections are open.
#[derive(Debug)]
pub struct Server {
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
    wanted: Wanted,
}

/// What makes another [`ServerConfig`]; certificates do not.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Wanted {
    policy: String,
    http2: bool,
    clients: Option<Sealed>,
}

impl Wanted {
    fn of(tls: &Tls, clients: Option<&Sealed>) -> Self {
        Self {
            policy: tls.policy.clone(),
            http2: tls.http2,
            clients: clients.cloned(),
        }
    }
}

impl Server {
    /// `clients`: what signs certificates of clients, each of which then has to show one. `before` is what the listener
    /// had: its configuration, and with it its sessions and tickets, go on where only certificates differ.
    ///
    /// Fails only where `clients` holds no certificate.
    pub fn build(
        tls: &Tls,
        entries: Vec<Entry>,
        clients: Option<&Sealed>,
        before: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, Fault> {
        let wanted = Wanted::of(tls, clients);
        if let Some(before) = before.filter(|it| it.wanted == wanted) {
            before.resolver.replace(entries);
            return Ok(Arc::clone(before));
        }
        let resolver = Arc::new(Resolver::default());
        resolver.replace(entries);
        let config = config(&wanted, Arc::clone(&resolver))?;
        Ok(Arc::new(Self {
            config: Arc::new(config),
            resolver,
            wanted,
        }))
    }

    /// For the handshake of a new connection.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Whether a request for `authority` may be answered on a connection that asked for `sni`, see
    /// [`Resolver::covers`].
    pub fn covers(&self, sni: Option<&str>, authority: &str) -> bool {
        self.resolver.covers(sni, authority)
    }
}

fn config(wanted: &Wanted, resolver: Arc<Resolver>) -> Result<ServerConfig, Fault> {
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder
        .with_protocol_versions(versions(&wanted.policy))
        .expect("ring has suites of every version of a policy");
    let mut config = match &wanted.clients {
        None => builder.with_no_client_auth(),
        Some(ca) => builder.with_client_cert_verifier(client_auth::verifier(ca)?),
    }
    .with_cert_resolver(resolver);
    config.alpn_protocols = match wanted.http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    // Early data may be replayed (RFC 8446 section 8), and a gateway does not know which requests bear that.
    config.max_early_data_size = 0;
    match wanted.clients {
        // A ticket would let a client in after its certificate is over.
        Some(_) => config.session_storage = Arc::new(NoServerSessionStorage {}),
        None => {
            config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
            // Changes its key by itself every six hours and takes tickets of the key before. Without randomness there
            // are none, and clients make whole handshakes.
            if let Ok(ticketer) = Ticketer::new() {
                config.ticketer = ticketer;
            }
        }
    }
    Ok(config)
}
