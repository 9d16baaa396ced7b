//! One thread of the proxy: its socket, its connections, its pool and its turns.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, cache::Cache};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use super::{
    RouteTable,
    balance::{self, RoundRobin},
    buffer::Spare,
    connections::Connections,
    downstream::{Downstream, h1},
    framing::HeadLimits,
    io::Io,
    messages::Messages,
    reason::{Reason, Refusal},
    stats::{ConnectionCount, WorkerStats},
    upstream::{Pool, PoolLimits},
    wire::relay::Pipes,
};
use crate::ir::Group;

/// A backend that refused a connection is tried last for this long.
const MARKED: Duration = Duration::from_secs(3);
/// Backends marked at once; more are simply tried.
const MARKS: usize = 4096;
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Pause after an accept that failed, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Idle timeout until a request has told the listener.
const FIRST_IDLE: Duration = Duration::from_secs(15);
/// Pipes for tunnels, two file descriptors each.
const PIPES: usize = 256;
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// What a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) head: HeadLimits,
    pub(super) head_timeout: Duration,
}

/// What the workers of one proxy share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) table: Arc<ArcSwap<RouteTable>>,
    pub(super) connections: Arc<AtomicUsize>,
    pub(super) max_connections: usize,
    pub(super) workers: usize,
    pub(super) limits: Limits,
    pub(super) pool: PoolLimits,
    pub(super) stall_timeout: Duration,
    /// `Some(grace)` once the proxy stops.
    pub(super) stop: watch::Receiver<Option<Duration>>,
}

/// State of one worker; never leaves its thread.
#[derive(Debug)]
pub(super) struct Worker {
    index: usize,
    workers: usize,
    tables: RefCell<Cache<Arc<ArcSwap<RouteTable>>, Arc<RouteTable>>>,
    current: RefCell<Rc<Current>>,
    marks: RefCell<HashMap<SocketAddr, Instant>>,
    turns: Cell<u32>,
    pub(super) limits: Limits,
    pub(super) spare: Rc<Spare>,
    pub(super) messages: Messages,
    pub(super) connections: Connections,
    pub(super) pipes: Pipes,
    pub(super) pool: Pool,
    pub(super) stats: Arc<WorkerStats>,
    pub(super) stall_timeout: Duration,
}

/// The route table with this worker's state of its groups, made when first needed.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) table: Arc<RouteTable>,
    groups: RefCell<HashMap<usize, Rc<GroupState>>>,
}

/// A group, whose turn it is, and the counters of its backends.
#[derive(Debug)]
pub(super) struct GroupState {
    pub(super) group: Arc<Group>,
    turns: RefCell<RoundRobin>,
    counters: Vec<Arc<AtomicU64>>,
}

impl GroupState {
    /// Where a backend is.
    pub(super) fn address(&self, backend: usize) -> Option<SocketAddr> {
        self.group.backends.get(backend).map(|it| it.address)
    }

    /// Counts a request answered by this backend.
    pub(super) fn count(&self, backend: usize) {
        if let Some(counter) = self.counters.get(backend) {
            counter.fetch_add(1, Relaxed);
        }
    }
}

impl Current {
    fn new(table: Arc<RouteTable>) -> Self {
        Self {
            table,
            groups: RefCell::default(),
        }
    }

    /// Equal groups go on where they were.
    fn inherit(&self, before: &Self) {
        let kept = before.groups.borrow();
        let same = kept.iter().filter(|(index, state)| {
            let now = self.table.groups.get(**index).and_then(Option::as_ref);
            now.is_some_and(|now| Arc::ptr_eq(&state.group, now) || state.group == *now)
        });
        let same = same.map(|(index, state)| (*index, Rc::clone(state)));
        self.groups.replace(same.collect());
    }
}

impl Worker {
    fn new(index: usize, shared: &Shared, stats: Arc<WorkerStats>) -> Self {
        let mut tables = Cache::new(Arc::clone(&shared.table));
        let current = Rc::new(Current::new(Arc::clone(tables.load())));
        let spare = Rc::default();
        Self {
            index,
            workers: shared.workers,
            tables: RefCell::new(tables),
            current: RefCell::new(current),
            marks: RefCell::default(),
            turns: Cell::new((index as u32).wrapping_mul(0x3c6e_f372)),
            limits: shared.limits,
            pool: Pool::new(shared.pool, &spare),
            spare,
            messages: Messages::default(),
            connections: Connections::default(),
            pipes: Pipes::new(PIPES),
            stats,
            stall_timeout: shared.stall_timeout,
        }
    }

    /// The newest route table. A request keeps the one it began with.
    pub(super) fn current(&self) -> Rc<Current> {
        let mut tables = self.tables.borrow_mut();
        let newest = tables.load();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(newest, &current.table) {
            let next = Current::new(Arc::clone(newest));
            next.inherit(&current);
            *current = Rc::new(next);
        }
        Rc::clone(&current)
    }

    /// Whether clients of this address may begin with HTTP/2.
    pub(super) fn speaks_h2c(&self, local: SocketAddr) -> bool {
        let current = self.current();
        let routes = current.table.routes(local);
        routes.is_some_and(|it| it.listener.settings.h2c)
    }

