//! Lists that lie in a frame behind its headers: the agent hands them over through BPF_PROG_TEST_RUN.

use core::{ffi::c_void, marker::PhantomData, mem::MaybeUninit};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_loop, bpf_skb_load_bytes},
};
use gateway_common::datapath::{KEYS, KEYS_AT};

/// What is done with each item.
///
/// # Safety
/// Any bytes must be an item.
pub unsafe trait Work {
    /// An item.
    type Item: Copy;
    /// Does it; returns how much was done.
    fn take(item: &Self::Item) -> u64;
}

struct Round<W> {
    frame: *mut __sk_buff,
    done: u64,
    work: PhantomData<W>,
}

/// Takes every item of a frame; returns how much was done in all.
pub fn each<W: Work>(frame: *mut __sk_buff) -> u32 {
    let mut state = Round::<W> {
        frame,
        done: 0,
        work: PhantomData,
    };
    let round: unsafe extern "C" fn(u64, *mut c_void) -> i64 = round::<W>;
    // SAFETY: the kernel calls `round` with the pointer given here, on this stack, and keeps neither.
    unsafe {
        bpf_loop(
            KEYS as u32,
            round as *mut c_void,
            (&raw mut state).cast(),
            0,
        )
    };
    state.done as u32
}

/// Takes one item; anything but 0 ends the run.
#[inline(never)]
unsafe extern "C" fn round<W: Work>(number: u64, state: *mut c_void) -> i64 {
    // SAFETY: `each` hands the pointer to a live `Round` that nobody else uses meanwhile.
    let state = unsafe { &mut *state.cast::<Round<W>>() };
    let mut item = MaybeUninit::<W::Item>::uninit();
    let size = size_of::<W::Item>() as u32;
    let at = KEYS_AT as u32 + number as u32 * size;
    // SAFETY: the helper writes as many bytes as the item has, or fails beyond the end of the frame.
    let failed =
        unsafe { bpf_skb_load_bytes(state.frame.cast(), at, item.as_mut_ptr().cast(), size) };
    if failed != 0 {
        return 1;
    }
    // SAFETY: written just now; any bytes are an item, as its implementation promises.
    state.done += W::take(unsafe { item.assume_init_ref() });
    0
}
