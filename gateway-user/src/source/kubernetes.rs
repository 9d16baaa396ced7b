//! A fleet and its member clusters, live from their API servers.
//!
//! Everything runs on one thread of its own: one task for each API server, in which each kind of object is listed
//! once and watched from there. A watch that breaks goes on where it stood; a list is read again only when the server
//! no longer knows that place, and is published whole or not at all. A server that is frozen sends no error, so it is
//! asked whether it lives whenever it says nothing; while it does not answer, nothing else is asked of it, and what it
//! said last stands.

mod access;
mod backoff;
mod connection;
mod following;
mod gate;
mod health;
mod lineage;
mod members;
mod membership;
mod objects;
mod resource;
mod server;
mod standing;
mod vetting;
mod wire;

use std::{collections::BTreeMap, fmt, io, rc::Rc, thread::JoinHandle, time::Duration};

use tokio::{
    sync::oneshot,
    task::LocalSet,
    time::{Instant, sleep},
};
use tokio_rustls::rustls::crypto::ring;

pub use access::{Access, parse_cluster};
pub use health::{Board, ServerHealth};
pub use resource::CLUSTER_LABEL;

use super::Writer;
use crate::{manifest::ClusterId, problem::shown};
use gate::Gate;
use members::{Members, Secrets};
use membership::Membership;
use resource::Resource;
use server::Server;

/// What the fleet is called where a member has its ID.
pub const FLEET: &str = "fleet";

/// Between two looks at whether it is time to publish, or to end.
const TICK: Duration = Duration::from_millis(100);

/// What to follow, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The fleet: AlbConfigs, IngressClasses, Ingresses and certificates.
    pub fleet: Access,
    /// Members that are given by flags: Services and EndpointSlices.
    pub clusters: BTreeMap<ClusterId, Access>,
    /// Namespace of the fleet whose Secrets with the label [`CLUSTER_LABEL`] give further members.
    pub cluster_secrets: Option<String>,
    /// How long what may take.
    pub timing: Timing,
}

/// How long what may take. The defaults are for production.
#[derive(Clone, Debug)]
pub struct Timing {
    /// With the fleet read, members are waited for this long before the first publication. 5 s.
    pub initial_wait: Duration,
    /// Making a TCP connection. 3 s.
    pub connect: Duration,
    /// The head of an answer, and each pause inside a list. 30 s.
    pub response: Duration,
    /// A server that says nothing for this long is asked whether it lives. 1.25 s.
    pub probe_every: Duration,
    /// The answer to that question; two that fail, and the server is lost. 1.25 s.
    pub probe_timeout: Duration,
    /// A lost server is asked this often. 1 s.
    pub probe_lost: Duration,
    /// A server is not lost before it said nothing for this long, so that it can restart. 2 s.
    pub lost_after: Duration,
    /// A server that answers, but has let nobody watch for this long, is lost too. 5 s.
    pub stale_after: Duration,
    /// A watch is opened anew after about this long. 5 min.
    pub watch_length: Duration,
    /// A watch without a word, bookmarks included, is opened anew after this long. 90 s.
    pub watch_idle: Duration,
    /// First wait before something is tried again. 100 ms.
    pub backoff_first: Duration,
    /// Longest wait before something is tried again. 3 s.
    pub backoff_longest: Duration,
    /// Objects on one page of a list. 500.
    pub page: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            initial_wait: Duration::from_secs(5),
            connect: Duration::from_secs(3),
            response: Duration::from_secs(30),
            probe_every: Duration::from_millis(1250),
            probe_timeout: Duration::from_millis(1250),
            probe_lost: Duration::from_secs(1),
            lost_after: Duration::from_secs(2),
            stale_after: Duration::from_secs(5),
            watch_length: Duration::from_secs(300),
            watch_idle: Duration::from_secs(90),
            backoff_first: Duration::from_millis(100),
            backoff_longest: Duration::from_secs(3),
            page: 500,
        }
    }
}

/// Why the source does not start. What goes wrong later is a [`Problem`](crate::problem::Problem).
#[derive(Debug)]
pub enum Error {
    /// The value of a flag cannot be read.
    Flag {
        /// As written.
        value: String,
        /// What belongs there.
        wanted: &'static str,
    },
    /// The system gives no thread or no event queue.
    Thread(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag { value, wanted } => write!(f, "{} is not {wanted}", shown(value)),
            Self::Thread(error) => write!(
                f,
                "cannot start the thread that follows API servers: {error}"
            ),
        }
    }
}

impl std::error::Error for Error {}

impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// A running source. Dropping it ends the source.
#[derive(Debug)]
pub struct Handle {
    board: Board,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// What may be asked of the API servers by whoever shows it.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// All API servers as they stand, by name.
    pub fn health(&self) -> Vec<ServerHealth> {
        self.board.all()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It panicked, or it ended: both are over.
            let _ = thread.join();
        }
    }
}

/// Follows the fleet and its members, from a thread of its own, until the handle is dropped or nobody reads the feed.
///
/// Nothing is published until the fleet was read, nor, for a while, until its members were; then everything at once.
/// Fails only when no thread can be started: what cannot be reached is tried until it can.
pub fn follow(options: Options, feed: Writer) -> Result<Handle, Error> {
    // Some other part of the process may have chosen already; then that one serves.
    let _ = ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .build()
        .map_err(Error::Thread)?;
    let board = Board::default();
    let (stop, stopped) = oneshot::channel();
    let shared = board.clone();
    let thread = std::thread::Builder::new()
        .name("kubernetes".to_owned())
        .spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, run(options, feed, shared, stopped));
            drop(local);
            // A credential plugin may still run: it is not waited for.
            runtime.shutdown_background();
        })
        .map_err(Error::Thread)?;
    Ok(Handle {
        board,
        stop: Some(stop),
        thread: Some(thread),
    })
}

async fn run(options: Options, feed: Writer, board: Board, mut stopped: oneshot::Receiver<()>) {
    let timing = &options.timing;
    let mut optional = vec![Resource::Certificates];
    optional.extend(
        options
            .cluster_secrets
            .as_ref()
            .map(|_| Resource::ClusterSecrets),
    );
    let gate = Rc::new(Gate::new(feed, &optional, timing.initial_wait));
    let members = Members::new(timing, &gate, &board);
    let flags: Vec<ClusterId> = options.clusters.keys().cloned().collect();
    for (id, access) in options.clusters {
        members.follow(id, access);
    }
    let secrets = options.cluster_secrets.map(|namespace| Secrets {
        members: members.clone(),
        membership: Membership::new(flags),
        namespace: namespace.into(),
    });
    let fleet = Server::new(None, options.fleet, &optional, timing, &gate, &board);
    let following = members::run(fleet, secrets);
    let ticking = async {
        while !gate.is_closed() {
            gate.look(Instant::now());
            sleep(TICK).await;
        }
    };
    tokio::select! {
        () = following => {}
        () = ticking => {}
        _ = &mut stopped => {}
    }
}
