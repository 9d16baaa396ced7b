//! Which connections a worker has, so that they can be told to end, and ended.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    net::SocketAddr,
    task::{Poll, Waker},
    time::Duration,
};

use foldhash::fast::RandomState;
use tokio::time::Instant;

/// The connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// Once connections are to end: until when those that are idle may stay.
    idle_until: Cell<Option<Instant>>,
    /// Tunnels are to end as well.
    ending: Cell<bool>,
    /// Free places are none; a task is the same as long as it lives.
    tasks: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
    /// How many there are at each address that clients connected to.
    addresses: RefCell<HashMap<SocketAddr, usize, RandomState>>,
    /// Addresses of those where nothing is served any more.
    gone: RefCell<HashMap<SocketAddr, Gone>>,
}

#[derive(Clone, Copy, Debug)]
struct Gone {
    since: Instant,
    /// Its connections are not waited for any longer.
    cut: bool,
}

/// A connection's place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place<'a> {
    connections: &'a Connections,
    index: usize,
    local: SocketAddr,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let connections = self.connections;
        if let Some(place) = connections.tasks.borrow_mut().get_mut(self.index) {
            *place = None;
        }
        connections.free.borrow_mut().push(self.index);
        let mut addresses = connections.addresses.borrow_mut();
        if let Some(count) = addresses.get_mut(&self.local) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.local);
                connections.gone.borrow_mut().remove(&self.local);
            }
        }
    }
}

impl Place<'_> {
    /// Whether the connection is to end when it can.
    pub(super) fn is_ending(&self) -> bool {
        self.connections.is_ending(self.local)
    }

    /// Whether nothing is served any more where it was for.
    pub(super) fn is_gone(&self) -> bool {
        self.connections.is_gone(self.local)
    }

    /// Whether it is to end at once.
    pub(super) fn is_cut(&self) -> bool {
        let gone = self.connections.gone.borrow();
        !gone.is_empty() && gone.get(&self.local).is_some_and(|it| it.cut)
    }
}

impl Connections {
    /// The task of a new connection to this address, which is woken when the worker stops, or serves there no more.
    pub(super) async fn enter(&self, local: SocketAddr) -> Place<'_> {
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let mut tasks = self.tasks.borrow_mut();
        let index = match self.free.borrow_mut().pop() {
            Some(index) => index,
            None => {
                tasks.push(None);
                tasks.len() - 1
            }
        };
        tasks[index] = Some(waker);
        *self.addresses.borrow_mut().entry(local).or_default() += 1;
        Place {
            connections: self,
            index,
            local,
        }
    }

    /// Whether connections to this address are to end when they can.
    pub(super) fn is_ending(&self, local: SocketAddr) -> bool {
        self.is_stopping() || self.is_gone(local)
    }

    /// Whether nothing is served at this address any more.
    fn is_gone(&self, local: SocketAddr) -> bool {
        let gone = self.gone.borrow();
        !gone.is_empty() && gone.contains_key(&local)
    }

    /// Whether all connections are to end when they can.
    pub(super) fn is_stopping(&self) -> bool {
        self.idle_until.get().is_some()
    }

    /// When an idle connection ends, if all connections are to.
    pub(super) fn idle_until(&self) -> Option<Instant> {
        self.idle_until.get()
    }

    /// Whether tunnels are to end when they can.
    pub(super) fn ending(&self) -> &Cell<bool> {
        &self.ending
    }

    /// Tells every connection, but no tunnel. Idle ones that stay for a while have a chance to tell their client with an
    /// answer, and do not end while its next request is on its way.
    pub(super) fn stop(&self, idle: Duration) {
        self.idle_until.set(Some(Instant::now() + idle));
        self.wake();
    }

    /// Tells tunnels, too.
    pub(super) fn end(&self, idle: Duration) {
        self.ending.set(true);
        self.stop(idle);
    }

    /// Tells the connections to addresses where nothing is served any more; says whether there are such that had not been
    /// told before.
    pub(super) fn tell_gone(&self, serves: impl Fn(SocketAddr) -> bool, now: Instant) -> bool {
        let mut gone = self.gone.borrow_mut();
        gone.retain(|local, _| !serves(*local));
        let before = gone.len();
        for local in self.addresses.borrow().keys().filter(|it| !serves(**it)) {
            let new = Gone {
                since: now,
                cut: false,
            };
            gone.entry(*local).or_insert(new);
        }
        let more = gone.len() > before;
        drop(gone);
        if more {
            self.wake();
        }
        more
    }

    /// Ends those that were told by then.
    pub(super) fn cut(&self, told: Instant) {
        for gone in self.gone.borrow_mut().values_mut() {
            gone.cut |= gone.since <= told;
        }
        self.wake();
    }

    fn wake(&self) {
        for waker in self.tasks.borrow().iter().flatten() {
            waker.wake_by_ref();
        }
    }
}
