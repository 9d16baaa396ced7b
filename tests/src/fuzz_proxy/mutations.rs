//! Small changes to HTTP/1.x bytes.

/// Numbers without end from a seed: SplitMix64. Source: Steele et al., "Fast splittable pseudorandom number generators",
/// OOPSLA 2014.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same numbers for the same pair.
    pub fn new(seed: u64, case: u64) -> Self {
        let mut dice = Self(seed);
        dice.0 = dice.roll() ^ case.wrapping_mul(0xd1b5_4a32_d192_ed03);
        dice
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() % (end.max(1) as u64)) as usize
    }

    /// One of these, which must not be empty.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A range of a length of at most `most` in `len` bytes.
    fn range(&mut self, len: usize, most: usize) -> std::ops::Range<usize> {
        let from = self.below(len + 1);
        let to = (from + 1 + self.below(most)).min(len);
        from..to.max(from)
    }
}

/// What is put in.
const PIECES: &[&[u8]] = &[
    b"\0",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"\x0b",
    b"\x0c",
    b"\x7f",
    b"\xff",
    b":",
    b";",
    b",",
    b"+",
    b"-",
    b"0",
    b"0x",
    b"_",
    b"%00",
    b"%2e",
    b"/../",
    b"#",
    b"?",
    b"@",
    b"\\",
    b"*",
    b"\"",
    b"chunked",
    b", chunked",
    b"identity, ",
    b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding : chunked\r\n",
    b"Transfer-Encoding: x\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n",
    b"content-length: 33\r\n",
    b"Host: b\r\n",
    b" folded\r\n",
    b"Connection: close\r\n",
    b"Connection: content-length, host\r\n",
    b"Expect: 100-continue\r\n",
    b"Trailer: X\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    b"TE: trailers\r\n",
    b"0\r\n\r\n",
    b"1\r\na\r\n",
    b"GET /in HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"http://b",
    b"ffffffffffffffff",
    b"18446744073709551615",
];
/// What stands where a line should end.
const ENDS: &[&[u8]] = &[b"\n", b"\r", b"\n\r", b"\r\r\n", b"\r\n\r\n", b"\r\n ", b""];

/// Changes the bytes in one way; `other` is what a splice takes from.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let len = bytes.len();
    match dice.below(13) {
        0 if len > 0 => bytes[dice.below(len)] ^= 1 << dice.below(8),
        1 if len > 0 => bytes[dice.below(len)] = dice.roll() as u8,
        2 | 3 => {
            let at = dice.below(len + 1);
            bytes.splice(at..at, dice.one(PIECES).iter().copied());
        }
        4 => {
            // At the start of a line, where a whole field may stand.
            let starts = line_starts(bytes);
            let at = *dice.one(&starts);
            bytes.splice(at..at, dice.one(PIECES).iter().copied());
        }
        5 => drop(bytes.drain(dice.range(len, 4))),
        6 => {
            let line = line(bytes, dice);
            let copy = bytes[line.clone()].to_vec();
            let starts = line_starts(bytes);
            let at = match dice.below(2) {
                0 => line.end,
                _ => *dice.one(&starts),
            };
            bytes.splice(at..at, copy);
        }
        7 => drop(bytes.drain(line(bytes, dice))),
        8 => {
            let ends: Vec<usize> = ends(bytes).collect();
            if !ends.is_empty() {
                let at = *dice.one(&ends);
                bytes.splice(at..at + 2, dice.one(ENDS).iter().copied());
            }
        }
        9 => {
            for byte in &mut bytes[dice.range(len, 20)] {
                if byte.is_ascii_alphabetic() {
                    *byte ^= 0x20;
                }
            }
        }
        10 => match dice.below(4) {
            0 => bytes.truncate(dice.below(len + 1)),
            _ => {
                let from = dice.below(other.len() + 1);
                bytes.truncate(dice.below(len + 1));
                bytes.extend_from_slice(&other[from..]);
            }
        },
        11 => {
            // A length or a size that is a little wrong.
            let digits: Vec<usize> = (0..len)
                .filter(|at| bytes[*at].is_ascii_hexdigit())
                .collect();
            if !digits.is_empty() {
                bytes[*dice.one(&digits)] = *dice.one(b"0123456789abcdefF");
            }
        }
        12 => rechunk(bytes, dice),
        _ => {}
    }
}

/// Splits a chunk in two, or joins its size to the one behind.
fn rechunk(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let starts = line_starts(bytes);
    let sized = starts.iter().filter_map(|start| {
        let end = start + bytes[*start..].windows(2).position(|it| it == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[*start..end]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        let there = bytes.len().checked_sub(end + 2)?;
        (size > 1 && size <= there).then_some((*start, end + 2, size))
    });
    let sized: Vec<_> = sized.collect();
    if sized.is_empty() {
        return;
    }
    let (start, data, size) = *dice.one(&sized);
    let cut = 1 + dice.below(size - 1);
    let (first, second) = (
        bytes[data..data + cut].to_vec(),
        bytes[data + cut..data + size].to_vec(),
    );
    let mut parts = format!("{cut:x}\r\n").into_bytes();
    parts.extend(first);
    if dice.below(4) > 0 {
        parts.extend(b"\r\n");
    }
    parts.extend(format!("{:x}\r\n", size - cut).into_bytes());
    parts.extend(second);
    bytes.splice(start..data + size, parts);
}

fn ends(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let pairs = bytes.windows(2).enumerate();
    pairs.filter(|(_, pair)| *pair == b"\r\n").map(|(at, _)| at)
}

fn line_starts(bytes: &[u8]) -> Vec<usize> {
    [0].into_iter()
        .chain(ends(bytes).map(|at| at + 2))
        .collect()
}

/// Some line with its end.
fn line(bytes: &[u8], dice: &mut Dice) -> std::ops::Range<usize> {
    let starts = line_starts(bytes);
    let from = *dice.one(&starts);
    let to = starts.iter().find(|it| **it > from);
    from..to.copied().unwrap_or(bytes.len())
}
