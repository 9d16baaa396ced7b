//! Types and packet pipeline shared by the kernel programs and the agent.
//!
//! Invariant: this crate touches neither maps nor packets itself; it works on the two traits of
//! [`datapath`]. The kernel implements them on contexts and maps, tests and `fleetgate trace` on
//! slices and hash tables, and both run the same code.
#![cfg_attr(not(any(test, feature = "rings")), no_std)]

pub mod addr;
pub mod affinity;
pub mod backend;
pub mod bench;
pub mod config;
pub mod csum;
pub mod datapath;
pub mod flow;
pub mod hash;
pub mod layout;
pub mod limits;
#[cfg(any(test, feature = "rings"))]
pub mod maglev;
pub mod maps;
pub mod monitor;
pub mod pod;
pub mod ports;
pub mod service;
pub mod stats;
pub mod verdict;
pub mod vip;
