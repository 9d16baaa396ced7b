//! Plain old data: what may be read from and written to packets and shared map memory.

use core::cell::UnsafeCell;

/// A type that any bit pattern is valid for and that has no padding.
///
/// # Safety
/// Both must hold: values are made from bytes of the wire and of map memory, and turned into bytes.
#[allow(
    unsafe_code,
    reason = "declares the promise that Packet::load relies on"
)]
pub unsafe trait Pod: Copy {}

macro_rules! pod {
    ($($type:ty),*) => { $(
        // SAFETY: integers, and arrays of them, take every bit pattern and have no padding.
        #[allow(unsafe_code, reason = "integers and arrays of them")]
        unsafe impl Pod for $type {}
    )* };
}
pod!(u8, u16, u32, u64, [u8; 6], [u16; 3], [u16; 2], [u32; 4]);

/// Map memory that other CPUs and the agent write at any time.
///
/// Fields are read and written one by one, volatile, never by reference, so a torn pair of fields
/// can be seen but no undefined value. The target has no atomics smaller than 64 bits; counters
/// that must add up live in per-CPU maps.
#[repr(transparent)]
pub struct Shared<T>(UnsafeCell<T>);

impl<T> Shared<T> {
    /// Takes ownership of a value, for tables in user space.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Where the value is. Valid for reads and writes as long as `self` is.
    #[inline(always)]
    pub const fn as_ptr(&self) -> *mut T {
        self.0.get()
    }
}

/// Reads one field of a [`Shared`] struct.
#[macro_export]
macro_rules! shared_read {
    ($shared:expr, $field:ident) => {{
        let at = $shared.as_ptr();
        // SAFETY: `as_ptr` points at a live value and the field is inside it; volatile, because
        // other CPUs write it.
        unsafe { (&raw const (*at).$field).read_volatile() }
    }};
}

#[cfg(feature = "user")]
mod user {
    use crate::{
        addr, affinity, backend, bench, config, flow, limits, monitor, ports, service, stats, vip,
    };

    macro_rules! map_pod {
        ($($type:ty),*) => { $(
            const _: () = {
                // SAFETY: `repr(C)` structs of integers whose padding is spelled out (asserted by
                // size beside each type), so every bit pattern is valid and every byte is written.
                #[allow(unsafe_code, reason = "repr(C) structs of integers without padding")]
                unsafe impl aya::Pod for $type {}
            };
        )* };
    }
    map_pod!(
        addr::Addr,
        affinity::Affinity,
        affinity::AffinityKey,
        backend::Backend,
        backend::NextHop,
        backend::NeighbourKey,
        backend::Snat,
        bench::Arrivals,
        bench::Generator,
        bench::Talk,
        config::Config,
        config::Clock,
        config::Admission,
        flow::Flow,
        flow::FlowKey,
        ports::Mark,
        limits::AclNet,
        limits::Bucket,
        limits::SourceKey,
        monitor::Event,
        monitor::Scratch,
        monitor::Switch,
        service::Service,
        service::ServiceKey,
        stats::Traffic,
        stats::Count,
        vip::VipKey,
        vip::Budget
    );
}
