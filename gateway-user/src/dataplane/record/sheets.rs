//! Sheets in a map of chunks: a change writes some sheets aside, and one header makes all of them valid at once.
//!
//! A chunk holds which sheet it belongs to, the change that wrote it, and its part. Of a sheet the last version counts
//! that is not newer than the header's change. Older versions are removed after the header was written, so a crash
//! leaves either change whole.
//!
//! The header also holds a digest of all chunks that count. The map cannot be read at one moment: a reader may have met
//! a chunk just before it was removed, and come too late for the one that replaced it. The digest tells.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use gateway_common::{hash, maps::METADATA_CHUNK};

use super::{Part, Record};
use crate::dataplane::{
    Error, fault,
    tables::{Metadata, Tables, failed},
};

/// Key of the header; chunks have others.
const HEADER: u32 = 0;
/// Most chunks, both versions of a sheet counted.
const MOST: u32 = (1 << 16) - 1;
/// A reader tries again this often when the agent writes at the same time.
const ATTEMPTS: usize = 50;
/// Bytes of a chunk before its text.
const STAMP: usize = 24;
const ROOM: usize = METADATA_CHUNK - STAMP;

type Chunk = [u8; METADATA_CHUNK];
/// Name and text.
type Sheet = (String, Vec<u8>);
/// Parts of one version of a sheet: the key of each, and how many there should be.
type Version = BTreeMap<u16, (u32, u16)>;

/// What stands at the beginning of a chunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    /// The change that wrote it.
    change: u64,
    /// The sheet, by number.
    sheet: u32,
    /// Its place in the sheet.
    part: u16,
    /// Chunks of the sheet; 0: the sheet is gone.
    parts: u16,
    /// Bytes of text in this chunk.
    len: u16,
}

impl Stamp {
    fn chunk(self, text: &[u8]) -> Chunk {
        let mut chunk = [0; METADATA_CHUNK];
        chunk[..8].copy_from_slice(&self.change.to_le_bytes());
        chunk[8..12].copy_from_slice(&self.sheet.to_le_bytes());
        chunk[12..14].copy_from_slice(&self.part.to_le_bytes());
        chunk[14..16].copy_from_slice(&self.parts.to_le_bytes());
        chunk[16..18].copy_from_slice(&self.len.to_le_bytes());
        chunk[STAMP..STAMP + text.len()].copy_from_slice(text);
        chunk
    }

    fn of(chunk: &Chunk) -> Self {
        let short = |at: usize| u16::from_le_bytes([chunk[at], chunk[at + 1]]);
        let mut change = [0; 8];
        change.copy_from_slice(&chunk[..8]);
        let mut sheet = [0; 4];
        sheet.copy_from_slice(&chunk[8..12]);
        Self {
            change: u64::from_le_bytes(change),
            sheet: u32::from_le_bytes(sheet),
            part: short(12),
            parts: short(14),
            len: short(16).min(ROOM as u16),
        }
    }
}

/// What the header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Header {
    /// Chunks of newer changes do not count.
    change: u64,
    /// [`digest`] of the chunks that count; 0 in one written before there were digests.
    digest: u64,
}

impl Header {
    fn chunk(self) -> Chunk {
        let mut chunk = [0; METADATA_CHUNK];
        chunk[..8].copy_from_slice(&self.change.to_le_bytes());
        chunk[8..16].copy_from_slice(&self.digest.to_le_bytes());
        chunk
    }

