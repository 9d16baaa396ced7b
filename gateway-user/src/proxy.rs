//! The L7 proxy: serves the listeners whose rules must read a request, over HTTP/1.x and HTTP/2, in plain or through TLS.
//!
//! `accept -> gate (framing, deadlines) -> codec -> rule -> backend -> exchange -> codec -> write`. Each worker is one
//! thread with its own listening socket, connections, pool and turns; nothing is locked per request.
//!
//! Invariant: this room learns what to serve from a [`RouteTable`] only; it reads no object, map or file, and
//! binds no address of a client. Which address a client meant is the local address of its connection.

mod abuse;
pub mod access_log;
mod attempt;
mod balance;
mod body;
mod buffer;
mod connections;
mod cors;
mod decimal;
mod downstream;
mod exchange;
mod fields;
mod filters;
mod framing;
mod group;
mod gzip;
mod h1;
mod headers;
mod http2;
mod io;
mod keyed;
pub mod latency;
mod limits;
mod message;
mod messages;
mod meter;
mod mirror;
mod opening;
mod outlier;
mod passthrough;
mod peers;
mod plain;
mod reason;
mod record;
mod reply;
mod retry_budget;
mod session;
mod stats;
mod sticky;
mod table;
mod timer;
pub mod trace;
mod tunnel;
mod upstream;
mod variables;
mod wire;
mod worker;

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{sync::watch, task::LocalSet};

use self::{
    access_log::AccessLog,
    balance::Ring,
    framing::HeadLimits,
    group::Common,
    plain::Listening,
    stats::WorkerStats,
    trace::export::Traces,
    upstream::{Most, PoolLimits},
    worker::{Eyes, Limits, Phase, Shared},
};
pub use self::{
    reason::Reason,
    stats::{BackendKey, ProxyStats, StatsSnapshot},
    table::{RouteTable, Router},
};

/// Connections that may wait to be accepted, per worker.
const BACKLOG: i32 = 4096;

/// How the proxy runs; what it serves comes with [`Proxy::update`].
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Threads; 0 is one per core.
    pub workers: usize,
    /// Client connections held at once; more are answered 503 and closed. Fewer where the limit of open files asks for
    /// that.
    pub max_connections: usize,
    /// From the first byte of a request head to its last; then 408.
    pub head_timeout: Duration,
    /// Bytes of a request head; beyond it 431.
    pub max_head_bytes: usize,
    /// Bytes of a request target; beyond it 414.
    pub max_target_bytes: usize,
    /// Idle connections kept per backend and worker.
    pub idle_per_backend: usize,
    /// Connections to one backend, per worker; who finds no free one waits for two seconds, then gets a 503.
    pub connections_per_backend: usize,
    /// How long an idle connection to a backend is kept.
    pub upstream_idle_timeout: Duration,
    /// An exchange or tunnel on which no byte moves for this long is broken off.
    pub stall_timeout: Duration,
    /// How long connections to a listener that is gone may go on.
    pub drain_timeout: Duration,
    /// Shared by nodes whose cookies must mean the same pods.
    pub secret: Vec<u8>,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            workers: 0,
            max_connections: 32 * 1024,
            head_timeout: Duration::from_secs(10),
            max_head_bytes: 64 * 1024,
            max_target_bytes: 32 * 1024,
            idle_per_backend: 1024,
            connections_per_backend: 4096,
            upstream_idle_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(300),
            drain_timeout: Duration::from_secs(5),
            secret: Vec::new(),
        }
    }
}

/// Field lines of a request head; the codec has the same limit.
const MAX_FIELDS: usize = 100;
/// The codec's buffer must hold the largest head.
const MAX_HEAD_BYTES: usize = 96 * 1024;

/// Files that the agent opens beside connections of clients and to backends, and connections that are always taken.
const OWN_FILES: usize = 512;
const LEAST_CONNECTIONS: usize = 64;

