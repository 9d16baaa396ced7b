//! Validated routing model: what the objects mean, free of Kubernetes' spelling.
//!
//! Invariant: this room knows neither health nor maps nor sockets; it reads no clock and no file.

pub mod build;
pub mod matching;
pub mod model;
pub mod steering;

pub use build::{Built, LastGood, Options, annotations, build};
pub use model::*;
