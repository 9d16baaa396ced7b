//! What was sent of a request's body, as long as it may have to be sent once more.

use bytes::Bytes;

/// Bytes that are held at most: a longer body is sent once only.
const MOST_BYTES: usize = 64 * 1024;

/// The beginning of a body; of one that came in one piece nothing is copied or allocated.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Held {
    first: Bytes,
    rest: Vec<Bytes>,
    bytes: usize,
    /// Some of it is not held.
    lost: bool,
}

impl Held {
    /// Holds one piece more, if all before it are held and it is not too much.
    pub(in crate::proxy) fn keep(&mut self, piece: impl FnOnce() -> Bytes, len: usize) {
        if self.lost || self.bytes + len > MOST_BYTES {
            return self.drop();
        }
        self.bytes += len;
        match self.first.is_empty() {
            true => self.first = piece(),
            false => self.rest.push(piece()),
        }
    }

    /// Nothing will be sent again.
    pub(in crate::proxy) fn drop(&mut self) {
        if !self.lost {
            *self = Self {
                lost: true,
                ..Self::default()
            };
        }
    }

    /// Whether all that was sent is held.
    pub(super) fn is_whole(&self) -> bool {
        !self.lost
    }

    pub(in crate::proxy) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(in crate::proxy) fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        let first = (!self.first.is_empty()).then_some(&self.first);
        first.into_iter().chain(&self.rest)
    }
}
