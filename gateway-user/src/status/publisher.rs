//! Writes what is wanted while this node leads: the newest content first seen, one request at a time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    Timing,
    api::{Failure, Fleet},
    backoff::{Backoff, chance},
    bucket::Bucket,
    counters::Counters,
    election::Term,
    ledger::{Ledger, Write},
    notice::Notice,
    told::{Telling, Told},
    wanted::{Kind, Target, Wanted},
};

/// Writes in a burst; then one at a time.
const WRITE_BURST: u32 = 10;
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
            forbidden: false,
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
    /// Some right is missing.
    forbidden: bool,
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
                    if result.is_ok() {
                        looked = Some(Instant::now());
                    }
                    result
                }
                Turn::Tell(notice, times) => self.tell(&notice, times, now + longest).await,
                Turn::Write(write) => self.write(write, now + longest).await,
            };
            match result {
                Ok(()) => self.backoff.reset(),
                Err(failure) => {
                    if !self.backoff.is_failing() {
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

    /// Reads what the fleet says of us. The first time this is where the last leader stopped.
    async fn look(&mut self, first: bool, longest: Duration) -> Result<(), Failure> {
        self.forbidden = false;
        for kind in Kind::ALL {
            match self.fleet.list(kind, longest).await {
                Ok(found) => self.ledger.listed(kind, found),
                // A fleet without AlbConfigs has no such kind; its Ingresses can still be released.
                Err(Failure::Gone) => self.ledger.listed(kind, Default::default()),
                Err(Failure::Forbidden(_)) => self.forbidden = true,
                Err(failure) => return Err(failure),
            }
        }
        if first {
            let shown: Vec<_> = self.ledger.shown().map(Target::object).collect();
            self.told.known_good(shown);
        }
        Ok(())
    }

    async fn write(&mut self, write: Write, until: Instant) -> Result<(), Failure> {
        match self.fleet.apply(&write, until).await {
            Ok(live) => self.ledger.written(write, live),
            Err(Failure::Taken(fields)) => {
                info!(object = %write.target, "somebody else writes its status; left alone");
                self.ledger.conflicted(&write, fields);
                let wanted = self.ledger.wanted().clone();
                self.want_told(&wanted);
            }
            Err(Failure::Gone) => self.ledger.gone(write),
            Err(failure @ (Failure::Refused(_) | Failure::Forbidden(_))) => {
                match failure {
                    Failure::Forbidden(_) => self.forbidden = true,
                    _ => {
                        warn!(object = %write.target, error = %failure, "the API server does not take its status")
                    }
                }
                self.ledger.refused(write);
            }
            // Writes of others to the same object: the server itself tried again, in vain.
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    async fn tell(&mut self, notice: &Notice, times: i32, until: Instant) -> Result<(), Failure> {
        let target = Target::of(&notice.object);
        let known = target.and_then(|target| self.ledger.uid(&target).map(str::to_owned));
        let uid = match known {
            Some(uid) => Some(uid),
            None => match self.fleet.uid(&notice.object, until).await {
                Ok(uid) => uid,
                // Nobody would find an Event about it.
                Err(Failure::Gone) => {
                    self.told.done(notice);
                    return Ok(());
                }
                Err(failure) => return Err(failure),
            },
        };
        match self.fleet.tell(notice, times, uid.as_deref(), until).await {
            Err(failure @ (Failure::Unavailable(_) | Failure::TimedOut)) => return Err(failure),
            Err(failure @ (Failure::Refused(_) | Failure::Changed)) => {
                warn!(object = %notice.object, error = %failure, "the API server does not take an Event");
            }
            // Its namespace is gone or going, or the right is missing, which has been said.
            Ok(()) | Err(_) => {}
        }
        self.told.done(notice);
        Ok(())
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
