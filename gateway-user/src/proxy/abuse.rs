//! Whether an HTTP/2 client makes work instead of requests. Pure: fed with the bytes of its connection and the time.
//!
//! RFC 9113 section 10.5 names what costs a server more than its client: resets, PING, SETTINGS, PRIORITY, empty
//! frames. One account holds them all: such a frame takes points from it; time, bytes that were of use, and whole
//! answers give points back. A connection whose account is empty is to be closed with ENHANCE_YOUR_CALM.
//! A frame costs a step here, no allocation, and its payload is not looked at.

use std::time::Duration;

use tokio::time::Instant;

/// Points of a new connection, and the most that an account holds: a page that is left cancels a hundred requests at
/// once, and did nothing wrong.
const MOST: u32 = 2000;
/// A point comes with time this often: a client that only keeps its connection alive needs fewer.
const POINT_EVERY: Duration = Duration::from_millis(20);
/// Bytes of data, either way, that give a point: who receives much sends WINDOW_UPDATE and, with gRPC, PING.
const BYTES_A_POINT: u64 = 512;
/// A whole answer pays for a reset of another request.
const ANSWER: u32 = 10;

/// RFC 9113 section 3.4: bytes in front of the first frame.
const PREFACE_BYTES: usize = 24;
/// RFC 9113 section 4.1.
const HEAD_BYTES: usize = 9;

/// The account of one connection.
#[derive(Debug)]
pub(super) struct Account {
    points: u32,
    /// Up to when time was paid for.
    paid: Instant,
    /// Bytes of use that do not make a point yet.
    useful: u64,
    /// The head of the frame under way.
    head: [u8; HEAD_BYTES],
    have: usize,
    /// Bytes to come before the next head.
    skip: usize,
    /// The frame that emptied the account.
    abuse: Option<Abuse>,
    /// Bytes read and written that nobody has counted yet.
    moved: (u64, u64),
}

/// The account is empty.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Abuse {
    /// Type of the frame that took the last points (RFC 9113 section 6); `None`: see [`Account::charge`].
    pub(super) frame: Option<u8>,
}

