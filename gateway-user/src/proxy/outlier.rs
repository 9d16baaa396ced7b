//! Passive health: a pod that fails request after request is left out for a while, then tried with one request.
//! Pure but for atomics; time is in milliseconds since any moment that all workers agree on.
//!
//! ```text
//! in --(failures in a row)--> out --(time is over)--> one probe --(fine)----> in
//!                              ^                         '------(fails)--> out, for twice as long
//! ```

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

/// What became of a request to a pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// An answer below 500.
    Fine,
    /// The pod answered with 5xx.
    ServerError,
    /// No answer: refused, reset, timed out, or not understood.
    GatewayFailure,
}

/// Times without an answer in a row that put a pod out.
const GATEWAY_FAILURES: u32 = 3;
/// Failures of any kind in a row that put a pod out.
const FAILURES: u32 = 5;
/// How long the first time.
const BASE_MS: u64 = 3_000;
/// How long at most.
const MOST_MS: u64 = 60_000;
/// Doublings until that is reached.
const DOUBLINGS: u32 = 5;
/// So long without being put out takes back one doubling.
const FORGIVE_MS: u64 = 60_000;
/// A probe that has said nothing for so long is taken to be lost, and another one may be made.
const PROBE_MS: u64 = 10_000;

/// The state of one pod, shared by all workers.
#[derive(Debug, Default)]
pub(super) struct Outlier {
    /// In a row, of any kind.
    failures: AtomicU32,
    /// In a row, without an answer.
    gateway_failures: AtomicU32,
    /// Until when nothing goes there; 0: it is in.
    until_ms: AtomicU64,
    /// When the last time out was over.
    over_ms: AtomicU64,
    /// Doublings of the next time.
    doublings: AtomicU32,
}

/// How a request may go to a pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pass {
    /// As any other.
    Usual,
    /// As the one request that decides whether the pod comes back.
    Probe,
}

impl Outlier {
    /// Whether nothing is to go there.
    pub(super) fn is_out(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms.load(Relaxed)
    }

    /// Whether it is out or waits for its probe to end well.
    pub(super) fn is_doubtful(&self) -> bool {
        self.until_ms.load(Relaxed) != 0
    }

    /// For a pod that was picked because it was not out. `None`: another worker has just taken the probe; pick again.
    pub(super) fn pass(&self, now_ms: u64) -> Option<Pass> {
        let until = self.until_ms.load(Relaxed);
        if until == 0 {
            return Some(Pass::Usual);
        }
        if now_ms < until {
            return None;
        }
        let taken = self
            .until_ms
            .compare_exchange(until, now_ms + PROBE_MS, Relaxed, Relaxed);
        taken.is_ok().then_some(Pass::Probe)
    }

    /// Notes the end of a request, and says whether the pod should be put out: then ask [`Self::eject`].
    ///
    /// What other requests than the probe met does not count while the pod is out: they may be older. A request that
    /// went to a pod that is out because there was no other one is `Usual`.
    pub(super) fn note(&self, outcome: Outcome, pass: Pass) -> bool {
        let doubtful = self.is_doubtful();
        if doubtful && pass == Pass::Usual {
            return false;
        }
        match outcome {
            Outcome::Fine => {
                self.failures.store(0, Relaxed);
                self.gateway_failures.store(0, Relaxed);
                if doubtful {
                    self.until_ms.store(0, Relaxed);
                }
                return false;
            }
            // An answer, whatever it says.
            Outcome::ServerError => self.gateway_failures.store(0, Relaxed),
            Outcome::GatewayFailure => drop(self.gateway_failures.fetch_add(1, Relaxed)),
        }
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        doubtful || failures >= FAILURES || self.gateway_failures.load(Relaxed) >= GATEWAY_FAILURES
    }

    /// Puts the pod out, unless that would leave less than half of its group's weight: `others` are the weights of the
    /// other pods and whether they are doubtful, `own` is that of this one. Every worker passes the same lock.
    pub(super) fn eject(
        &self,
        now_ms: u64,
        own: u64,
        others: impl Iterator<Item = (u64, bool)>,
        ejecting: &Mutex<()>,
    ) -> bool {
        let _one = ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_out(now_ms) && !self.failed_probe(now_ms) {
            return false;
        }
        let (mut out, mut all) = (own, own);
        for (weight, doubtful) in others {
            all += weight;
            out += if doubtful { weight } else { 0 };
        }
        self.failures.store(0, Relaxed);
        self.gateway_failures.store(0, Relaxed);
        if 2 * out > all {
            self.until_ms.store(0, Relaxed);
            return false;
        }
        let quiet = now_ms.saturating_sub(self.over_ms.load(Relaxed)) / FORGIVE_MS;
        let forgiven = u32::try_from(quiet).unwrap_or(u32::MAX);
        let doublings = self.doublings.load(Relaxed).saturating_sub(forgiven);
        let time = (BASE_MS << doublings).min(MOST_MS);
        self.doublings
            .store((doublings + 1).min(DOUBLINGS), Relaxed);
        self.over_ms.store(now_ms + time, Relaxed);
        self.until_ms.store(now_ms + time, Relaxed);
        true
    }

