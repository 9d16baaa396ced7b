//! Whether an exchange moves. Pure: the clock is an argument.
//!
//! One deadline at a time, looked at when it has passed: an exchange that moves costs nothing here.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// RFC 9110 section 10.1.1: a client does not wait for 100 (Continue) forever.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);
/// An upload slower than this is a way to hold a place, not to send something.
const LEAST_BYTES_PER_SECOND: u128 = 240;
/// What a client takes of an answer that waits for it, at least, from one look to the next: less is a way to hold a
/// place. Far below what many streams that share a slow link get each.
const LEAST_TAKEN: u64 = 1024;

/// What was waited for too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Late {
    /// The backend's answer.
    Answer,
    /// The request's body.
    Upload,
    /// Any byte of the answer's body, to either side.
    Stall,
    /// The client, which takes next to nothing of an answer that is there.
    Taking,
}

/// The times of one attempt.
#[derive(Debug)]
pub(super) struct Meter {
    timeout: Duration,
    stall: Duration,
    deadline: Cell<Instant>,
    /// The body was handed to the backend whole.
    uploaded: Cell<bool>,
    /// When a piece of the body was last handed over.
    moved: Cell<Instant>,
    bytes: Cell<u64>,
    /// Since when the client is being waited for.
    starved: Cell<Option<Instant>>,
    /// How long it was, before.
    waited: Cell<Duration>,
    judged: Cell<(Instant, u64, Duration)>,
    /// The answer's head is there.
    answered: Cell<bool>,
    /// Bytes that the answer had moved at the last look.
    carried: Cell<u64>,
    /// A piece of the answer is on its way to the client; otherwise the backend is waited for.
    handing: Cell<bool>,
    /// What the client had taken at the last look.
    taken: Cell<Option<u64>>,
    /// The client waits to be told to go on.
    expecting: Cell<bool>,
}

impl Meter {
    /// `body`: one is to be sent; `expects`: when the client is told to.
    pub(super) fn new(
        now: Instant,
        timeout: Duration,
        stall: Duration,
        body: bool,
        expects: bool,
    ) -> Self {
        let first = if expects {
            CONTINUE_WAIT.min(timeout)
        } else {
            timeout
        };
        Self {
            timeout,
            stall,
            deadline: Cell::new(now + first),
            uploaded: Cell::new(!body),
            moved: Cell::new(now),
            bytes: Cell::new(0),
            starved: Cell::new(None),
            waited: Cell::new(Duration::ZERO),
            judged: Cell::new((now, 0, Duration::ZERO)),
            answered: Cell::new(false),
            carried: Cell::new(0),
            handing: Cell::new(false),
            taken: Cell::new(None),
            expecting: Cell::new(expects),
        }
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline.get()
    }

    /// The client is not to wait any longer before it sends the body.
    pub(super) fn go(&self) {
        self.expecting.set(false);
    }

    pub(super) fn is_expecting(&self) -> bool {
        self.expecting.get()
    }

