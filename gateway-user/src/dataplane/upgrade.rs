//! Takes over what an agent of another layout left: its record, its flows, and the clients that stay with a backend.
//!
//! Maps of two layouts lie side by side until all is done, each with its own programs. Which record is true is told by
//! its term, so that a crash at any moment followed by a start of either version goes on from there:
//!
//! 1. The new maps get the record with term 0 (they are being filled) and everything of the plan but the services. Their
//!    programs are attached in front of the old ones; without services they open nothing and pass on what they do not
//!    know. The old record is true, the old programs are attached everywhere.
//! 2. The new record gets the next term and says that the old programs are still everywhere (`beside`); then the services
//!    are written. From here on new programs open the flows. Both generations are attached everywhere.
//! 3. `beside` goes, and the old programs are replaced, one interface after the other. The new programs are everywhere.
//!
//! Flows are copied in each of these states, and once more at the end; then the old maps go.

mod copy;
mod counters;
mod shapes;

use std::time::Instant;

pub use copy::{Pass, Source, Which, copy};
pub use counters::counters;
pub use shapes::{Shapes, StructShape, TableShape};

use super::{
    Error,
    clock::Clock,
    fault,
    pins::Pins,
    record::{Record, UpgradeRecord},
    tables::{Tables, failed},
};

/// Ticks that a packet may take from its look at the counter to its mark on a flow: 100 ms and more.
const SLACK: u32 = 128;

/// What lies in a pin folder.
#[derive(Debug, Default)]
pub struct Found {
    own: Option<Record>,
    others: Vec<(Pins, Option<Record>)>,
}

/// An upgrade, or the way back from one, under way.
#[derive(Debug)]
pub struct Upgrade {
    /// Where flows come from.
    pub sources: Vec<Source>,
    /// Folders that go when it is done.
    pub others: Vec<Pins>,
    /// The term that the record gets when these maps are filled.
    pub term: u64,
    /// The layout whose programs are attached everywhere when services are written; `None`: this one's are already.
    pub beside: Option<String>,
    /// When it began.
    pub began: Instant,
    /// The tick at which the last pass began, or a little earlier.
    seen: Option<u32>,
    /// What was taken over so far.
    pub told: UpgradeRecord,
}

impl Found {
    /// Reads every record there is; takes nothing and changes nothing.
    ///
    /// # Errors
    /// When one cannot be read: which of them is true cannot be told then.
    pub fn look(pins: &Pins) -> Result<Self, Error> {
        let mut others = Vec::new();
        for other in pins.others() {
            let record = Record::of_pins(&other).map_err(|error| match error {
                Error::Record(why) => Error::Record(format!("of layout {}: {why}", other.layout())),
                error => error,
            })?;
            others.push((other, record));
        }
        Ok(Self {
            own: Record::of_pins(pins)?,
            others,
        })
    }

    /// The record that is true; `None`: there is none.
    pub fn record(&self) -> Option<&Record> {
        match self.truth() {
            Some(at) => self.others[at].1.as_ref(),
            None => self.own.as_ref(),
        }
    }

    /// Which of the others has the true record; `None`: this layout's own is true, or there is none.
    fn truth(&self) -> Option<usize> {
        let term = |record: &Option<Record>| record.as_ref().map(|record| record.term);
        // Maps that are being filled have a record that says nothing, unless there is no other.
        let own = term(&self.own).filter(|term| *term > 0 || self.others.is_empty());
        let others = self.others.iter().enumerate();
        let (term, at) = others
            .filter_map(|(at, (_, record))| Some((term(record)?, at)))
            .max()?;
        own.is_none_or(|own| own < term).then_some(at)
    }

    /// Entries of the largest flow table: a new one must take them all.
    pub fn flow_table_size(&self) -> u32 {
        let sizes = self.others.iter();
        let sizes = sizes.filter_map(|(pins, _)| copy::flow_table_size(pins));
        sizes.max().unwrap_or(0)
    }

    /// Chooses the record to go on from, and prepares this layout's maps: they may steer nothing yet where their programs
    /// are not attached everywhere.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn settle(
        mut self,
        pins: &Pins,
        tables: &mut Tables,
    ) -> Result<(Record, Option<Upgrade>), Error> {
        if self.others.is_empty() {
            let mut record = self.own.unwrap_or_default();
            record.term = record.term.max(1);
            record.beside = None;
            record.shapes = Shapes::ours();
            return Ok((record, None));
        }
        let truth = self.truth();
        let sources = self.others.iter();
        let sources = sources.map(|(pins, record)| Source::open(pins, record.as_ref()));
        let mut upgrade = Upgrade {
            sources: sources.collect(),
            others: self.others.iter().map(|(pins, _)| pins.clone()).collect(),
            term: 1,
            beside: None,
            began: Instant::now(),
            seen: None,
            told: UpgradeRecord::default(),
        };
        let record = match truth {
            None => {
                let mut record = self.own.unwrap_or_default();
                upgrade.term = record.term.max(1);
                upgrade.beside = record.beside.clone();
                if let [(other, left)] = self.others.as_slice() {
                    upgrade.told.layout = other.layout().to_owned();
                    upgrade.told.version = left
                        .as_ref()
                        .map_or_else(String::new, |it| it.version.clone());
                }
                record.shapes = Shapes::ours();
                record
            }
            Some(at) => {
                let (other, record) = self.others.swap_remove(at);
                let record = record.unwrap_or_default();
                if record.beside.as_deref() != Some(pins.layout()) {
                    withdraw(tables)?;
                }
                upgrade.term = record.term + 1;
                upgrade.beside = Some(other.layout().to_owned());
                upgrade.told.layout = other.layout().to_owned();
                upgrade.told.version = record.version.clone();
                Record {
                    term: 0,
                    beside: None,
                    shapes: Shapes::ours(),
                    ..record
                }
            }
        };
        Ok((record, Some(upgrade)))
    }
}

