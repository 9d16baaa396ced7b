//! How many connections to backends a worker may have, and who waits for one.
//!
//! A connection has a [`Seat`] from before it is opened until it is closed, idle or not. Who finds none waits in one
//! queue of the worker; the first one there that a seat, or a connection that became free, is good for gets it.
//!
//! The crowd are clients that have had several requests under way at once on a connection: their requests
//! use at most half of the connections at a time, whether they open them or find them idle. However many streams they have
//! open, others find a seat.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    rc::Rc,
};

use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use super::Upstream;

/// Requests that wait at once, per worker.
const MOST_WAITING: usize = 1024;

/// A backend: its address, and whether the connection goes through TLS.
pub(super) type Key = (SocketAddr, bool);

/// What somebody waited for.
#[derive(Debug)]
pub(super) enum Grant {
    /// A connection may be opened.
    Seat(Seat),
    /// One that has served before.
    Upstream(Box<Upstream>),
}

/// Connections that may be open.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Most {
    /// To one backend.
    pub(in crate::proxy) per_backend: usize,
    /// To all.
    pub(in crate::proxy) all: usize,
}

/// The connections of one worker.
#[derive(Debug)]
pub(super) struct Budget {
    most: Most,
    all: Cell<usize>,
    /// Of them in use by the crowd.
    crowd: Cell<usize>,
    open: RefCell<HashMap<Key, Open, RandomState>>,
    waiting: RefCell<VecDeque<Waiter>>,
}

/// Seats of one backend.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    all: usize,
    /// In use by the crowd.
    crowd: usize,
}

#[derive(Debug)]
struct Waiter {
    key: Key,
    /// A connection that served somebody else is none for it.
    named: bool,
    /// Its client's connection had several requests under way at once.
    beside: bool,
    to: oneshot::Sender<Grant>,
}

impl Budget {
    pub(super) fn new(most: Most) -> Rc<Self> {
        Rc::new(Self {
            most,
            all: Cell::new(0),
            crowd: Cell::new(0),
            open: RefCell::default(),
            waiting: RefCell::default(),
        })
    }

    /// Whether it is the worker's connections that are too many for this one, neither those of a backend nor the crowd's.
    pub(super) fn is_spent(&self, key: Key, beside: bool) -> bool {
        self.all.get() >= self.most.all && self.admits(key, beside)
    }

    fn of(&self, key: Key) -> Open {
        self.open.borrow().get(&key).copied().unwrap_or_default()
    }

    /// Whether one more may be used by this one of the crowd, or at all.
    pub(super) fn admits(&self, key: Key, beside: bool) -> bool {
        let half = |most: usize| most.div_ceil(2);
        !beside
            || (self.crowd.get() < half(self.most.all)
                && self.of(key).crowd < half(self.most.per_backend))
    }

    fn has_room(&self, key: Key, beside: bool) -> bool {
        self.all.get() < self.most.all
            && self.of(key).all < self.most.per_backend
            && self.admits(key, beside)
    }

    /// A place for one connection more, if there is one, for one of the crowd (`beside`) or another.
    pub(super) fn claim(self: &Rc<Self>, key: Key, beside: bool) -> Option<Seat> {
        if !self.has_room(key, beside) {
            return None;
        }
        self.all.set(self.all.get() + 1);
        self.open.borrow_mut().entry(key).or_default().all += 1;
        let seat = Seat {
            budget: Rc::clone(self),
            key,
            beside: Cell::new(false),
        };
        seat.used(beside);
        Some(seat)
    }

    /// Lets the first one who waits for a seat that there is have it.
    pub(super) fn seat_next(self: &Rc<Self>) {
        if self.waiting.borrow().is_empty() {
            return;
        }
        if let Some(next) = self.first(|it| self.has_room(it.key, it.beside))
            && let Some(seat) = self.claim(next.key, next.beside)
        {
            // Who has left meanwhile lets the next one have it.
            drop(next.to.send(Grant::Seat(seat)));
        }
    }

    /// Waits behind all others. `None`: too many wait already.
    pub(super) fn queue(
        &self,
        key: Key,
        named: bool,
        beside: bool,
    ) -> Option<oneshot::Receiver<Grant>> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= MOST_WAITING {
            waiting.retain(|it| !it.to.is_closed());
        }
        let (to, grant) = oneshot::channel();
        let room = waiting.len() < MOST_WAITING;
        let waiter = Waiter {
            key,
            named,
            beside,
            to,
        };
        room.then(|| waiting.push_back(waiter))?;
        Some(grant)
    }

    /// Hands a connection that became free to who waits for one to this backend; otherwise gives it back.
    pub(super) fn hand_over(&self, upstream: Upstream) -> Option<Upstream> {
        if self.waiting.borrow().is_empty() {
            return Some(upstream);
        }
        let key = (upstream.address, upstream.tls);
        let suited = |it: &Waiter| it.key == key && !it.named && self.admits(key, it.beside);
        let Some(first) = self.first(suited) else {
            return Some(upstream);
        };
        upstream.seat.used(first.beside);
        match first.to.send(Grant::Upstream(Box::new(upstream))) {
            Err(Grant::Upstream(upstream)) => {
                upstream.seat.used(false);
                Some(*upstream)
            }
            Ok(()) | Err(Grant::Seat(_)) => None,
        }
    }

    /// Takes the first one who still waits and is suited out of the queue.
    fn first(&self, suited: impl Fn(&Waiter) -> bool) -> Option<Waiter> {
        let mut waiting = self.waiting.borrow_mut();
        while waiting.front().is_some_and(|it| it.to.is_closed()) {
            waiting.pop_front();
        }
        let first = waiting
            .iter()
            .position(|it| suited(it) && !it.to.is_closed())?;
        waiting.remove(first)
    }
}

