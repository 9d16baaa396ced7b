//! Many entries of a map in one system call. The one file of this crate that needs `unsafe`.
//!
//! A ring of 100 backends has 16 381 slots; written one by one that took 30 to 40 ms of a change (`cargo xtask bench
//! control`).

#![allow(unsafe_code, reason = "aya has no batch operations")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    path::Path,
    ptr,
};

use aya::{
    Pod,
    maps::{MapError, MapInfo, MapType},
    util,
};

/// `BPF_MAP_LOOKUP_ELEM` of `enum bpf_cmd` (linux/bpf.h).
const LOOKUP_ELEM: libc::c_int = 1;
/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd` (linux/bpf.h), of hashes since Linux 5.6.
const LOOKUP_BATCH: libc::c_int = 24;
/// `BPF_MAP_UPDATE_BATCH` of `enum bpf_cmd` (linux/bpf.h), since Linux 5.6.
const UPDATE_BATCH: libc::c_int = 26;

/// `struct { ... } batch` of `union bpf_attr` (linux/bpf.h).
#[derive(Default)]
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
    update_entries(array, &keys, values).1
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
    let (keys, values) = (keys.as_mut_ptr().cast(), values.as_mut_ptr().cast());
    // SAFETY: the slices hold `room` keys and values; the callers' types are those of the map, and any bytes are valid
    // for them.
    unsafe { lookup_at(hash, place, keys, values, room) }
}

/// # Safety
/// There must be room for as many keys and values of the map's sizes at these addresses.
unsafe fn lookup_at(
    hash: impl AsFd,
    place: &mut Option<u32>,
    keys: *mut u8,
    values: *mut u8,
    room: u32,
) -> io::Result<(usize, bool)> {
    let map_fd = u32::try_from(hash.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    let from = place.unwrap_or(0);
    let mut next = 0_u32;
    let mut batch = Batch {
        in_batch: match place {
            Some(_) => ptr::from_ref(&from).expose_provenance() as u64,
            None => 0,
        },
        out_batch: (&raw mut next).expose_provenance() as u64,
        keys: keys.expose_provenance() as u64,
        values: values.expose_provenance() as u64,
        count: room,
        map_fd,
        ..Batch::default()
    };
    // SAFETY: the kernel reads `batch`, whose layout is that of its own struct, and `from`; it writes `next`, the count in
    // `batch`, and at most `count` keys and values of the map's sizes to where the caller has room for that many. All
    // outlive the call, and it keeps no address.
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

/// Writes entries, whether they are there or not. Returns how many were written before the first that could
/// not, and why.
pub(super) fn update_entries<K: Pod, V: Pod>(
    map: impl AsFd,
    keys: &[K],
    values: &[V],
) -> (usize, io::Result<()>) {
    let Ok(map_fd) = u32::try_from(map.as_fd().as_raw_fd()) else {
        return (0, Err(io::ErrorKind::InvalidInput.into()));
    };
    let Ok(count) = u32::try_from(keys.len().min(values.len())) else {
        return (0, Err(io::ErrorKind::InvalidInput.into()));
    };
    let mut batch = Batch {
        keys: keys.as_ptr().expose_provenance() as u64,
        values: values.as_ptr().expose_provenance() as u64,
        count,
        map_fd,
        ..Batch::default()
    };
    // SAFETY: the kernel reads `batch`, whose layout is that of its own struct, and through it `count` keys and values of
    // the map's types: `keys` and `values` hold that many and outlive the call. It writes the number of entries done into
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
        return (count as usize, Ok(()));
    }
    let error = io::Error::last_os_error();
    (batch.count.min(count) as usize, Err(error))
}

/// The first bytes as a value; zeros where there are too few.
pub(super) fn pod<T: Pod>(bytes: &[u8]) -> T {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    let len = bytes.len().min(size_of::<T>());
    // SAFETY: both hold `len` bytes and are not the same memory; all other bytes are zero, and any bytes are valid for a
    // `Pod`.
    unsafe {
        ptr::copy_nonoverlapping(bytes.as_ptr(), value.as_mut_ptr().cast(), len);
        value.assume_init()
    }
}

/// A map whose keys and values have other shapes than those of this program; read only.
#[derive(Debug)]
pub(super) struct Raw {
    map: aya::maps::MapFd,
    /// Bytes of a key.
    pub(super) key_size: usize,
    /// Bytes of a value.
    pub(super) value_size: usize,
    /// Entries it has room for.
    pub(super) entries: u32,
    /// Values are read for each CPU at once, each at a multiple of eight bytes.
    per_cpu: bool,
}

impl Raw {
    /// Opens a pinned map of one of these types.
    pub(super) fn open(pin: &Path, kinds: &[MapType]) -> Result<Self, String> {
        let unusable = |error: MapError| error.to_string();
        let info = MapInfo::from_pin(pin).map_err(unusable)?;
        let kind = info.map_type().map_err(unusable)?;
        if !kinds.contains(&kind) {
            return Err(format!("it is a {kind:?}"));
        }
        Ok(Self {
            map: info.fd().map_err(unusable)?,
            key_size: info.key_size() as usize,
            value_size: info.value_size() as usize,
            entries: info.max_entries(),
            per_cpu: matches!(kind, MapType::PerCpuArray | MapType::PerCpuHash),
        })
    }

    /// As [`lookup`], with room for `room` entries.
    pub(super) fn slice(
        &self,
        place: &mut Option<u32>,
        keys: &mut Vec<u8>,
        values: &mut Vec<u8>,
        room: u32,
    ) -> io::Result<(usize, bool)> {
        if self.per_cpu {
            return Err(io::ErrorKind::Unsupported.into());
        }
        keys.resize(self.key_size * room as usize, 0);
        values.resize(self.value_size * room as usize, 0);
        let (keys, values) = (keys.as_mut_ptr(), values.as_mut_ptr());
        // SAFETY: both hold `room` of the sizes that the kernel tells of this map, which never change.
        unsafe { lookup_at(&self.map, place, keys, values, room) }
    }

    /// The values of all CPUs under an index of a per-CPU array.
    pub(super) fn of_cpus(&self, index: u32) -> io::Result<Vec<Vec<u8>>> {
        /// `struct { ... }` of the commands on one element of `union bpf_attr` (linux/bpf.h).
        #[repr(C)]
        struct Element {
            map_fd: u32,
            zero: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        if !self.per_cpu || self.key_size != size_of::<u32>() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let cpus = util::nr_cpus().map_err(|(_, error)| error)?;
        let stride = self.value_size.next_multiple_of(8);
        let mut values = vec![0_u8; stride * cpus];
        let mut element = Element {
            map_fd: u32::try_from(self.map.as_fd().as_raw_fd()).map_err(io::Error::other)?,
            zero: 0,
            key: ptr::from_ref(&index).expose_provenance() as u64,
            value: values.as_mut_ptr().expose_provenance() as u64,
            flags: 0,
        };
        // SAFETY: the kernel reads `element`, whose layout is that of its own struct, and an index of four bytes; it writes
        // a value, rounded up to eight bytes, for each possible CPU, for which `values` has room.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                LOOKUP_ELEM,
                &raw mut element,
                size_of::<Element>(),
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(values.chunks(stride).map(<[u8]>::to_vec).collect())
    }
}
