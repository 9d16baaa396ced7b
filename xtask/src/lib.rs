//! Fleetgate's development commands, as a library: the tests use the lab, the pods and the load client too.
//!
//! Nothing here ends up in the product.

pub mod bench;
pub mod chaos;
pub mod chart;
pub mod client;
pub mod console;
pub mod demo;
pub mod ebpf;
pub mod fuzz_proxy;
pub mod hostile;
pub mod kernel;
pub mod kernel_matrix;
pub mod lab;
pub mod member;
pub mod mixed;
pub mod netns;
pub mod paths;
pub mod pod;
pub mod process;
pub mod setup;
pub mod suite;
pub mod toolchain;
pub mod trial;
pub mod verify;
