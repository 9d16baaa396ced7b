//! One row of the table of violations: what is sent, what must happen, and whether it does.
#![allow(dead_code, reason = "each suite uses a part of it")]

use std::io::{Read, Write};

use super::h2frames::{Client, Event, Frame, code, flag, headers, ping, setting};

/// One sentence of RFC 9113 (or of RFC 7541 where it says so).
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Its section.
    pub(crate) section: &'static str,
    /// What is done and, in other words, what the sentence forbids or demands. Unique.
    pub(crate) name: &'static str,
    /// The connection has begun as it should (preface, SETTINGS both ways) before this is sent.
    pub(crate) begun: bool,
    pub(crate) send: Vec<Piece>,
    pub(crate) expect: Expect,
}

/// What is sent, or waited for.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    /// Until the server has ended this stream.
    Await(u32),
    /// Requests without end, one more than the server's SETTINGS_MAX_CONCURRENT_STREAMS.
    OneTooMany(Vec<u8>),
}

impl From<Frame> for Piece {
    fn from(frame: Frame) -> Self {
        Self::Bytes(frame.bytes())
    }
}

/// What must happen. Section 5.4.1: an error of a stream may be treated as one of the connection. Section 5.4: "a generic
/// error code (such as PROTOCOL_ERROR or INTERNAL_ERROR) can always be used in place of more specific error codes".
#[derive(Clone, Debug)]
pub(crate) enum Expect {
    /// GOAWAY with one of these codes, then the end.
    Connection(&'static [u32]),
    /// The end; a GOAWAY before it may be left out (section 3.4) or has this code.
    Closed(u32),
    /// RST_STREAM of this stream with one of these codes, and the connection lives; or as `Connection`.
    Stream(u32, &'static [u32]),
    /// Section 8.1.1: a status of 400 to 499, or as `Stream` with PROTOCOL_ERROR.
    Malformed(u32),
    /// RST_STREAM of any stream with REFUSED_STREAM or PROTOCOL_ERROR (section 5.1.2).
    Refused,
    /// A response with status 200 to its end.
    Answered(u32),
    /// The connection lives, no stream is reset.
    Ignored,
    /// An acknowledgement of a second SETTINGS.
    Acknowledged,
    /// A PING with this payload comes back, and none other before.
    Pong([u8; 8]),
    /// The first DATA of a response has at least one and at most so many bytes.
    FirstData(usize),
}

/// Asked last, to learn that the connection lives and that all before has been read.
const PROBE: [u8; 8] = *b"alive?!?";

/// Runs one row on a connection of its own. The server answers every valid request with 200 and at least five bytes,
/// after it has read all of the body; the stream gives up reading after some seconds.
///
/// `Err` says what happened instead.
pub(crate) fn run_row<S: Read + Write>(connect: impl Fn() -> S, row: &Row) -> Result<(), String> {
    let mut client = Client::new(connect());
    let theirs = if row.begun { client.open(&[]) } else { vec![] };
    let mut log = vec![];
    for piece in &row.send {
        match piece {
            // A server may hang up in the middle; what it said comes first.
            Piece::Bytes(bytes) => drop(client.send_bytes(bytes)),
            Piece::Await(stream) => loop {
                let event = client.event();
                log.push(event.clone());
                match event {
                    Event::Headers {
                        stream: of,
                        end: true,
                        ..
                    }
                    | Event::Data {
                        stream: of,
                        end: true,
                        ..
                    } if of == *stream => {
                        break;
                    }
                    Event::Closed | Event::Silence => return Err(format!("no answer: {log:?}")),
                    _ => {}
                }
            },
            Piece::OneTooMany(block) => {
                let limit = theirs
                    .iter()
                    .find(|(id, _)| *id == setting::MAX_CONCURRENT_STREAMS);
                let Some((_, limit)) = limit.filter(|(_, limit)| *limit <= 1000) else {
                    return Err(format!("the server does not limit streams: {theirs:?}"));
                };
                for index in 0..=*limit {
                    let open = headers(2 * index + 1, block.clone(), false);
                    drop(client.send(&open));
                }
            }
        }
    }
    drop(client.send(&ping(PROBE)));
    loop {
        if let Some(verdict) = judge(&row.expect, &log) {
            return verdict.map_err(|what| format!("{what}: {log:?}"));
        }
        log.push(client.event());
    }
}

/// What to say of what has happened so far; nothing yet if more may come.
fn judge(expect: &Expect, log: &[Event]) -> Option<Result<(), String>> {
    let error = |what: &str| Some(Err(what.to_owned()));
    let over = log.contains(&Event::Closed);
    let silent = log.contains(&Event::Silence);
    let alive = log.contains(&Event::Pong(PROBE.to_vec()));
    let reset = |stream: Option<u32>| {
        log.iter().find_map(|event| match event {
            Event::Reset { stream: of, code } if stream.is_none_or(|it| it == *of) => Some(*code),
            _ => None,
        })
    };
    let status = |stream: u32| {
        log.iter().find_map(|event| match event {
            Event::Headers {
                stream: of, fields, ..
            } if *of == stream => {
                let status = fields.iter().find(|(name, _)| name == ":status");
                Some(status.map_or_else(String::new, |(_, value)| value.clone()))
            }
            _ => None,
        })
    };
    let goaway = log.iter().find_map(|event| match event {
        Event::GoAway { code, .. } if *code != code::NO_ERROR => Some(*code),
        _ => None,
    });
    let fits = |codes: &[u32], code: u32| {
        codes.contains(&code) || matches!(code, code::PROTOCOL_ERROR | code::INTERNAL_ERROR)
    };
    // What is an error of the connection for all rows that allow one.
    let connection = |codes: &[u32]| match goaway {
        Some(code) if !fits(codes, code) => error("GOAWAY with another code"),
        Some(_) if over => Some(Ok(())),
        Some(_) if silent => error("GOAWAY, and the connection stays open"),
        Some(_) => None,
        None if over => error("the end without GOAWAY"),
        None if silent => error("nothing happened"),
        None => None,
    };
    let settled = |done: bool| match (done && alive, goaway.is_some() || over, silent) {
        (true, false, _) => Some(Ok(())),
        (_, true, _) => error("the connection ended"),
        (_, _, true) => error("nothing happened"),
        _ => None,
    };
    match expect {
        // Frames are read in order: who answers the probe has let the violation pass.
        Expect::Connection(_) if alive && goaway.is_none() => error("the connection lives on"),
        Expect::Connection(codes) => connection(codes),
        Expect::Closed(code) => match goaway {
            Some(it) if !fits(&[*code], it) => error("GOAWAY with another code"),
            _ if over => Some(Ok(())),
            _ if silent || alive => error("the connection stays open"),
            _ => None,
        },
        Expect::Stream(stream, codes) => match reset(Some(*stream)) {
            Some(code) if !fits(codes, code) => error("RST_STREAM with another code"),
            Some(_) => settled(true),
            None => connection(codes),
        },
        Expect::Malformed(stream) => match (reset(Some(*stream)), status(*stream)) {
            (_, Some(status)) if !status.starts_with('4') => error("the request was answered"),
            (_, Some(_)) => settled(true),
            (Some(code), None) if !fits(&[], code) => error("RST_STREAM with another code"),
            (Some(_), None) => settled(true),
            (None, None) => connection(&[]),
        },
        Expect::Refused => match reset(None) {
            Some(code) if !fits(&[code::REFUSED_STREAM], code) => {
                error("RST_STREAM with another code")
            }
            Some(_) => settled(true),
            None => connection(&[]),
        },
        Expect::Answered(stream) => {
            let ended = log.iter().any(|event| match event {
                Event::Headers {
                    stream: of, end, ..
                }
                | Event::Data {
                    stream: of, end, ..
                } => of == stream && *end,
                _ => false,
            });
            match (reset(Some(*stream)), status(*stream)) {
                (Some(_), _) => error("the stream was reset"),
                (None, Some(status)) if status != "200" => error("another status"),
                (None, _) => settled(ended),
            }
        }
        Expect::Ignored if reset(None).is_some() => error("a stream was reset"),
        Expect::Ignored => settled(true),
        Expect::Acknowledged => {
            let acks = log.iter().filter(|it| **it == Event::SettingsAck).count();
            settled(acks >= 2)
        }
        Expect::Pong(payload) => {
            let first = log.iter().find_map(|event| match event {
                Event::Pong(payload) => Some(payload),
                _ => None,
            });
            match first {
                Some(first) if first[..] != payload[..] => error("another PING came back"),
                _ => settled(first.is_some()),
            }
        }
        Expect::FirstData(most) => {
            let first = log.iter().find_map(|event| match event {
                Event::Data { bytes, .. } => Some(bytes.len()),
                _ => None,
            });
            match first {
                Some(length) if length == 0 || length > *most => error("too much DATA"),
                _ => settled(first.is_some()),
            }
        }
    }
}

/// A request of these fields on stream 1 that ends at once.
pub(crate) fn request(block: Vec<u8>) -> Piece {
    headers(1, block, true).into()
}

/// A frame with padding: its length, then the payload as given.
pub(crate) fn padded(mut frame: Frame, length: u8, padding: usize) -> Frame {
    frame.flags |= flag::PADDED;
    frame.payload.insert(0, length);
    frame.payload.resize(frame.payload.len() + padding, 0);
    frame
}
