//! What the commands say: progress on stderr, results on stdout.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Writes one line of a result. A closed pipe is not an error worth a panic.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Writes one line about what is going on.
pub fn note(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A step under way: a line when it starts, a sign of life while it lasts, a line with the time it took when it ends.
pub struct Step {
    what: String,
    started: Instant,
    stop: Option<Sender<()>>,
    ticker: Option<JoinHandle<()>>,
}

impl Step {
    /// Announces a step.
    pub fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        let started = Instant::now();
        let terminal = io::stderr().is_terminal();
        if !terminal {
            note(format_args!(".. {what}"));
        }
        let (stop, stopped) = mpsc::channel::<()>();
        let shown = what.clone();
        // On a terminal the line is redrawn; in a log a line every 15 s says that it still runs.
        let every = if terminal {
            Duration::from_millis(200)
        } else {
            Duration::from_secs(15)
        };
        let ticker = thread::spawn(move || {
            for turn in 0_usize.. {
                if terminal {
                    let sign = ['|', '/', '-', '\\'][turn % 4];
                    let _ = write!(
                        io::stderr(),
                        "\r\x1b[K {sign} {shown} ({} s)",
                        started.elapsed().as_secs()
                    );
                    let _ = io::stderr().flush();
                } else if turn > 0 {
                    note(format_args!(
                        ".. {shown}: still at it after {} s",
                        started.elapsed().as_secs()
                    ));
                }
                match stopped.recv_timeout(every) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => break,
                }
            }
            if terminal {
                let _ = write!(io::stderr(), "\r\x1b[K");
            }
        });
        Self {
            what,
            started,
            stop: Some(stop),
            ticker: Some(ticker),
        }
    }

    /// Ends the step well.
    pub fn done(mut self) {
        self.end("ok", "");
    }

    /// Ends the step well, with a word on its outcome.
    pub fn done_with(mut self, outcome: impl Display) {
        self.end("ok", &format!(": {outcome}"));
    }

    fn end(&mut self, sign: &str, tail: &str) {
        // Dropping the sender wakes the ticker.
        if self.stop.take().is_none() {
            return;
        }
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.join();
        }
        note(format_args!(
            "{sign} {}{tail} ({:.1} s)",
            self.what,
            self.started.elapsed().as_secs_f64()
        ));
    }
}

impl Drop for Step {
    /// A step that was not ended failed; the error itself is printed by `main`.
    fn drop(&mut self) {
        self.end("!!", " failed");
    }
}

/// A table with its columns aligned; numbers read best when the caller formats them to one width.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let columns = header.len();
    let mut width: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (column, cell) in row.iter().take(columns).enumerate() {
            width[column] = width[column].max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&width) {
            text.push_str(&format!("{cell:width$}  "));
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![line(&mut header.iter().copied())];
    lines.push(line(
        &mut width
            .iter()
            .map(|n| "-".repeat(*n))
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str),
    ));
    lines.extend(
        rows.iter()
            .map(|row| line(&mut row.iter().map(String::as_str))),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_columns_are_as_wide_as_their_widest_cell() {
        let text = table(
            &["a", "name"],
            &[
                vec!["1234".into(), "x".into()],
                vec!["5".into(), "y".into()],
            ],
        );
        assert_eq!(text, "a     name\n----  ----\n1234  x\n5     y");
    }
}
