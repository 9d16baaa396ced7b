//! What is done to the gateway and to pods, and when.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    Options, Upgrade,
    certificates::{Authority, Made},
    ledger::Ledger,
    pods::Running,
    world::{Pod, Seat, World},
};
use crate::{e2e::Gateway, random::Random};

/// Of so many changes one goes with a new certificate, and one with a pod that comes and one that goes.
const CHANGES_PER_SWAP: u32 = 5;
const CHANGES_PER_CHURN: u32 = 8;
/// From the moment on that a pod is not ready until it is told to end: what Kubernetes' `preStop` hooks wait for.
const NOT_READY: Duration = Duration::from_millis(1_500);
/// From the moment on that a successor serves until the agent before it is told to end.
const BOTH_THERE: Duration = Duration::from_secs(2);
/// A change is in force after this, on a machine that is not overloaded.
const APPLIED: Duration = Duration::from_millis(500);
/// Rules at once that nobody asks for.
const MOST_EXTRA: usize = 8;

/// The changes in turn, the order of each round drawn anew.
const KINDS: [&str; 8] = [
    "weights",
    "weights of calls",
    "canary by header",
    "rule added or removed",
    "annotation",
    "header added",
    "listener added or removed",
    "timeouts",
];

#[derive(Debug)]
enum What {
    Change,
    Swap,
    Churn,
    /// A pod that is not ready any more ends.
    Ends(String),
    Upgrade,
    /// The agent that was there before ends.
    OldEnds,
}

/// Does events, and counts them.
pub(super) struct Events<'a> {
    authority: &'a Authority,
    ledger: &'a Ledger,
    world: World,
    written: BTreeMap<String, String>,
    seats: Vec<Seat>,
    running: BTreeMap<String, Running>,
    /// Pods there ever were.
    pods: u32,
    random: Random,
    round: Vec<&'static str>,
    due: BTreeMap<(Instant, u32), What>,
    planned: u32,
    /// Events done, by kind.
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// The upgrade, when it was done.
    pub(super) upgrade: Option<Upgrade>,
}

/// The first world: one pod in each namespace of the lab, and a certificate.
pub(super) fn first(
    seats: &[Seat],
    certificate: &Made,
) -> Result<(World, BTreeMap<String, Running>)> {
    let mut world = World {
        timeouts: (30, 30),
        certificate: certificate.pem.clone(),
        ..World::default()
    };
    let mut running = BTreeMap::new();
    for (number, seat) in seats.iter().step_by(2).enumerate() {
        let pod = Pod {
            name: format!("pod-{number}"),
            seat: seat.clone(),
            ready: true,
        };
        let name = pod.full_name();
        let started = Running::start(&seat.namespace, seat.address, name.clone())?;
        running.insert(name, started);
        world.pods.push(pod);
    }
    Ok((world, running))
}

impl<'a> Events<'a> {
    /// From this state on, in the order of this seed.
    pub(super) fn new(
        options: Options,
        authority: &'a Authority,
        ledger: &'a Ledger,
        seats: Vec<Seat>,
        (world, running): (World, BTreeMap<String, Running>),
    ) -> Self {
        let pods = u32::try_from(world.pods.len()).unwrap_or(u32::MAX);
        let mut events = Self {
            authority,
            ledger,
            written: world.files(),
            world,
            seats,
            running,
            pods,
            random: Random::new(options.seed),
            round: Vec::new(),
            due: BTreeMap::new(),
            planned: 0,
            counts: BTreeMap::new(),
            upgrade: None,
        };
        let began = Instant::now();
        let part = |nth: u32, of: u32| began + options.lasting * (2 * nth + 1) / (2 * of);
        for nth in 0..options.changes {
            events.plan(part(nth, options.changes), What::Change);
        }
        let swaps = (options.changes / CHANGES_PER_SWAP).max(1);
        for nth in 0..swaps {
            events.plan(part(nth, swaps), What::Swap);
        }
        let churns = (options.changes / CHANGES_PER_CHURN).max(1);
        for nth in 0..churns {
            events.plan(part(nth, churns), What::Churn);
        }
        events.plan(part(0, 1), What::Upgrade);
        events
    }

    /// Has all pods end.
    pub(super) fn end(self) {
        // At once, not one after the other.
        self.running.values().for_each(Running::end);
    }

    fn plan(&mut self, when: Instant, what: What) {
        self.planned += 1;
        self.due.insert((when, self.planned), what);
    }

    /// Does what is planned, and is over at this time at the earliest.
    pub(super) fn go_on(&mut self, gateway: &mut Gateway, until: Instant) -> Result<()> {
        while let Some(((when, _), what)) = self.due.pop_first() {
            sleep_until(when);
            let story = format!("{what:?}");
            self.once(gateway, what).context(story)?;
        }
        sleep_until(until);
        Ok(())
    }

