//! Tasks for streams, kept for those that come later.
//!
//! The future of a stream has some 6 kB. A task for each stream would allocate them, copy them there, and give them back,
//! for a request that takes some microseconds.
//!
//! Streams beside many others of their connection begin a few at a time when there is no task for them: thousands that
//! come at once neither stand before everybody else nor take all that memory while they wait for their turn.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

/// Idle tasks kept per worker.
const KEPT: usize = 128;

/// Of those who wait, so many begin before the event loop looks at its sockets again.
const AT_ONCE: usize = 8;

/// What a task does.
pub(in crate::proxy) trait Job: 'static {
    /// To its end.
    fn run(self) -> impl Future<Output = ()>;
}

/// The tasks of one worker.
pub(in crate::proxy) struct Tasks<J> {
    /// Those that have nothing to do.
    idle: RefCell<Vec<Rc<Slot<J>>>>,
    /// Jobs that wait for their turn.
    waiting: RefCell<VecDeque<J>>,
    /// Somebody has them begin.
    beginning: Cell<bool>,
}

impl<J> Default for Tasks<J> {
    fn default() -> Self {
        Self {
            idle: RefCell::default(),
            waiting: RefCell::default(),
            beginning: Cell::default(),
        }
    }
}

impl<J> fmt::Debug for Tasks<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("idle", &self.idle.borrow().len())
            .field("waiting", &self.waiting.borrow().len())
            .finish_non_exhaustive()
    }
}

/// How a task gets its next job.
struct Slot<J> {
    job: RefCell<Option<J>>,
    waker: RefCell<Waker>,
}

impl<J: Job> Tasks<J> {
    /// Has a job done beside what the caller does; in a `LocalSet`. One of a `crowd` may have to wait for its turn.
    pub(in crate::proxy) fn spawn(self: &Rc<Self>, job: J, crowd: bool) {
        let mut waiting = self.waiting.borrow_mut();
        if !crowd || (waiting.is_empty() && !self.idle.borrow().is_empty()) {
            drop(waiting);
            return self.start(job);
        }
        waiting.push_back(job);
        if !self.beginning.replace(true) {
            tokio::task::spawn_local(begin(Rc::clone(self)));
        }
    }

    fn start(self: &Rc<Self>, job: J) {
        let idle = self.idle.borrow_mut().pop();
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
        let mut idle = self.idle.borrow_mut();
        let room = idle.len() < KEPT;
        if room {
            idle.push(Rc::clone(slot));
        }
        room
    }
}

/// Starts those who wait, until nobody does.
async fn begin<J: Job>(tasks: Rc<Tasks<J>>) {
    loop {
        for _ in 0..AT_ONCE {
            let Some(job) = tasks.waiting.borrow_mut().pop_front() else {
                tasks.beginning.set(false);
                return;
            };
            tasks.start(job);
        }
        tokio::task::yield_now().await;
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
                    tasks.spawn(Wait(ended, Rc::clone(&done)), false);
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
            assert_eq!(tasks.idle.borrow().len(), 3);
            let two = begin(2);
            assert_eq!(tasks.idle.borrow().len(), 1, "two of them work again");
            finish(two).await;
            finish(begin(KEPT + 20)).await;
            assert_eq!((done.get(), tasks.idle.borrow().len()), (KEPT + 25, KEPT));
        };
        LocalSet::new().run_until(work).await;
    }

    #[tokio::test]
    async fn a_crowd_begins_a_few_at_a_time_and_others_do_not_wait_for_it() {
        const CROWD: usize = 10 * AT_ONCE + 3;
        /// Notes that it begins.
        struct Note(usize, Rc<RefCell<Vec<usize>>>);
        impl Job for Note {
            async fn run(self) {
                self.1.borrow_mut().push(self.0);
            }
        }
        let work = async {
            let tasks = Rc::<Tasks<Note>>::default();
            let begun = Rc::<RefCell<Vec<usize>>>::default();
            for number in 0..CROWD {
                tasks.spawn(Note(number, Rc::clone(&begun)), true);
            }
            tokio::task::yield_now().await;
            assert!(begun.borrow().len() <= 2 * AT_ONCE);
            tasks.spawn(Note(CROWD, Rc::clone(&begun)), false);
            while begun.borrow().len() <= CROWD {
                tokio::task::yield_now().await;
            }
            let all = begun.borrow();
            let place = all.iter().position(|it| *it == CROWD);
            assert!(place.is_some_and(|it| it < 5 * AT_ONCE), "{place:?}");
            let crowd: Vec<usize> = all.iter().copied().filter(|it| *it < CROWD).collect();
            assert_eq!(crowd, (0..CROWD).collect::<Vec<_>>(), "in their order");
            assert!(!tasks.beginning.get() && tasks.waiting.borrow().is_empty());
        };
        LocalSet::new().run_until(work).await;
    }
}
