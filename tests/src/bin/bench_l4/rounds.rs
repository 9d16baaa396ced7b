//! Figures of alternating rounds.

pub(crate) use xtask::bench::figure::{Figure, round};
