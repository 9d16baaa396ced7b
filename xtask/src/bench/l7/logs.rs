//! Where access logs go: pipes, as a container's do, read here every few milliseconds.
//!
//! Not files: a virtual machine may have to ask its host for each page that a file in memory grows by, which was
//! measured at 10 us where writing the page takes one, and who writes the longest lines would pay for that.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    fs::{CWD, Mode, OFlags, mkfifoat},
    pipe::fcntl_setpipe_size,
};

use super::contender::Contender;

/// Room for lines between two looks.
const PIPE_BYTES: usize = 1 << 20;
/// Nobody who writes has to wake a reader.
const LOOK: Duration = Duration::from_millis(5);

/// Makes the pipes of all contenders, and reads them for as long as this process lives.
pub(super) fn take() -> Result<()> {
    let mut pipes = Vec::new();
    for who in Contender::ALL {
        let path = who.access_log();
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let made = || -> Result<File> {
            mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR)?;
            // Open for writing too, it has no end when a contender has.
            let pipe = File::options()
                .read(true)
                .write(true)
                .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
                .open(&path)?;
            fcntl_setpipe_size(&pipe, PIPE_BYTES)?;
            Ok(pipe)
        };
        pipes.push(made().with_context(|| format!("cannot make the pipe {}", path.display()))?);
    }
    thread::spawn(move || {
        let mut lines = vec![0; PIPE_BYTES];
        loop {
            for pipe in &mut pipes {
                while matches!(pipe.read(&mut lines), Ok(1..)) {}
            }
            thread::sleep(LOOK);
        }
    });
    Ok(())
}
