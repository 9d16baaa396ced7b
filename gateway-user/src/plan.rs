//! What the kernel's maps should hold, and the ordered steps that get them there.
//!
//! Invariant: pure; the previous plan is an argument, so ids stay stable, and every prefix of
//! [`diff`]'s steps leaves a working gateway: write aside, flip one service entry, then free.

mod access;
mod delta;
mod diff;
mod ids;
mod model;
mod planner;

pub use access::{Access, entries};
pub use delta::{Delta, Replaced};
pub use diff::{Step, diff, steps};
pub use model::*;
pub use planner::{Inputs, Planner, build};
