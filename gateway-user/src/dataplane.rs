//! The kernel side: object, pins, maps, links.
//!
//! Invariant: the only room that touches bpffs and the maps; it decides nothing about routing. All
//! state that must outlive the agent is pinned, and a stopped agent stops no traffic.

pub mod apply;
pub mod attach;
mod batch;
pub mod clock;
pub mod error;
pub mod events;
pub mod fault;
pub mod gc;
pub mod hops;
pub mod load;
pub mod pins;
pub mod ports;
pub mod record;
pub mod succession;
pub mod tables;
pub mod upgrade;
pub mod vips;

pub use error::Error;
