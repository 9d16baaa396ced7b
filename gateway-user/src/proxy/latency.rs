//! How long requests and backends take, as histograms, and what each listener carries.
//!
//! Every worker has its own, and is the only one that adds to them: an observation is two loads and two stores, without a
//! lock or a locked instruction. A scrape adds the workers up.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets in microseconds, each inclusive; one more takes what is longer.
pub const BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];
/// Buckets of a histogram.
pub const BUCKETS: usize = BOUNDS_US.len() + 1;
/// Listeners, or clusters, counted one by one; the rest share [`OTHER`].
const NAMES: usize = 1024;
/// Stands for names beyond the number that is counted.
const OTHER: &str = "other";

/// A counter that one thread adds to and any may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. Only its owner may: additions of two threads would get lost.
    pub fn add(&self, more: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// Takes away, of what is a level and no count. Only its owner may.
    pub fn sub(&self, less: u64) {
        self.add(less.wrapping_neg());
    }

    /// Its value.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Durations, counted by size. Only the worker that owns it observes.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_us: Counter,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let us = duration
            .as_secs()
            .saturating_mul(1_000_000)
            .saturating_add(u64::from(duration.subsec_micros()));
        // Without branches that depend on the duration: there are few bounds.
        let bucket = BOUNDS_US
            .iter()
            .map(|bound| usize::from(us > *bound))
            .sum::<usize>();
        self.buckets[bucket].add(1);
        self.sum_us.add(us);
    }
}

/// A histogram at one moment, not cumulative.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct HistogramSnapshot {
    /// Durations by bucket.
    pub buckets: [u64; BUCKETS],
    /// Their sum in microseconds.
    pub sum_us: u64,
}

impl HistogramSnapshot {
    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    fn add(&mut self, histogram: &Histogram) {
        for (total, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *total += bucket.value();
        }
        self.sum_us = self.sum_us.wrapping_add(histogram.sum_us.value());
    }
}

/// The duration below which a share of all lies, in microseconds: spread evenly within its bucket, and never more than
/// the last bound. `None` if there are none. `buckets` are those of [`HistogramSnapshot`].
pub fn quantile(buckets: &[u64], share: f64) -> Option<f64> {
    let total: u64 = buckets.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = share.clamp(0.0, 1.0) * total as f64;
    let mut below = 0.0;
    let mut from = 0;
    for (count, to) in buckets.iter().zip(BOUNDS_US) {
        let count = *count as f64;
        if count > 0.0 && below + count >= rank {
            let part = ((rank - below) / count).clamp(0.0, 1.0);
            return Some(from as f64 + part * (to - from) as f64);
        }
        below += count;
        from = to;
    }
    Some(from as f64)
}

/// What one worker counts of one listener.
#[derive(Debug, Default)]
pub struct ListenerStats {
    durations: [Histogram; 5],
    /// Client connections taken.
    pub connections: Counter,
    /// Client connections open now.
    pub active_connections: Counter,
    /// Bytes read from its clients.
    pub received_bytes: Counter,
    /// Bytes written to its clients.
    pub sent_bytes: Counter,
}

impl ListenerStats {
    /// Counts a finished request by the class of its status code; 0, of one without a response, counts as 5xx.
    pub fn observe(&self, status: u16, duration: Duration) {
        let class = match status / 100 {
            class @ 1..=5 => usize::from(class) - 1,
            _ => 4,
        };
        self.durations[class].observe(duration);
    }
}

/// What one worker measures.
#[derive(Debug, Default)]
pub struct Latencies {
    listeners: Names<ListenerStats>,
    upstreams: Names<Histogram>,
}

/// Things by name. The lock is taken when a name is first met and when somebody scrapes, not for a request.
#[derive(Debug)]
struct Names<T>(Mutex<HashMap<String, Arc<T>>>);

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Names<T> {
    fn named(&self, name: &str) -> Arc<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if all.len() < NAMES || all.contains_key(name) {
            name
        } else {
            OTHER
        };
        Arc::clone(all.entry(name.to_owned()).or_default())
    }

    fn each(&self, mut see: impl FnMut(&str, &T)) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, value) in all.iter() {
            see(name, value);
        }
    }
}

impl Latencies {
    /// The counters of a listener, to be kept by the worker that owns these.
    pub fn listener(&self, name: &str) -> Arc<ListenerStats> {
        self.listeners.named(name)
    }

    /// From a request's head sent to the first byte of the response, by member cluster; to be kept likewise.
    pub fn upstream(&self, cluster: &str) -> Arc<Histogram> {
        self.upstreams.named(cluster)
    }
}

