//! When each target is probed. Pure: time and chance are arguments.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    time::{Duration, Instant},
};

use super::{budget::Budget, probe::Outcome, standing::Standing};
use crate::ir::{Probe, ProbeFailure};

/// Probes that may begin in a second. One over TCP costs some 60 us of this node's time, so all of them about a tenth of
/// a processor; a handshake of TLS costs more than that, on the prober's own thread. With more targets than that times
/// their interval, each is probed less often than it asks for.
const PER_SECOND: u32 = 2_000;
/// Of these, so many at once.
const BURST: u32 = 64;
/// Probes under way; more wait. Each takes a descriptor.
const UNDER_WAY: usize = 512;

/// Never given to two targets.
pub(super) type Id = u64;

/// All targets, and what is to be done next.
#[derive(Debug)]
pub(super) struct Schedule {
    ids: BTreeMap<Probe, Id>,
    targets: HashMap<Id, Target>,
    due: BinaryHeap<Reverse<(Instant, Id)>>,
    next_id: Id,
    under_way: usize,
    budget: Budget,
}

#[derive(Debug)]
struct Target {
    probe: Probe,
    standing: Standing,
    began: Instant,
}

/// What to do now.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Probe this one, which was due at that time.
    Begin(Id, Probe, Instant),
    /// Wait until then; `None`: until something else happens.
    Wait(Option<Instant>),
}

