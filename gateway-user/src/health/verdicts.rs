//! Verdicts on their way to the agent: the last word on each target waits.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

use crate::ir::{Probe, ProbeFailure};

/// Verdicts of one moment are taken together for this long: a node that dies takes all its pods along.
const SETTLE: Duration = Duration::from_millis(10);

/// Who fails now, and why, or does not any more.
type Verdicts = BTreeMap<Probe, Option<ProbeFailure>>;

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Verdicts>,
    filled: Notify,
}

/// The end of the prober.
#[derive(Debug)]
pub(super) struct Writer(Arc<Shared>);

/// The end of the agent.
#[derive(Debug)]
pub struct Reader(Arc<Shared>);

pub(super) fn verdicts() -> (Writer, Reader) {
    let shared = Arc::new(Shared::default());
    (Writer(Arc::clone(&shared)), Reader(shared))
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut Verdicts) -> T) -> T {
        // Whoever panicked left a map that is whole.
        change(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Writer {
    pub(super) fn tell(&self, probe: Probe, why: Option<ProbeFailure>) {
        self.0.change(|pending| pending.insert(probe, why));
        self.0.filled.notify_one();
    }

    pub(super) fn forget(&self, probe: &Probe) {
        self.0.change(|pending| pending.remove(probe));
    }
}

impl Reader {
    /// Waits for verdicts and takes all of them. Cancel safe: what was not returned is still there.
    pub async fn take(&mut self) -> Vec<(Probe, Option<ProbeFailure>)> {
        loop {
            if self.0.change(|pending| !pending.is_empty()) {
                sleep(SETTLE).await;
                return self.0.change(std::mem::take).into_iter().collect();
            }
            // A permit is stored if something was told in between.
            self.0.filled.notified().await;
        }
    }
}
