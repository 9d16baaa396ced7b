//! Frames, blocks of fields and what continues them: sections 3, 4 and 6.10.

use super::{
    super::{
        h2frames::{
            Frame, PREFACE, block,
            code::{COMPRESSION_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR},
            continuation, data, flag, headers, kind, ping, priority, settings,
        },
        h2run::{Expect, Piece, Row},
    },
    GET, get, open, row,
};

const PROTOCOL: Expect = Expect::Connection(&[PROTOCOL_ERROR]);
const SIZE: Expect = Expect::Connection(&[FRAME_SIZE_ERROR]);
const COMPRESSION: Expect = Expect::Connection(&[COMPRESSION_ERROR]);

pub(super) fn rows() -> Vec<Row> {
    [beginning(), frames(), compression(), continuations()].concat()
}

fn beginning() -> Vec<Row> {
    let bare = |name, send: &[u8], expect| Row {
        section: "3.4",
        name,
        begun: false,
        send: vec![Piece::Bytes(send.to_vec())],
        expect,
    };
    let after_preface = |frame: Frame| [PREFACE, &frame.bytes()].concat();
    vec![
        bare(
            "a preface of other bytes",
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
            Expect::Closed(PROTOCOL_ERROR),
        ),
        bare(
            "PING before SETTINGS",
            &after_preface(ping(*b"too soon")),
            Expect::Closed(PROTOCOL_ERROR),
        ),
        bare(
            "HEADERS before SETTINGS",
            &after_preface(get(1)),
            Expect::Closed(PROTOCOL_ERROR),
        ),
        bare(
            "SETTINGS that is empty begins a connection",
            &[
                after_preface(settings(&[])),
                settings(&[]).flagged(flag::ACK).bytes(),
                get(1).bytes(),
            ]
            .concat(),
            Expect::Answered(1),
        ),
    ]
}

fn frames() -> Vec<Row> {
    let long = vec![0; 16_385];
    vec![
        row(
            "4.1",
            "a frame of unknown type is ignored",
            [
                Frame::new(0xbe, 0xff, 0, "what?"),
                Frame::new(0xbe, 0xff, 9, "what?"),
                get(1),
            ],
            Expect::Answered(1),
        ),
        row(
            "4.1",
            "flags without meaning are ignored",
            [
                ping(*b"flagged!").flagged(0xfe),
                get(1).flagged(0xd7 & !(flag::PADDED | flag::PRIORITY)),
            ],
            Expect::Answered(1),
        ),
        row(
            "4.1",
            "the reserved bit is ignored",
            [
                Frame::new(kind::PING, 0, 1 << 31, "reserved"),
                Frame::new(kind::WINDOW_UPDATE, 0, 1 << 31, [0, 0, 0, 1]),
                get(1),
            ],
            Expect::Answered(1),
        ),
        row(
            "4.2",
            "DATA of SETTINGS_MAX_FRAME_SIZE is taken",
            [open(1), data(1, &long[1..], true)],
            Expect::Answered(1),
        ),
        row(
            "4.2",
            "DATA beyond SETTINGS_MAX_FRAME_SIZE",
            [open(1), data(1, long.clone(), true)],
            Expect::Stream(1, &[FRAME_SIZE_ERROR]),
        ),
        row(
            "4.2",
            "HEADERS beyond SETTINGS_MAX_FRAME_SIZE",
            [headers(1, long.clone(), true)],
            SIZE,
        ),
        row(
            "4.2",
            "SETTINGS beyond SETTINGS_MAX_FRAME_SIZE",
            [Frame::new(kind::SETTINGS, 0, 0, vec![0; 16_386])],
            SIZE,
        ),
        row(
            "4.2",
            "a frame of unknown type beyond SETTINGS_MAX_FRAME_SIZE",
            [Frame::new(0xbe, 0, 0, long)],
            SIZE,
        ),
    ]
}

