//! What the kernel's maps should hold, and the ordered steps that get them there.
//!
//! Invariant: pure; the previous plan is an argument, so ids stay stable, and every prefix of
//! [`diff`]'s steps leaves a working gateway: write aside, flip one service entry, then free.

mod build;
mod diff;
mod model;

pub use build::{Inputs, build};
pub use diff::{Step, diff};
pub use model::*;
