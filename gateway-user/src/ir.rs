//! Validated routing model: what the objects mean, free of Kubernetes' spelling.
//!
//! Invariant: this room knows neither health nor maps nor sockets; it reads no clock and no file.

pub mod model;

pub use model::*;
