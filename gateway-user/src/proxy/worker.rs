//! One thread of the proxy: its socket, its connections, its pool and its turns.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, cache::Cache};
use foldhash::fast::RandomState;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use super::{
    RouteTable,
    access_log::WorkerLog,
    buffer::Spare,
    connections::Connections,
    downstream::{self, Downstream, h2},
    framing::HeadLimits,
    group::{Common, GroupState},
    latency::ListenerStats,
    messages::Messages,
    opening,
    plain::Listening,
    reason::{Reason, Refusal},
    stats::{ConnectionCount, WorkerStats},
    timer::Timers,
    trace::Tracer,
    upstream::{Pool, PoolLimits, shared::SharedPool},
    wire::relay::Pipes,
};
use crate::ir::{GroupName, Listener};

/// A backend that refused a connection is tried last for this long.
const MARKED: Duration = Duration::from_secs(3);
/// Backends marked at once; more are simply tried.
const MARKS: usize = 4096;
/// The access log gets its lines at least this often.
const HAND_OVER: Duration = Duration::from_millis(200);
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Pause after an accept that failed, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A worker that stops goes on accepting for this long: handshakes that have begun come to their end.
const LAST_ACCEPTS: Duration = Duration::from_millis(200);
/// Connections accepted before those that are open get their turn.
const ACCEPTS: usize = 32;
/// Idle timeout until a request has told the listener.
const FIRST_IDLE: Duration = Duration::from_secs(15);
/// Pipes for tunnels, two file descriptors each.
const PIPES: usize = 256;
/// Idle connections of a proxy that another one has followed stay this long, or as long as their listener says.
const RETIRED_IDLE: Duration = Duration::from_secs(3600);
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// What the workers are to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// Accept and serve.
    Serving,
    /// Accept no more and have connections end in order.
    Retiring,
    /// The same, and end within this time.
    Ending(Duration),
}

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
    pub(super) common: Arc<Common>,
    pub(super) limits: Limits,
    pub(super) pool: PoolLimits,
    pub(super) stall_timeout: Duration,
    /// How long connections to a listener that is gone may go on.
    pub(super) drain_timeout: Duration,
    /// Tells of each new table.
    pub(super) updated: watch::Receiver<()>,
    pub(super) phase: watch::Receiver<Phase>,
}

/// What a worker tells of what it does.
#[derive(Debug)]
pub(super) struct Eyes {
    pub(super) stats: Arc<WorkerStats>,
    pub(super) log: WorkerLog,
    pub(super) tracer: Option<Tracer>,
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
    /// For requests of HTTP/2.
    pub(super) stream_tasks: Rc<h2::Tasks<h2::Stream>>,
    /// For what is no connection of its own.
    pub(super) timers: Timers,
    pub(super) connections: Connections,
    pub(super) pipes: Pipes,
    /// Copies of requests under way.
    pub(super) mirrors: Cell<usize>,
    pub(super) common: Arc<Common>,
    pub(super) log: RefCell<WorkerLog>,
    /// `None`: requests are not traced.
    pub(super) tracer: Option<Tracer>,
    pub(super) pool: Pool,
    pub(super) shared: Rc<SharedPool>,
    pub(super) stats: Arc<WorkerStats>,
    pub(super) stall_timeout: Duration,
}

/// The route table with this worker's state of its groups and listeners, made when first needed.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) table: Arc<RouteTable>,
    groups: RefCell<HashMap<usize, Rc<GroupState>, RandomState>>,
    /// What there was of groups that may be asked for by their names.
    before: HashMap<GroupName, Rc<GroupState>>,
    listeners: RefCell<HashMap<SocketAddr, Rc<ListenerState>, RandomState>>,
}

/// A listener as one worker sees it.
#[derive(Debug)]
pub(super) struct ListenerState {
    /// Its name, for people.
    pub(super) name: String,
    pub(super) stats: Arc<ListenerStats>,
}

impl Current {
    fn new(table: Arc<RouteTable>, before: Option<&Self>) -> Self {
        let before = before.map(|it| {
            let mut known = it.before.clone();
            let used = it.groups.borrow();
            known.extend(
                used.values()
                    .map(|it| (it.group.name.clone(), Rc::clone(it))),
            );
            let there = |name: &GroupName| {
                let groups = table.groups.iter().flatten();
                groups.map(|it| &it.name).any(|it| it == name)
            };
            if known.len() > 2 * table.groups.len() + 16 {
                known.retain(|name, _| there(name));
            }
            known
        });
        Self {
            table,
            groups: RefCell::default(),
            before: before.unwrap_or_default(),
            listeners: RefCell::default(),
        }
    }
}