fn compression() -> Vec<Row> {
    let with = |more: &[u8]| [block(&GET), more.to_vec()].concat();
    vec![
        row(
            "4.3",
            "an index beyond the tables (RFC 7541 2.3.3)",
            [headers(1, with(&[0xff, 0x80, 0x01]), true)],
            COMPRESSION,
        ),
        row(
            "4.3",
            "index 0 (RFC 7541 6.1)",
            [headers(1, with(&[0x80]), true)],
            COMPRESSION,
        ),
        row(
            "4.3",
            "a literal that is cut off",
            [headers(1, with(&[0x10, 5, b'a']), true)],
            COMPRESSION,
        ),
        row(
            "4.3",
            "an integer without end (RFC 7541 5.1)",
            [headers(1, with(&[0xff; 20]), true)],
            COMPRESSION,
        ),
        row(
            "4.3",
            "a table size beyond SETTINGS_HEADER_TABLE_SIZE (RFC 7541 6.3)",
            [headers(
                1,
                [vec![0x3f, 0xff, 0xff, 0x03], block(&GET)].concat(),
                true,
            )],
            COMPRESSION,
        ),
        row(
            "4.3",
            "a table size at the end of a block (RFC 7541 4.2)",
            [headers(1, with(&[0x20]), true)],
            COMPRESSION,
        ),
        row(
            "4.3",
            "Huffman padding of more than 7 bits (RFC 7541 5.2)",
            [headers(1, with(&[0x10, 0x82, 0x1f, 0xff, 0]), true)],
            COMPRESSION,
        ),
        row(
            "4.3",
            "Huffman padding of zeros (RFC 7541 5.2)",
            [headers(1, with(&[0x10, 0x81, 0x18, 0]), true)],
            COMPRESSION,
        ),
        row(
            "4.3",
            "Huffman EOS inside of a string (RFC 7541 5.2)",
            [headers(
                1,
                with(&[0x10, 0x84, 0xff, 0xff, 0xff, 0xff, 0]),
                true,
            )],
            COMPRESSION,
        ),
        row(
            "4.3",
            "PRIORITY inside of a block",
            [
                headers(1, block(&GET), true).flagged(flag::END_STREAM),
                priority(3, 0),
            ],
            PROTOCOL,
        ),
        row(
            "4.3",
            "HEADERS of another stream inside of a block",
            [
                headers(1, block(&GET), true).flagged(flag::END_STREAM),
                get(3),
            ],
            PROTOCOL,
        ),
        row(
            "5.5",
            "a frame of unknown type inside of a block",
            [
                headers(1, block(&GET), true).flagged(flag::END_STREAM),
                Frame::new(0xbe, 0, 1, "what?"),
            ],
            PROTOCOL,
        ),
    ]
}

fn continuations() -> Vec<Row> {
    let whole = block(&GET);
    let (a, rest) = whole.split_at(3);
    let (b, c) = rest.split_at(10);
    let begin = || headers(1, a, true).flagged(flag::END_STREAM);
    vec![
        row(
            "6.10",
            "a block in three frames is joined",
            [begin(), continuation(1, b, false), continuation(1, c, true)],
            Expect::Answered(1),
        ),
        row(
            "6.10",
            "a fragment that is empty is taken",
            [
                begin(),
                continuation(1, "", false),
                continuation(1, rest, true),
            ],
            Expect::Answered(1),
        ),
        row(
            "6.10",
            "DATA after CONTINUATION without END_HEADERS",
            [begin(), continuation(1, b, false), data(1, "body", true)],
            PROTOCOL,
        ),
        row(
            "6.10",
            "CONTINUATION on stream 0",
            [begin(), continuation(0, rest, true)],
            PROTOCOL,
        ),
        row(
            "6.10",
            "CONTINUATION of another stream",
            [begin(), continuation(3, rest, true)],
            PROTOCOL,
        ),
        row(
            "6.10",
            "CONTINUATION after the end of a block",
            [open(1), continuation(1, "", true)],
            PROTOCOL,
        ),
        row(
            "6.10",
            "CONTINUATION after DATA",
            [open(1), data(1, "body", false), continuation(1, "", true)],
            PROTOCOL,
        ),
    ]
}
