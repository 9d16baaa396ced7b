//! What inspection shows, as values: pure functions of a record and of readings.
//!
//! Each view serialises to JSON with raw numbers and renders to text with human units.

mod backends;
mod flows;
mod routes;
#[cfg(test)]
pub(crate) mod sample;
mod services;
mod stats;
mod status;

pub(super) use backends::next_hop;
pub use backends::{BackendsView, HopView, backends};
pub(super) use flows::socket;
pub use flows::{FlowFilter, FlowsView, flows};
pub use routes::{RoutesView, ServerView, routes, servers};
pub use services::{ServicesView, services};
pub use stats::{StatsView, stats};
pub(super) use status::problems;
pub use status::{Moment, StatusView, status};

use crate::{dataplane::record::Record, plan};

/// A backend of the plan, also of one that is being applied.
pub fn backend(record: &Record, id: u32) -> Option<&plan::Backend> {
    let coming = record.applying.as_ref();
    record
        .plan
        .backends
        .get(&id)
        .or_else(|| coming.and_then(|plan| plan.backends.get(&id)))
}

/// `-` instead of nothing.
pub fn or_dash(text: String) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}
