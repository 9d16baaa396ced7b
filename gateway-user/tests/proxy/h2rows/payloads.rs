//! What each kind of frame may hold: section 6.

use super::{
    super::{
        h2frames::{
            Frame, block,
            code::{FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, NO_ERROR, PROTOCOL_ERROR},
            data, flag, goaway, headers, kind, ping, priority, rst_stream, setting, settings,
            window_update,
        },
        h2run::{Expect, Row, padded},
    },
    GET, get, open, pieces, row,
};

const PROTOCOL: Expect = Expect::Connection(&[PROTOCOL_ERROR]);
const SIZE: Expect = Expect::Connection(&[FRAME_SIZE_ERROR]);

pub(super) fn rows() -> Vec<Row> {
    [
        data_and_headers(),
        priority_and_rst_stream(),
        parameters(),
        push_ping_goaway(),
        windows(),
    ]
    .concat()
}

fn data_and_headers() -> Vec<Row> {
    let prioritised = [&[0, 0, 0, 0, 15][..], &block(&GET)].concat();
    vec![
        row(
            "6.1",
            "DATA on stream 0",
            [data(0, "body", false)],
            PROTOCOL,
        ),
        row(
            "6.1",
            "DATA with padding as long as the payload",
            [open(1), padded(data(1, "body", true), 5, 0)],
            PROTOCOL,
        ),
        row(
            "6.1",
            "DATA without room for its padding length",
            [
                open(1),
                data(1, "", true).flagged(flag::PADDED | flag::END_STREAM),
            ],
            SIZE,
        ),
        row(
            "6.1",
            "DATA with padding is taken",
            [open(1), padded(data(1, "body", true), 9, 9), get(3)],
            Expect::Answered(1),
        ),
        row("6.2", "HEADERS on stream 0", [get(0)], PROTOCOL),
        row(
            "6.2",
            "HEADERS with padding as long as the payload",
            [padded(get(1), 200, 0)],
            PROTOCOL,
        ),
        row(
            "6.2",
            "HEADERS without room for its priority",
            [headers(1, [0; 4], true)
                .flagged(flag::PRIORITY | flag::END_HEADERS | flag::END_STREAM)],
            SIZE,
        ),
        row(
            "6.2",
            "HEADERS with padding and priority is taken",
            [padded(
                headers(1, prioritised, true)
                    .flagged(flag::PRIORITY | flag::END_HEADERS | flag::END_STREAM),
                7,
                7,
            )],
            Expect::Answered(1),
        ),
    ]
}

fn priority_and_rst_stream() -> Vec<Row> {
    vec![
        row("6.3", "PRIORITY on stream 0", [priority(0, 1)], PROTOCOL),
        row(
            "6.3",
            "PRIORITY of 4 bytes",
            [open(1), Frame::new(kind::PRIORITY, 0, 1, [0; 4])],
            Expect::Stream(1, &[FRAME_SIZE_ERROR]),
        ),
        row(
            "6.4",
            "RST_STREAM on stream 0",
            [rst_stream(0, NO_ERROR)],
            PROTOCOL,
        ),
        row(
            "6.4",
            "RST_STREAM of 3 bytes",
            [open(1), Frame::new(kind::RST_STREAM, 0, 1, [0; 3])],
            SIZE,
        ),
    ]
}

fn parameters() -> Vec<Row> {
    vec![
        row(
            "6.5",
            "SETTINGS with ACK and a payload",
            [settings(&[(setting::ENABLE_PUSH, 0)]).flagged(flag::ACK)],
            SIZE,
        ),
        row(
            "6.5",
            "SETTINGS on a stream",
            [Frame::new(kind::SETTINGS, 0, 1, [])],
            PROTOCOL,
        ),
        row(
            "6.5",
            "SETTINGS of 5 bytes",
            [Frame::new(kind::SETTINGS, 0, 0, [0; 5])],
            SIZE,
        ),
        row(
            "6.5.2",
            "SETTINGS_ENABLE_PUSH of 2",
            [settings(&[(setting::ENABLE_PUSH, 2)])],
            PROTOCOL,
        ),
        row(
            "6.5.2",
            "SETTINGS_INITIAL_WINDOW_SIZE of 2^31",
            [settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)])],
            Expect::Connection(&[FLOW_CONTROL_ERROR]),
        ),
        row(
            "6.5.2",
            "SETTINGS_MAX_FRAME_SIZE of 2^14 - 1",
            [settings(&[(setting::MAX_FRAME_SIZE, (1 << 14) - 1)])],
            PROTOCOL,
        ),
        row(
            "6.5.2",
            "SETTINGS_MAX_FRAME_SIZE of 2^24",
            [settings(&[(setting::MAX_FRAME_SIZE, 1 << 24)])],
            PROTOCOL,
        ),
        row(
            "6.5.2",
            "an unknown setting is ignored",
            [settings(&[(0xbeef, u32::MAX)]), get(1)],
            Expect::Answered(1),
        ),
        row(
            "6.5.3",
            "SETTINGS is acknowledged",
            [settings(&[(setting::MAX_CONCURRENT_STREAMS, 7)])],
            Expect::Acknowledged,
        ),
        row(
            "6.5.3",
            "the last value of a setting that stands twice holds",
            [
                settings(&[
                    (setting::INITIAL_WINDOW_SIZE, 1000),
                    (setting::INITIAL_WINDOW_SIZE, 2),
                ]),
                get(1),
            ],
            Expect::FirstData(2),
        ),
    ]
}

