//! Where a test ends the agent: between any two writes to what outlives it. Debug builds only.

/// Names a file with a number: the agent aborts at the write of that number, counted from the first one that finds the
/// file. As long as there is no file nothing is counted.
pub const VARIABLE: &str = "FLEETGATE_CRASH_FILE";

/// Called before each write to a map or a pin, and where a row of writes ends.
#[inline]
pub(super) fn point() {
    #[cfg(debug_assertions)]
    counting::point();
}

#[cfg(debug_assertions)]
mod counting {
    use std::{
        env, fs,
        path::PathBuf,
        process,
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    static WRITES: AtomicU64 = AtomicU64::new(0);

    pub(super) fn point() {
        let file = FILE.get_or_init(|| env::var_os(super::VARIABLE).map(PathBuf::from));
        let number = file.as_ref().and_then(|file| fs::read_to_string(file).ok());
        let Some(number) = number.and_then(|text| text.trim().parse::<u64>().ok()) else {
            return;
        };
        if WRITES.fetch_add(1, Ordering::Relaxed) >= number {
            process::abort();
        }
    }
}
