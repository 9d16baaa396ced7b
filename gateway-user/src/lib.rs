//! Fleetgate's user space: everything but the packet pipeline.
//!
//! Configuration flows in one direction, `io | pure | io`:
//! `source -> manifest::Snapshot -> ir::build -> Ir -> plan::build -> Plan -> plan::diff -> Steps ->
//! dataplane::apply`. The proxy receives the same [`ir::Ir`] and serves what must read a request.

pub mod admin;
pub mod agent;
pub mod check;
pub mod cli;
pub mod dataplane;
pub mod doctor;
pub mod health;
pub mod ir;
pub mod manifest;
pub mod metrics;
pub mod network;
pub mod plan;
pub mod problem;
pub mod proxy;
pub mod source;
pub mod status;
pub mod tls;
