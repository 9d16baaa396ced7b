//! Two readings as rates.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use serde::Serialize;

use super::reading::Reading;
use crate::proxy::latency::{BUCKETS, HistogramSnapshot, ListenerSnapshot, quantile};

/// What the proxy did over one interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopView {
    /// Length of the interval.
    pub seconds: f64,
    /// All listeners.
    pub total: Rates,
    /// Connections opened to backends per second.
    pub upstream_opened_per_second: f64,
    /// Requests sent on a connection that was open already, per second.
    pub upstream_reused_per_second: f64,
    /// Requests tried again per second.
    pub retries_per_second: f64,
    /// By listener, the busiest first.
    pub listeners: Vec<ListenerRates>,
    /// By service, the busiest first.
    pub services: Vec<ServiceRates>,
    /// By pod, the busiest first.
    pub backends: Vec<BackendRates>,
    /// By member cluster: how fast it answers.
    pub clusters: Vec<ClusterRates>,
    /// Why the proxy answered by itself; only what happened.
    pub reasons: Vec<ReasonRate>,
}

/// Rates of a listener, or of all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Requests per second.
    pub requests_per_second: f64,
    /// Responses of class 5xx per second.
    pub errors_per_second: f64,
    /// Half of the requests took no longer, in microseconds; null if none ended.
    pub p50_us: Option<f64>,
    /// 99 % of the requests took no longer.
    pub p99_us: Option<f64>,
    /// Client connections open.
    pub active_connections: u64,
    /// Client connections taken per second.
    pub connections_per_second: f64,
    /// Bytes read from clients per second.
    pub received_bytes_per_second: f64,
    /// Bytes written to clients per second.
    pub sent_bytes_per_second: f64,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListenerRates {
    /// As `fleetgate routes` names it.
    pub listener: String,
    /// What it does.
    #[serde(flatten)]
    pub rates: Rates,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceRates {
    /// `namespace/name:port`.
    pub service: String,
    /// Requests that its pods answered, per second.
    pub requests_per_second: f64,
    /// Pods that answered any.
    pub backends: usize,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendRates {
    /// `namespace/name:port`.
    pub service: String,
    /// Member cluster.
    pub cluster: String,
    /// Where it listens.
    pub backend: SocketAddr,
    /// Requests that it answered, per second.
    pub requests_per_second: f64,
}

/// The pods of a member cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterRates {
    /// Its id.
    pub cluster: String,
    /// Responses per second.
    pub responses_per_second: f64,
    /// Half of the responses began after this time, in microseconds.
    pub p50_us: Option<f64>,
    /// 99 % of the responses began after this time.
    pub p99_us: Option<f64>,
}

/// A reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReasonRate {
    /// As in `x-fleetgate-reason`.
    pub reason: String,
    /// Replies per second.
    pub per_second: f64,
}

type Buckets = [u64; BUCKETS];

