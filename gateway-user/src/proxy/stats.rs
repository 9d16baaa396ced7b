//! What the proxy counts. Each worker has its own counters; a snapshot adds them up.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use serde::{Deserialize, Serialize};

use super::{
    latency::{Latencies, LatencySnapshot, ListenerStats},
    reason::Reason,
};
use crate::ir::{Backend, ClusterId, ServiceName};

/// Backends counted one by one, per worker; the rest share one counter under the cluster `other`.
const BACKENDS_COUNTED: usize = 32 * 1024;

/// Counters of a running proxy.
#[derive(Debug)]
pub struct ProxyStats {
    pub(super) workers: Vec<Arc<WorkerStats>>,
    pub(super) connections: Arc<AtomicUsize>,
}

/// Names one backend's request counter.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct BackendKey {
    /// The Service.
    pub service: ServiceName,
    /// The member cluster.
    pub cluster: ClusterId,
    /// Pod address and port.
    pub backend: SocketAddr,
}

#[derive(Debug, Default)]
pub(super) struct WorkerStats {
    pub(super) accepted: AtomicU64,
    pub(super) requests: AtomicU64,
    responses: [AtomicU64; 5],
    reasons: [AtomicU64; Reason::ALL.len()],
    downstream_received: AtomicU64,
    downstream_sent: AtomicU64,
    pub(super) upstream_opened: AtomicU64,
    pub(super) upstream_reused: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) upgrades: AtomicU64,
    /// Durations, and what each listener carries.
    pub(super) latencies: Latencies,
    backends: Mutex<HashMap<BackendKey, Arc<AtomicU64>>>,
    other_backends: Arc<AtomicU64>,
}

impl WorkerStats {
    pub(super) fn reason(&self, reason: Reason) {
        self.reasons[reason as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn response(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.responses[class].fetch_add(1, Relaxed);
    }

    /// Bytes of a client connection: read, written.
    pub(super) fn bytes(&self, read: u64, written: u64) {
        self.downstream_received.fetch_add(read, Relaxed);
        self.downstream_sent.fetch_add(written, Relaxed);
    }

    /// The counter of one backend, to be kept by whoever counts.
    pub(super) fn backend(&self, service: &ServiceName, backend: &Backend) -> Arc<AtomicU64> {
        let key = BackendKey {
            service: service.clone(),
            cluster: backend.cluster.clone(),
            backend: backend.address,
        };
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        if backends.len() >= BACKENDS_COUNTED && !backends.contains_key(&key) {
            // Backends come and go; those that nobody counts for any more make room.
            backends.retain(|_, counter| Arc::strong_count(counter) > 1);
            if backends.len() >= BACKENDS_COUNTED {
                return Arc::clone(&self.other_backends);
            }
        }
        Arc::clone(backends.entry(key).or_default())
    }
}

/// One of the connections the process may hold; dropping it gives the place back. Stays with its worker.
#[derive(Debug)]
pub(super) struct ConnectionCount {
    all: Arc<AtomicUsize>,
    /// Of the listener that was connected to.
    listener: Option<Arc<ListenerStats>>,
}

impl ConnectionCount {
    /// None when `most` are open.
    pub(super) fn claim(connections: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let count = Self {
            all: Arc::clone(connections),
            listener: None,
        };
        if connections.fetch_add(1, Relaxed) < most {
            Some(count)
        } else {
            None
        }
    }

    /// Counts it for a listener, too.
    pub(super) fn on(&mut self, listener: &Arc<ListenerStats>) {
        listener.connections.add(1);
        listener.active_connections.add(1);
        self.listener = Some(Arc::clone(listener));
    }

    /// Counts bytes for that listener: read, written.
    pub(super) fn bytes(&self, read: u64, written: u64) {
        if let Some(listener) = &self.listener {
            listener.received_bytes.add(read);
            listener.sent_bytes.add(written);
        }
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Relaxed);
        if let Some(listener) = &self.listener {
            listener.active_connections.sub(1);
        }
    }
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct StatsSnapshot {
    /// Client connections taken since the start.
    pub accepted_connections: u64,
    /// Client connections open now.
    pub active_connections: u64,
    /// Requests whose head was read and well-formed.
    pub requests: u64,
    /// Responses by class: 1xx (upgrades), 2xx, 3xx, 4xx, 5xx.
    pub responses: [u64; 5],
    /// Replies made by the proxy itself, by reason; all reasons are listed.
    pub reasons: Vec<(&'static str, u64)>,
    /// Bytes read from clients.
    pub downstream_received_bytes: u64,
    /// Bytes written to clients.
    pub downstream_sent_bytes: u64,
    /// Connections opened to backends.
    pub upstream_opened: u64,
    /// Requests sent on a pooled connection.
    pub upstream_reused: u64,
    /// Requests that were tried again.
    pub retries: u64,
    /// Connections that left HTTP for another protocol.
    pub upgrades: u64,
    /// Requests answered by each backend, sorted.
    pub backends: Vec<(BackendKey, u64)>,
    /// Requests answered by backends beyond the number that is counted one by one.
    pub other_backends: u64,
    /// Durations, and what each listener carries.
    pub latencies: LatencySnapshot,
}

impl StatsSnapshot {
    /// How often the proxy answered by itself for this reason.
    pub fn reason(&self, reason: Reason) -> u64 {
        self.reasons
            .get(reason as usize)
            .map_or(0, |(_, count)| *count)
    }
}

impl ProxyStats {
    /// Adds the workers up. Counters are read one after the other, not at one instant.
    pub fn snapshot(&self) -> StatsSnapshot {
        let sum = |field: fn(&WorkerStats) -> &AtomicU64| {
            self.workers
                .iter()
                .map(|worker| field(worker).load(Relaxed))
                .sum::<u64>()
        };
        let mut backends: HashMap<BackendKey, u64> = HashMap::new();
        for worker in &self.workers {
            for (key, counter) in worker
                .backends
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
            {
                *backends.entry(key.clone()).or_default() += counter.load(Relaxed);
            }
        }
        let mut backends: Vec<_> = backends.into_iter().collect();
        backends.sort();
        let mut responses = [0; 5];
        for worker in &self.workers {
            for (total, counter) in responses.iter_mut().zip(&worker.responses) {
                *total += counter.load(Relaxed);
            }
        }
        StatsSnapshot {
            accepted_connections: sum(|worker| &worker.accepted),
            active_connections: self.connections.load(Relaxed) as u64,
            requests: sum(|worker| &worker.requests),
            responses,
            reasons: Reason::ALL
                .iter()
                .map(|reason| {
                    (
                        reason.label(),
                        self.workers
                            .iter()
                            .map(|worker| worker.reasons[*reason as usize].load(Relaxed))
                            .sum(),
                    )
                })
                .collect(),
            downstream_received_bytes: sum(|worker| &worker.downstream_received),
            downstream_sent_bytes: sum(|worker| &worker.downstream_sent),
            upstream_opened: sum(|worker| &worker.upstream_opened),
            upstream_reused: sum(|worker| &worker.upstream_reused),
            retries: sum(|worker| &worker.retries),
            upgrades: sum(|worker| &worker.upgrades),
            backends,
            other_backends: sum(|worker| &worker.other_backends),
            latencies: LatencySnapshot::of(self.workers.iter().map(|it| &it.latencies)),
        }
    }
}
