//! What the gate of one client connection and its exchanges tell each other.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::Duration,
};

use futures_util::task::AtomicWaker;

use super::reason::Refusal;

/// What the gate and the exchanges of one client connection tell each other.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    /// Heads handed to the codec.
    begun: AtomicU64,
    /// Requests whose response is written or given up.
    finished: AtomicU64,
    /// Requests whose body was seen to its end.
    bodies: AtomicU64,
    /// The number of the request that offers an upgrade; 0 is none.
    offered: AtomicU64,
    upgrade: AtomicU8,
    /// Bytes in both directions; stands still when the connection stalls.
    moved: AtomicU64,
    /// A backend's response head is awaited, under its own timeout.
    pub(super) awaiting: AtomicBool,
    idle_timeout_ms: AtomicU64,
    refusal: Mutex<Option<Refusal>>,
    reader: AtomicWaker,
}

const UPGRADE_UNDECIDED: u8 = 0;
const UPGRADE_GRANTED: u8 = 1;
const UPGRADE_DENIED: u8 = 2;

impl Exchanges {
    /// Whether the body of the `number`th request (from 1) was seen to its end.
    pub(super) fn body_complete(&self, number: u64) -> bool {
        self.bodies.load(Relaxed) >= number
    }

    /// The `number` of a request whose service call is running.
    pub(super) fn current(&self) -> u64 {
        self.finished.load(Relaxed) + 1
    }

    pub(super) fn in_flight(&self) -> bool {
        self.begun.load(Relaxed) > self.finished.load(Relaxed)
    }

    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Relaxed)
    }

    pub(super) fn idle_timeout(&self, timeout: Duration) {
        self.idle_timeout_ms.store(
            u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            Relaxed,
        );
    }

    /// Why the body of the running request was refused.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything after the current head belongs to another protocol.
    pub(super) fn grant_upgrade(&self) {
        self.upgrade.store(UPGRADE_GRANTED, Relaxed);
        self.reader.wake();
    }

    /// Whether the running request offers an upgrade.
    pub(super) fn offers_upgrade(&self) -> bool {
        self.offered.load(Relaxed) == self.current()
    }

    /// A head goes to the codec; `offers_upgrade` if what follows depends on the answer.
    pub(super) fn begin(&self, offers_upgrade: bool) {
        let number = self.begun.fetch_add(1, Relaxed) + 1;
        if offers_upgrade {
            self.offered.store(number, Relaxed);
            self.upgrade.store(UPGRADE_UNDECIDED, Relaxed);
        }
    }

    /// Requests begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Relaxed)
    }

    /// A body was seen to its end.
    pub(super) fn body_ended(&self) {
        self.bodies.fetch_add(1, Relaxed);
    }

    /// Whether the offered upgrade was granted; none while that is open.
    pub(super) fn upgrade_granted(&self) -> Option<bool> {
        match self.upgrade.load(Relaxed) {
            UPGRADE_UNDECIDED => None,
            decision => Some(decision == UPGRADE_GRANTED),
        }
    }

    /// Bytes moved, in either direction.
    pub(super) fn count(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Relaxed);
    }

    /// Wakes the gate when an exchange ends or an upgrade is decided.
    pub(super) fn register(&self, reader: &Waker) {
        self.reader.register(reader);
    }

    /// The body of the running request breaks its framing.
    pub(super) fn refuse_body(&self, refusal: Refusal) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }

    /// How long the connection may be idle.
    pub(super) fn idle_limit(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms.load(Relaxed))
    }

    fn finish(&self) {
        let offers_upgrade = self.offers_upgrade();
        self.finished.fetch_add(1, Relaxed);
        if offers_upgrade {
            // An upgrade that was not granted by now never will be.
            let _ =
                self.upgrade
                    .compare_exchange(UPGRADE_UNDECIDED, UPGRADE_DENIED, Relaxed, Relaxed);
        }
        self.reader.wake();
    }
}

/// Held by a request until its response is written or given up.
#[derive(Debug)]
pub(super) struct InFlight(pub(super) Arc<Exchanges>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.finish();
    }
}