    fn of(chunk: &Chunk) -> Self {
        let long = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&chunk[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        Self {
            change: long(0),
            digest: long(8),
        }
    }

    /// Whether these are all the chunks that it makes valid, and no others.
    fn covers(self, valid: &BTreeMap<u32, Valid>) -> bool {
        let marks = valid.values().map(|it| marks(&it.keys, it.change));
        self.digest == 0 || self.digest == digest(marks.fold(0, u64::wrapping_add))
    }
}

/// The valid version of a sheet.
#[derive(Debug, Eq, PartialEq)]
struct Valid {
    change: u64,
    /// Keys of its chunks, in order.
    keys: Vec<u32>,
}

/// A sum over chunks, so that it can be kept up to date by the chunks that come and go.
fn marks(keys: &[u32], change: u64) -> u64 {
    let mark = |key: &u32| hash::name(change, &key.to_le_bytes());
    keys.iter().map(mark).fold(0, u64::wrapping_add)
}

/// A sum of marks as the header holds it, where 0 means none.
fn digest(marks: u64) -> u64 {
    marks.max(1)
}

/// Writes the record of one agent.
#[derive(Debug, Default)]
pub struct Recorder {
    /// The number of the next change. One that failed keeps its own: what it may have left is never taken for the next.
    next_change: u64,
    /// [`marks`] of all sheets.
    marks: u64,
    sheets: HashMap<String, Stored>,
    next_sheet: u32,
    /// Keys that hold nothing.
    free: BTreeSet<u32>,
    next_key: u32,
}

#[derive(Clone, Debug)]
struct Stored {
    number: u32,
    change: u64,
    content: u64,
    keys: Vec<u32>,
}

/// A version of a sheet on its way into the map.
struct Writing {
    name: String,
    number: u32,
    content: u64,
    keys: Vec<u32>,
    gone: bool,
}

impl Recorder {
    /// Takes up what an earlier agent left, and clears what it left half written.
    pub fn open(tables: &mut Tables) -> Result<Self, Error> {
        let change = header(&tables.metadata)?.map_or(0, |header| header.change);
        let chunks = chunks(&tables.metadata);
        let valid = versions(&chunks, change);
        let mut recorder = Self {
            next_change: change + 1,
            next_key: HEADER + 1,
            ..Self::default()
        };
        let mut used = BTreeSet::new();
        for (number, Valid { change, keys }) in valid {
            let text = text(&chunks, &keys);
            let (name, content) = split(&text);
            used.extend(keys.iter().copied());
            recorder.marks = recorder.marks.wrapping_add(marks(&keys, change));
            let stored = Stored {
                number,
                change,
                content: hash::name(0, content),
                keys,
            };
            recorder.next_sheet = recorder.next_sheet.max(number + 1);
            recorder.sheets.insert(name, stored);
        }
        for key in leftovers(&chunks, &used) {
            remove(tables, key)?;
        }
        recorder.next_key = used.last().map_or(HEADER, |last| *last) + 1;
        recorder.free = (HEADER + 1..recorder.next_key)
            .filter(|key| !used.contains(key))
            .collect();
        Ok(recorder)
    }

    /// Writes these parts of the record, all or none. What is there already is not written again.
    pub fn save(
        &mut self,
        tables: &mut Tables,
        record: &Record,
        parts: &BTreeSet<Part>,
    ) -> Result<(), Error> {
        let mut changes = Vec::new();
        for part in parts {
            let sheet = record
                .sheet(part)
                .map_err(|e| Error::Record(e.to_string()))?;
            changes.push((part.name(), sheet));
        }
        self.write(tables, changes)
    }

    /// Writes the whole record, and removes what it does not have.
    pub fn save_all(&mut self, tables: &mut Tables, record: &Record) -> Result<(), Error> {
        let mut changes = Vec::new();
        let mut names = BTreeSet::new();
        for part in record.parts() {
            let sheet = record
                .sheet(&part)
                .map_err(|e| Error::Record(e.to_string()))?;
            names.insert(part.name());
            changes.push((part.name(), sheet));
        }
        let gone = self.sheets.keys().filter(|name| !names.contains(*name));
        changes.extend(gone.map(|name| (name.clone(), None)));
        self.write(tables, changes)
    }

    fn write(
        &mut self,
        tables: &mut Tables,
        changes: Vec<(String, Option<Vec<u8>>)>,
    ) -> Result<(), Error> {
        let change = self.next_change;
        self.next_change += 1;
        let mut written: Vec<Writing> = Vec::new();
        for (name, sheet) in changes {
            let known = self.sheets.get(&name);
            let content = sheet.as_deref().map(|sheet| hash::name(0, sheet));
            let same = known.map(|known| known.content) == content;
            if same {
                continue;
            }
            let number = match known {
                Some(known) => known.number,
                None => {
                    self.next_sheet += 1;
                    self.next_sheet - 1
                }
            };
            let mut writing = Writing {
                number,
                content: content.unwrap_or(0),
                keys: Vec::new(),
                gone: sheet.is_none(),
                name,
            };
            let done = self.put(tables, change, &mut writing, sheet.as_deref());
            written.push(writing);
            if let Err(error) = done {
                for writing in written {
                    self.clear(tables, writing.keys);
                }
                return Err(error);
            }
        }
        if written.is_empty() {
            return Ok(());
        }
        let marks = self.marks_after(change, &written);
        let header = Header {
            change,
            digest: digest(marks),
        };
        if let Err(error) = put(tables, HEADER, &header.chunk()) {
            for writing in written {
                self.clear(tables, writing.keys);
            }
            return Err(error);
        }
        self.marks = marks;
        for writing in written {
            if let Some(old) = self.sheets.remove(&writing.name) {
                self.clear(tables, old.keys);
            }
            if writing.gone {
                // Only now: as long as an old version is there, this one says that it is not valid.
                self.clear(tables, writing.keys);
                continue;
            }
            let stored = Stored {
                number: writing.number,
                change,
                content: writing.content,
                keys: writing.keys,
            };
            self.sheets.insert(writing.name, stored);
        }
        Ok(())
    }

