//! Counts flows that an upgrade has brought, from a list of services; run by the agent through BPF_PROG_TEST_RUN.
//!
//! User space cannot add to a counter that packets add to as well.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_loop, bpf_skb_load_bytes},
};
use gateway_common::datapath::{KEYS, KEYS_AT, Tables};

use crate::maps::Kernel;

struct Round {
    frame: *mut __sk_buff,
    counted: u64,
}

/// Takes the service ids that lie in a frame, one for each flow; returns how many were counted.
pub fn services(frame: *mut __sk_buff) -> u32 {
    let mut state = Round { frame, counted: 0 };
    let round: unsafe extern "C" fn(u64, *mut c_void) -> i64 = round;
    // SAFETY: the kernel calls `round` with the pointer given here, on this stack, and keeps neither.
    unsafe {
        bpf_loop(
            KEYS as u32,
            round as *mut c_void,
            (&raw mut state).cast(),
            0,
        )
    };
    state.counted as u32
}

/// Takes one id; anything but 0 ends the run.
#[inline(never)]
unsafe extern "C" fn round(number: u64, state: *mut c_void) -> i64 {
    // SAFETY: `services` hands the pointer to a live `Round` that nobody else uses meanwhile.
    let state = unsafe { &mut *state.cast::<Round>() };
    let mut service = MaybeUninit::<u32>::uninit();
    let at = KEYS_AT as u32 + number as u32 * 4;
    // SAFETY: the helper writes four bytes, or fails beyond the end of the frame.
    let failed =
        unsafe { bpf_skb_load_bytes(state.frame.cast(), at, service.as_mut_ptr().cast(), 4) };
    if failed != 0 {
        return 1;
    }
    // SAFETY: written just now.
    Kernel::<false>.count_live(unsafe { service.assume_init() });
    state.counted += 1;
    0
}
