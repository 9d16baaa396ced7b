//! HTTP/2 as single frames, right or wrong, over any stream of bytes: RFC 9113 for tests.
//!
//! Nothing here keeps to the protocol by itself; a test says what is sent, byte by byte if need be.
#![allow(dead_code, reason = "each suite uses a part of the client")]

use std::io::{self, Read, Write};

use fluke_hpack::Decoder;

/// Section 3.4.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags of frames; `ACK` is of SETTINGS and PING.
pub(crate) mod flag {
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Parameters of SETTINGS (section 6.5.2).
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
}

/// Error codes (section 7).
pub(crate) mod code {
    pub(crate) const NO_ERROR: u32 = 0;
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const INTERNAL_ERROR: u32 = 2;
    pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
    pub(crate) const STREAM_CLOSED: u32 = 5;
    pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
    pub(crate) const REFUSED_STREAM: u32 = 7;
    pub(crate) const CANCEL: u32 = 8;
    pub(crate) const COMPRESSION_ERROR: u32 = 9;
}

/// One frame, whatever is in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// With the reserved bit.
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        let payload = payload.into();
        Self {
            kind,
            flags,
            stream,
            payload,
        }
    }

    /// Section 4.1: length, type, flags, stream.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = (self.payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The same with other flags.
    pub(crate) fn flagged(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }
}

pub(crate) fn settings(parameters: &[(u16, u32)]) -> Frame {
    let payload: Vec<u8> = parameters
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    Frame::new(kind::SETTINGS, 0, 0, payload)
}

/// HEADERS with the whole block.
pub(crate) fn headers(stream: u32, block: impl Into<Vec<u8>>, end_stream: bool) -> Frame {
    let flags = flag::END_HEADERS | u8::from(end_stream);
    Frame::new(kind::HEADERS, flags, stream, block)
}

pub(crate) fn continuation(stream: u32, fragment: impl Into<Vec<u8>>, last: bool) -> Frame {
    let flags = if last { flag::END_HEADERS } else { 0 };
    Frame::new(kind::CONTINUATION, flags, stream, fragment)
}

pub(crate) fn data(stream: u32, bytes: impl Into<Vec<u8>>, end_stream: bool) -> Frame {
    Frame::new(kind::DATA, u8::from(end_stream), stream, bytes)
}

pub(crate) fn rst_stream(stream: u32, code: u32) -> Frame {
    Frame::new(kind::RST_STREAM, 0, stream, code.to_be_bytes())
}

pub(crate) fn ping(payload: [u8; 8]) -> Frame {
    Frame::new(kind::PING, 0, 0, payload)
}

pub(crate) fn goaway(last_stream: u32, code: u32) -> Frame {
    let payload = [last_stream.to_be_bytes(), code.to_be_bytes()].concat();
    Frame::new(kind::GOAWAY, 0, 0, payload)
}

pub(crate) fn window_update(stream: u32, increment: u32) -> Frame {
    Frame::new(kind::WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

/// Depends on another stream with the default weight.
pub(crate) fn priority(stream: u32, on: u32) -> Frame {
    let payload = [&on.to_be_bytes()[..], &[15]].concat();
    Frame::new(kind::PRIORITY, 0, stream, payload)
}

/// A block of fields, each a literal that is never indexed, as text (RFC 7541 section 6.2.3). Names and values may be
/// whatever bytes; each shorter than 16 KiB.
pub(crate) fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = vec![];
    for (name, value) in fields {
        block.push(0x10);
        for text in [name.as_ref(), value.as_ref()] {
            // RFC 7541 section 5.1: a length of 7 bits, and more of 7 bits each.
            if text.len() < 127 {
                block.push(text.len() as u8);
            } else {
                let rest = text.len() - 127;
                block.extend([127, (rest % 128) as u8 | 0x80, (rest / 128) as u8]);
            }
            block.extend(text);
        }
    }
    block
}

/// What a server sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    Settings(Vec<(u16, u32)>),
    SettingsAck,
    /// HEADERS with all that continues it.
    Headers {
        stream: u32,
        fields: Vec<(String, String)>,
        end: bool,
    },
    Data {
        stream: u32,
        bytes: Vec<u8>,
        end: bool,
    },
    Reset {
        stream: u32,
        code: u32,
    },
    GoAway {
        last_stream: u32,
        code: u32,
    },
    Pong(Vec<u8>),
    /// Any other frame.
    Other(Frame),
    /// The connection is over.
    Closed,
    /// Nothing for as long as the stream waits.
    Silence,
}

