//! Removes flows that are over, from a list of keys; run by the agent through BPF_PROG_TEST_RUN.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_loop, bpf_skb_load_bytes},
};
use gateway_common::{
    datapath::{KEYS, KEYS_AT, sweep},
    flow::FlowKey,
};

use crate::maps::Kernel;

struct Round {
    frame: *mut __sk_buff,
    removed: u64,
}

/// Takes the keys that lie in a frame; returns how many entries were removed.
pub fn keys(frame: *mut __sk_buff) -> u32 {
    let mut state = Round { frame, removed: 0 };
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
    state.removed as u32
}

/// Takes one key; anything but 0 ends the run.
#[inline(never)]
unsafe extern "C" fn round(number: u64, state: *mut c_void) -> i64 {
    // SAFETY: `keys` hands the pointer to a live `Round` that nobody else uses meanwhile.
    let state = unsafe { &mut *state.cast::<Round>() };
    let mut key = MaybeUninit::<FlowKey>::uninit();
    let at = KEYS_AT as u32 + number as u32 * size_of::<FlowKey>() as u32;
    // SAFETY: the helper writes as many bytes as the key has, or fails beyond the end of the frame.
    let failed = unsafe {
        bpf_skb_load_bytes(
            state.frame.cast(),
            at,
            key.as_mut_ptr().cast(),
            size_of::<FlowKey>() as u32,
        )
    };
    if failed != 0 {
        return 1;
    }
    // SAFETY: written just now; any bytes are a key.
    let key = unsafe { key.assume_init() };
    state.removed += sweep(&Kernel::<false>, &key) as u64;
    0
}
