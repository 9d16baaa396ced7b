//! The access log: one JSON object on one line for each request, in ASCII.
//!
//! `worker: Entry -> its own buffer -> bounded channel -> one thread -> file or standard output`. Invariant: a worker never
//! waits for the log. What the thread cannot take is counted as lost, and what is under way is bounded (some 4 MiB).

mod entry;
mod json;
mod sink;
mod time;

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, Release},
        },
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::thread::sched_getcpu;

pub use entry::{Entry, Timers};

use self::{entry::MAX_LINE_BYTES, sink::Sink, time::Stamp};

/// A worker hands its buffer over when it holds this much.
const BUFFER_BYTES: usize = 64 * 1024;
/// A worker hands its buffer over when this long has passed since it last did.
const HAND_OVER: Duration = Duration::from_millis(200);
/// Buffers that wait for the thread.
const WAITING: usize = 64;
/// Empty buffers that come back to a worker.
const RETURNED: usize = 2;
/// A log that ends waits this long for what is still to be written.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where the log goes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Target {
    /// Nowhere: entries are not even formatted.
    #[default]
    Off,
    /// Standard output. The agent itself writes nothing there: what it has to say goes to standard error.
    Stdout,
    /// Appended to a file, which is opened anew when it was moved away and on [`AccessLog::reopen`].
    File(PathBuf),
}

/// The log cannot start.
#[derive(Debug)]
pub enum Error {
    /// The file cannot be opened.
    Open(PathBuf, io::Error),
    /// Standard output cannot be used.
    Stdout(io::Error),
    /// No thread.
    Thread(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(path, cause) => write!(
                f,
                "cannot append to the access log {}: {cause}; does its folder exist, and may the agent write there? see --access-log",
                path.display()
            ),
            Self::Stdout(cause) => write!(
                f,
                "cannot write the access log to standard output: {cause}; is it closed? see --access-log"
            ),
            Self::Thread(cause) => write!(
                f,
                "cannot start the thread of the access log: {cause}; is the limit of processes too low?"
            ),
        }
    }
}

impl std::error::Error for Error {}

/// What became of the lines.
#[derive(Debug, Default)]
pub struct Counters {
    written: AtomicU64,
    lost: AtomicU64,
}

impl Counters {
    /// Lines written.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Lines lost: the target was too slow, or refused them.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

/// Lines of one worker on their way.
#[derive(Debug)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
    /// The CPU that wrote them.
    cpu: usize,
    /// Where the buffer goes when it is empty.
    back: SyncSender<Vec<u8>>,
}

#[derive(Debug)]
struct Running {
    batches: SyncSender<Batch>,
    reopen: Arc<AtomicBool>,
    /// Hangs up when the thread ends.
    ended: Receiver<()>,
}

/// A running access log. Workers' logs outlive it harmlessly.
#[derive(Debug)]
pub struct AccessLog {
    running: Option<Running>,
    counters: Arc<Counters>,
}

impl AccessLog {
    /// No log.
    pub fn off() -> Self {
        Self {
            running: None,
            counters: Arc::default(),
        }
    }

    /// Opens the target and starts the thread that writes; for [`Target::Off`] neither.
    pub fn start(target: &Target) -> Result<Self, Error> {
        let sink = match target {
            Target::Off => None,
            Target::Stdout => Some(Sink::stdout().map_err(Error::Stdout)?),
            Target::File(path) => {
                let file = Sink::file(path).map_err(|cause| Error::Open(path.clone(), cause))?;
                Some(file)
            }
        };
        let counters = Arc::new(Counters::default());
        let running = sink
            .map(|sink| run(sink, Arc::clone(&counters)))
            .transpose()
            .map_err(Error::Thread)?;
        Ok(Self { running, counters })
    }

