//! What a hostile client sends, and how it reads.

use std::{fmt, time::Duration};

use super::{http1, http2};

/// One kind of hostile client. All its connections do the same.
pub struct Script {
    /// Its name, for people and for `--only`.
    pub name: &'static str,
    /// What it does, with its pace.
    pub does: &'static str,
    /// Sent first.
    pub opening: Vec<u8>,
    /// What is sent at the nth beat, counted from 0; nothing is sent while earlier bytes wait to be taken.
    pub beat: Beat,
    /// Between two beats.
    pub every: Duration,
    /// How it reads.
    pub reads: Reads,
    /// What it does beyond.
    pub habit: Habit,
}

/// Bytes of the nth beat.
pub type Beat = Box<dyn Fn(u64) -> Vec<u8> + Send + Sync>;

/// How a client reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reads {
    /// All that comes.
    All,
    /// One byte at each beat.
    OneByte,
    /// Nothing.
    Nothing,
}

/// What a client does with its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Habit {
    /// Keeps it.
    Keeps,
    /// Closes its side behind the opening.
    HalfCloses,
    /// Closes it at the first beat, and opens another.
    Churns,
}

/// The pace of a flood: messages of one connection.
pub(super) const FLOOD: Duration = Duration::from_millis(100);
/// Frames, requests or chunks in one message of a flood.
pub(super) const BURST: u64 = 10;
/// The pace of who is slow.
pub(super) const SLOW: Duration = Duration::from_secs(1);

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("name", &self.name)
            .field("does", &self.does)
            .finish_non_exhaustive()
    }
}

impl Script {
    /// One that says its opening and then nothing.
    pub(super) fn new(name: &'static str, does: &'static str, opening: Vec<u8>) -> Self {
        Self {
            name,
            does,
            opening,
            beat: Box::new(|_| Vec::new()),
            every: SLOW,
            reads: Reads::All,
            habit: Habit::Keeps,
        }
    }

    /// With this at every beat.
    pub(super) fn beats(
        mut self,
        every: Duration,
        beat: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        self.every = every;
        self.beat = Box::new(beat);
        self
    }

    /// Which reads like this.
    pub(super) fn reads(mut self, reads: Reads) -> Self {
        self.reads = reads;
        self
    }

    /// Which has this habit.
    pub(super) fn habit(mut self, habit: Habit) -> Self {
        self.habit = habit;
        self
    }
}

/// Every kind, HTTP/1.1 first.
pub fn all() -> Vec<Script> {
    let mut all = http1::scripts();
    all.extend(http2::scripts());
    all
}

/// The nth byte of a text that goes on with `x` forever.
pub(super) fn drip(text: &'static [u8]) -> impl Fn(u64) -> Vec<u8> + Send + Sync {
    move |beat| {
        let at = usize::try_from(beat).unwrap_or(usize::MAX);
        vec![text.get(at).copied().unwrap_or(b'x')]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_and_a_bounded_rate() {
        let all = all();
        let names: BTreeSet<_> = all.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), all.len());
        for script in &all {
            let seconds = script.every.as_secs_f64();
            let bytes = (script.beat)(7).len() as f64 / seconds;
            assert!(seconds >= 0.1, "{}: more than 10 messages/s", script.name);
            assert!(bytes <= 16_384.0, "{}: {bytes} bytes/s", script.name);
        }
    }
}