    /// Out for the sake of a probe only: the time proper was over before.
    fn failed_probe(&self, now_ms: u64) -> bool {
        now_ms >= self.over_ms.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fail(pod: &Outlier, times: u32) -> bool {
        (0..times).fold(false, |_, _| pod.note(Outcome::GatewayFailure, Pass::Usual))
    }

    fn eject(pod: &Outlier, now_ms: u64) -> bool {
        pod.eject(now_ms, 1, [(1, false)].into_iter(), &Mutex::default())
    }

    #[test]
    fn three_times_no_answer_or_five_errors_in_a_row_are_too_many() {
        let pod = Outlier::default();
        assert!(!fail(&pod, 2));
        assert!(!pod.note(Outcome::Fine, Pass::Usual));
        assert!(!fail(&pod, 2));
        assert!(fail(&pod, 1));
        let pod = Outlier::default();
        assert!((0..4).all(|_| !pod.note(Outcome::ServerError, Pass::Usual)));
        assert!(pod.note(Outcome::ServerError, Pass::Usual));
    }

    #[test]
    fn one_probe_decides_and_each_failure_doubles_the_time_up_to_a_minute() {
        let pod = Outlier::default();
        let mut now = 1000;
        assert!(eject(&pod, now));
        for time in [3_000, 6_000, 12_000, 24_000, 48_000, 60_000, 60_000] {
            assert!(pod.is_out(now + time - 1) && pod.pass(now + time - 1).is_none());
            now += time;
            assert!(!pod.is_out(now));
            assert_eq!(pod.pass(now), Some(Pass::Probe));
            assert_eq!((pod.pass(now), pod.is_out(now)), (None, true), "only one");
            assert!(pod.note(Outcome::GatewayFailure, Pass::Probe));
            assert!(eject(&pod, now));
        }
        now += 60_000;
        assert_eq!(pod.pass(now), Some(Pass::Probe));
        assert!(!pod.note(Outcome::Fine, Pass::Probe));
        assert_eq!(pod.pass(now), Some(Pass::Usual));
        // Three quiet minutes later.
        now += 180_000;
        assert!(eject(&pod, now));
        assert!(pod.is_out(now + 11_999) && !pod.is_out(now + 12_000));
    }

    #[test]
    fn a_lost_probe_is_followed_by_another_one() {
        let pod = Outlier::default();
        assert!(eject(&pod, 0));
        assert_eq!(pod.pass(3_000), Some(Pass::Probe));
        assert_eq!(pod.pass(12_999), None);
        assert_eq!(pod.pass(13_000), Some(Pass::Probe));
    }

    #[test]
    fn what_older_requests_met_neither_brings_it_back_nor_keeps_it_out() {
        let pod = Outlier::default();
        assert!(eject(&pod, 0));
        assert!(!pod.note(Outcome::Fine, Pass::Usual) && pod.is_out(1));
        assert!(!fail(&pod, 10));
        assert!(!eject(&pod, 1), "it is out already");
        assert!(!pod.is_out(3_000));
    }

    proptest! {
        #[test]
        fn never_is_more_than_half_of_the_weight_out(
            weights in prop::collection::vec(1_u64..10, 1..8),
            events in prop::collection::vec((0_usize..8, 0_u64..2_000, any::<bool>()), 0..200),
        ) {
            let pods: Vec<_> = weights.iter().map(|_| Outlier::default()).collect();
            let lock = Mutex::default();
            let mut now = 0;
            for (pod, pause, fine) in events {
                let pod = pod % pods.len();
                now += pause;
                let Some(pass) = pods[pod].pass(now) else { continue };
                let outcome = if fine { Outcome::Fine } else { Outcome::GatewayFailure };
                if pods[pod].note(outcome, pass) {
                    let others = (0..pods.len()).filter(|it| *it != pod);
                    let others = others.map(|it| (weights[it], pods[it].is_doubtful()));
                    pods[pod].eject(now, weights[pod], others, &lock);
                }
                let out = (0..pods.len()).filter(|it| pods[*it].is_doubtful());
                let out: u64 = out.map(|it| weights[it]).sum();
                prop_assert!(2 * out <= weights.iter().sum());
            }
        }
    }
}
