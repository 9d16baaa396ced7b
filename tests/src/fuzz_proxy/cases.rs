//! Streams of requests, from a seed and a number.

use std::sync::LazyLock;

use super::{
    mutations::{Dice, mutate},
    rows,
};

/// What one client sends over one connection.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its number.
    pub number: u64,
    /// All of it.
    pub bytes: Vec<u8>,
    /// Where a new write begins, ascending.
    pub cuts: Vec<usize>,
}

/// Requests that are served, of each framing. ` / ` becomes a path of its own.
const GOOD: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\nX: b\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world",
    b"PUT / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\nTrailer: X\r\nTE: trailers\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: 1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n21\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"GET http://b/ HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nCookie: a=b; c=d\r\n\r\n",
];

/// The good ones, and the whole table of hostile ones.
static SEEDS: LazyLock<Vec<&'static [u8]>> = LazyLock::new(|| {
    let hostile = rows::rows().into_iter().map(|row| row.bytes);
    GOOD.iter().copied().chain(hostile).collect()
});

impl Case {
    /// The case of this number.
    pub fn new(seed: u64, number: u64) -> Self {
        let mut dice = Dice::new(seed, number);
        let mut bytes = Vec::new();
        for index in 0..1 + dice.below(4) {
            let mut message = pick(&mut dice);
            // Where nothing is wrong, what follows is reached.
            let changes = [0, 0, 1, 1, 2, 3][dice.below(6)];
            for _ in 0..changes {
                let other = pick(&mut dice);
                mutate(&mut message, &other, &mut dice);
            }
            bytes.extend(named(message, number, index));
        }
        if dice.below(8) == 0 {
            let other = pick(&mut dice);
            mutate(&mut bytes, &other, &mut dice);
        }
        // Ends most connections at once; where it does not, something else had swallowed it.
        let last = format!("GET /f{number}-last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        bytes.extend(last.into_bytes());
        let cuts = match dice.below(8) {
            0..3 => Vec::new(),
            3 if bytes.len() < 400 => (1..bytes.len()).collect(),
            _ => (0..1 + dice.below(8))
                .map(|_| dice.below(bytes.len()))
                .collect(),
        };
        let mut cuts = cuts;
        cuts.sort_unstable();
        cuts.dedup();
        Self {
            number,
            bytes,
            cuts,
        }
    }

    /// The bytes of each write.
    pub fn writes(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.cuts.iter().copied().chain([self.bytes.len()]);
        let mut from = 0;
        ends.map(move |to| {
            let piece = &self.bytes[from..to];
            from = to;
            piece
        })
    }
}

fn pick(dice: &mut Dice) -> Vec<u8> {
    match dice.below(2) {
        0 => dice.one(GOOD).to_vec(),
        _ => dice.one(&SEEDS).to_vec(),
    }
}

/// Gives the first ` / ` of a message a path that nobody else has.
fn named(mut message: Vec<u8>, number: u64, index: usize) -> Vec<u8> {
    let root = message.windows(3).position(|window| window == b" / ");
    if let Some(at) = root {
        message.splice(at..at + 3, format!(" /f{number}-{index} ").into_bytes());
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_told_by_its_numbers() {
        for number in 0..500 {
            let (one, other) = (Case::new(7, number), Case::new(7, number));
            assert_eq!((&one.bytes, &one.cuts), (&other.bytes, &other.cuts));
            assert_eq!(one.writes().collect::<Vec<_>>().concat(), one.bytes);
        }
        assert_ne!(Case::new(7, 1).bytes, Case::new(8, 1).bytes);
    }
}