    /// The sum of marks once these are valid in place of what they replace. Costs what they are, not what there is.
    fn marks_after(&self, change: u64, written: &[Writing]) -> u64 {
        written.iter().fold(self.marks, |sum, it| {
            let old = self.sheets.get(&it.name);
            let old = old.map_or(0, |old| marks(&old.keys, old.change));
            let new = if it.gone { 0 } else { marks(&it.keys, change) };
            sum.wrapping_sub(old).wrapping_add(new)
        })
    }

    fn put(
        &mut self,
        tables: &mut Tables,
        change: u64,
        writing: &mut Writing,
        sheet: Option<&[u8]>,
    ) -> Result<(), Error> {
        let mut text = writing.name.clone().into_bytes();
        text.push(b'\n');
        text.extend_from_slice(sheet.unwrap_or_default());
        let count = text.len().div_ceil(ROOM);
        let count = u16::try_from(count).map_err(|_| {
            Error::Record(format!(
                "{}: {} bytes are too many",
                writing.name,
                text.len()
            ))
        })?;
        for (part, text) in (0..).zip(text.chunks(ROOM)) {
            let key = self.key()?;
            writing.keys.push(key);
            let stamp = Stamp {
                change,
                sheet: writing.number,
                part,
                parts: if writing.gone { 0 } else { count },
                len: text.len() as u16,
            };
            put(tables, key, &stamp.chunk(text))?;
        }
        Ok(())
    }

    fn key(&mut self) -> Result<u32, Error> {
        if let Some(key) = self.free.pop_first() {
            return Ok(key);
        }
        if self.next_key >= MOST {
            return Err(Error::Record(format!("more than {MOST} chunks")));
        }
        self.next_key += 1;
        Ok(self.next_key - 1)
    }