impl Schedule {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            ids: BTreeMap::new(),
            targets: HashMap::new(),
            due: BinaryHeap::new(),
            next_id: 0,
            under_way: 0,
            budget: Budget::new(PER_SECOND, BURST, now),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Probes a target from now on, if it is not yet. `chance` is any number: it spreads first probes over an interval,
    /// and so all later ones.
    pub(super) fn watch(
        &mut self,
        probe: Probe,
        why: Option<ProbeFailure>,
        now: Instant,
        chance: u32,
    ) {
        if self.ids.contains_key(&probe) {
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        let first = probe
            .check
            .interval
            .mul_f64(f64::from(chance) / (f64::from(u32::MAX) + 1.0));
        self.due.push(Reverse((now + first, id)));
        self.ids.insert(probe.clone(), id);
        let target = Target {
            probe,
            standing: Standing::new(why),
            began: now,
        };
        self.targets.insert(id, target);
    }

    /// Probes it no more; whether it was failing.
    pub(super) fn forget(&mut self, probe: &Probe) -> bool {
        let id = self.ids.remove(probe);
        let target = id.and_then(|id| self.targets.remove(&id));
        target.is_some_and(|it| it.standing.why().is_some())
    }

    pub(super) fn next(&mut self, now: Instant) -> Next {
        loop {
            let Some(Reverse((at, id))) = self.due.peek().copied() else {
                return Next::Wait(None);
            };
            let Some(target) = self.targets.get_mut(&id) else {
                self.due.pop();
                continue;
            };
            if at > now {
                return Next::Wait(Some(at));
            }
            if self.under_way >= UNDER_WAY {
                return Next::Wait(None);
            }
            if let Err(later) = self.budget.take(now) {
                return Next::Wait(Some(later));
            }
            self.due.pop();
            self.under_way += 1;
            target.began = now;
            return Next::Begin(id, target.probe.clone(), at);
        }
    }

    /// A probe is over; the verdict, if it changes. The next one begins an interval after this one did, or at once where
    /// this one took longer.
    pub(super) fn done(
        &mut self,
        id: Id,
        outcome: Outcome,
        now: Instant,
    ) -> Option<(Probe, Option<ProbeFailure>)> {
        self.under_way = self.under_way.saturating_sub(1);
        let target = self.targets.get_mut(&id)?;
        let check = &target.probe.check;
        let next = (target.began + check.interval).max(now + Duration::from_millis(1));
        self.due.push(Reverse((next, id)));
        let changed = match outcome {
            Outcome::Answer(answer) => target.standing.take(answer, check),
            Outcome::Unsent => false,
        };
        changed.then(|| (target.probe.clone(), target.standing.why()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ir::{HealthCheck, HealthProtocol};

    fn probe(number: u32, interval: u64) -> Probe {
        Probe {
            address: (std::net::Ipv4Addr::from(0x0a00_0000 + number), 80).into(),
            check: Arc::new(HealthCheck {
                protocol: HealthProtocol::Tcp,
                port: None,
                path: "/".into(),
                method: "HEAD".into(),
                http10: false,
                codes: Vec::new(),
                timeout: Duration::from_secs(1),
                interval: Duration::from_secs(interval),
                rise: 2,
                fall: 2,
            }),
        }
    }

    const GOOD: Outcome = Outcome::Answer(Ok(()));
    const BAD: Outcome = Outcome::Answer(Err(ProbeFailure::Refused));

    /// When probes of each target began.
    type Begun = BTreeMap<Probe, Vec<Instant>>;
    /// A verdict, and when.
    type Told = (Probe, Option<ProbeFailure>, Instant);

    /// Runs the schedule for a while; each probe is answered after `takes`. Begins by target, and the verdicts.
    fn run(
        schedule: &mut Schedule,
        start: Instant,
        length: Duration,
        takes: Duration,
        answer: impl Fn(&Probe, Instant) -> Outcome,
    ) -> (Begun, Vec<Told>) {
        let mut begun = Begun::new();
        let mut verdicts = Vec::new();
        let mut under_way: Vec<(Instant, Id, Outcome)> = Vec::new();
        let mut now = start;
        while now < start + length {
            let (over, rest): (Vec<_>, _) = under_way.into_iter().partition(|it| it.0 <= now);
            under_way = rest;
            for (at, id, outcome) in over {
                let verdict = schedule.done(id, outcome, now);
                verdicts.extend(verdict.map(|(probe, why)| (probe, why, at)));
            }
            let wait = loop {
                match schedule.next(now) {
                    Next::Begin(id, probe, _) => {
                        under_way.push((now + takes, id, answer(&probe, now)));
                        assert!(under_way.len() <= UNDER_WAY);
                        begun.entry(probe).or_default().push(now);
                    }
                    Next::Wait(at) => break at,
                }
            };
            let soonest = under_way.iter().map(|it| it.0).min();
            let next = wait.into_iter().chain(soonest).min();
            now = next
                .unwrap_or(start + length)
                .max(now + Duration::from_micros(100));
        }
        (begun, verdicts)
    }

    #[test]
    fn targets_are_probed_at_their_interval_and_first_ones_are_spread_over_it() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        for number in 0..1_000 {
            let chance = number * (u32::MAX / 1_000);
            schedule.watch(probe(number, 2), None, start, chance);
            schedule.watch(probe(number, 2), None, start, 0);
        }
        assert_eq!(schedule.len(), 1_000);
        let (begun, verdicts) = run(
            &mut schedule,
            start,
            Duration::from_secs(10),
            Duration::from_millis(2),
            |_, _| GOOD,
        );
        assert!(verdicts.is_empty());
        assert!(begun.values().all(|it| (4..=6).contains(&it.len())));
        let first = begun.values().map(|it| it[0] - start);
        let early = first.filter(|it| *it < Duration::from_millis(200)).count();
        assert!(
            (80..=120).contains(&early),
            "{early} of 1000 in a tenth of the interval"
        );
    }

    #[test]
    fn more_targets_than_the_budget_allows_are_all_probed_but_less_often() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        for number in 0..20_000 {
            schedule.watch(
                probe(number, 1),
                None,
                start,
                number.wrapping_mul(2_654_435_761),
            );
        }
        let (begun, _) = run(
            &mut schedule,
            start,
            Duration::from_secs(25),
            Duration::from_millis(1),
            |_, _| GOOD,
        );
        let all: usize = begun.values().map(Vec::len).sum();
        assert!(all <= 25 * PER_SECOND as usize + BURST as usize, "{all}");
        assert!(all >= 24 * PER_SECOND as usize, "{all}");
        assert_eq!(begun.len(), 20_000, "each in its turn");
    }

    #[test]
    fn a_target_that_stops_answering_fails_within_its_threshold_of_intervals_and_comes_back() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.watch(probe(1, 2), None, start, u32::MAX / 2);
        schedule.watch(probe(2, 2), None, start, 0);
        let (bad, good) = (
            start + Duration::from_secs(10),
            start + Duration::from_secs(20),
        );
        let answer = |it: &Probe, now| {
            if *it == probe(1, 2) && (bad..good).contains(&now) {
                BAD
            } else {
                GOOD
            }
        };
        let length = Duration::from_secs(40);
        let (_, verdicts) = run(
            &mut schedule,
            start,
            length,
            Duration::from_millis(5),
            answer,
        );
        let [(one, Some(ProbeFailure::Refused), fell), (two, None, rose)] = &verdicts[..] else {
            panic!("{verdicts:?}");
        };
        assert!(*one == probe(1, 2) && *two == *one);
        // Two thresholds of 2: two bad answers, two good ones.
        assert!(
            *fell - bad <= Duration::from_millis(4_100),
            "{:?}",
            *fell - bad
        );
        assert!(
            *rose - good <= Duration::from_millis(4_100),
            "{:?}",
            *rose - good
        );
    }

    #[test]
    fn what_is_not_sent_says_nothing_and_what_was_forgotten_is_over() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.watch(probe(1, 1), Some(ProbeFailure::Timeout), start, 0);
        let length = Duration::from_secs(20);
        let (begun, verdicts) = run(
            &mut schedule,
            start,
            length,
            Duration::from_millis(1),
            |_, _| Outcome::Unsent,
        );
        assert!(begun.values().all(|it| it.len() >= 19) && verdicts.is_empty());
        let Next::Begin(id, ..) = schedule.next(start + length) else {
            panic!("it is due");
        };
        assert!(schedule.forget(&probe(1, 1)), "it was failing");
        assert_eq!(schedule.done(id, GOOD, start + length), None);
        assert_eq!(schedule.next(start + length * 2), Next::Wait(None));
        assert_eq!(schedule.under_way, 0);
    }
}