fn push_ping_goaway() -> Vec<Row> {
    let promise = [&[0, 0, 0, 2][..], &block(&GET)].concat();
    vec![
        row(
            "6.6",
            "PUSH_PROMISE from a client",
            [
                open(1),
                Frame::new(kind::PUSH_PROMISE, flag::END_HEADERS, 1, promise),
            ],
            PROTOCOL,
        ),
        row(
            "6.7",
            "PING is answered with its payload",
            [ping(*b"fleet\0\x01\xff")],
            Expect::Pong(*b"fleet\0\x01\xff"),
        ),
        row(
            "6.7",
            "PING with ACK is not answered",
            [ping(*b"unasked!").flagged(flag::ACK), ping(*b"answered")],
            Expect::Pong(*b"answered"),
        ),
        row(
            "6.7",
            "PING on a stream",
            [Frame::new(kind::PING, 0, 1, [0; 8])],
            PROTOCOL,
        ),
        row(
            "6.7",
            "PING of 6 bytes",
            [Frame::new(kind::PING, 0, 0, [0; 6])],
            SIZE,
        ),
        row(
            "6.8",
            "GOAWAY on a stream",
            [Frame::new(kind::GOAWAY, 0, 1, [0; 8])],
            PROTOCOL,
        ),
        row(
            "6.8",
            "GOAWAY of 7 bytes",
            [Frame::new(kind::GOAWAY, 0, 0, [0; 7])],
            SIZE,
        ),
        row(
            "7",
            "an unknown error code in RST_STREAM is no error",
            [open(1), rst_stream(1, 0xdead_beef), get(3)],
            Expect::Answered(3),
        ),
        row(
            "6.8",
            "requests before GOAWAY of the client are answered",
            [open(1), goaway(0, NO_ERROR), data(1, "body", true)],
            Expect::Answered(1),
        ),
    ]
}

fn windows() -> Vec<Row> {
    const MOST: u32 = (1 << 31) - 1;
    vec![
        row(
            "6.9",
            "WINDOW_UPDATE by 0 for the connection",
            [window_update(0, 0)],
            PROTOCOL,
        ),
        row(
            "6.9",
            "WINDOW_UPDATE by 0 for a stream",
            [open(1), window_update(1, 0)],
            Expect::Stream(1, &[PROTOCOL_ERROR]),
        ),
        row(
            "6.9",
            "WINDOW_UPDATE of 3 bytes",
            [Frame::new(kind::WINDOW_UPDATE, 0, 0, [0; 3])],
            SIZE,
        ),
        row(
            "6.9.1",
            "a window of the connection beyond 2^31 - 1",
            [window_update(0, MOST), window_update(0, MOST)],
            Expect::Connection(&[FLOW_CONTROL_ERROR]),
        ),
        row(
            "6.9.1",
            "a window of a stream beyond 2^31 - 1",
            [open(1), window_update(1, MOST), window_update(1, MOST)],
            Expect::Stream(1, &[FLOW_CONTROL_ERROR]),
        ),
        row(
            "6.9.1",
            "no more DATA than the window of the stream",
            [settings(&[(setting::INITIAL_WINDOW_SIZE, 1)]), get(1)],
            Expect::FirstData(1),
        ),
        row(
            "6.9.2",
            "a window that SETTINGS makes larger holds for open streams",
            [
                settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]),
                open(1),
                settings(&[(setting::INITIAL_WINDOW_SIZE, 3)]),
                data(1, "body", true),
            ],
            Expect::FirstData(3),
        ),
        row(
            "6.9.2",
            "a window that is negative grows from there",
            [
                open(1),
                settings(&[(setting::INITIAL_WINDOW_SIZE, 2)]),
                data(1, "body", true),
            ],
            Expect::FirstData(2),
        ),
        row(
            "6.9.2",
            "SETTINGS that makes a window larger than 2^31 - 1",
            [
                open(1),
                window_update(1, MOST - 65_535),
                settings(&[(setting::INITIAL_WINDOW_SIZE, 65_536)]),
            ],
            Expect::Connection(&[FLOW_CONTROL_ERROR]),
        ),
        pieces(
            "6.9.1",
            "a window that is opened again lets the rest through",
            [
                settings(&[(setting::INITIAL_WINDOW_SIZE, 1)]).into(),
                get(1).into(),
                window_update(1, 1000).into(),
            ],
            Expect::Answered(1),
        ),
    ]
}
