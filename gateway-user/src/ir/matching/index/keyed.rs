//! A table that is asked for keys of the lengths it has only.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// Values by key. Only the configuration adds keys, and the hash is seeded at random: a request finds a value or misses,
/// and cannot make the table slow.
#[derive(Clone, Debug)]
pub(super) struct Keyed<T> {
    map: HashMap<Box<[u8]>, T, RandomState>,
    /// Bit `n` is set if a key has `n` bytes; the last one stands for all longer ones.
    lengths: u64,
    longest: usize,
}

impl<T> Default for Keyed<T> {
    fn default() -> Self {
        Self {
            map: HashMap::default(),
            lengths: 0,
            longest: 0,
        }
    }
}

impl<T: Default> Keyed<T> {
    /// The value of this key, an empty one if it is new.
    pub(super) fn entry(&mut self, key: &[u8]) -> &mut T {
        self.lengths |= bit(key.len());
        self.longest = self.longest.max(key.len());
        self.map.entry(key.into()).or_default()
    }
}

impl<T> Keyed<T> {
    /// The value of this key.
    pub(super) fn at(&self, key: &[u8]) -> Option<&T> {
        if self.lengths & bit(key.len()) == 0 || key.len() > self.longest {
            return None;
        }
        self.map.get(key)
    }

    /// Bytes of the longest key; 0 without keys.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }
}

fn bit(len: usize) -> u64 {
    1 << len.min(63)
}