/// Why the proxy could not start.
#[derive(Debug)]
pub enum ProxyError {
    /// No listening socket.
    Listen(std::io::Error),
    /// No event loop for a worker.
    Runtime(std::io::Error),
    /// No thread for a worker.
    Thread(std::io::Error),
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(cause) => write!(
                f,
                "cannot open the proxy's listening sockets on 127.0.0.1: {cause}; is the loopback device up?"
            ),
            Self::Runtime(cause) => write!(
                f,
                "cannot start the event loop of a proxy worker: {cause}; is the limit of open files too low?"
            ),
            Self::Thread(cause) => write!(
                f,
                "cannot start a proxy worker thread: {cause}; is the limit of processes too low?"
            ),
        }
    }
}

impl std::error::Error for ProxyError {}

/// A running proxy. Dropping it stops it at once; [`Proxy::shutdown`] stops it gently.
#[derive(Debug)]
pub struct Proxy {
    sockets: Vec<TcpListener>,
    /// Of IPv6; none where the node has no IPv6.
    sockets_v6: Vec<TcpListener>,
    local_addr: SocketAddr,
    table: Arc<ArcSwap<RouteTable>>,
    common: Arc<Common>,
    /// Rings of the table; held, so that no worker has to make one.
    rings: Mutex<Vec<Arc<Ring>>>,
    stats: Arc<ProxyStats>,
    updated: watch::Sender<()>,
    phase: watch::Sender<Phase>,
    threads: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// Starts the workers, which answer 503 until the first [`Proxy::update`]. All their sockets share one port of
    /// 127.0.0.1.
    pub fn start(config: ProxyConfig) -> Result<Self, ProxyError> {
        Self::start_observed(config, &AccessLog::off(), &Traces::off())
    }

