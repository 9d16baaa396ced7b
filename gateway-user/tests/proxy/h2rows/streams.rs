//! States and numbers of streams: section 5.

use super::{
    super::{
        h2frames::{
            code::{CANCEL, NO_ERROR, PROTOCOL_ERROR, STREAM_CLOSED},
            continuation, data, priority, rst_stream, window_update,
        },
        h2run::{Expect, Piece, Row},
    },
    get, open, pieces, post, row,
};

const PROTOCOL: Expect = Expect::Connection(&[PROTOCOL_ERROR]);
/// Section 5.1 also lets a server discard what comes for a closed stream. That is meant for what was under way when the
/// server closed it; here the client has, or has seen the end.
const OVER: Expect = Expect::Stream(1, &[STREAM_CLOSED]);

pub(super) fn rows() -> Vec<Row> {
    [idle(), half_closed(), closed(), numbers()].concat()
}

fn idle() -> Vec<Row> {
    vec![
        row(
            "5.1",
            "DATA on an idle stream",
            [data(1, "body", true)],
            PROTOCOL,
        ),
        row(
            "5.1",
            "RST_STREAM on an idle stream",
            [rst_stream(1, CANCEL)],
            PROTOCOL,
        ),
        row(
            "5.1",
            "WINDOW_UPDATE on an idle stream",
            [window_update(1, 100)],
            PROTOCOL,
        ),
        row(
            "5.1",
            "CONTINUATION on an idle stream",
            [continuation(1, "", true)],
            PROTOCOL,
        ),
        row(
            "5.1",
            "PRIORITY on an idle stream is taken",
            [priority(7, 0), get(1)],
            Expect::Answered(1),
        ),
    ]
}

fn half_closed() -> Vec<Row> {
    vec![
        row(
            "5.1",
            "DATA after the end of a request",
            [get(1), data(1, "body", true)],
            OVER,
        ),
        row(
            "5.1",
            "HEADERS after the end of a request",
            [get(1), get(1)],
            OVER,
        ),
        row(
            "5.1",
            "CONTINUATION after the end of a request",
            [get(1), continuation(1, "", true)],
            PROTOCOL,
        ),
        row(
            "5.1",
            "WINDOW_UPDATE and PRIORITY after the end of a request are taken",
            [get(1), window_update(1, 100), priority(1, 0)],
            Expect::Answered(1),
        ),
        row(
            "5.1",
            "RST_STREAM after the end of a request is taken",
            [get(1), rst_stream(1, CANCEL), get(3)],
            Expect::Answered(3),
        ),
    ]
}

fn closed() -> Vec<Row> {
    let after = |name, frame: super::Frame, expect| {
        pieces(
            "5.1",
            name,
            [get(1).into(), Piece::Await(1), frame.into()],
            expect,
        )
    };
    vec![
        row(
            "5.1",
            "DATA after RST_STREAM of the client",
            [open(1), rst_stream(1, CANCEL), data(1, "body", true)],
            OVER,
        ),
        row(
            "5.1",
            "HEADERS after RST_STREAM of the client",
            [open(1), rst_stream(1, CANCEL), get(1)],
            OVER,
        ),
        row(
            "5.1",
            "CONTINUATION after RST_STREAM of the client",
            [open(1), rst_stream(1, CANCEL), continuation(1, "", true)],
            PROTOCOL,
        ),
        after(
            "DATA on a stream that both have ended",
            data(1, "body", true),
            OVER,
        ),
        after("HEADERS on a stream that both have ended", get(1), OVER),
        after(
            "CONTINUATION on a stream that both have ended",
            continuation(1, "", true),
            PROTOCOL,
        ),
        after(
            "PRIORITY on a stream that both have ended is ignored",
            priority(1, 0),
            Expect::Ignored,
        ),
        after(
            "WINDOW_UPDATE on a stream that both have just ended is ignored",
            window_update(1, 100),
            Expect::Ignored,
        ),
        after(
            "RST_STREAM on a stream that both have just ended is ignored",
            rst_stream(1, NO_ERROR),
            Expect::Ignored,
        ),
    ]
}

fn numbers() -> Vec<Row> {
    vec![
        row("5.1.1", "an even stream", [get(2)], PROTOCOL),
        row(
            "5.1.1",
            "a stream below one that was opened",
            [get(5), get(3)],
            Expect::Connection(&[STREAM_CLOSED]),
        ),
        row(
            "5.1.1",
            "numbers with gaps are taken",
            [get(1), get(1001)],
            Expect::Answered(1001),
        ),
        pieces(
            "5.1.2",
            "a stream more than SETTINGS_MAX_CONCURRENT_STREAMS",
            [Piece::OneTooMany(post(&[]))],
            Expect::Refused,
        ),
    ]
}
