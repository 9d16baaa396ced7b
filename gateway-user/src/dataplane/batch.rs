//! Many entries of a map in one system call. The one file of this crate that needs `unsafe`.
//!
//! A ring of 100 backends has 16 381 slots; written one by one that took 30 to 40 ms of a change (`cargo xtask bench
//! control`).

#![allow(unsafe_code, reason = "aya has no batch operations")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr,
};

use aya::Pod;

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd` (linux/bpf.h), of hashes since Linux 5.6.
const LOOKUP_BATCH: libc::c_int = 24;
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

/// Reads entries of a hash from `place` on (`None` is the start), as many as there is room for in both slices. Returns
/// how many, and whether the table ends here. Buckets are read whole: an entry that stays is seen once, whatever
/// comes and goes meanwhile.
pub(super) fn lookup<K: Pod, V: Pod>(
    hash: impl AsFd,
    place: &mut Option<u32>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, bool)> {
    let room = u32::try_from(keys.len().min(values.len())).map_err(io::Error::other)?;
    let map_fd = u32::try_from(hash.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    let from = place.unwrap_or(0);
    let mut next = 0_u32;
    let mut batch = Batch {
        in_batch: match place {
            Some(_) => ptr::from_ref(&from).expose_provenance() as u64,
            None => 0,
        },
        out_batch: (&raw mut next).expose_provenance() as u64,
        keys: keys.as_mut_ptr().expose_provenance() as u64,
        values: values.as_mut_ptr().expose_provenance() as u64,
        count: room,
        map_fd,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `batch`, whose layout is that of its own struct, and `from`; it writes `next`, the count in
    // `batch`, and at most `count` keys and values of the map's sizes to the slices, which hold that many; the callers'
    // types are those of the map, and any bytes are valid for them. All outlive the call, and it keeps no address.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            LOOKUP_BATCH,
            &raw mut batch,
            size_of::<Batch>(),
        )
    };
    let end = if result == 0 {
        false
    } else {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ENOENT) {
            return Err(error);
        }
        true
    };
    // Volatile: the kernel wrote it behind the compiler's back.
    // SAFETY: a live local.
    let next = unsafe { (&raw const next).read_volatile() };
    *place = Some(next);
    Ok((batch.count.min(room) as usize, end))
}
