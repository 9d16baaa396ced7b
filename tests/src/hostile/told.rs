//! What the proxy told its attackers.

use std::collections::BTreeMap;

use serde::Serialize;

/// Counts over all connections of one kind.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Told {
    /// Connections made.
    pub opened: u64,
    /// Connections that could not be made.
    pub unmade: u64,
    /// Connections that the proxy ended.
    pub closed: u64,
    /// Of these, with a reset.
    pub reset: u64,
    /// Beats at which the proxy had not taken the bytes of an earlier one.
    pub held_back: u64,
    /// Bytes it took.
    pub sent_bytes: u64,
    /// HTTP/1.x answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// GOAWAY by error code (RFC 9113 section 7).
    pub goaways: BTreeMap<u32, u64>,
    /// RST_STREAM frames.
    pub stream_resets: u64,
}

impl Told {
    /// Adds what others were told.
    pub fn add(&mut self, other: Self) {
        self.opened += other.opened;
        self.unmade += other.unmade;
        self.closed += other.closed;
        self.reset += other.reset;
        self.held_back += other.held_back;
        self.sent_bytes += other.sent_bytes;
        self.stream_resets += other.stream_resets;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (code, count) in other.goaways {
            *self.goaways.entry(code).or_default() += count;
        }
    }
}

/// Reads what comes on one connection.
#[derive(Debug, Default)]
pub struct Ear {
    http2: Option<bool>,
    head: Vec<u8>,
    /// Bytes of the frame under way that are still to come.
    left: usize,
}

impl Ear {
    /// Hears the next bytes. HTTP/1.x answers are counted where they begin within these.
    pub fn hear(&mut self, bytes: &[u8], told: &mut Told) {
        let http2 = *self.http2.get_or_insert(!bytes.starts_with(b"HTTP/"));
        if http2 {
            self.frames(bytes, told);
            return;
        }
        let starts = bytes.windows(12).filter(|it| it.starts_with(b"HTTP/1."));
        for start in starts {
            let digits = std::str::from_utf8(&start[9..]).ok();
            if let Some(status) = digits.and_then(|it| it.parse().ok()) {
                *told.statuses.entry(status).or_default() += 1;
            }
        }
    }

    /// RFC 9113 section 4.1. Of a payload no more than its first 8 bytes are looked at.
    fn frames(&mut self, mut bytes: &[u8], told: &mut Told) {
        const RST_STREAM: u8 = 3;
        const GOAWAY: u8 = 7;
        while !bytes.is_empty() {
            if self.left > 0 {
                let step = self.left.min(bytes.len());
                self.left -= step;
                bytes = &bytes[step..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            let &[a, b, c, kind, _, _, _, _, _, ref payload @ ..] = &self.head[..] else {
                continue;
            };
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let wanted = if kind == GOAWAY { length.min(8) } else { 0 };
            if payload.len() < wanted {
                continue;
            }
            match kind {
                RST_STREAM => told.stream_resets += 1,
                GOAWAY => {
                    let code = payload.last_chunk().map_or(0, |it| u32::from_be_bytes(*it));
                    *told.goaways.entry(code).or_default() += 1;
                }
                _ => {}
            }
            self.left = length - wanted;
            self.head.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_however_their_bytes_come() {
        let bytes = [
            &[0, 0, 0, 4, 0, 0, 0, 0, 0][..],
            &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8],
            &[
                0, 0, 10, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 11, b'h', b'i',
            ],
            &[0, 0, 4, 3, 0, 0, 0, 0, 3, 0, 0, 0, 8],
        ]
        .concat();
        for size in 1..bytes.len() {
            let (mut ear, mut told) = (Ear::default(), Told::default());
            bytes.chunks(size).for_each(|it| ear.hear(it, &mut told));
            assert_eq!((told.stream_resets, &told.goaways), (2, &[(11, 1)].into()));
        }
    }

    #[test]
    fn answers_are_counted_by_status() {
        let (mut ear, mut told) = (Ear::default(), Told::default());
        ear.hear(
            b"HTTP/1.1 408 Request Timeout\r\n\r\nHTTP/1.1 400 Bad",
            &mut told,
        );
        assert_eq!(told.statuses, [(400, 1), (408, 1)].into());
    }
}