    /// The log of one worker.
    pub fn worker(&self) -> WorkerLog {
        let Some(running) = &self.running else {
            return WorkerLog { on: None };
        };
        let (back, returned) = sync_channel(RETURNED);
        WorkerLog {
            on: Some(On {
                buffer: Vec::with_capacity(BUFFER_BYTES),
                lines: 0,
                handed_over: None,
                stamp: Stamp::default(),
                batches: running.batches.clone(),
                back,
                returned,
                counters: Arc::clone(&self.counters),
            }),
        }
    }

    /// Has the file opened anew within a second, as a rotation with SIGHUP wants it.
    pub fn reopen(&self) {
        if let Some(running) = &self.running {
            running.reopen.store(true, Release);
        }
    }

    /// What became of the lines; they go on counting.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Waits until what workers handed over is written, two seconds at most. To be called when they are gone.
    pub fn finish(self) {
        if let Some(Running { batches, ended, .. }) = self.running {
            drop(batches);
            // An error is the thread's end, which is what is waited for.
            if ended.recv_timeout(LAST_WORDS) == Err(RecvTimeoutError::Timeout) {
                tracing::warn!("the access log's target is too slow: its last lines are lost");
            }
        }
    }
}

fn run(sink: Sink, counters: Arc<Counters>) -> io::Result<Running> {
    let (batches, waiting) = sync_channel(WAITING);
    let (alive, ended) = sync_channel(0);
    let reopen = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&reopen);
    thread::Builder::new()
        .name("access-log".to_owned())
        .spawn(move || {
            sink.run(&waiting, &asked, &counters);
            drop(alive);
        })?;
    Ok(Running {
        batches,
        reopen,
        ended,
    })
}

/// The log of one worker: formats into a buffer of its own.
#[derive(Debug)]
pub struct WorkerLog {
    on: Option<On>,
}

#[derive(Debug)]
struct On {
    buffer: Vec<u8>,
    lines: u64,
    handed_over: Option<Instant>,
    stamp: Stamp,
    batches: SyncSender<Batch>,
    back: SyncSender<Vec<u8>>,
    returned: Receiver<Vec<u8>>,
    counters: Arc<Counters>,
}

impl WorkerLog {
    /// Whether entries go anywhere: without it nobody needs to make one.
    pub fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Adds one line. Takes a few hundred nanoseconds, and never waits.
    pub fn write(&mut self, entry: &Entry<'_>) {
        let Some(on) = &mut self.on else { return };
        entry.write(on.stamp.at(entry.time_ms), &mut on.buffer);
        on.lines += 1;
        if on.buffer.len() > BUFFER_BYTES - MAX_LINE_BYTES {
            on.hand_over();
        }
    }

    /// Hands over what there is if that was last done 200 ms ago. To be called from a timer of about that period, and
    /// cheap enough for every turn of a loop.
    pub fn flush_if_due(&mut self, now: Instant) {
        let Some(on) = &mut self.on else { return };
        let due = on
            .handed_over
            .is_none_or(|at| now.saturating_duration_since(at) >= HAND_OVER);
        if due && on.lines > 0 {
            on.hand_over();
            on.handed_over = Some(now);
        }
    }

    /// Hands over what there is.
    pub fn flush(&mut self) {
        if let Some(on) = self.on.as_mut().filter(|on| on.lines > 0) {
            on.hand_over();
        }
    }
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        self.flush();
    }
}

impl On {
    fn hand_over(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        let batch = Batch {
            bytes: std::mem::take(&mut self.buffer),
            lines,
            cpu: sched_getcpu(),
            back: self.back.clone(),
        };
        self.buffer = match self.batches.try_send(batch) {
            Ok(()) => self
                .returned
                .try_recv()
                .unwrap_or_else(|_| Vec::with_capacity(BUFFER_BYTES)),
            Err(refused) => {
                self.counters.lost.fetch_add(lines, Relaxed);
                let (std::sync::mpsc::TrySendError::Full(batch)
                | std::sync::mpsc::TrySendError::Disconnected(batch)) = refused;
                let mut buffer = batch.bytes;
                buffer.clear();
                buffer
            }
        };
    }
}

#[cfg(test)]
mod tests;