    fn once(&mut self, gateway: &mut Gateway, what: What) -> Result<()> {
        match what {
            What::Change => {
                if self.round.is_empty() {
                    self.round = KINDS.to_vec();
                }
                let kind = self.round.swap_remove(self.random.below(self.round.len()));
                self.change(kind);
                self.did(kind);
                self.save(gateway)
            }
            What::Swap => {
                let made = self.authority.sign()?;
                self.ledger.certificate(made.der);
                self.world.certificate = made.pem;
                self.did("certificate swapped");
                self.save(gateway)
            }
            What::Churn => self.churn(gateway),
            What::Ends(name) => {
                self.world.pods.retain(|it| it.full_name() != name);
                self.did("pod ended");
                self.save(gateway)?;
                self.running.get(&name).context("it runs")?.end();
                Ok(())
            }
            What::Upgrade => self.upgrade(gateway),
            What::OldEnds => {
                self.did("agent before the upgrade ended");
                let status = gateway.see_off()?;
                ensure!(status.success(), "the agent before ended with {status}");
                Ok(())
            }
        }
    }

    fn did(&mut self, kind: &'static str) {
        self.ledger.event(kind.to_owned());
        *self.counts.entry(kind).or_default() += 1;
    }

    /// What is wanted is told before it can be in force.
    fn save(&mut self, gateway: &Gateway) -> Result<()> {
        self.ledger.wanted(self.world.clone());
        self.world.write(gateway, &mut self.written)
    }

    fn change(&mut self, kind: &str) {
        let world = &mut self.world;
        match kind {
            "weights" | "weights of calls" => {
                let which = usize::from(kind != "weights");
                let shares = [None, Some(0), Some(10), Some(50), Some(100)];
                let others: Vec<_> = shares
                    .into_iter()
                    .filter(|it| *it != world.weights[which])
                    .collect();
                world.weights[which] = *self.random.of(&others);
            }
            "canary by header" => world.canary = !world.canary,
            "listener added or removed" => world.third = !world.third,
            "rule added or removed" => {
                let number = self.planned + u32::try_from(self.random.below(1_000)).unwrap_or(0);
                if world.extra.len() >= MOST_EXTRA || self.random.below(3) == 0 {
                    world.extra.pop_first();
                } else {
                    world.extra.insert(number);
                }
                self.planned += 1;
            }
            "annotation" => {
                let notes = [
                    ("backend-scheduler", "wlc"),
                    ("backend-scheduler", "sch"),
                    ("enable-cors", "true"),
                    ("sticky-session", "true"),
                    ("slow-start-enabled", "true"),
                    ("traffic-limit-qps", "100000"),
                    ("healthcheck-enabled", "true"),
                ];
                let (key, value) = *self.random.of(&notes);
                if world.notes.get(key).is_some_and(|it| it == value) {
                    world.notes.remove(key);
                } else {
                    world.notes.insert(key, value.to_owned());
                }
            }
            "header added" => {
                let value = self.random.below(1_000_000);
                let action = format!(
                    "[{{\"type\": \"InsertHeader\", \"InsertHeaderConfig\": {{\"key\": \"x-mixed\", \
                     \"value\": \"{value}\", \"valueType\": \"UserDefined\"}}}}]"
                );
                world.notes.insert("actions.web", action);
            }
            _ => {
                let one = |random: &mut Random| 20 + u16::try_from(random.below(40)).unwrap_or(0);
                world.timeouts = (one(&mut self.random), one(&mut self.random));
            }
        }
    }

    /// A pod comes, and one of the same cluster goes.
    fn churn(&mut self, gateway: &mut Gateway) -> Result<()> {
        let taken: Vec<_> = self.world.pods.iter().map(|it| it.seat.address).collect();
        let free: Vec<&Seat> = self
            .seats
            .iter()
            .filter(|it| !taken.contains(&it.address))
            .collect();
        let seat = (*self.random.of(&free)).clone();
        // The pod that was there before has ended a while ago.
        let name = |pod: &Pod| pod.full_name();
        let there: Vec<String> = self.world.pods.iter().map(name).collect();
        self.running.retain(|it, _| there.contains(it));
        let leaves = self
            .world
            .pods
            .iter_mut()
            .filter(|it| it.ready && it.seat.cluster == seat.cluster);
        let mut leaves: Vec<&mut Pod> = leaves.collect();
        let which = self.random.below(leaves.len());
        let leaver = &mut leaves[which];
        leaver.ready = false;
        let leaver = leaver.full_name();
        let pod = Pod {
            name: format!("pod-{}", self.pods),
            seat: seat.clone(),
            ready: true,
        };
        self.pods += 1;
        let name = pod.full_name();
        let started = Running::start(&seat.namespace, seat.address, name.clone())?;
        self.running.insert(name, started);
        self.world.pods.push(pod);
        self.did("pod came, another not ready");
        self.save(gateway)?;
        self.plan(Instant::now() + NOT_READY, What::Ends(leaver));
        Ok(())
    }

    /// The next version takes the place of the agent: that of another layout of maps, if it is built.
    fn upgrade(&mut self, gateway: &mut Gateway) -> Result<()> {
        let other_layout = gateway.other_layout(true).is_ok();
        // What was saved last is in force: the next version is the first that hears of anything else.
        thread::sleep(APPLIED);
        self.did("upgrade");
        let began = Instant::now();
        gateway.take_over()?;
        self.plan(Instant::now() + BOTH_THERE, What::OldEnds);
        self.ledger.event("upgrade, done".into());
        self.upgrade = Some(Upgrade {
            at: self.ledger.at(began),
            ready_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            other_layout,
        });
        Ok(())
    }
}

fn sleep_until(when: Instant) {
    thread::sleep(when.saturating_duration_since(Instant::now()));
}