impl Upgrade {
    /// Copies what the new table does not have, from every other folder: what the pass before has not seen, or all once
    /// more with `last`. May be done again and again.
    ///
    /// # Errors
    /// When the new maps cannot be written.
    pub fn copy(&mut self, pins: &Pins, tables: &mut Tables, last: bool) -> Result<(), Error> {
        let now = Clock::open(pins)?.read(tables)?.ticks as u32;
        let which = match self.seen {
            None => Which::First,
            Some(tick) if !last => Which::Since(tick),
            Some(_) => Which::All,
        };
        self.seen = Some(now.wrapping_sub(SLACK));
        let mut all = Pass::default();
        let mut left = Vec::new();
        for source in &self.sources {
            let pass = copy(source, pins, tables, which)?;
            left.extend(source.trouble.iter().cloned());
            all.flows += pass.flows;
            all.clients += pass.clients;
            for (why, count) in pass.left {
                *all.left.entry(why).or_default() += count;
            }
        }
        left.extend(
            all.left
                .iter()
                .map(|(why, count)| format!("{count} flows: {why}")),
        );
        self.told.flows = all.flows;
        self.told.clients = all.clients;
        self.told.left = left;
        Ok(())
    }

    /// Copies counters of traffic.
    ///
    /// # Errors
    /// When the new maps cannot be written.
    pub fn count(&self, record: &Record, tables: &mut Tables) -> Result<(), Error> {
        for source in &self.sources {
            counters(source, record, tables)?;
        }
        Ok(())
    }
}

/// Removes every service and address: what these maps' programs do not know, they pass on.
fn withdraw(tables: &mut Tables) -> Result<(), Error> {
    let services: Vec<_> = tables.services.keys().flatten().collect();
    for key in services {
        fault::point();
        tables.services.remove(&key).map_err(failed("SERVICES"))?;
    }
    let vips: Vec<_> = tables.vips.keys().flatten().collect();
    for key in vips {
        fault::point();
        tables.vips.remove(&key).map_err(failed("VIPS"))?;
    }
    Ok(())
}

/// Why there are no maps of this layout.
pub fn missing(pins: &Pins) -> Error {
    match pins.others().into_iter().next() {
        None => Error::NotPinned(pins.root().to_owned()),
        Some(other) => other_layout(&other, &Record::of_pins(&other).ok().flatten()),
    }
}

/// Refuses maps of this layout that another agent has taken over, or that are still being filled.
///
/// # Errors
/// When the true record is that of another layout.
pub fn current(pins: &Pins) -> Result<(), Error> {
    if pins.others().is_empty() {
        return Ok(());
    }
    let found = Found::look(pins)?;
    match found.truth() {
        None => Ok(()),
        Some(at) => Err(other_layout(&found.others[at].0, &found.others[at].1)),
    }
}

fn other_layout(other: &Pins, record: &Option<Record>) -> Error {
    Error::OtherLayout {
        dir: other.root().to_owned(),
        layout: other.layout().to_owned(),
        version: record
            .as_ref()
            .map_or_else(String::new, |it| it.version.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(own: Option<u64>, others: &[Option<u64>]) -> Found {
        let record = |term| Record {
            term,
            ..Record::default()
        };
        let pins = Pins::new("/nowhere");
        Found {
            own: own.map(record),
            others: others
                .iter()
                .map(|it| (pins.clone(), it.map(record)))
                .collect(),
        }
    }

    #[test]
    fn the_record_with_the_highest_term_is_true() {
        let truth = |own, others: &[_]| found(own, others).truth();
        assert_eq!(truth(None, &[]), None);
        assert_eq!(
            truth(Some(0), &[]),
            None,
            "alone, from before there were terms"
        );
        assert_eq!(truth(Some(2), &[Some(1)]), None);
        assert_eq!(truth(Some(1), &[Some(2)]), Some(0));
        assert_eq!(truth(Some(1), &[Some(2), Some(3)]), Some(1));
        assert_eq!(truth(Some(1), &[None]), None);
        assert_eq!(truth(None, &[None]), None);
    }

    #[test]
    fn maps_that_are_being_filled_never_have_the_true_record() {
        let truth = |own, others: &[_]| found(own, others).truth();
        assert_eq!(truth(Some(0), &[Some(1)]), Some(0));
        assert_eq!(truth(Some(1), &[Some(0)]), None);
        // The other is from before there were terms.
        assert_eq!(truth(Some(0), &[Some(0)]), Some(0));
        assert_eq!(truth(None, &[Some(0)]), Some(0));
    }
}
