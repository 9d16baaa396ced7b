//! The thread that writes: to standard output, or to a file that others may move away.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Relaxed},
        },
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_setaffinity};

use super::{Batch, Counters};

/// How often it is looked whether somebody wants the file reopened, or moved it away.
const LOOK: Duration = Duration::from_secs(1);
/// Warnings of one kind are this far apart.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The thread moves for no less.
const WORTH_BYTES: usize = 16 * 1024;

/// An open target.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    /// `None` for standard output.
    path: Option<PathBuf>,
    /// The last write ended inside a line.
    torn: bool,
    warned: Option<Instant>,
    /// The CPU that this thread was sent to.
    cpu: Option<usize>,
}

/// The log tells who asked for what: its owner and group read it.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

impl Sink {
    pub(super) fn stdout() -> io::Result<Self> {
        let own = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::new(own.into(), None))
    }

    pub(super) fn file(path: &Path) -> io::Result<Self> {
        Ok(Self::new(open(path)?, Some(path.to_owned())))
    }

    fn new(file: File, path: Option<PathBuf>) -> Self {
        Self {
            file,
            path,
            torn: false,
            warned: None,
            cpu: None,
        }
    }

    /// Writes until every sender is gone.
    pub(super) fn run(
        mut self,
        batches: &Receiver<Batch>,
        reopen: &AtomicBool,
        counters: &Counters,
    ) {
        let mut looked = Instant::now();
        loop {
            match batches.recv_timeout(LOOK) {
                Ok(batch) => self.take(batch, counters),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                self.look(reopen.swap(false, Acquire));
            }
        }
    }

    fn take(&mut self, batch: Batch, counters: &Counters) {
        let Batch {
            mut bytes,
            lines,
            cpu,
            back,
        } = batch;
        self.follow(cpu, bytes.len());
        let written = self.write(&bytes);
        if written == bytes.len() {
            counters.written.fetch_add(lines, Relaxed);
        } else {
            let whole = bytes[..written].iter().filter(|it| **it == b'\n').count() as u64;
            counters.written.fetch_add(whole, Relaxed);
            counters
                .lost
                .fetch_add(lines.saturating_sub(whole), Relaxed);
        }
        bytes.clear();
        // A worker that is gone, or has enough, does without it.
        let _ = back.try_send(bytes);
    }

    /// Goes to the CPU that has the lines in its cache: to fetch them to another one's, and the empty buffer back, takes
    /// longer than to write them.
    fn follow(&mut self, cpu: usize, bytes: usize) {
        if bytes < WORTH_BYTES || self.cpu == Some(cpu) || cpu >= CpuSet::MAX_CPU {
            return;
        }
        self.cpu = Some(cpu);
        let mut there = CpuSet::new();
        there.set(cpu);
        // Where it may not go there, it stays.
        let _ = sched_setaffinity(None, &there);
    }

    /// Returns how many bytes were written.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            let outcome = if self.torn {
                // What is left of a broken line stays one broken line.
                self.file.write_all(b"\n").map(|()| 0)
            } else {
                self.file.write(&bytes[written..])
            };
            match outcome {
                Ok(0) if self.torn => self.torn = false,
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.warn("access log lines are lost: the target refuses them", &error);
                    self.torn |= written > 0 && bytes.get(written - 1) != Some(&b'\n');
                    break;
                }
            }
        }
        written
    }

    /// Opens the file anew if asked to, or if its name leads elsewhere by now.
    fn look(&mut self, asked: bool) {
        let Some(path) = &self.path else { return };
        if !asked && self.is_at(path) {
            return;
        }
        match open(path) {
            Ok(file) => {
                self.file = file;
                self.torn = false;
            }
            // The old one goes on being written: a line in a moved file is better than none.
            Err(error) => self.warn("cannot open the access log anew", &error),
        }
    }

    fn is_at(&self, path: &Path) -> bool {
        let (Ok(own), Ok(there)) = (self.file.metadata(), std::fs::metadata(path)) else {
            return false;
        };
        (own.dev(), own.ino()) == (there.dev(), there.ino())
    }

    fn warn(&mut self, what: &str, error: &io::Error) {
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!(%error, "{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::sched_getaffinity;

    use super::*;

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn the_thread_goes_to_the_cpu_that_has_the_lines_if_there_are_many() {
        let thread = std::thread::spawn(|| {
            let dir = tempfile::tempdir().unwrap();
            let mut sink = Sink::file(&dir.path().join("log")).unwrap();
            let allowed = sched_getaffinity(None).unwrap();
            let cpu = (0..CpuSet::MAX_CPU)
                .rfind(|cpu| allowed.is_set(*cpu))
                .unwrap();
            sink.follow(cpu, WORTH_BYTES - 1);
            assert_eq!(sched_getaffinity(None).unwrap(), allowed);
            sink.follow(CpuSet::MAX_CPU, WORTH_BYTES);
            sink.follow(cpu, WORTH_BYTES);
            let mut only = CpuSet::new();
            only.set(cpu);
            assert_eq!(sched_getaffinity(None).unwrap(), only);
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_file_that_was_moved_away_is_followed_by_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("log"), dir.path().join("log.1"));
        let mut sink = Sink::file(&path).unwrap();
        sink.write(b"a\n");
        sink.look(false);
        sink.write(b"b\n");
        std::fs::rename(&path, &moved).unwrap();
        sink.write(b"c\n");
        sink.look(false);
        sink.write(b"d\n");
        assert_eq!(
            (text(&moved), text(&path)),
            ("a\nb\nc\n".into(), "d\n".into())
        );
        std::fs::remove_file(&path).unwrap();
        sink.look(false);
        sink.write(b"e\n");
        assert_eq!(text(&path), "e\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_anew_is_written_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("logs");
        std::fs::create_dir(&folder).unwrap();
        let mut sink = Sink::file(&folder.join("log")).unwrap();
        let moved = dir.path().join("moved");
        std::fs::rename(&folder, &moved).unwrap();
        sink.look(true);
        assert_eq!(sink.write(b"a\n"), 2);
        assert_eq!(text(&moved.join("log")), "a\n");
    }

    #[test]
    fn a_broken_line_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut sink = Sink::file(&path).unwrap();
        sink.write(b"{\"a\":");
        sink.torn = true;
        assert_eq!(sink.write(b"{}\n"), 3);
        assert_eq!(text(&path), "{\"a\":\n{}\n");
    }
}
