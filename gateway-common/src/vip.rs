//! Addresses of listeners, and how often the kernel programs answer by themselves.

use crate::{addr::Addr, shape};

/// Key of the address table. Aligned like [`crate::flow::FlowKey`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VipKey {
    /// Address of one or more listeners.
    pub addr: Addr,
}

/// Answers of one kind that one CPU sends within one kernel tick (1 to 10 ms): 800 to 8000 a second.
pub const ANSWERS_PER_TICK: u32 = 8;

/// Answers of one kind sent lately by one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Budget {
    /// Tick they were sent in.
    pub tick: u32,
    /// How many.
    pub count: u32,
}

const _: () = assert!(size_of::<VipKey>() == 16 && size_of::<Budget>() == 8);

shape!(VipKey { addr });
shape!(Budget { tick, count });
