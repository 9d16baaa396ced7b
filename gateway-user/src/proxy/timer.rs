//! A timer that is seldom moved: most deadlines are met long before.

use std::{
    cell::RefCell,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep};

/// The one timer of a connection.
#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

/// Timers kept per worker.
const KEPT: usize = 128;

/// Timers of a worker that are not in use: they go on running, and the next one who takes one moves it when it fires.
#[derive(Debug, Default)]
pub(super) struct Timers(RefCell<Vec<Timer>>);

impl Timers {
    pub(super) fn take(&self) -> Timer {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn put(&self, timer: Timer) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT {
            kept.push(timer);
        }
    }
}

impl Timer {
    /// Ready when `deadline` has passed; otherwise the task is woken when it will have.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // Moving a timer costs; one that fires early is simply set again.
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Waits for `future`, but not longer.
    pub(super) async fn limit<F: Future>(
        &mut self,
        deadline: Instant,
        future: F,
    ) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => self.poll(cx, deadline).map(|()| None),
        })
        .await
    }
}
