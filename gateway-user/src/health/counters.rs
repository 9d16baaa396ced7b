//! What probes met, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since the agent started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Good answers.
    pub passed: AtomicU64,
    /// Bad answers, or none.
    pub failed: AtomicU64,
    /// Probes that this node could not send (descriptors, memory, ports): they say nothing about the pod.
    pub unsent: AtomicU64,
    /// Probes that began more than a second late, because of the budget.
    pub late: AtomicU64,
    /// Targets that began to fail.
    pub fell: AtomicU64,
    /// Targets that stopped failing.
    pub rose: AtomicU64,
    /// Targets that are probed now.
    pub targets: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}
