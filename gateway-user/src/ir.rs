//! Validated routing model: what the objects mean, free of Kubernetes' spelling.
//!
//! Invariant: this room knows neither health nor maps nor sockets; it reads no clock and no file.

pub mod build;
pub mod matching;
pub mod model;
pub mod steering;
mod text;

pub use build::{Built, Compiler, LastGood, Options, Remembered, Touched, annotations, build};
pub use model::*;
