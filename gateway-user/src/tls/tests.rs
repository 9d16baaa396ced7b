//! Handshakes in memory, with certificates made for them.

pub(crate) mod handshakes;
pub(crate) mod made;
mod swaps;