impl Account {
    /// Of a connection whose preface has not been fed yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            points: MOST,
            paid: now,
            useful: 0,
            head: [0; HEAD_BYTES],
            have: 0,
            skip: PREFACE_BYTES,
            abuse: None,
            moved: (0, 0),
        }
    }

    /// The next bytes that were read. Once it was abuse, it stays abuse.
    pub(super) fn read(&mut self, now: Instant, mut bytes: &[u8]) -> Result<(), Abuse> {
        self.pay(now);
        self.moved.0 += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let step = self.skip.min(bytes.len());
                self.skip -= step;
                bytes = &bytes[step..];
                continue;
            }
            let step = (HEAD_BYTES - self.have).min(bytes.len());
            self.head[self.have..self.have + step].copy_from_slice(&bytes[..step]);
            self.have += step;
            bytes = &bytes[step..];
            if self.have == HEAD_BYTES {
                let [a, b, c, kind, flags, ..] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]);
                self.have = 0;
                self.skip = length as usize;
                self.frame(kind, flags, length);
            }
        }
        self.verdict()
    }

    /// Bytes were written.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.moved.1 += bytes;
        self.use_of(bytes);
    }

    /// Bytes read and written since this was last asked.
    pub(super) fn moved(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.moved)
    }

    /// A request was answered whole.
    pub(super) fn answered(&mut self) {
        self.give(ANSWER);
    }

    /// Takes points for what is not seen in frames, such as a request whose fields are too large.
    pub(super) fn charge(&mut self, points: u32) -> Result<(), Abuse> {
        self.take(points, None);
        self.verdict()
    }

    /// Whether it was abuse.
    pub(super) fn verdict(&self) -> Result<(), Abuse> {
        self.abuse.map_or(Ok(()), Err)
    }

    fn frame(&mut self, kind: u8, flags: u8, length: u32) {
        match cost(kind, flags, length) {
            0 if kind == DATA => self.use_of(length.into()),
            points => self.take(points, Some(kind)),
        }
    }

    fn pay(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.paid);
        let points = passed.as_nanos() / POINT_EVERY.as_nanos();
        let points = u32::try_from(points).unwrap_or(MOST).min(MOST);
        // What is left of the time counts on; beyond a full account there is nothing to count.
        self.paid = match points {
            MOST => now,
            points => self.paid + POINT_EVERY * points,
        };
        self.give(points);
    }

    fn use_of(&mut self, bytes: u64) {
        self.useful = self.useful.saturating_add(bytes);
        let points = self.useful / BYTES_A_POINT;
        self.useful %= BYTES_A_POINT;
        self.give(u32::try_from(points).unwrap_or(MOST));
    }

    fn give(&mut self, points: u32) {
        self.points = self.points.saturating_add(points).min(MOST);
    }

    fn take(&mut self, points: u32, frame: Option<u8>) {
        match self.points.checked_sub(points) {
            Some(left) => self.points = left,
            None => {
                self.points = 0;
                self.abuse.get_or_insert(Abuse { frame });
            }
        }
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// Points that a frame takes, by what it makes the proxy do.
fn cost(kind: u8, flags: u8, length: u32) -> u32 {
    const END_STREAM: u8 = 1;
    match kind {
        DATA if length == 0 && flags & END_STREAM == 0 => 4,
        // A request is judged by its answer; a reset pays for it.
        DATA | HEADERS => 0,
        // RST_STREAM: a request, its place at a backend and its way there were for nothing.
        3 => 10,
        // SETTINGS: parsed, applied to every stream, acknowledged.
        4 => 8,
        // PING: answered.
        6 => 3,
        // CONTINUATION: a block that fits one frame needs none; one of the largest fields needs a few.
        9 => 4,
        // PRIORITY, WINDOW_UPDATE, GOAWAY, and frames that nobody knows: read, at least.
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const END_STREAM: u8 = 1;
    const SECOND: Duration = Duration::from_secs(1);

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [_, a, b, c] = (length as u32).to_be_bytes();
        let mut bytes = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        bytes.resize(HEAD_BYTES + length, 0xff);
        bytes
    }

    /// An account behind the preface.
    fn account(now: Instant) -> Account {
        let mut account = Account::new(now);
        assert_eq!(account.read(now, &[b'P'; PREFACE_BYTES]), Ok(()));
        account
    }

    /// How many of these frames, at so many a second, an hour of them or fewer, are one too many.
    fn most(kind: u8, length: usize, per_second: u32) -> Option<u32> {
        let start = Instant::now();
        let mut account = account(start);
        (0..per_second * 3600).find(|n| {
            let now = start + SECOND * *n / per_second;
            account.read(now, &frame(kind, 0, length)).is_err()
        })
    }

    #[test]
    fn floods_end_and_say_what_they_were() {
        for (kind, length) in [
            (0, 0),
            (2, 5),
            (3, 4),
            (4, 6),
            (6, 8),
            (8, 4),
            (9, 16),
            (77, 3),
        ] {
            let ended = most(kind, length, 1000);
            assert!(ended.is_some_and(|it| it < 5000), "type {kind}: {ended:?}");
        }
        let now = Instant::now();
        let mut account = account(now);
        let flood = frame(6, 0, 8).repeat(1000);
        let abuse = Err(Abuse { frame: Some(6) });
        assert_eq!(account.read(now, &flood), abuse);
        assert_eq!(account.read(now + 3600 * SECOND, &[]), abuse);
    }

    #[test]
    fn a_client_that_keeps_its_connection_alive_is_left_alone() {
        assert_eq!(most(6, 8, 10), None);
        assert_eq!(most(8, 4, 50), None);
    }

    #[test]
    fn a_page_that_is_left_may_cancel_all_its_requests() {
        let now = Instant::now();
        let mut account = account(now);
        let cancelled = [frame(1, END_STREAM, 200), frame(3, 0, 4)].concat();
        assert_eq!(account.read(now, &cancelled.repeat(128)), Ok(()));
    }

    #[test]
    fn a_client_may_cancel_half_of_its_requests_for_ever() {
        let now = Instant::now();
        let mut account = account(now);
        for _ in 0..100_000 {
            let pair = [frame(1, END_STREAM, 50), frame(1, END_STREAM, 50)].concat();
            assert_eq!(account.read(now, &pair), Ok(()));
            account.answered();
            assert_eq!(account.read(now, &frame(3, 0, 4)), Ok(()));
        }
    }

    #[test]
    fn transfers_pay_for_their_windows_and_probes() {
        let now = Instant::now();
        let mut account = account(now);
        for _ in 0..100_000 {
            account.wrote(4096);
            let asks = [frame(8, 0, 4), frame(8, 0, 4), frame(6, 0, 8)].concat();
            assert_eq!(account.read(now, &asks), Ok(()));
            assert_eq!(account.read(now, &frame(0, 0, 1024)), Ok(()));
        }
    }

    #[test]
    fn what_is_not_in_frames_can_be_charged() {
        let mut account = account(Instant::now());
        assert_eq!(account.charge(MOST), Ok(()));
        assert_eq!(account.charge(1), Err(Abuse { frame: None }));
    }

    proptest! {
        /// The model knows whole frames; the account sees bytes, in whatever pieces.
        #[test]
        fn points_do_not_depend_on_how_bytes_come(
            frames in prop::collection::vec((0..12_u8, any::<u8>(), 0..700_usize), 0..60),
            pieces in prop::collection::vec(1..200_usize, 1..20),
        ) {
            let now = Instant::now();
            let mut whole = account(now);
            for (kind, flags, length) in &frames {
                whole.frame(*kind, *flags, *length as u32);
            }
            let bytes: Vec<u8> = frames.iter().flat_map(|(k, f, l)| frame(*k, *f, *l)).collect();
            let mut cut = Account::new(now);
            let all = [vec![0; PREFACE_BYTES], bytes].concat();
            let (mut rest, mut turn) = (&all[..], pieces.iter().cycle());
            let mut last = Ok(());
            while !rest.is_empty() {
                let step = turn.next().copied().unwrap_or(1).min(rest.len());
                last = cut.read(now, &rest[..step]);
                rest = &rest[step..];
            }
            prop_assert_eq!(cut.points, whole.points);
            prop_assert_eq!(last, whole.verdict());
        }

        #[test]
        fn noise_is_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
            let now = Instant::now();
            let mut account = Account::new(now);
            let _ = account.read(now, &bytes);
            prop_assert!(account.points <= MOST);
        }
    }
}
