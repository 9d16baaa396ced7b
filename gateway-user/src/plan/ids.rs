//! Numbers of a bounded table, given out lowest first.

use std::collections::BTreeSet;

/// Free numbers from 1 to below a limit; 0 means none.
#[derive(Debug, Default)]
pub(super) struct Ids {
    limit: u32,
    /// Never given out: this one and all above.
    next: u32,
    /// Below `next` and free.
    free: BTreeSet<u32>,
}

impl Ids {
    /// All below `limit` but those taken.
    pub(super) fn new(limit: u32, taken: impl Iterator<Item = u32>) -> Self {
        let taken: BTreeSet<u32> = taken.collect();
        let next = taken.last().map_or(1, |last| last + 1);
        Self {
            limit,
            next,
            free: (1..next).filter(|id| !taken.contains(id)).collect(),
        }
    }

    /// The lowest free one; `None` if all are taken.
    pub(super) fn take(&mut self) -> Option<u32> {
        if let Some(id) = self.free.pop_first() {
            return Some(id);
        }
        (self.next < self.limit).then(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// Gives one back.
    pub(super) fn free(&mut self, id: u32) {
        self.free.insert(id);
    }
}
