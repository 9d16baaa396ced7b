//! Removes flows that are over, from a list of keys; run by the agent.

use gateway_common::{datapath::sweep, flow::FlowKey};

use crate::{list::Work, maps::Kernel};

/// Counts entries that were removed.
pub struct Keys;

// SAFETY: integers without padding.
unsafe impl Work for Keys {
    type Item = FlowKey;

    #[inline(always)]
    fn take(key: &FlowKey) -> u64 {
        sweep(&Kernel::<false>, key) as u64
    }
}
