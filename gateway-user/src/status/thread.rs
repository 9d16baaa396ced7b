//! The thread that talks to the API server, so that the agent never does.

use std::{
    fmt, fs, io, process,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use kube::Client;
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
};

use super::{
    api::Fleet,
    backoff::chance,
    counters::Counters,
    election::{Election, Term},
    lease::Keeper,
    publisher,
    wanted::Wanted,
};

/// Name of the Lease.
const LEASE: &str = "fleetgate-status";
/// Where Kubernetes tells a pod its namespace.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// The namespace outside of pods.
const NAMESPACE: &str = "fleetgate-system";

/// How status is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Of this process alone: see [`identity`].
    pub identity: String,
    /// Only one of the nodes that share the Lease writes; without it this node does.
    pub leader_elect: bool,
    /// Times and rates.
    pub timing: Timing,
}

/// Times and rates, for tests and for those who know better.
#[derive(Clone, Debug)]
pub struct Timing {
    /// A leader that is not heard of for this long is replaced. At least three times `request` keeps an answer that is
    /// late from ending a term.
    pub lease: Duration,
    /// Longest wait for an answer.
    pub request: Duration,
    /// Time between two writes, on average.
    pub write_each: Duration,
    /// Time between two Events, on average.
    pub event_each: Duration,
    /// Events that may be written at once after a quiet time.
    pub event_burst: u32,
    /// The first wait after a failure.
    pub first_retry: Duration,
    /// The longest wait after a failure.
    pub longest_retry: Duration,
    /// How often the fleet is looked at for what others changed.
    pub look_again: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            request: Duration::from_secs(3),
            write_each: Duration::from_millis(50),
            event_each: Duration::from_secs(1),
            event_burst: 30,
            first_retry: Duration::from_millis(200),
            longest_retry: Duration::from_secs(30),
            look_again: Duration::from_secs(300),
        }
    }
}

/// Status cannot be written.
#[derive(Debug)]
pub enum Error {
    /// The configuration of the client is of no use.
    Client(kube::Error),
    /// There is no thread for it.
    Thread(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => write!(
                f,
                "cannot make a client for the fleet's API server: {error}; look at the certificates and the user of its kubeconfig"
            ),
            Self::Thread(error) => write!(f, "cannot start the thread that writes status: {error}"),
        }
    }
}

impl std::error::Error for Error {}

/// The running thread. Dropping it tells the thread to stop, and does not wait.
#[derive(Debug)]
pub struct Handle {
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    stopped: mpsc::Receiver<()>,
}

impl Handle {
    /// What the thread has done.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Stops writing and gives the Lease back. Waits at most `patience`, then leaves the thread to itself: it writes
    /// nothing any more. Whether it has ended.
    pub fn shutdown(self, patience: Duration) -> bool {
        self.stop.send_replace(true);
        // The thread's end of the channel goes with the thread.
        !matches!(
            self.stopped.recv_timeout(patience),
            Err(mpsc::RecvTimeoutError::Timeout)
        )
    }
}

/// Starts the thread. It writes the newest of `wanted` with the rights of `client`, and does not end before its handle
/// is dropped.
pub fn start(
    options: Options,
    mut client: kube::Config,
    wanted: watch::Receiver<Arc<Wanted>>,
) -> Result<Handle, Error> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(Error::Thread)?;
    client.connect_timeout = Some(options.timing.request);
    // Trying again is decided here, where it is known whether this node still leads.
    client.default_retry = false;
    let client = {
        let _inside = runtime.enter();
        Client::try_from(client).map_err(Error::Client)?
    };
    let counters = Arc::new(Counters::default());
    let fleet = Fleet::new(client, counters.clone(), &options.identity);
    let (stop, stopping) = watch::channel(false);
    let (ended, stopped) = mpsc::channel();
    let counting = counters.clone();
    thread::Builder::new()
        .name("status".to_owned())
        .spawn(move || {
            let _ended: mpsc::Sender<()> = ended;
            let _silent = Silent(&counting);
            work(runtime, &options, &fleet, &counting, stopping, wanted);
        })
        .map_err(Error::Thread)?;
    Ok(Handle {
        counters,
        stop,
        stopped,
    })
}

/// However the thread ends, it leads no more.
struct Silent<'a>(&'a Counters);

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        self.0.lead(None);
    }
}

fn work(
    runtime: Runtime,
    options: &Options,
    fleet: &Fleet,
    counters: &Counters,
    mut stopping: watch::Receiver<bool>,
    wanted: watch::Receiver<Arc<Wanted>>,
) {
    let timing = &options.timing;
    runtime.block_on(async {
        let alone = (!options.leader_elect).then_some(Term::ENDLESS);
        let (leads, term) = watch::channel(alone);
        let key = (options.namespace.as_str(), LEASE);
        let identity = options.identity.clone();
        let election = Election::new(identity, timing.lease, Instant::now());
        let mut keeper = Keeper::new(fleet, key, (timing.request, timing.lease), election, leads);
        {
            let keep = async {
                if options.leader_elect {
                    keeper.run().await;
                }
                std::future::pending::<()>().await;
            };
            let write = publisher::run(fleet, timing, counters, term, wanted);
            tokio::select! {
                biased;
                // Also when the handle was dropped.
                _ = stopping.wait_for(|stop| *stop) => {}
                () = keep => {}
                () = write => {}
            }
        }
        // Whatever was being written has been given up.
        counters.lead(None);
        keeper.release().await;
    });
    // A name being resolved would be waited for otherwise.
    runtime.shutdown_background();
}

/// An identity for this process: the node's name, and what no other process on it shares.
pub fn identity(node: &str) -> String {
    format!("{node}_{}_{:016x}", process::id(), chance())
}

/// The namespace of the pod this runs in, else `fleetgate-system`.
pub fn pod_namespace() -> String {
    let told = fs::read_to_string(POD_NAMESPACE).unwrap_or_default();
    match told.trim() {
        "" => NAMESPACE.to_owned(),
        namespace => namespace.to_owned(),
    }
}