/// A place for one connection; dropping it gives it to who waits, or back.
#[derive(Debug)]
pub(in crate::proxy) struct Seat {
    budget: Rc<Budget>,
    key: Key,
    /// The crowd uses it.
    beside: Cell<bool>,
}

impl Seat {
    /// Its connection is used by one of the crowd, or by somebody else, or by nobody.
    pub(super) fn used(&self, beside: bool) {
        let before = self.beside.replace(beside);
        if before == beside {
            return;
        }
        let change = |count: usize| match beside {
            true => count + 1,
            false => count.saturating_sub(1),
        };
        self.budget.crowd.set(change(self.budget.crowd.get()));
        if let Some(open) = self.budget.open.borrow_mut().get_mut(&self.key) {
            open.crowd = change(open.crowd);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.used(false);
        let budget = &self.budget;
        budget.all.set(budget.all.get().saturating_sub(1));
        let mut open = budget.open.borrow_mut();
        if let Some(count) = open.get_mut(&self.key) {
            count.all -= 1;
            if count.all == 0 {
                open.remove(&self.key);
            }
        }
        drop(open);
        budget.seat_next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> Key {
        (SocketAddr::from(([10, 0, 0, 1], port)), false)
    }

    fn budget(per_backend: usize, all: usize) -> Rc<Budget> {
        Budget::new(Most { per_backend, all })
    }

    fn is_seated(grant: &mut oneshot::Receiver<Grant>) -> bool {
        matches!(grant.try_recv(), Ok(Grant::Seat(_)))
    }

    #[test]
    fn who_waited_longest_gets_the_seat_of_its_backend() {
        let budget = budget(1, 10);
        let (seat, other) = (budget.claim(key(1), false), budget.claim(key(2), false));
        assert!(seat.is_some() && other.is_some() && budget.claim(key(1), false).is_none());
        let mut gone = budget.queue(key(1), false, false).expect("room");
        let mut first = budget.queue(key(1), false, false).expect("room");
        let mut second = budget.queue(key(1), false, false).expect("room");
        gone.close();
        drop(other);
        assert!(first.try_recv().is_err(), "that was of another backend");
        drop(seat);
        let grant = first.try_recv();
        assert!(grant.is_ok() && second.try_recv().is_err());
        drop(grant);
        assert!(is_seated(&mut second));
        assert!(budget.claim(key(1), false).is_some() && budget.open.borrow().is_empty());
    }

    #[test]
    fn a_seat_that_was_granted_and_not_taken_goes_on() {
        let budget = budget(1, 10);
        let seat = budget.claim(key(1), false);
        let first = budget.queue(key(1), false, false);
        let mut second = budget.queue(key(1), false, false).expect("room");
        drop(seat);
        drop(first);
        assert!(is_seated(&mut second));
        assert_eq!(budget.all.get(), 0);
    }

    #[test]
    fn the_seats_of_a_worker_are_for_all_its_backends() {
        let budget = budget(5, 2);
        let seats = (budget.claim(key(1), false), budget.claim(key(2), false));
        assert!(budget.is_spent(key(3), false) && budget.claim(key(3), false).is_none());
        let mut waits = budget.queue(key(3), false, false).expect("room");
        seats.0.as_ref().expect("a seat").used(true);
        // One of two is the crowd's: closing idle connections of others would not help it.
        assert!(!budget.is_spent(key(3), true) && budget.is_spent(key(3), false));
        drop(seats);
        assert!(is_seated(&mut waits));
    }

    #[test]
    fn the_queue_is_bounded() {
        let budget = budget(0, 0);
        let mut waits: Vec<_> = (0..MOST_WAITING)
            .map(|_| budget.queue(key(1), false, false))
            .collect();
        assert!(waits.iter().all(Option::is_some));
        assert!(budget.queue(key(1), false, false).is_none());
        waits.pop();
        assert!(
            budget.queue(key(1), false, false).is_some(),
            "who left made room"
        );
    }

    #[test]
    fn half_is_for_clients_that_ask_one_thing_at_a_time() {
        let budget = budget(4, 10);
        let crowd = (0..4).map(|_| budget.claim(key(1), true));
        let mut crowd: Vec<_> = crowd.collect();
        assert_eq!(crowd.iter().flatten().count(), 2);
        let mut waits = budget.queue(key(1), false, true).expect("room");
        let alone = (budget.claim(key(1), false), budget.claim(key(1), false));
        assert!(alone.0.is_some() && alone.1.is_some());
        drop(alone.0);
        assert!(!is_seated(&mut waits), "that is not for the crowd");
        crowd.remove(0);
        assert!(is_seated(&mut waits));
        assert_eq!((budget.crowd.get(), budget.of(key(1)).crowd), (1, 1));
        drop((crowd, alone.1));
        assert_eq!((budget.crowd.get(), budget.all.get()), (0, 0));
    }
}
