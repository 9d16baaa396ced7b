//! The one place that writes to the terminal.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::ValueEnum;
use serde::Serialize;

use super::table::Paint;
use crate::dataplane;

/// How to print.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// Aligned columns and human units.
    #[default]
    Table,
    /// One JSON value with raw numbers.
    Json,
}

/// Something to show: JSON by `Serialize`, text by this.
pub trait View: Serialize {
    /// Text for people, ended by a newline.
    fn text(&self, paint: Paint) -> String;
}

/// Prints a view. A reader that went away (`| head`) is no failure.
pub fn show(view: &impl View, format: Format) -> Result<(), Failure> {
    let text = match format {
        Format::Table => view.text(paint()),
        Format::Json => {
            let mut json = serde_json::to_string_pretty(view)
                .map_err(|e| Failure::Output(io::Error::other(e)))?;
            json.push('\n');
            json
        }
    };
    print(&text)?;
    Ok(())
}

/// Prints text. False: the reader went away, which is no failure.
pub fn print(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Failure::Output(e)),
    }
}

/// Colours only where somebody sees them and nobody objects (<https://no-color.org>).
pub fn paint() -> Paint {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
    if io::stdout().is_terminal() && !refused && !dumb {
        Paint::Colour
    } else {
        Paint::Plain
    }
}

/// What a command found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Exit code 0.
    Fine,
    /// Exit code 1: problems, or the answer is no.
    Negative,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Fine => Self::SUCCESS,
            Outcome::Negative => Self::from(1),
        }
    }
}

/// Why a command could not answer.
#[derive(Debug)]
pub enum Failure {
    /// The pins cannot be read or removed: exit code 3.
    Pins(dataplane::Error),
    /// The arguments make no sense together: exit code 2.
    Usage(String),
    /// The answer is no, and this is why: exit code 1.
    Refused(String),
    /// Standard output failed: exit code 1.
    Output(io::Error),
}

impl Failure {
    /// For scripts; the numbers stand in `fleetgate --help`.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Pins(_) => ExitCode::from(3),
            Self::Usage(_) => ExitCode::from(2),
            Self::Refused(_) | Self::Output(_) => ExitCode::from(1),
        }
    }
}

impl From<dataplane::Error> for Failure {
    fn from(error: dataplane::Error) -> Self {
        Self::Pins(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pins(error) => error.fmt(f),
            Self::Usage(why) | Self::Refused(why) => f.write_str(why),
            Self::Output(error) => write!(f, "cannot write the answer: {error}"),
        }
    }
}

impl std::error::Error for Failure {}