/// A listener at one moment.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct ListenerSnapshot {
    /// Durations of requests by class of the status code, 1xx to 5xx.
    pub durations: [HistogramSnapshot; 5],
    /// Client connections taken.
    pub connections: u64,
    /// Client connections open.
    pub active_connections: u64,
    /// Bytes read from its clients.
    pub received_bytes: u64,
    /// Bytes written to its clients.
    pub sent_bytes: u64,
}

/// What all workers measured, by name.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct LatencySnapshot {
    /// By listener.
    pub listeners: BTreeMap<String, ListenerSnapshot>,
    /// Time to the first byte of the response by member cluster.
    pub upstreams: BTreeMap<String, HistogramSnapshot>,
}

impl LatencySnapshot {
    /// Adds the workers up.
    pub fn of<'a>(workers: impl IntoIterator<Item = &'a Latencies>) -> Self {
        let mut sum = Self::default();
        for worker in workers {
            worker.listeners.each(|name, from| {
                let to = sum.listeners.entry(name.to_owned()).or_default();
                for (total, histogram) in to.durations.iter_mut().zip(&from.durations) {
                    total.add(histogram);
                }
                to.connections += from.connections.value();
                // A level may be taken away from by another worker's reading of the same moment.
                to.active_connections = to
                    .active_connections
                    .wrapping_add(from.active_connections.value());
                to.received_bytes += from.received_bytes.value();
                to.sent_bytes += from.sent_bytes.value();
            });
            worker.upstreams.each(|name, from| {
                sum.upstreams.entry(name.to_owned()).or_default().add(from);
            });
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_duration_is_in_the_first_bucket_whose_bound_it_does_not_pass(us in 0_u64..100_000_000) {
            let histogram = Histogram::default();
            histogram.observe(Duration::from_micros(us));
            let mut seen = HistogramSnapshot::default();
            seen.add(&histogram);
            let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
            prop_assert_eq!((seen.buckets[bucket], seen.count(), seen.sum_us), (1, 1, us));
        }

        #[test]
        fn a_quantile_lies_in_the_bucket_of_the_duration_it_stands_for(
            mut all in prop::collection::vec(0_u64..59_000_000, 1..60), share in 0.01_f64..1.0,
        ) {
            let histogram = Histogram::default();
            all.iter().for_each(|us| histogram.observe(Duration::from_micros(*us)));
            let mut seen = HistogramSnapshot::default();
            seen.add(&histogram);
            all.sort_unstable();
            let rank = (share * all.len() as f64).ceil().max(1.0) as usize;
            let exact = all[rank - 1];
            let at = BOUNDS_US.iter().position(|bound| exact <= *bound).unwrap();
            let from = at.checked_sub(1).map_or(0, |before| BOUNDS_US[before]);
            let told = quantile(&seen.buckets, share).unwrap();
            prop_assert!(told >= from as f64 && told <= BOUNDS_US[at] as f64, "{} in {}..{}", told, from, BOUNDS_US[at]);
        }
    }

    #[test]
    fn of_nothing_there_is_no_quantile_and_the_last_bucket_has_no_end() {
        assert_eq!(quantile(&[0; BUCKETS], 0.5), None);
        let mut long = [0; BUCKETS];
        long[BUCKETS - 1] = 3;
        assert_eq!(quantile(&long, 0.5), Some(60_000_000.0));
    }

    #[test]
    fn workers_are_added_up_by_name() {
        let workers = [Latencies::default(), Latencies::default()];
        for worker in &workers {
            let demo = worker.listener("demo:80/HTTP");
            demo.observe(200, Duration::from_millis(3));
            demo.observe(0, Duration::from_secs(2));
            demo.active_connections.add(2);
            demo.active_connections.sub(1);
            worker.upstream("c1").observe(Duration::from_millis(2));
        }
        let sum = LatencySnapshot::of(&workers);
        let demo = &sum.listeners["demo:80/HTTP"];
        assert_eq!(
            demo.durations.each_ref().map(HistogramSnapshot::count),
            [0, 2, 0, 0, 2]
        );
        assert_eq!(demo.active_connections, 2);
        assert_eq!(sum.upstreams["c1"].sum_us, 4000);
    }

    #[test]
    fn names_beyond_the_bound_share_one() {
        let worker = Latencies::default();
        for at in 0..NAMES + 10 {
            worker.upstream(&at.to_string()).observe(Duration::ZERO);
        }
        let sum = LatencySnapshot::of([&worker]);
        assert_eq!(sum.upstreams.len(), NAMES + 1);
        assert_eq!(sum.upstreams[OTHER].count(), 10);
        assert_eq!(sum.upstreams["7"].count(), 1);
    }
}