impl Worker {
    fn new(index: usize, shared: &Shared, eyes: Eyes) -> Self {
        let Eyes { stats, log, tracer } = eyes;
        let mut tables = Cache::new(Arc::clone(&shared.table));
        let current = Rc::new(Current::new(Arc::clone(tables.load()), None));
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
            shared: Rc::default(),
            spare,
            messages: Messages::default(),
            stream_tasks: Rc::default(),
            timers: Timers::default(),
            connections: Connections::default(),
            pipes: Pipes::new(PIPES),
            mirrors: Cell::new(0),
            common: Arc::clone(&shared.common),
            log: RefCell::new(log),
            tracer,
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
            let next = Current::new(Arc::clone(newest), Some(&current));
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

    /// The state of the `index`th group of a table. An equal group goes on where it was.
    pub(super) fn group(&self, current: &Current, index: usize) -> Option<Rc<GroupState>> {
        let group = current.table.groups.get(index)?.as_ref()?;
        if let Some(known) = current.groups.borrow().get(&index) {
            return Some(Rc::clone(known));
        }
        let before = current.before.get(&group.name);
        let same = before.filter(|it| Arc::ptr_eq(&it.group, group) || it.group == *group);
        let state = match same {
            Some(same) => Rc::clone(same),
            None => {
                let place = (self.index, self.workers);
                let before = before.map(Rc::as_ref);
                let state = GroupState::new(group, place, &self.common, &self.stats, before);
                Rc::new(state)
            }
        };
        current.groups.borrow_mut().insert(index, Rc::clone(&state));
        Some(state)
    }

    /// The state of the listener at an address.
    pub(super) fn listener(
        &self,
        current: &Current,
        local: SocketAddr,
        listener: &Listener,
    ) -> Rc<ListenerState> {
        let mut listeners = current.listeners.borrow_mut();
        let state = listeners.entry(local).or_insert_with(|| {
            let name = listener.name.to_string();
            let stats = self.stats.latencies.listener(&name);
            Rc::new(ListenerState { name, stats })
        });
        Rc::clone(state)
    }

    /// The next number of a sequence that is spread evenly over all 32-bit numbers, over any run of it.
    /// Source: Weyl, "Gleichverteilung von Zahlen mod. Eins", 1916, with the golden ratio.
    pub(super) fn turn(&self) -> u32 {
        let turn = self.turns.get().wrapping_add(0x9e37_79b9);
        self.turns.set(turn);
        turn
    }

    /// Whether a backend refused a connection lately.
    pub(super) fn is_marked(&self, backend: SocketAddr, now: Instant) -> bool {
        let marks = self.marks.borrow();
        !marks.is_empty() && marks.get(&backend).is_some_and(|until| *until > now)
    }

    /// Remembers that a backend refused a connection.
    pub(super) fn mark(&self, backend: SocketAddr) {
        let mut marks = self.marks.borrow_mut();
        if marks.len() < MARKS {
            marks.insert(backend, Instant::now() + MARKED);
        }
    }

    /// Tells connections to listeners that are gone to end, and ends them after `drain`.
    fn retire(self: &Rc<Self>, drain: Duration) {
        let table = Arc::clone(&self.current().table);
        let now = Instant::now();
        let serves = |local| table.starting || table.any(local).is_some();
        if self.connections.tell_gone(serves, now) {
            let worker = Rc::clone(self);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(drain).await;
                worker.connections.cut(now);
            });
        }
    }

    fn sweep(&self) {
        let now = Instant::now();
        self.pool.sweep(now);
        self.shared.sweep();
        self.marks.borrow_mut().retain(|_, until| *until > now);
    }
}

