//! What the agent tells the kernel programs beside the tables.

use crate::{flow::state, shape};

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

shape!(Config {
    seed,
    sample_every,
    timeout_ticks,
});
shape!(Admission { high, share });
shape!(Clock { ticks, nanoseconds });

/// Who may open flows in a flow table that is nearly full.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Admission {
    /// More live flows than this are the high water; 0 is none.
    pub high: u64,
    /// Above it, a service that has more flows than this opens no others: the rest of the table is for those with few.
    pub share: u64,
}

const _: () = assert!(size_of::<Admission>() == 16);

impl Admission {
    /// The high water at 15/16 of a flow table, which has two entries for each flow, and 1/16 of it as share.
    pub const fn of(entries: u32) -> Self {
        let flows = entries as u64 / 2;
        Self {
            high: flows - flows / 16,
            share: flows / 16,
        }
    }
}

/// Kernel clocks, read at one moment by the `fleetgate_clock` program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Clock {
    /// `bpf_jiffies64`.
    pub ticks: u64,
    /// `bpf_ktime_get_ns`.
    pub nanoseconds: u64,
}