/// What happened between two readings of the same agent. Counters that fell are those of an agent that began anew: nothing
/// is told of them.
pub(super) fn rates(before: &Reading, after: &Reading, seconds: f64) -> TopView {
    let per_second =
        |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds.max(1e-3);
    let known = &before.latencies.listeners;
    let none = ListenerSnapshot::default();
    let mut all = [0; BUCKETS];
    let mut listeners: Vec<ListenerRates> = Vec::new();
    for (name, after) in &after.latencies.listeners {
        let before = known.get(name).unwrap_or(&none);
        let by_class: Vec<Buckets> = before
            .durations
            .iter()
            .zip(&after.durations)
            .map(|(before, after)| between(before, after))
            .collect();
        let mut buckets = [0; BUCKETS];
        by_class.iter().for_each(|class| add(&mut buckets, class));
        add(&mut all, &buckets);
        listeners.push(ListenerRates {
            listener: name.clone(),
            rates: Rates {
                requests_per_second: per_second(0, buckets.iter().sum()),
                errors_per_second: per_second(0, by_class.last().map_or(0, |it| it.iter().sum())),
                p50_us: quantile(&buckets, 0.5),
                p99_us: quantile(&buckets, 0.99),
                active_connections: after.active_connections,
                connections_per_second: per_second(before.connections, after.connections),
                received_bytes_per_second: per_second(before.received_bytes, after.received_bytes),
                sent_bytes_per_second: per_second(before.sent_bytes, after.sent_bytes),
            },
        });
    }
    busiest(&mut listeners, |it| it.rates.requests_per_second);
    let (services, backends) = pods(before, after, per_second);
    let waits = &before.latencies.upstreams;
    let silent = HistogramSnapshot::default();
    let clusters = after.latencies.upstreams.iter().map(|(name, after)| {
        let buckets = between(waits.get(name).unwrap_or(&silent), after);
        ClusterRates {
            cluster: name.clone(),
            responses_per_second: per_second(0, buckets.iter().sum()),
            p50_us: quantile(&buckets, 0.5),
            p99_us: quantile(&buckets, 0.99),
        }
    });
    let said: HashMap<&str, u64> = before
        .reasons
        .iter()
        .map(|(reason, count)| (reason.as_str(), *count))
        .collect();
    let reasons = after.reasons.iter().map(|(reason, count)| ReasonRate {
        reason: reason.clone(),
        per_second: per_second(said.get(reason.as_str()).copied().unwrap_or(0), *count),
    });
    let mut reasons: Vec<ReasonRate> = reasons.filter(|it| it.per_second > 0.0).collect();
    busiest(&mut reasons, |it| it.per_second);
    TopView {
        seconds,
        total: Rates {
            requests_per_second: per_second(before.requests, after.requests),
            errors_per_second: per_second(before.responses[4], after.responses[4]),
            p50_us: quantile(&all, 0.5),
            p99_us: quantile(&all, 0.99),
            active_connections: after.active_connections,
            connections_per_second: per_second(
                before.accepted_connections,
                after.accepted_connections,
            ),
            received_bytes_per_second: per_second(
                before.downstream_received_bytes,
                after.downstream_received_bytes,
            ),
            sent_bytes_per_second: per_second(
                before.downstream_sent_bytes,
                after.downstream_sent_bytes,
            ),
        },
        upstream_opened_per_second: per_second(before.upstream_opened, after.upstream_opened),
        upstream_reused_per_second: per_second(before.upstream_reused, after.upstream_reused),
        retries_per_second: per_second(before.retries, after.retries),
        listeners,
        services,
        backends,
        clusters: clusters.collect(),
        reasons,
    }
}

fn pods(
    before: &Reading,
    after: &Reading,
    per_second: impl Fn(u64, u64) -> f64,
) -> (Vec<ServiceRates>, Vec<BackendRates>) {
    let known: HashMap<_, u64> = before
        .backends
        .iter()
        .map(|(key, count)| (key, *count))
        .collect();
    let mut services: BTreeMap<String, ServiceRates> = BTreeMap::new();
    let mut backends = Vec::new();
    for (key, count) in &after.backends {
        let rate = per_second(known.get(key).copied().unwrap_or(0), *count);
        let name = key.service.to_string();
        let service = services
            .entry(name.clone())
            .or_insert_with(|| ServiceRates {
                service: name.clone(),
                requests_per_second: 0.0,
                backends: 0,
            });
        service.requests_per_second += rate;
        service.backends += usize::from(rate > 0.0);
        backends.push(BackendRates {
            service: name,
            cluster: key.cluster.to_string(),
            backend: key.backend,
            requests_per_second: rate,
        });
    }
    let mut services: Vec<_> = services.into_values().collect();
    busiest(&mut services, |it| it.requests_per_second);
    busiest(&mut backends, |it| it.requests_per_second);
    (services, backends)
}

/// The highest rate first; equal ones stay in order.
fn busiest<T>(all: &mut [T], rate: impl Fn(&T) -> f64) {
    all.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
}

fn between(before: &HistogramSnapshot, after: &HistogramSnapshot) -> Buckets {
    let mut buckets = after.buckets;
    for (bucket, before) in buckets.iter_mut().zip(before.buckets) {
        *bucket = bucket.saturating_sub(before);
    }
    buckets
}

fn add(sum: &mut Buckets, more: &Buckets) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}
