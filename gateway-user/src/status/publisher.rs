//! Writes what is wanted while this node leads: the newest content first seen, one request at a time.

mod requests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::warn;

use super::{
    Timing,
    api::Fleet,
    backoff::{Backoff, chance},
    bucket::Bucket,
    counters::Counters,
    election::Term,
    ledger::{Ledger, Write},
    notice::Notice,
    told::{Telling, Told},
    wanted::Wanted,
};

/// Writes in a burst; then one at a time.
const WRITE_BURST: u32 = 10;
/// Failures are logged this often.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// With something refused for want of rights, the fleet is looked at again this often.
const LOOK_AFTER_REFUSAL: Duration = Duration::from_secs(60);

/// Writes for as long as it is not dropped.
pub(super) async fn run(
    fleet: &Fleet,
    timing: &Timing,
    counters: &Counters,
    mut term: watch::Receiver<Option<Term>>,
    mut wanted: watch::Receiver<Arc<Wanted>>,
) {
    let now = Instant::now();
    // Budgets are the node's, not the term's: coming back to power does not fill them.
    let mut writes = Bucket::new(WRITE_BURST, timing.write_each, now);
    let mut events = Bucket::new(timing.event_burst, timing.event_each, now);
    loop {
        let held = *term.borrow_and_update();
        counters.lead(held.map(|term| term.number));
        let Some(held) = held else {
            counters.waiting(0, 0, 0, 0);
            // Whoever decides who leads is gone: so is this node's right to write.
            if term.changed().await.is_err() {
                return;
            }
            continue;
        };
        let mut lead = Lead {
            fleet,
            timing,
            counters,
            number: held.number,
            ledger: Ledger::default(),
            told: Told::default(),
            backoff: Backoff::new(timing.first_retry, timing.longest_retry),
            said: None,
            forbidden: false,
            events_fail: false,
            conflicts: 0,
        };
        lead.run(&mut term, &mut wanted, &mut writes, &mut events)
            .await;
        counters.lead(None);
    }
}

/// One term of this node as leader.
struct Lead<'a> {
    fleet: &'a Fleet,
    timing: &'a Timing,
    counters: &'a Counters,
    number: u64,
    ledger: Ledger,
    told: Told,
    backoff: Backoff,
    /// When a failure was logged last.
    said: Option<Instant>,
    /// Some right is missing.
    forbidden: bool,
    /// The last Event could not be written: a status comes first now.
    events_fail: bool,
    /// Objects that were found to be written by somebody else.
    conflicts: usize,
}

/// What to do in one turn.
enum Turn {
    Look,
    Tell(Arc<Notice>, i32),
    Write(Write),
    Wait(Instant),
}

impl Lead<'_> {
    /// Until the term ends.
    async fn run(
        &mut self,
        term: &mut watch::Receiver<Option<Term>>,
        wanted: &mut watch::Receiver<Arc<Wanted>>,
        writes: &mut Bucket,
        events: &mut Bucket,
    ) {
        let mut looked: Option<Instant> = None;
        let mut not_before = Instant::now();
        loop {
            let now = Instant::now();
            let Some(longest) = self.may_write(*term.borrow(), now) else {
                return;
            };
            let newest = wanted.borrow_and_update().clone();
            if looked.is_some() && !Arc::ptr_eq(&newest, self.ledger.wanted()) {
                self.want(newest);
            }
            self.count();
            let turn = if now < not_before {
                Turn::Wait(not_before)
            } else {
                self.turn(now, looked, writes, events)
            };
            let result = match turn {
                Turn::Wait(until) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(until.into()) => {}
                        changed = term.changed() => if changed.is_err() { return },
                        () = news(wanted), if looked.is_some() => {}
                    }
                    continue;
                }
                Turn::Look => {
                    let result = self.look(looked.is_none(), longest).await;
                    // A later look that fails is made at its next time: writing does not need it.
                    if result.is_ok() || looked.is_some() {
                        looked = Some(Instant::now());
                    }
                    result
                }
                Turn::Tell(notice, times) => {
                    let result = self.tell(&notice, times, now + longest).await;
                    if result.is_err() {
                        self.told.postpone(&notice);
                        self.events_fail = true;
                    }
                    result
                }
                Turn::Write(write) => self.write(write, now + longest).await,
            };
            match result {
                Ok(()) => self.backoff.reset(),
                Err(failure) => {
                    // One object may fail again and again between others that do not.
                    if self.said.is_none_or(|said| said + SAY_AGAIN <= now) {
                        self.said = Some(now);
                        warn!(error = %failure, "status cannot be written now; trying again");
                    }
                    not_before = Instant::now() + self.backoff.failed(chance());
                }
            }
        }
    }

    /// How long a request that begins now may take; `None` when the term is over.
    fn may_write(&self, term: Option<Term>, now: Instant) -> Option<Duration> {
        let term = term.filter(|term| term.number == self.number)?;
        term.allows(now, self.timing.request)
    }

    fn turn(
        &mut self,
        now: Instant,
        looked: Option<Instant>,
        writes: &mut Bucket,
        events: &mut Bucket,
    ) -> Turn {
        let Some(looked) = looked else {
            return Turn::Look;
        };
        let again = match self.forbidden {
            true => self.timing.look_again.min(LOOK_AFTER_REFUSAL),
            false => self.timing.look_again,
        };
        let look_at = looked + again;
        if now >= look_at {
            return Turn::Look;
        }
        let due = self.ledger.next();
        if writes.tokens(now) == 0 {
            return Turn::Wait(look_at.min(writes.when(1)));
        }
        // Events first: they are few, and a long queue of statuses must not hold back what somebody has to mend.
        let mut wake = look_at;
        if let Some(write) = due.clone().filter(|_| self.events_fail) {
            self.events_fail = false;
            writes.take(now);
            return Turn::Write(write);
        }
        match self.told.next(events, now) {
            Telling::Now(notice, times) => {
                writes.take(now);
                return Turn::Tell(notice, times);
            }
            Telling::At(later) => wake = wake.min(later),
            Telling::Nothing => {}
        }
        match due {
            Some(write) => {
                writes.take(now);
                Turn::Write(write)
            }
            None => Turn::Wait(wake),
        }
    }

    fn want(&mut self, wanted: Arc<Wanted>) {
        self.ledger.want(wanted.clone());
        self.want_told(&wanted);
    }

    fn want_told(&mut self, wanted: &Wanted) {
        let held = self.ledger.held().map(|(target, fields)| {
            let names: Vec<&str> = fields.keys().map(String::as_str).collect();
            let by = fields.values().next().map_or("", String::as_str);
            Notice::conflict(target.object(), &names.join(", "), by)
        });
        let held: Vec<Notice> = held.collect();
        self.told.want(wanted.notices.values().chain(&held));
    }

    fn count(&mut self) {
        self.conflicts = self.conflicts.max(self.ledger.held().count());
        self.counters.waiting(
            self.ledger.waiting(),
            self.told.waiting(),
            self.told.take_dropped(),
            self.conflicts,
        );
    }
}

/// Something else is wanted; never, if nobody is left to want anything: what there is still holds.
async fn news(wanted: &mut watch::Receiver<Arc<Wanted>>) {
    if wanted.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