    /// The state of the `index`th group of a table.
    pub(super) fn group(&self, current: &Current, index: usize) -> Option<Rc<GroupState>> {
        let group = current.table.groups.get(index)?.as_ref()?;
        let mut groups = current.groups.borrow_mut();
        let state = groups.entry(index).or_insert_with(|| {
            Rc::new(GroupState {
                group: Arc::clone(group),
                turns: RefCell::new(RoundRobin::new(&group.backends, self.index, self.workers)),
                counters: group
                    .backends
                    .iter()
                    .map(|backend| self.stats.backend(&group.service, backend))
                    .collect(),
            })
        });
        Some(Rc::clone(state))
    }

    /// The next number of a sequence that is spread evenly over all 32-bit numbers, over any run of it.
    /// Source: Weyl, "Gleichverteilung von Zahlen mod. Eins", 1916, with the golden ratio.
    pub(super) fn turn(&self) -> u32 {
        let turn = self.turns.get().wrapping_add(0x9e37_79b9);
        self.turns.set(turn);
        turn
    }

    /// A backend not tried yet, of the family of the address that the client connected to; one that refused a connection lately only if there is no other.
    pub(super) fn pick(
        &self,
        state: &GroupState,
        (local, client): (IpAddr, IpAddr),
        tried: &[usize],
        now: Instant,
    ) -> Option<usize> {
        let marks = self.marks.borrow();
        let marked = |index: usize| {
            !marks.is_empty()
                && state
                    .group
                    .backends
                    .get(index)
                    .and_then(|backend| marks.get(&backend.address))
                    .is_some_and(|until| *until > now)
        };
        let v6 = local.to_canonical().is_ipv6();
        let backends = &state.group.backends;
        let ours = |index: usize| {
            let backend = backends.get(index);
            backend.is_some_and(|it| it.address.is_ipv6() == v6)
        };
        let mut turns = state.turns.borrow_mut();
        balance::pick(&state.group, &mut turns, client, |index| {
            ours(index) && !tried.contains(&index) && !marked(index)
        })
        .or_else(|| {
            balance::pick(&state.group, &mut turns, client, |index| {
                ours(index) && !tried.contains(&index)
            })
        })
    }

    /// Remembers that a backend refused a connection.
    pub(super) fn mark(&self, backend: SocketAddr) {
        let mut marks = self.marks.borrow_mut();
        if marks.len() < MARKS {
            marks.insert(backend, Instant::now() + MARKED);
        }
    }

    fn sweep(&self) {
        let now = Instant::now();
        self.pool.sweep(now);
        self.marks.borrow_mut().retain(|_, until| *until > now);
    }
}

/// Accepts until told to stop, then waits for what is under way, at most for the grace.
pub(super) async fn run(
    index: usize,
    shared: Shared,
    stats: Arc<WorkerStats>,
    (listener, listener_v6): (TcpListener, Option<TcpListener>),
) {
    let worker = Rc::new(Worker::new(index, &shared, stats));
    let mut stop = shared.stop.clone();
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            accepted = listener.accept() => accept(&worker, &shared, accepted).await,
            accepted = next(listener_v6.as_ref()) => accept(&worker, &shared, accepted).await,
            _ = sweep.tick() => worker.sweep(),
            _ = stop.changed() => break,
        }
    }
    drop((listener, listener_v6));
    worker.pool.close();
    worker.connections.stop();
    let grace = stop.borrow().unwrap_or_default();
    let until = Instant::now() + grace;
    while shared.connections.load(Relaxed) > 0 && Instant::now() < until {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

async fn next(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn accept(
    worker: &Rc<Worker>,
    shared: &Shared,
    accepted: io::Result<(TcpStream, SocketAddr)>,
) {
    match accepted {
        Ok((stream, client)) => admit(worker, shared, stream, client),
        Err(err) => {
            tracing::warn!(error = %err, "cannot accept a client connection; is the limit of open files too low?");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

fn admit(worker: &Rc<Worker>, shared: &Shared, stream: TcpStream, client: SocketAddr) {
    worker.stats.accepted.fetch_add(1, Relaxed);
    let Some(count) = ConnectionCount::claim(&shared.connections, shared.max_connections) else {
        worker.stats.reason(Reason::Overloaded);
        worker.stats.response(Reason::Overloaded.status().as_u16());
        // The reply fits an empty socket buffer; a client that has not even that much room gets nothing.
        let _ = stream.try_write(
            &Refusal::close(Reason::Overloaded, "too many connections are open").bytes(),
        );
        return;
    };
    // A client that is gone already has no address.
    let Ok(local) = stream.local_addr() else {
        return;
    };
    if let Err(err) = stream.set_nodelay(true) {
        tracing::debug!(error = %err, "cannot set TCP_NODELAY on a client connection");
    }
    let current = worker.current();
    let routes = current.table.routes(local);
    let idle_timeout = routes.map_or(FIRST_IDLE, |it| it.listener.settings.idle_timeout);
    let down = Downstream {
        local,
        client,
        tls: false,
    };
    let connection = h1::Connection::new(worker, Io::plain(stream), down, idle_timeout, count);
    tokio::task::spawn_local(connection.serve());
}