/// A connection to a server.
pub(crate) struct Client<S> {
    stream: S,
    decoder: Decoder<'static>,
    received: Vec<u8>,
    /// HEADERS that is not whole yet.
    partial: Option<Frame>,
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            decoder: Decoder::new(),
            received: vec![],
            partial: None,
        }
    }

    pub(crate) fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.send_bytes(&frame.bytes())
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Begins the connection with these settings, and waits for those of the server, which it acknowledges.
    pub(crate) fn open(&mut self, parameters: &[(u16, u32)]) -> Vec<(u16, u32)> {
        let begin = [PREFACE, &settings(parameters).bytes()].concat();
        self.send_bytes(&begin).expect("a server reads the preface");
        match self.event() {
            Event::Settings(theirs) => {
                self.send(&settings(&[]).flagged(flag::ACK))
                    .expect("a server reads the acknowledgement");
                theirs
            }
            other => panic!("a server begins with SETTINGS (section 3.4), not with {other:?}"),
        }
    }

    /// The next frame; none at the end.
    pub(crate) fn frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some((&[a, b, c, kind, flags, d, e, f, g], rest)) =
                self.received.split_first_chunk()
            {
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                if rest.len() >= length {
                    let stream = u32::from_be_bytes([d, e, f, g]);
                    let frame = Frame::new(kind, flags, stream, &rest[..length]);
                    self.received.drain(..9 + length);
                    return Ok(Some(frame));
                }
            }
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes)? {
                0 => return Ok(None),
                read => self.received.extend(&bytes[..read]),
            }
        }
    }

    /// The next thing that is told. A server that sends what cannot be read fails the test.
    pub(crate) fn event(&mut self) -> Event {
        loop {
            match self.frame() {
                Ok(Some(frame)) => {
                    if let Some(event) = self.understand(frame) {
                        return event;
                    }
                }
                Ok(None) => return Event::Closed,
                Err(cause) => {
                    return match cause.kind() {
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Event::Silence,
                        _ => Event::Closed,
                    };
                }
            }
        }
    }

    /// None while a block of fields goes on.
    fn understand(&mut self, frame: Frame) -> Option<Event> {
        let Frame {
            kind,
            flags,
            stream,
            ref payload,
        } = frame;
        let word = |at: usize| {
            let bytes = payload[at..at + 4].try_into().expect("four bytes");
            u32::from_be_bytes(bytes)
        };
        let end = flags & flag::END_STREAM != 0;
        assert!(
            self.partial.is_none() || kind == kind::CONTINUATION,
            "{frame:?} inside of a block of fields"
        );
        Some(match kind {
            kind::SETTINGS if flags & flag::ACK != 0 => Event::SettingsAck,
            kind::SETTINGS => {
                let parameters = payload.chunks_exact(6).map(|it| {
                    let id = u16::from_be_bytes([it[0], it[1]]);
                    (id, u32::from_be_bytes([it[2], it[3], it[4], it[5]]))
                });
                Event::Settings(parameters.collect())
            }
            kind::DATA => Event::Data {
                stream,
                bytes: payload.clone(),
                end,
            },
            kind::RST_STREAM => Event::Reset {
                stream,
                code: word(0),
            },
            kind::GOAWAY => Event::GoAway {
                last_stream: word(0),
                code: word(4),
            },
            kind::PING if flags & flag::ACK != 0 => Event::Pong(frame.payload),
            kind::HEADERS | kind::CONTINUATION => {
                let mut whole = match self.partial.take() {
                    Some(mut first) => {
                        first.payload.extend(payload);
                        first
                    }
                    None => frame,
                };
                whole.flags |= flags & flag::END_HEADERS;
                if whole.flags & flag::END_HEADERS == 0 {
                    self.partial = Some(whole);
                    return None;
                }
                let fields = self.decoder.decode(&whole.payload);
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                Event::Headers {
                    stream: whole.stream,
                    fields: fields
                        .expect("a block of fields")
                        .into_iter()
                        .map(|(name, value)| (text(name), text(value)))
                        .collect(),
                    end: whole.flags & flag::END_STREAM != 0,
                }
            }
            _ => Event::Other(frame),
        })
    }
}
