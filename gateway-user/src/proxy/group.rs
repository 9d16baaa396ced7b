//! A group as one worker has it: whose turn it is, how its pods do, and what may be tried again.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::time::Instant;

use super::{
    balance::{Balancer, Choice, Joins, Place, Rings},
    keyed::Key,
    latency::Histogram,
    outlier::{Outcome, Pass},
    peers::{Active, Peers},
    retry_budget::RetryBudget,
    stats::WorkerStats,
    sticky::Tokens,
};
use crate::ir::{Backend, Group};

/// What all workers of a proxy have in common for their groups.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) peers: Peers,
    pub(super) rings: Rings,
    pub(super) joins: Joins,
    /// Of the tokens in cookies.
    pub(super) key: Key,
    /// Times that workers tell each other count from here.
    pub(super) epoch: Instant,
    /// By then every pod that is out now is in again, or waits for its probe.
    out_until_ms: AtomicU64,
}

/// A pod is never out for longer, nor is a probe waited for.
const OUT_MS: u64 = 75_000;

impl Common {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self {
            peers: Peers::default(),
            joins: Joins::default(),
            rings: Rings::new(crate::plan::ring_seed(&String::from_utf8_lossy(secret))),
            key: Key::of(secret, "sticky"),
            epoch: Instant::now(),
            out_until_ms: AtomicU64::new(0),
        }
    }

    pub(super) fn ms(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A group, whose turn it is, and the counters of its backends.
#[derive(Debug)]
pub(super) struct GroupState {
    pub(super) group: Arc<Group>,
    common: Arc<Common>,
    balancer: RefCell<Balancer>,
    budget: RefCell<RetryBudget>,
    pub(super) tokens: Option<Tokens>,
    /// The service, for people.
    pub(super) service: String,
    counters: Vec<Arc<AtomicU64>>,
    first_bytes: Vec<Arc<Histogram>>,
}

/// A request's part of a group: it counts as long as it is kept.
#[derive(Debug)]
pub(super) struct Begun(Rc<GroupState>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.budget.borrow_mut().end();
    }
}

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Picked {
    pub(super) index: usize,
    pub(super) address: SocketAddr,
    pass: Pass,
    _active: Option<Active>,
}

impl GroupState {
    /// `before` is what this worker had for the group of this name.
    pub(super) fn new(
        group: &Arc<Group>,
        (worker, workers): (usize, usize),
        common: &Arc<Common>,
        stats: &WorkerStats,
        before: Option<&Self>,
    ) -> Self {
        let place = Place {
            worker,
            workers,
            peers: &common.peers,
            rings: &common.rings,
            joins: &common.joins,
        };
        let balancer = before.map(|it| it.balancer.borrow());
        let now = Instant::now();
        let balancer = Balancer::new(group, place, balancer.as_deref(), now.into_std());
        let sticky = group.policy.sticky.is_some();
        let each = |count: &dyn Fn(&Backend) -> Arc<AtomicU64>| {
            group.backends.iter().map(count).collect::<Vec<_>>()
        };
        Self {
            balancer: RefCell::new(balancer),
            budget: match before {
                Some(before) => before.budget.clone(),
                None => RefCell::new(RetryBudget::new(now.into_std())),
            },
            tokens: sticky.then(|| Tokens::new(common.key, &group.name, &group.backends)),
            service: group.service.to_string(),
            counters: each(&|backend| stats.backend(&group.service, backend)),
            first_bytes: group
                .backends
                .iter()
                .map(|it| stats.latencies.upstream(&it.cluster.0))
                .collect(),
            common: Arc::clone(common),
            group: Arc::clone(group),
        }
    }

    /// A request begins.
    pub(super) fn begin(self: &Rc<Self>, now: Instant) -> Begun {
        self.budget.borrow_mut().begin(now.into_std());
        Begun(Rc::clone(self))
    }

    /// Whether a request may be sent once more.
    pub(super) fn may_retry(&self) -> bool {
        self.budget.borrow_mut().retry(Instant::now().into_std())
    }

    /// A backend not tried yet. One that refused a connection lately (`marked`), or that fails too often, only if there
    /// is no other.
    pub(super) fn pick(
        &self,
        asked: &Choice<'_>,
        tried: &[usize],
        marked: impl Fn(SocketAddr) -> bool,
    ) -> Option<Picked> {
        let now_ms = self.common.ms(asked.now.into());
        let mut balancer = self.balancer.borrow_mut();
        // Most of the time no pod is out, and nobody looks for one.
        let out: Vec<usize> = match now_ms < self.common.out_until_ms.load(Relaxed) {
            false => Vec::new(),
            true => (0..self.group.backends.len())
                .filter(|it| {
                    balancer
                        .peer(*it)
                        .is_some_and(|it| it.outlier.is_out(now_ms))
                })
                .collect(),
        };
        let good = |index: usize| {
            let backend = self.group.backends.get(index);
            !tried.contains(&index)
                && !out.contains(&index)
                && backend.is_some_and(|it| !marked(it.address))
        };
        let picked = balancer.pick(&self.group, asked, good);
        let index = match picked {
            Some(index) => index,
            None => balancer.pick(&self.group, asked, |index| !tried.contains(&index))?,
        };
        let pass = balancer.peer(index).and_then(|it| it.outlier.pass(now_ms));
        Some(Picked {
            index,
            address: self.group.backends.get(index)?.address,
            // Another worker has just taken the probe: one request more does no harm.
            pass: pass.unwrap_or(Pass::Usual),
            _active: balancer.begin(index),
        })
    }

    /// Notes what became of a request, and puts the pod out if it fails too often.
    pub(super) fn note(&self, picked: &Picked, outcome: Outcome) {
        let balancer = self.balancer.borrow();
        let Some(peer) = balancer.peer(picked.index) else {
            return;
        };
        if !peer.outlier.note(outcome, picked.pass) {
            return;
        }
        let weight = |index: usize| {
            let backend = self.group.backends.get(index);
            backend.map_or(0, |it| u64::from(it.weight))
        };
        let others = (0..self.group.backends.len())
            .filter(|it| *it != picked.index)
            .map(|it| {
                let doubtful = balancer.peer(it).is_some_and(|it| it.outlier.is_doubtful());
                (weight(it), doubtful)
            });
        let now_ms = self.common.ms(Instant::now());
        let ejecting = &self.common.peers.ejecting;
        if peer
            .outlier
            .eject(now_ms, weight(picked.index), others, ejecting)
        {
            self.common.out_until_ms.store(now_ms + OUT_MS, Relaxed);
            tracing::warn!(
                backend = %picked.address, service = %self.service,
                "a pod fails too often and gets no requests for some seconds"
            );
        }
    }

    /// Counts a request answered by this backend, and how long its first byte took.
    pub(super) fn count(&self, backend: usize, first_byte: std::time::Duration) {
        if let Some(counter) = self.counters.get(backend) {
            counter.fetch_add(1, Relaxed);
        }
        if let Some(histogram) = self.first_bytes.get(backend) {
            histogram.observe(first_byte);
        }
    }
}
