//! Which word about an object counts, when lists and watch events come late, twice or out of order. Pure.
//!
//! Versions are compared only inside one lineage: what one list said and the watch that goes on from there. A list is
//! the truth, whatever it says, and starts a new lineage.

use std::collections::BTreeMap;

use super::wire::Meta;
use crate::manifest::NamespacedName;

/// Removed objects that are remembered, so that a late word does not bring them back.
const GRAVES: usize = 4096;

/// What one watch line says of its object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Happened {
    /// Added or modified: the same to us, since either may be a repetition.
    Stands,
    Deleted,
}

/// A change to hand on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Change<T> {
    Put(NamespacedName, T),
    Remove(NamespacedName),
}

/// The versions of the objects of one list.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    /// Where a watch goes on; `None`: list first.
    version: Option<String>,
    objects: BTreeMap<NamespacedName, Option<u64>>,
    graves: BTreeMap<NamespacedName, u64>,
    /// Of an object that is not known, a word of this version or an older one comes late.
    floor: u64,
}

impl Lineage {
    /// The version to watch from.
    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Forgets where the watch stood: the server no longer knows, or it is another server.
    pub(super) fn lost(&mut self) {
        self.version = None;
    }

    /// A whole list, at its version: puts all of it, removes what it no longer has.
    pub(super) fn listed<T>(&mut self, version: String, items: Vec<(Meta, T)>) -> Vec<Change<T>> {
        let mut objects = BTreeMap::new();
        let mut changes = Vec::with_capacity(items.len());
        for (meta, item) in items {
            objects.insert(meta.name.clone(), number(&meta.version));
            changes.push(Change::Put(meta.name, item));
        }
        let before = std::mem::replace(&mut self.objects, objects);
        let gone = before
            .into_keys()
            .filter(|name| !self.objects.contains_key(name));
        changes.extend(gone.map(Change::Remove));
        self.graves.clear();
        self.floor = number(&version).unwrap_or(0);
        self.version = Some(version);
        changes
    }

    /// One line of the watch. `None`: it comes late, or again. `item` is only made if it counts.
    pub(super) fn event<T>(
        &mut self,
        happened: Happened,
        meta: &Meta,
        item: impl FnOnce() -> T,
    ) -> Option<Change<T>> {
        let version = number(&meta.version);
        self.advance(&meta.version);
        let name = &meta.name;
        match happened {
            Happened::Stands => {
                if self.late(name, version) {
                    return None;
                }
                self.graves.remove(name);
                self.objects.insert(name.clone(), version);
                Some(Change::Put(name.clone(), item()))
            }
            Happened::Deleted => {
                // The version of a deletion is its own, newer than that of the object; some servers repeat the
                // object's last one.
                let known = self.objects.get(name);
                let older = known.is_some_and(
                    |known| matches!((known, version), (Some(known), Some(now)) if now < *known),
                );
                if older {
                    return None;
                }
                if let Some(version) = version {
                    let grave = self.graves.entry(name.clone()).or_insert(0);
                    *grave = version.max(*grave);
                    self.bury();
                }
                let had = self.objects.remove(name);
                had.map(|_| Change::Remove(name.clone()))
            }
        }
    }

    /// A bookmark: everything up to this version was said.
    pub(super) fn bookmark(&mut self, version: &str) {
        self.advance(version);
        if let Some(version) = number(version) {
            self.graves.retain(|_, grave| *grave > version);
            self.floor = self.floor.max(version);
        }
    }

    fn late(&self, name: &NamespacedName, version: Option<u64>) -> bool {
        let Some(version) = version else { return false };
        match self.objects.get(name) {
            Some(Some(known)) => version <= *known,
            Some(None) => false,
            None => version <= self.graves.get(name).copied().unwrap_or(0).max(self.floor),
        }
    }

    fn bury(&mut self) {
        while self.graves.len() > GRAVES {
            let oldest = self.graves.iter().min_by_key(|(_, version)| **version);
            let Some((name, version)) = oldest.map(|(name, version)| (name.clone(), *version))
            else {
                return;
            };
            self.graves.remove(&name);
            self.floor = self.floor.max(version);
        }
    }

    /// Never back: a watch that goes on from an older version hears again what was said.
    fn advance(&mut self, version: &str) {
        let older = match (self.version.as_deref().and_then(number), number(version)) {
            (Some(had), Some(now)) => now <= had,
            _ => version.is_empty(),
        };
        if !older && self.version.is_some() {
            self.version = Some(version.to_owned());
        }
    }
}

