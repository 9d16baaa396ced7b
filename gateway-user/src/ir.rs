//! Validated routing model: what the objects mean, free of Kubernetes' spelling.
//!
//! Invariant: this room knows neither probes nor maps nor sockets; it reads no clock and no file. Which pods fail is told
//! to it, as objects are.

pub mod build;
pub mod matching;
pub mod model;
pub mod steering;
mod text;

pub use build::{
    Built, Compiler, LastGood, Options, ProbeChanges, Remembered, Touched, Verdicts, annotations,
    build, build_judged,
};
pub use model::*;
