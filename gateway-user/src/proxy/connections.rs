//! Which connections a worker has, so that they can be told to end.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, Waker},
    time::Duration,
};

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
}

/// A connection's place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place<'a> {
    connections: &'a Connections,
    index: usize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.connections.tasks.borrow_mut().get_mut(self.index) {
            *place = None;
        }
        self.connections.free.borrow_mut().push(self.index);
    }
}

impl Connections {
    /// The task of a new connection, which is woken when the worker stops.
    pub(super) async fn enter(&self) -> Place<'_> {
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
        Place {
            connections: self,
            index,
        }
    }

    /// Whether connections are to end when they can.
    pub(super) fn is_stopping(&self) -> bool {
        self.idle_until.get().is_some()
    }

    /// When an idle connection ends, if connections are to.
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

    fn wake(&self) {
        for waker in self.tasks.borrow().iter().flatten() {
            waker.wake_by_ref();
        }
    }
}