    fn clear(&mut self, tables: &mut Tables, keys: Vec<u32>) {
        for key in keys {
            fault::point();
            // One that stays is overwritten when its key is used again.
            let _ = tables.metadata.remove(&key);
            self.free.insert(key);
        }
    }
}

/// Every valid sheet by name; `None` if no agent has finished writing one.
pub(super) fn read(metadata: &Metadata) -> Result<Option<Vec<Sheet>>, Error> {
    for _ in 0..ATTEMPTS {
        let Some(before) = header(metadata)? else {
            return Ok(None);
        };
        let chunks = chunks(metadata);
        let valid = versions(&chunks, before.change);
        // What a header names stays in place until the next header is written.
        if header(metadata)? == Some(before) && before.covers(&valid) {
            let sheet = |valid: &Valid| {
                let text = text(&chunks, &valid.keys);
                let (name, content) = split(&text);
                (name, content.to_vec())
            };
            return Ok(Some(valid.values().map(sheet).collect()));
        }
    }
    Err(Error::Record(
        "it changes faster than it can be read".to_owned(),
    ))
}

fn header(metadata: &Metadata) -> Result<Option<Header>, Error> {
    match metadata.get(&HEADER, 0) {
        Ok(chunk) => Ok(Some(Header::of(&chunk))),
        Err(aya::maps::MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(failed("METADATA")(error)),
    }
}

fn chunks(metadata: &Metadata) -> BTreeMap<u32, Chunk> {
    // A walk that removals send back to the start ends after twice the map.
    let all = metadata.iter().take(2 * MOST as usize);
    let chunks = all.flatten().filter(|(key, _)| *key != HEADER);
    chunks.collect()
}

/// Each sheet's last version that is complete and not newer than `change`.
fn versions(chunks: &BTreeMap<u32, Chunk>, change: u64) -> BTreeMap<u32, Valid> {
    let mut found: BTreeMap<u32, BTreeMap<u64, Version>> = BTreeMap::new();
    for (key, chunk) in chunks {
        let stamp = Stamp::of(chunk);
        if stamp.change <= change {
            let versions = found.entry(stamp.sheet).or_default();
            let parts = versions.entry(stamp.change).or_default();
            parts.insert(stamp.part, (*key, stamp.parts));
        }
    }
    let last = |(sheet, versions): (u32, BTreeMap<u64, Version>)| {
        let complete = |(_, parts): &(u64, Version)| {
            let count = parts.values().next().map_or(0, |(_, count)| *count);
            count == 0 || parts.len() == usize::from(count)
        };
        let (change, parts) = versions.into_iter().rev().find(complete)?;
        let gone = parts.values().any(|(_, count)| *count == 0);
        let keys = parts.values().map(|(key, _)| *key).collect();
        (!gone).then_some((sheet, Valid { change, keys }))
    };
    found.into_iter().filter_map(last).collect()
}

/// Chunks that are not in use, in the order to remove them: a crash in between must not bring back a sheet that is gone,
/// so what says so goes after all else.
fn leftovers(chunks: &BTreeMap<u32, Chunk>, used: &BTreeSet<u32>) -> Vec<u32> {
    let left = chunks.iter().filter(|(key, _)| !used.contains(key));
    let mut left: Vec<_> = left
        .map(|(key, chunk)| (Stamp::of(chunk).parts == 0, *key))
        .collect();
    left.sort_unstable();
    left.into_iter().map(|(_, key)| key).collect()
}

fn text(chunks: &BTreeMap<u32, Chunk>, keys: &[u32]) -> Vec<u8> {
    let parts = keys.iter().filter_map(|key| chunks.get(key));
    let mut text = Vec::with_capacity(keys.len() * ROOM);
    for chunk in parts {
        let len = usize::from(Stamp::of(chunk).len);
        text.extend_from_slice(&chunk[STAMP..STAMP + len]);
    }
    text
}

fn split(text: &[u8]) -> (String, &[u8]) {
    let end = text.iter().position(|byte| *byte == b'\n');
    let (name, content) = text.split_at(end.unwrap_or(text.len()));
    let name = String::from_utf8_lossy(name).into_owned();
    (name, content.strip_prefix(b"\n").unwrap_or(content))
}

fn put(tables: &mut Tables, key: u32, chunk: &Chunk) -> Result<(), Error> {
    fault::point();
    tables
        .metadata
        .insert(key, chunk, 0)
        .map_err(failed("METADATA"))
}

fn remove(tables: &mut Tables, key: u32) -> Result<(), Error> {
    fault::point();
    tables.metadata.remove(&key).map_err(failed("METADATA"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_while_clearing_up_never_brings_back_a_sheet_that_is_gone() {
        let stamp = |change, parts| Stamp {
            change,
            sheet: 1,
            part: 0,
            parts,
            len: 0,
        };
        // The marker has the lower key.
        let mut chunks = BTreeMap::from([(1, stamp(2, 0).chunk(b"")), (2, stamp(1, 1).chunk(b""))]);
        for key in leftovers(&chunks, &BTreeSet::new()) {
            assert!(versions(&chunks, 2).is_empty());
            chunks.remove(&key);
        }
        assert!(chunks.is_empty());
    }

    #[test]
    fn a_walk_that_met_what_was_removed_since_is_not_taken_for_the_record() {
        let stamp = |sheet, change, parts| Stamp {
            change,
            sheet,
            part: 0,
            parts,
            len: 0,
        };
        // Sheet 2 went with change 7: its old version and the marker were removed after the header was written.
        let whole = BTreeMap::from([(1, stamp(1, 3, 1).chunk(b""))]);
        let header = Header {
            change: 7,
            digest: digest(marks(&[1], 3)),
        };
        let header = Header::of(&header.chunk());
        assert!(header.covers(&versions(&whole, 7)));
        // The walk passed the old version before it was removed, and the marker's place after.
        let mut torn = whole.clone();
        torn.insert(2, stamp(2, 1, 1).chunk(b""));
        assert!(!header.covers(&versions(&torn, 7)));
        // Or a walk that was sent astray missed a sheet.
        assert!(!header.covers(&versions(&BTreeMap::new(), 7)));
        // A header of before has no digest.
        let old = Header {
            digest: 0,
            ..header
        };
        assert!(old.covers(&versions(&torn, 7)));
    }
}