    /// The same, with a log and traces of requests.
    pub fn start_observed(
        config: ProxyConfig,
        log: &AccessLog,
        traces: &Traces,
    ) -> Result<Self, ProxyError> {
        let workers = match config.workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let (phase, phases) = watch::channel(Phase::Serving);
        let (updated, is_updated) = watch::channel(());
        let connections = Arc::new(AtomicUsize::new(0));
        let table = Arc::new(ArcSwap::from_pointee(RouteTable::unknown()));
        let stats = Arc::new(ProxyStats {
            workers: (0..workers)
                .map(|_| Arc::new(WorkerStats::default()))
                .collect(),
            connections: Arc::clone(&connections),
        });
        let head = HeadLimits {
            head_bytes: config.max_head_bytes.min(MAX_HEAD_BYTES),
            target_bytes: config.max_target_bytes,
            fields: MAX_FIELDS,
        };
        let common = Arc::new(Common::new(&config.secret));
        let (clients, backends) = affordable(config.max_connections);
        let shared = Shared {
            table: Arc::clone(&table),
            connections,
            max_connections: clients,
            workers,
            common: Arc::clone(&common),
            limits: Limits {
                head,
                head_timeout: config.head_timeout,
            },
            pool: PoolLimits {
                idle_per_backend: config.idle_per_backend,
                idle_timeout: config.upstream_idle_timeout,
                most: Most {
                    per_backend: config.connections_per_backend,
                    all: (backends / workers).max(1),
                },
            },
            stall_timeout: config.stall_timeout,
            drain_timeout: config.drain_timeout,
            updated: is_updated,
            phase: phases,
        };

        let mut local_addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut local_v6 = Some(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)));
        let mut proxy = Self {
            sockets: Vec::new(),
            sockets_v6: Vec::new(),
            local_addr,
            table,
            common,
            rings: Mutex::default(),
            stats: Arc::clone(&stats),
            updated,
            phase,
            threads: Vec::new(),
        };
        for (index, worker_stats) in stats.workers.iter().enumerate() {
            let socket = listen(local_addr).map_err(ProxyError::Listen)?;
            local_addr = socket.local_addr().map_err(ProxyError::Listen)?;
            proxy.local_addr = local_addr;
            let socket_v6 = match local_v6.map(listen) {
                Some(Ok(socket)) => Some(socket),
                // The first one tells whether the node has IPv6.
                Some(Err(cause)) if index > 0 => return Err(ProxyError::Listen(cause)),
                Some(Err(cause)) => {
                    tracing::info!(%cause, "no socket for IPv6: listeners of the proxy serve IPv4 only");
                    None
                }
                None => None,
            };
            local_v6 = socket_v6.as_ref().and_then(|it| it.local_addr().ok());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(ProxyError::Runtime)?;
            let listeners = {
                let _context = runtime.enter();
                let own = |socket: &TcpListener| {
                    let own = socket.try_clone().map_err(ProxyError::Listen)?;
                    Listening::new(own).map_err(ProxyError::Listen)
                };
                (own(&socket)?, socket_v6.as_ref().map(own).transpose()?)
            };
            let shared = shared.clone();
            let eyes = Eyes {
                stats: Arc::clone(worker_stats),
                log: log.worker(),
                tracer: traces.worker(),
            };
            let thread = thread::Builder::new()
                .name(format!("proxy-{index}"))
                .spawn(move || {
                    pin(index, shared.workers);
                    LocalSet::new().block_on(&runtime, worker::run(index, shared, eyes, listeners));
                })
                .map_err(ProxyError::Thread)?;
            proxy.sockets.push(socket);
            proxy.sockets_v6.extend(socket_v6);
            proxy.threads.push(thread);
        }
        Ok(proxy)
    }

    /// The listening sockets. Whatever address and port a connection was meant for, a lookup program may deliver
    /// it to any of them.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }

    /// One of the listening sockets for IPv6, which stands for all as those of [`Self::sockets`] do.
    pub fn socket_v6(&self) -> Option<BorrowedFd<'_>> {
        self.sockets_v6.first().map(AsFd::as_fd)
    }

    /// Where the sockets for IPv6 listen by themselves.
    pub fn local_addr_v6(&self) -> Option<SocketAddr> {
        self.sockets_v6.first()?.local_addr().ok()
    }

    /// Where the sockets listen by themselves.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Replaces what is served. Requests under way keep the table they began with. Connections to a listener that is gone
    /// are told to end, and ended after the drain timeout.
    pub fn update(&self, table: RouteTable) {
        let groups = table.groups.iter().flatten();
        let rings = groups.filter_map(|group| self.common.rings.prepare(group));
        let rings = rings.flatten().collect();
        let groups = table.groups.iter().flatten().map(Arc::as_ref);
        self.common.joins.update(groups, Instant::now());
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner) = rings;
        self.table.store(Arc::new(table));
        self.updated.send_replace(());
    }

    /// The counters; they go on counting.
    pub fn stats(&self) -> Arc<ProxyStats> {
        Arc::clone(&self.stats)
    }

    /// Accepts no more, for another proxy does. What is open goes on until clients have been told: HTTP/1.1 with the next
    /// answer, HTTP/2 at once. Returns at once; tunnels and idle connections stay until [`Self::shutdown`].
    pub fn retire(&mut self) {
        self.sockets.clear();
        self.sockets_v6.clear();
        self.phase.send_replace(Phase::Retiring);
    }

    /// Accepts no more, lets requests under way finish with `Connection: close`, and returns when all connections
    /// have ended or `grace` is over.
    pub fn shutdown(mut self, grace: Duration) {
        self.end(grace);
    }

    fn end(&mut self, grace: Duration) {
        self.sockets.clear();
        self.sockets_v6.clear();
        self.phase.send_replace(Phase::Ending(grace));
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a proxy worker panicked; please report this");
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// Client connections and connections to backends that the limit of open files allows, the agent's own files apart. More
/// would leave the proxy unable to accept, or to say why not. Not every client asks at this moment.
fn affordable(clients: usize) -> (usize, usize) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let files = limit.current.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    });
    let files = files.saturating_sub(OWN_FILES);
    let clients = clients.min((files / 10 * 7).max(LEAST_CONNECTIONS));
    let backends = files.saturating_sub(clients).max(LEAST_CONNECTIONS);
    (clients, backends)
}

/// Where there is a worker for each CPU, each stays on one: its connections' memory is in that CPU's caches. Fewer are
/// left to the scheduler, which knows what else is busy.
fn pin(index: usize, workers: usize) {
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    if cpus.clone().count() == workers
        && let Some(cpu) = cpus.nth(index)
    {
        let mut own = CpuSet::new();
        own.set(cpu);
        // Not being pinned is no harm.
        let _ = sched_setaffinity(None, &own);
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // The other family has sockets of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    // Connections have it from their listener.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
