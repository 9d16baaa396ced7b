//! The table: what RFC 9113 demands of a server that can be tested for from outside.
#![allow(dead_code, reason = "each suite uses a part of it")]

#[path = "h2rows/fields.rs"]
mod fields;
#[path = "h2rows/framing.rs"]
mod framing;
#[path = "h2rows/payloads.rs"]
mod payloads;
#[path = "h2rows/streams.rs"]
mod streams;

use super::{
    h2frames::{Frame, block, headers},
    h2run::{Expect, Piece, Row},
};

/// All rows, by section.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = framing::rows();
    rows.extend(streams::rows());
    rows.extend(payloads::rows());
    rows.extend(fields::rows());
    rows
}

/// What every request needs (section 8.3.1).
const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "a.example"),
];

/// A request with a body; longer fields follow by the caller.
fn post(more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = GET.to_vec();
    fields[0].1 = "POST";
    fields.extend(more);
    block(&fields)
}

/// A request that ends at once.
fn get(stream: u32) -> Frame {
    headers(stream, block(&GET), true)
}

/// A request whose body follows.
fn open(stream: u32) -> Frame {
    headers(stream, post(&[]), false)
}

/// A row after a proper beginning of the connection.
fn row<const N: usize>(
    section: &'static str,
    name: &'static str,
    send: [Frame; N],
    expect: Expect,
) -> Row {
    pieces(section, name, send.map(Piece::from), expect)
}

fn pieces<const N: usize>(
    section: &'static str,
    name: &'static str,
    send: [Piece; N],
    expect: Expect,
) -> Row {
    Row {
        section,
        name,
        begun: true,
        send: send.to_vec(),
        expect,
    }
}
