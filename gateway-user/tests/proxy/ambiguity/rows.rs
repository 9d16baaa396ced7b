//! The table: hostile HTTP/1.x input, and the one reading of it that the proxy has.
#![allow(dead_code, reason = "each suite uses a part of it")]

#[path = "chunks.rs"]
mod chunks;
#[path = "fields.rs"]
mod fields;
#[path = "framings.rs"]
mod framings;
#[path = "hosts.rs"]
mod hosts;
#[path = "protocols.rs"]
mod protocols;
#[path = "targets.rs"]
mod targets;

/// One input and what must become of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// RFC and section, as `9112 6.3`.
    pub(crate) section: &'static str,
    pub(crate) bytes: &'static [u8],
    /// Request lines that the origin sees complete, in this order; each of these requests is answered 200.
    pub(crate) served: &'static [&'static str],
    /// What follows the answers to them.
    pub(crate) end: End,
}

/// What becomes of the client's connection once everything that is served was answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// It serves the next request.
    Stays,
    /// It ends, without a further word.
    Closes,
    /// This status, and the end; no further byte of a request reaches the origin.
    Refused(u16),
    /// The same for a body that goes wrong: its request may have begun at the origin, and is broken off there.
    Aborted(u16),
    /// The request is not whole: when the client leaves, it is broken off at the origin, without an answer.
    Waits,
}

/// All rows, by subject.
pub(crate) fn rows() -> Vec<Row> {
    [
        framings::ROWS,
        chunks::ROWS,
        fields::ROWS,
        hosts::ROWS,
        targets::ROWS,
        protocols::ROWS,
    ]
    .concat()
}

const fn row(
    name: &'static str,
    section: &'static str,
    bytes: &'static [u8],
    served: &'static [&'static str],
    end: End,
) -> Row {
    Row {
        name,
        section,
        bytes,
        served,
        end,
    }
}

/// A head that is refused.
const fn refused(
    name: &'static str,
    section: &'static str,
    bytes: &'static [u8],
    status: u16,
) -> Row {
    row(name, section, bytes, &[], End::Refused(status))
}

/// A body that is refused.
const fn aborted(name: &'static str, section: &'static str, bytes: &'static [u8]) -> Row {
    row(name, section, bytes, &[], End::Aborted(400))
}

/// Requests that are served, each once, and the connection goes on.
const fn served(
    name: &'static str,
    section: &'static str,
    bytes: &'static [u8],
    lines: &'static [&'static str],
) -> Row {
    row(name, section, bytes, lines, End::Stays)
}
