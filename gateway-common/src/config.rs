//! What the agent tells the kernel programs beside the tables.

use crate::flow::state;

/// The one entry of the configuration table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Config {
    /// Seed of the flow hash; the same on all nodes that share a secret.
    pub seed: u32,
    /// One packet in this many is logged; 0 logs none.
    pub sample_every: u32,
    /// Kernel ticks after which a flow without packets is over, by flow state.
    pub timeout_ticks: [u32; state::COUNT],
}

const _: () = assert!(size_of::<Config>() == 40);

/// Kernel clocks, read at one moment by the `fleetgate_clock` program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Clock {
    /// `bpf_jiffies64`.
    pub ticks: u64,
    /// `bpf_ktime_get_ns`.
    pub nanoseconds: u64,
}
