//! Handshakes in memory, with certificates made for them.

mod handshakes;
pub(super) mod made;
mod swaps;
