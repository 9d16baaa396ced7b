//! Bytes in front of, beside and behind HTTP: what a connection says before its first request, and tunnels after it.
//!
//! Invariant: what is read here is never changed; bytes that are not ours to understand are carried as they came.

pub(super) mod proxy_protocol;
pub(super) mod relay;
pub(super) mod sni;
