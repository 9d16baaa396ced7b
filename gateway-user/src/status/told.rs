//! Which Events were written, so that none is written twice for the same thing.
//!
//! Pure, and made anew by each leader: names of Events say their content, so what the last leader told is found again.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::Instant,
};

use super::{
    bucket::Bucket,
    notice::{Notice, Reason},
};
use crate::problem::ObjectRef;

/// Contents whose repetitions are counted; with more than that, counting starts anew.
const REMEMBERED: usize = 4096;

type Key = (ObjectRef, Reason);

/// What to do about one notice.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Telling {
    /// Write this Event. `times` is how often this leader has told the same, this time included.
    Now(Arc<Notice>, i32),
    /// Something waits for this moment.
    At(Instant),
    /// There is nothing to tell.
    Nothing,
}

/// Events that are wanted, and those that were written.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Content of what was told of an object for a reason, while it lasts.
    told: BTreeMap<Key, u64>,
    waiting: BTreeMap<Key, Arc<Notice>>,
    /// How often a content was told.
    times: BTreeMap<u64, i32>,
    /// Objects that were in force before this leader came: it tells that again only after a change.
    known_good: BTreeSet<ObjectRef>,
    /// Objects whose errors were told and are over, which was not told yet: somebody mended them, and waits to hear it.
    mended: BTreeSet<ObjectRef>,
    /// Good news that found no place in the budget.
    dropped: u64,
    /// The last one that could not be written: those behind it come first.
    postponed: Option<Key>,
}

impl Told {
    /// These objects showed our status before: that they are in force is no news.
    pub(super) fn known_good(&mut self, objects: impl IntoIterator<Item = ObjectRef>) {
        self.known_good.extend(objects);
    }

    /// Takes what is to be told from now on; what is no longer so may be told again later.
    pub(super) fn want<'a>(&mut self, notices: impl Iterator<Item = &'a Notice>) {
        let wanted: BTreeMap<Key, &Notice> = notices
            .map(|notice| ((notice.object.clone(), notice.reason), notice))
            .collect();
        let over = |key: &Key| key.1 == Reason::FailedBuildModel && !wanted.contains_key(key);
        let over = self.told.keys().filter(|key| over(key));
        self.mended.extend(over.map(|(object, _)| object.clone()));
        self.mended.retain(|object| {
            wanted.contains_key(&(object.clone(), Reason::SuccessfullyReconciled))
        });
        self.told.retain(|key, _| wanted.contains_key(key));
        self.waiting.clear();
        for (key, notice) in wanted {
            match notice.reason {
                Reason::SuccessfullyReconciled if self.known_good.remove(&key.0) => {
                    self.told.insert(key.clone(), notice.content);
                }
                Reason::FailedBuildModel => drop(self.known_good.remove(&key.0)),
                _ => {}
            }
            if self.told.get(&key) != Some(&notice.content) {
                self.waiting.insert(key, Arc::new(notice.clone()));
            }
        }
    }

    /// The next Event within `budget`: first warnings, and that what a warning was about is mended. Other good news takes
    /// the upper half of the budget only, and is dropped if there is too much of it.
    pub(super) fn next(&mut self, budget: &mut Bucket, now: Instant) -> Telling {
        let urgent = self.next_urgent();
        if let Some(notice) = urgent.cloned() {
            return match budget.take(now) {
                true => self.telling(notice),
                false => Telling::At(budget.when(1)),
            };
        }
        while let Some(notice) = self.waiting.values().next().cloned() {
            if budget.tokens(now) > budget.most() / 2 && budget.take(now) {
                return self.telling(notice);
            }
            self.dropped += 1;
            self.done(&notice);
        }
        Telling::Nothing
    }

    /// It could not be written now. The others have their turn first.
    pub(super) fn postpone(&mut self, notice: &Notice) {
        self.postponed = Some((notice.object.clone(), notice.reason));
    }

    fn next_urgent(&self) -> Option<&Arc<Notice>> {
        let urgent =
            |(key, _): &(&Key, &Arc<Notice>)| key.1.is_warning() || self.mended.contains(&key.0);
        let behind = self.postponed.as_ref().and_then(|key| {
            let range = (Bound::Excluded(key), Bound::Unbounded);
            self.waiting.range::<Key, _>(range).find(urgent)
        });
        let next = behind.or_else(|| self.waiting.iter().find(urgent));
        next.map(|(_, notice)| notice)
    }

    fn telling(&self, notice: Arc<Notice>) -> Telling {
        let times = self.times.get(&notice.content).copied().unwrap_or(0);
        Telling::Now(notice, times.saturating_add(1))
    }

    /// It was told, or will never be.
    pub(super) fn done(&mut self, notice: &Notice) {
        let key = (notice.object.clone(), notice.reason);
        if self
            .waiting
            .get(&key)
            .is_some_and(|it| it.content == notice.content)
        {
            self.waiting.remove(&key);
        }
        if notice.reason == Reason::SuccessfullyReconciled {
            self.mended.remove(&notice.object);
        }
        self.told.insert(key, notice.content);
        if self.times.len() >= REMEMBERED {
            self.times.clear();
        }
        let times = self.times.entry(notice.content).or_insert(0);
        *times = times.saturating_add(1);
    }

    /// Good news that was dropped since the last call.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Events that wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests;