    /// Bytes of the body so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered.get()
    }

    pub(super) fn is_uploaded(&self) -> bool {
        self.uploaded.get()
    }

    /// The client is waited for from now on.
    pub(super) fn starve(&self, now: Instant) {
        if self.starved.get().is_none() {
            self.starved.set(Some(now));
        }
    }

    /// The client sent something.
    pub(super) fn feed(&self, now: Instant, bytes: usize) {
        if let Some(since) = self.starved.take() {
            let waited = now.saturating_duration_since(since);
            self.waited.set(self.waited.get() + waited);
        }
        self.bytes.set(self.bytes.get() + bytes as u64);
        self.moved.set(now);
    }

    /// The body is with the backend.
    pub(super) fn upload_done(&self, now: Instant) {
        self.moved.set(now);
        self.uploaded.set(true);
    }

    /// The answer's head has come; from now on bytes are counted.
    pub(super) fn answer(&self, now: Instant) {
        self.answered.set(true);
        self.deadline.set(self.deadline.get().min(now + self.stall));
    }

    /// A piece of the answer is handed to the client from now on, or the backend is waited for.
    pub(super) fn hand(&self, handing: bool) {
        self.handing.set(handing);
    }

    /// The deadline has passed: what is late, or nothing, and the deadline was moved. `carried` are the bytes that the
    /// answer has moved on either side, `taken` those that the client took.
    pub(super) fn late(&self, now: Instant, carried: u64, taken: u64) -> Option<Late> {
        if self.answered.get() {
            // A client that had room for so much at any time since the last look would not be waited for: a backend
            // that is slow makes nobody late.
            if let Some(before) = self.taken.replace(Some(taken))
                && self.handing.get()
                && taken.saturating_sub(before) < LEAST_TAKEN
            {
                return Some(Late::Taking);
            }
            let before = self.carried.replace(carried);
            if before == carried && carried > 0 {
                return Some(Late::Stall);
            }
            self.deadline.set(now + self.stall);
            return None;
        }
        if self.expecting.replace(false) {
            self.deadline.set(now + self.timeout);
            return None;
        }
        // An upload that moves is not late: the backend's time runs from the body's last byte.
        let extended = self.moved.get() + self.timeout;
        let uploading = !self.uploaded.get();
        // But a drip is no upload: each span of the timeout must bring something worth the wait.
        let starved = self.starved.get();
        let mut drips = false;
        let (judged_at, bytes, waited) = self.judged.get();
        if uploading && now.saturating_duration_since(judged_at) >= self.timeout {
            let waiting = starved.map_or(Duration::ZERO, |it| now.saturating_duration_since(it));
            let now_waited = self.waited.get() + waiting;
            let waited_ms = now_waited.saturating_sub(waited).as_millis();
            let came = u128::from(self.bytes.get().saturating_sub(bytes));
            drips = came * 1000 < waited_ms * LEAST_BYTES_PER_SECOND;
            self.judged.set((now, self.bytes.get(), now_waited));
        }
        if extended > now && !drips {
            self.deadline.set(extended);
            return None;
        }
        let client = uploading && (drips || starved.is_some());
        Some(if client { Late::Upload } else { Late::Answer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn meter(now: Instant, body: bool, expects: bool) -> Meter {
        Meter::new(now, 4 * SECOND, 10 * SECOND, body, expects)
    }

    #[test]
    fn an_answer_is_late_after_the_timeout_from_the_bodys_last_byte() {
        let start = Instant::now();
        let none = meter(start, false, false);
        assert_eq!(none.deadline(), start + 4 * SECOND);
        assert_eq!(none.late(start + 4 * SECOND, 0, 0), Some(Late::Answer));
        let some = meter(start, true, false);
        some.feed(start + 3 * SECOND, 100_000);
        some.upload_done(start + 3 * SECOND);
        assert_eq!(some.late(start + 4 * SECOND, 0, 0), None);
        assert_eq!(some.deadline(), start + 7 * SECOND);
        assert_eq!(some.late(start + 7 * SECOND, 0, 0), Some(Late::Answer));
    }

    #[test]
    fn an_upload_is_late_when_the_client_stalls_or_drips() {
        let start = Instant::now();
        let stalls = meter(start, true, false);
        stalls.starve(start);
        assert_eq!(stalls.late(start + 4 * SECOND, 0, 0), Some(Late::Upload));
        let drips = meter(start, true, false);
        for second in 0..4 {
            drips.starve(start + second * SECOND);
            drips.feed(start + (second + 1) * SECOND, 10);
        }
        assert_eq!(drips.late(start + 4 * SECOND, 0, 0), Some(Late::Upload));
        let moves = meter(start, true, false);
        for second in 0..4 {
            moves.starve(start + second * SECOND);
            moves.feed(start + (second + 1) * SECOND, 1000);
        }
        assert_eq!(moves.late(start + 4 * SECOND, 0, 0), None);
        let held = meter(start, true, false);
        assert_eq!(held.late(start + 4 * SECOND, 0, 0), Some(Late::Answer));
    }

    #[test]
    fn an_answer_that_moves_is_never_late() {
        let start = Instant::now();
        let meter = meter(start, false, false);
        meter.answer(start);
        assert_eq!(meter.late(start + 4 * SECOND, 7, 0), None);
        assert_eq!(meter.late(start + 14 * SECOND, 8, 0), None);
        assert_eq!(meter.late(start + 24 * SECOND, 8, 0), Some(Late::Stall));
    }

    #[test]
    fn a_client_that_takes_next_to_nothing_is_late_unless_the_backend_is_waited_for() {
        let start = Instant::now();
        let meter = meter(start, false, false);
        meter.answer(start);
        meter.hand(true);
        assert_eq!(meter.late(start + 4 * SECOND, 5000, 5000), None);
        assert_eq!(
            meter.late(start + 14 * SECOND, 6024, 6024),
            None,
            "just enough"
        );
        meter.hand(false);
        assert_eq!(meter.late(start + 24 * SECOND, 6030, 6030), None);
        meter.hand(true);
        assert_eq!(
            meter.late(start + 34 * SECOND, 9000, 7053),
            Some(Late::Taking)
        );
    }

    #[test]
    fn a_client_that_expects_to_be_told_is_told_after_a_second() {
        let start = Instant::now();
        let meter = meter(start, true, true);
        assert_eq!(meter.deadline(), start + SECOND);
        assert_eq!(meter.late(start + SECOND, 0, 0), None);
        assert!(!meter.is_expecting());
        assert_eq!(meter.deadline(), start + 5 * SECOND);
    }
}
