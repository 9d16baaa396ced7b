//! Many entries of an array in one system call. The one file of this crate that needs `unsafe`.
//!
//! A ring of 100 backends has 16 381 slots; written one by one that took 30 to 40 ms of a change (`cargo xtask bench
//! control`).

#![allow(unsafe_code, reason = "aya has no batch operations")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// `BPF_MAP_UPDATE_BATCH` of `enum bpf_cmd` (linux/bpf.h), since Linux 5.6.
const UPDATE_BATCH: libc::c_int = 26;

/// `struct { ... } batch` of `union bpf_attr` (linux/bpf.h).
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<Batch>() == 56);

/// Writes `values` to consecutive indices from `first` of an array of `u32`. After an error some may be written.
pub(super) fn update(array: impl AsFd, first: u32, values: &[u32]) -> io::Result<()> {
    let keys: Vec<u32> = (first..).take(values.len()).collect();
    let count = u32::try_from(values.len()).map_err(io::Error::other)?;
    let map_fd = u32::try_from(array.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    let mut batch = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr().expose_provenance() as u64,
        values: values.as_ptr().expose_provenance() as u64,
        count,
        map_fd,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `batch`, whose layout is that of its own struct, and through it `count` keys and values of
    // four bytes each: `keys` and `values` hold that many and outlive the call. It writes the number of entries done into
    // `batch`, which is a local of ours, and keeps no address.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            UPDATE_BATCH,
            &raw mut batch,
            size_of::<Batch>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
