//! Counts flows that an upgrade has brought, from a list of services, one for each flow; run by the agent.
//!
//! User space cannot add to a counter that packets add to as well.

use gateway_common::datapath::Tables;

use crate::{list::Work, maps::Kernel};

/// Counts flows that were counted.
pub struct Services;

// SAFETY: any four bytes are a number.
unsafe impl Work for Services {
    type Item = u32;

    #[inline(always)]
    fn take(service: &u32) -> u64 {
        Kernel::<false>.count_live(*service);
        1
    }
}