/// Kubernetes 1.35 documents versions as integers that may be compared; those of aggregated servers may be any text.
fn number(version: &str) -> Option<u64> {
    version.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> NamespacedName {
        NamespacedName {
            namespace: "n".into(),
            name: name.into(),
        }
    }

    fn meta(of: &str, version: &str) -> Meta {
        Meta {
            name: name(of),
            version: version.into(),
        }
    }

    fn listed(version: &str, objects: &[(&str, &str)]) -> Lineage {
        let mut lineage = Lineage::default();
        lineage.listed(
            version.into(),
            objects
                .iter()
                .map(|(of, version)| (meta(of, version), ()))
                .collect(),
        );
        lineage
    }

    fn says(
        lineage: &mut Lineage,
        happened: Happened,
        of: &str,
        version: &str,
    ) -> Option<Change<String>> {
        lineage.event(happened, &meta(of, version), || version.to_owned())
    }

    use Happened::{Deleted, Stands};

    #[test]
    fn a_list_puts_all_of_it_and_removes_what_it_no_longer_has() {
        let mut lineage = listed("10", &[("a", "1"), ("b", "2")]);
        let changes = lineage.listed(
            "20".into(),
            vec![(meta("b", "2"), "b"), (meta("c", "15"), "c")],
        );
        assert_eq!(
            changes,
            [
                Change::Put(name("b"), "b"),
                Change::Put(name("c"), "c"),
                Change::Remove(name("a"))
            ]
        );
        assert_eq!(lineage.version(), Some("20"));
    }

    #[test]
    fn a_list_is_the_truth_also_when_its_versions_are_lower() {
        let mut lineage = listed("1000", &[("a", "999")]);
        let changes = lineage.listed("5".into(), vec![(meta("a", "3"), ())]);
        assert_eq!(changes, [Change::Put(name("a"), ())]);
        assert!(says(&mut lineage, Stands, "a", "6").is_some());
        assert_eq!(lineage.version(), Some("6"));
    }

    #[test]
    fn events_that_come_twice_or_late_change_nothing() {
        let mut lineage = listed("10", &[("a", "9")]);
        assert!(says(&mut lineage, Stands, "a", "12").is_some());
        assert_eq!(says(&mut lineage, Stands, "a", "12"), None);
        assert_eq!(says(&mut lineage, Stands, "a", "11"), None);
        assert_eq!(says(&mut lineage, Deleted, "a", "11"), None);
        assert_eq!(lineage.version(), Some("12"));
    }

    #[test]
    fn a_removed_object_is_not_brought_back_by_a_late_word() {
        let mut lineage = listed("10", &[("a", "9")]);
        assert_eq!(
            says(&mut lineage, Deleted, "a", "12"),
            Some(Change::Remove(name("a")))
        );
        assert_eq!(says(&mut lineage, Deleted, "a", "12"), None);
        assert_eq!(says(&mut lineage, Stands, "a", "11"), None);
        assert_eq!(
            says(&mut lineage, Stands, "b", "10"),
            None,
            "older than the list that did not have it"
        );
        assert!(says(&mut lineage, Stands, "a", "13").is_some());
    }

    #[test]
    fn a_deletion_that_comes_before_its_addition_wins() {
        let mut lineage = listed("10", &[]);
        assert_eq!(says(&mut lineage, Deleted, "a", "12"), None);
        assert_eq!(says(&mut lineage, Stands, "a", "11"), None);
    }

    #[test]
    fn every_order_of_the_same_events_ends_the_same() {
        let events = [
            (Stands, "a", "11"),
            (Stands, "a", "12"),
            (Deleted, "a", "13"),
            (Stands, "b", "14"),
            (Deleted, "b", "15"),
            (Stands, "b", "16"),
        ];
        let mut order: Vec<usize> = (0..events.len()).collect();
        let mut orders = 0;
        permute(&mut order, 0, &mut |order| {
            let mut lineage = listed("10", &[]);
            let mut state = BTreeMap::new();
            // Each also twice.
            for index in order.iter().chain(order) {
                let (happened, of, version) = events[*index];
                match says(&mut lineage, happened, of, version) {
                    Some(Change::Put(name, version)) => drop(state.insert(name, version)),
                    Some(Change::Remove(name)) => drop(state.remove(&name)),
                    None => {}
                }
            }
            assert_eq!(
                state,
                BTreeMap::from([(name("b"), "16".to_owned())]),
                "{order:?}"
            );
            assert_eq!(lineage.version(), Some("16"));
            orders += 1;
        });
        assert_eq!(orders, 720);
    }

    fn permute(order: &mut [usize], from: usize, each: &mut impl FnMut(&[usize])) {
        if from == order.len() {
            return each(order);
        }
        for other in from..order.len() {
            order.swap(from, other);
            permute(order, from + 1, each);
            order.swap(from, other);
        }
    }

    #[test]
    fn versions_that_are_no_numbers_are_taken_as_they_come() {
        let mut lineage = listed("x", &[("a", "p")]);
        assert!(says(&mut lineage, Stands, "a", "q").is_some());
        assert!(says(&mut lineage, Stands, "a", "p").is_some());
        assert_eq!(lineage.version(), Some("p"));
        assert_eq!(
            says(&mut lineage, Deleted, "a", "r"),
            Some(Change::Remove(name("a")))
        );
    }

    #[test]
    fn a_bookmark_moves_on_and_lets_removed_objects_be_forgotten() {
        let mut lineage = listed("10", &[("a", "9")]);
        says(&mut lineage, Deleted, "a", "12");
        lineage.bookmark("20");
        assert_eq!(lineage.version(), Some("20"));
        assert!(lineage.graves.is_empty());
        assert_eq!(says(&mut lineage, Stands, "a", "11"), None);
        lineage.bookmark("15");
        assert_eq!(lineage.version(), Some("20"));
        lineage.lost();
        lineage.bookmark("30");
        assert_eq!(lineage.version(), None, "only a list starts anew");
    }

    #[test]
    fn the_memory_of_removed_objects_is_bounded() {
        let mut lineage = listed("1", &[]);
        for version in 2..10_000u64 {
            says(
                &mut lineage,
                Deleted,
                &format!("o{version}"),
                &version.to_string(),
            );
        }
        assert_eq!(lineage.graves.len(), GRAVES);
        assert_eq!(says(&mut lineage, Stands, "o2", "2"), None);
        assert_eq!(says(&mut lineage, Stands, "o9999", "9998"), None);
    }
}