/// Accepts until told to stop, then waits for what is under way, at most for the grace.
pub(super) async fn run(
    index: usize,
    shared: Shared,
    eyes: Eyes,
    (listener, listener_v6): (Listening, Option<Listening>),
) {
    let worker = Rc::new(Worker::new(index, &shared, eyes));
    let mut phase = shared.phase.clone();
    let mut updated = shared.updated.clone();
    let mut hand_over = tokio::time::interval(HAND_OVER);
    hand_over.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            accepted = listener.accept() => accept_all(&worker, &shared, &listener, accepted).await,
            accepted = next(listener_v6.as_ref()) => accept(&worker, &shared, accepted).await,
            now = hand_over.tick(), if worker.log.borrow().is_on() => worker.log.borrow_mut().flush_if_due(now.into_std()),
            _ = sweep.tick() => worker.sweep(),
            Ok(()) = updated.changed() => worker.retire(shared.drain_timeout),
            _ = phase.changed() => break,
        }
    }
    worker.pool.close();
    worker.shared.close();
    // None: until told.
    let mut until = match *phase.borrow_and_update() {
        Phase::Ending(grace) => {
            // Without another proxy that serves, the sooner they are over the better.
            worker.connections.end(Duration::ZERO);
            Some(Instant::now() + grace)
        }
        Phase::Serving | Phase::Retiring => {
            worker.connections.stop(RETIRED_IDLE);
            None
        }
    };
    // Whoever stands in the queue by now would be reset by the end of the listener, though a successor may already
    // take everybody else.
    let last = Instant::now() + LAST_ACCEPTS;
    let last = tokio::time::sleep_until(until.map_or(last, |it| it.min(last)));
    tokio::pin!(last);
    loop {
        tokio::select! {
            biased;
            accepted = listener.accept() => accept(&worker, &shared, accepted).await,
            accepted = next(listener_v6.as_ref()) => accept(&worker, &shared, accepted).await,
            () = &mut last => break,
        }
    }
    drop((listener, listener_v6));
    while shared.connections.load(Relaxed) > 0 && until.is_none_or(|it| Instant::now() < it) {
        let look = until.map_or(HAND_OVER, |_| DRAIN_LOOK);
        tokio::select! {
            () = tokio::time::sleep(look) => worker.log.borrow_mut().flush_if_due(std::time::Instant::now()),
            // A proxy that is gone ends at once.
            told = phase.changed() => {
                let grace = match *phase.borrow() {
                    Phase::Ending(grace) if told.is_ok() => grace,
                    _ => Duration::ZERO,
                };
                until = Some(Instant::now() + grace);
                worker.connections.end(grace / 5 * 4);
            }
        }
    }
    worker.log.borrow_mut().flush();
}

/// Takes those that wait behind the first, too.
async fn accept_all(
    worker: &Rc<Worker>,
    shared: &Shared,
    listener: &Listening,
    mut accepted: io::Result<(TcpStream, SocketAddr)>,
) {
    for _ in 1..ACCEPTS {
        accept(worker, shared, accepted).await;
        accepted = match listener.try_accept() {
            Some(Ok(accepted)) => Ok(accepted),
            // What fails for good fails again, and is waited for once.
            Some(Err(_)) | None => return,
        };
    }
    accept(worker, shared, accepted).await;
}

async fn next(listener: Option<&Listening>) -> io::Result<(TcpStream, SocketAddr)> {
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
        Err(err) if err.kind() == io::ErrorKind::ConnectionAborted => {}
        Err(err) => {
            tracing::warn!(error = %err, "cannot accept a client connection; is the limit of open files too low?");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

fn admit(worker: &Rc<Worker>, shared: &Shared, stream: TcpStream, client: SocketAddr) {
    worker.stats.accepted.fetch_add(1, Relaxed);
    let Some(mut count) = ConnectionCount::claim(&shared.connections, shared.max_connections)
    else {
        worker.stats.reason(Reason::Overloaded);
        worker.stats.response(Reason::Overloaded.status().as_u16());
        // The reply fits an empty socket buffer; a client that has not even that much room gets nothing.
        let _ = (&stream)
            .write(&Refusal::close(Reason::Overloaded, "too many connections are open").bytes());
        return;
    };
    // A client that is gone already has no address.
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let current = worker.current();
    let down = Downstream {
        local,
        peer: client,
        client,
        secured: None,
        open: Cell::new(0),
        crowded: Cell::new(false),
    };
    let worker = Rc::clone(worker);
    let routes = current.table.any(local);
    let watched = |stream| {
        let watched = tokio::net::TcpStream::from_std(stream);
        watched.inspect_err(
            |err| tracing::warn!(error = %err, "cannot watch a client connection; is the limit of epoll watches too low?"),
        )
    };
    if let Some(routes) = routes {
        count.on(&worker.listener(&current, local, &routes.listener).stats);
    }
    if let Some(routes) = routes.filter(|it| it.opens(client.ip())) {
        let Ok(stream) = watched(stream) else { return };
        let opened = opening::open(worker, stream, down, Arc::clone(routes), count);
        tokio::task::spawn_local(Box::pin(opened));
    } else if let Some((routes, server)) = current.table.secured(local) {
        let Ok(stream) = watched(stream) else { return };
        let idle = routes.listener.settings.idle_timeout;
        let server = Arc::clone(server);
        let served = downstream::secured(worker, stream, down, server, idle, count);
        tokio::task::spawn_local(Box::pin(served));
    } else if !current.table.is_mute(local) {
        let routes = current.table.routes(local);
        let idle = routes.map_or(FIRST_IDLE, |it| it.listener.settings.idle_timeout);
        // Boxed first, a task of some kilobytes is moved once.
        let served = downstream::plain(worker, stream, down, idle, count);
        tokio::task::spawn_local(Box::pin(served));
    }
}
