//! Tasks for streams, kept for those that come later.
//!
//! The future of a stream has some 6 kB. A task for each stream would allocate them, copy them there, and give them back,
//! for a request that takes some microseconds.

use std::{
    cell::RefCell,
    fmt,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

/// Idle tasks kept per worker.
const KEPT: usize = 128;

/// What a task does.
pub(in crate::proxy) trait Job: 'static {
    /// To its end.
    fn run(self) -> impl Future<Output = ()>;
}

/// The tasks of one worker that have nothing to do.
pub(in crate::proxy) struct Tasks<J>(RefCell<Vec<Rc<Slot<J>>>>);

impl<J> Default for Tasks<J> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<J> fmt::Debug for Tasks<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let idle = self.0.borrow().len();
        f.debug_struct("Tasks").field("idle", &idle).finish()
    }
}

/// How a task gets its next job.
struct Slot<J> {
    job: RefCell<Option<J>>,
    waker: RefCell<Waker>,
}

impl<J: Job> Tasks<J> {
    /// Has a job done beside what the caller does; in a `LocalSet`.
    pub(in crate::proxy) fn spawn(self: &Rc<Self>, job: J) {
        let idle = self.0.borrow_mut().pop();
        if let Some(slot) = idle {
            slot.job.replace(Some(job));
            slot.waker.borrow().wake_by_ref();
            return;
        }
        let slot = Rc::new(Slot {
            job: RefCell::new(Some(job)),
            waker: RefCell::new(Waker::noop().clone()),
        });
        tokio::task::spawn_local(Box::pin(work(Rc::clone(self), slot)));
    }

    /// Keeps a task that is done; `false`: there are enough.
    fn keep(&self, slot: &Rc<Slot<J>>) -> bool {
        let mut idle = self.0.borrow_mut();
        let room = idle.len() < KEPT;
        if room {
            idle.push(Rc::clone(slot));
        }
        room
    }
}

async fn work<J: Job>(tasks: Rc<Tasks<J>>, slot: Rc<Slot<J>>) {
    loop {
        let job = poll_fn(|cx| match slot.job.take() {
            Some(job) => Poll::Ready(job),
            None => {
                slot.waker.borrow_mut().clone_from(cx.waker());
                Poll::Pending
            }
        });
        job.await.run().await;
        if !tasks.keep(&slot) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::{sync::oneshot, task::LocalSet};

    use super::*;

    /// Waits, and counts itself.
    struct Wait(oneshot::Receiver<()>, Rc<Cell<usize>>);

    impl Job for Wait {
        async fn run(self) {
            assert!(self.0.await.is_ok());
            self.1.set(self.1.get() + 1);
        }
    }

    #[tokio::test]
    async fn tasks_are_used_again_and_no_more_are_kept_than_are_of_use() {
        let work = async {
            let tasks = Rc::<Tasks<Wait>>::default();
            let done = Rc::new(Cell::new(0));
            let begin = |count: usize| -> Vec<_> {
                let senders = (0..count).map(|_| {
                    let (end, ended) = oneshot::channel();
                    tasks.spawn(Wait(ended, Rc::clone(&done)));
                    end
                });
                senders.collect()
            };
            let finish = async |waiting: Vec<oneshot::Sender<()>>| {
                let until = done.get() + waiting.len();
                for end in waiting {
                    end.send(()).expect("the job waits");
                }
                while done.get() < until {
                    tokio::task::yield_now().await;
                }
                tokio::task::yield_now().await;
            };
            finish(begin(3)).await;
            assert_eq!(tasks.0.borrow().len(), 3);
            let two = begin(2);
            assert_eq!(tasks.0.borrow().len(), 1, "two of them work again");
            finish(two).await;
            finish(begin(KEPT + 20)).await;
            assert_eq!((done.get(), tasks.0.borrow().len()), (KEPT + 25, KEPT));
        };
        LocalSet::new().run_until(work).await;
    }
}
