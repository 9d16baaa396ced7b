//! A Kubernetes API server in this process: what everything that talks to Kubernetes is tested against.
//!
//! It answers on 127.0.0.1, with or without TLS, on a thread of its own, and stops when its handle is dropped. Lists,
//! watches, resource versions, optimistic locks, status subresources, managed fields and server-side apply follow the
//! real server, as far as a client can see them; where it knows less, it says so here:
//!
//! * Every list is atomic in an apply, also those that the real schemas merge by key (ports of a Service).
//! * Schemas are not checked, except what the file `validate` says; unknown fields are kept.
//! * Namespaces exist by being named.
//!
//! ```no_run
//! use fleetgate_tests::apiserver::{ApiServer, Login, Options, Resource, Verb};
//! # fn main() -> anyhow::Result<()> {
//! let server = ApiServer::start(Options::default())?;
//! server.put(serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"}}))?;
//! let kubeconfig = server.kubeconfig(Login::Nobody)?; // YAML for kube::config::Kubeconfig::from_yaml
//! server.freeze();
//! assert_eq!(server.count(Verb::List, Resource::Services), 0);
//! # Ok(()) }
//! ```

mod access;
mod answer;
mod base64;
mod control;
mod direct;
mod discovery;
mod faults;
mod fields;
mod gate;
mod http;
mod journal;
mod patch;
mod query;
mod rbac;
mod read;
mod refusal;
mod resource;
mod selector;
mod serve;
mod store;
mod validate;
mod watch;
mod write;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::sync;
use xtask::netns;

pub use access::{Identity, Login};
pub use faults::{Failure, Older, WatchFaults};
pub use journal::{Request, Verb};
pub use refusal::Refusal;
pub use resource::Resource;

use access::{Access, Authority, User};
use faults::{Faults, Signal};
use gate::Gate;
use journal::Journal;
use serve::Command;
use store::Store;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Speak TLS, with a certificate authority made for this server.
    pub tls: bool,
    /// Who shows neither a known token nor a known client certificate gets 401.
    pub login: bool,
    /// How often a quiet watch is told how far it is. The real server does it about once a minute.
    pub bookmark_every: Duration,
    /// The first revision; different servers should not share it.
    pub first_revision: u64,
    /// How many changes of each resource are kept for watches to go on from.
    pub history: usize,
    /// How many requests are kept in full.
    pub requests: usize,
    /// Network namespace to listen in; none for this process's own.
    pub namespace: Option<String>,
    /// Port to listen on; 0 for a free one. One that no outgoing connection can take stays free over a restart.
    pub port: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: false,
            login: false,
            bookmark_every: Duration::from_secs(1),
            first_revision: 1_000,
            history: 16_384,
            requests: 1_000,
            namespace: None,
            port: 0,
        }
    }
}

/// What becomes of the history when a server starts again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum History {
    /// Watches go on where they were.
    Kept,
    /// As from a backup: the objects are there, versions from before are too old.
    Lost,
}

/// What the handle, the connections and the watches share.
struct Shared {
    store: Mutex<Store>,
    faults: Mutex<Faults>,
    journal: Mutex<Journal>,
    access: Mutex<Access>,
    signals: sync::watch::Sender<[Signal; Resource::COUNT]>,
    gate: Arc<Gate>,
    bookmark_every: Duration,
    namespace: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }

    fn access(&self) -> MutexGuard<'_, Access> {
        lock(&self.access)
    }

    fn signal(&self, resource: Resource) -> Signal {
        self.signals.borrow()[resource.index()]
    }

    fn signals(&self) -> sync::watch::Receiver<[Signal; Resource::COUNT]> {
        self.signals.subscribe()
    }

    fn bookmark_every(&self) -> Duration {
        self.bookmark_every
    }

    /// Opens the port, in the namespace it is to be reached in.
    fn bind(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let bind = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        match &self.namespace {
            Some(name) => netns::inside(name, bind).map_err(io::Error::other)?,
            None => bind(),
        }
    }
}

/// A running server. Every method may be called from any thread, also from async code.
pub struct ApiServer {
    shared: Arc<Shared>,
    authority: Option<Authority>,
    address: SocketAddr,
    commands: Option<sync::mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Starts a server on 127.0.0.1.
    pub fn start(options: Options) -> Result<Self> {
        let authority = options.tls.then(Authority::new).transpose()?;
        let tls = authority
            .as_ref()
            .map(Authority::server_config)
            .transpose()?;
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new(options.first_revision, options.history)),
            faults: Mutex::default(),
            journal: Mutex::new(Journal::new(options.requests)),
            access: Mutex::new(Access::new(options.login)),
            signals: sync::watch::Sender::new(Default::default()),
            gate: Arc::default(),
            bookmark_every: options.bookmark_every,
            namespace: options.namespace,
        });
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
        let listener = shared.bind(wanted).context("no port to listen on")?;
        let address = listener.local_addr()?;
        let (commands, orders) = sync::mpsc::unbounded_channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("apiserver".to_owned())
            .spawn(move || serve::serve(&serving, listener, tls, orders))?;
        Ok(Self {
            shared,
            authority,
            address,
            commands: Some(commands),
            thread: Some(thread),
        })
    }

    /// Where it listens; the same after a restart.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`, or https.
    pub fn url(&self) -> String {
        let scheme = if self.authority.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    /// A kubeconfig for this server, as YAML. A certificate is issued by this call; a token has to be accepted by
    /// [`Self::accept_token`] to be of use.
    pub fn kubeconfig(&self, login: Login<'_>) -> Result<String> {
        let user = User::of(login, self.authority.as_ref(), &mut self.shared.access())?;
        Ok(access::kubeconfig(
            &self.url(),
            self.authority.as_ref(),
            &user,
        ))
    }

    /// From now on this token means this user.
    pub fn accept_token(&self, token: &str, user: &str) {
        self.shared.access().accept_token(token, user);
    }

    /// No token is known any longer.
    pub fn revoke_tokens(&self) {
        self.shared.access().revoke_tokens();
    }

    /// A client certificate for this user, accepted from now on. Fails without TLS.
    pub fn client_certificate(&self, user: &str) -> Result<Identity> {
        let authority = self
            .authority
            .as_ref()
            .context("client certificates need a server with TLS")?;
        self.shared.access().issue(authority, user)
    }

    /// No client certificate is known any longer.
    pub fn revoke_certificates(&self) {
        self.shared.access().revoke_certificates();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server was reported by its thread already.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiServer({})", self.url())
    }
}
