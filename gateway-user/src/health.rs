//! Health checks: pods are probed from a thread of its own, which tells who fails and who does not any more.
//!
//! Invariant: knows targets and answers, never who is served instead. What it tells is conflated, so a reader that is slow
//! costs no more memory than the targets.

mod budget;
mod counters;
mod probe;
mod prober;
mod schedule;
mod standing;
mod verdicts;

pub use counters::Counters;
pub use prober::{Prober, start};
pub use verdicts::Reader;
