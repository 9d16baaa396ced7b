//! Sheets in a map of chunks: a change writes some sheets aside, and one header makes all of them valid at once.
//!
//! A chunk holds which sheet it belongs to, the change that wrote it, and its part. Of a sheet the last version counts
//! that is not newer than the header's change. Older versions are removed after the header was written, so a crash
//! leaves either change whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use gateway_common::{hash, maps::METADATA_CHUNK};

use super::{Part, Record};
use crate::dataplane::{
    Error,
    tables::{Tables, failed},
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

/// Writes the record of one agent.
#[derive(Debug, Default)]
pub struct Recorder {
    /// The number of the next change. One that failed keeps its own: what it may have left is never taken for the next.
    next_change: u64,
    sheets: HashMap<String, Stored>,
    next_sheet: u32,
    /// Keys that hold nothing.
    free: BTreeSet<u32>,
    next_key: u32,
}

#[derive(Clone, Debug)]
struct Stored {
    number: u32,
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
        let change = header(tables)?.unwrap_or(0);
        let chunks = chunks(tables);
        let valid = versions(&chunks, change);
        let mut recorder = Self {
            next_change: change + 1,
            next_key: HEADER + 1,
            ..Self::default()
        };
        let mut used = BTreeSet::new();
        for (number, keys) in &valid {
            let text = text(&chunks, keys);
            let (name, content) = split(&text);
            let stored = Stored {
                number: *number,
                content: hash::name(0, content),
                keys: keys.clone(),
            };
            used.extend(keys.iter().copied());
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
        let mut head = [0; METADATA_CHUNK];
        head[..8].copy_from_slice(&change.to_le_bytes());
        if let Err(error) = put(tables, HEADER, &head) {
            for writing in written {
                self.clear(tables, writing.keys);
            }
            return Err(error);
        }
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
                content: writing.content,
                keys: writing.keys,
            };
            self.sheets.insert(writing.name, stored);
        }
        Ok(())
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
            // One that stays is overwritten when its key is used again.
            let _ = tables.metadata.remove(&key);
            self.free.insert(key);
        }
    }
}

/// Every valid sheet by name; `None` if no agent has finished writing one.
pub(super) fn read(tables: &Tables) -> Result<Option<Vec<Sheet>>, Error> {
    for _ in 0..ATTEMPTS {
        let Some(change) = header(tables)? else {
            return Ok(None);
        };
        let chunks = chunks(tables);
        // What a header names stays in place until the next header is written.
        if header(tables)? == Some(change) {
            let valid = versions(&chunks, change);
            let sheet = |keys: &Vec<u32>| {
                let text = text(&chunks, keys);
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

fn header(tables: &Tables) -> Result<Option<u64>, Error> {
    let chunk = match tables.metadata.get(&HEADER, 0) {
        Ok(chunk) => chunk,
        Err(aya::maps::MapError::KeyNotFound) => return Ok(None),
        Err(error) => return Err(failed("METADATA")(error)),
    };
    let mut change = [0; 8];
    change.copy_from_slice(&chunk[..8]);
    Ok(Some(u64::from_le_bytes(change)))
}

fn chunks(tables: &Tables) -> BTreeMap<u32, Chunk> {
    // A walk that removals send back to the start ends after twice the map.
    let all = tables.metadata.iter().take(2 * MOST as usize);
    let chunks = all.flatten().filter(|(key, _)| *key != HEADER);
    chunks.collect()
}

/// Keys of the chunks of each sheet's last version that is complete and not newer than `change`.
fn versions(chunks: &BTreeMap<u32, Chunk>, change: u64) -> BTreeMap<u32, Vec<u32>> {
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
        let complete = |parts: &&BTreeMap<u16, (u32, u16)>| {
            let count = parts.values().next().map_or(0, |(_, count)| *count);
            count == 0 || parts.len() == usize::from(count)
        };
        let parts = versions.values().rev().find(complete)?;
        let gone = parts.values().any(|(_, count)| *count == 0);
        (!gone).then(|| (sheet, parts.values().map(|(key, _)| *key).collect()))
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
    tables
        .metadata
        .insert(key, chunk, 0)
        .map_err(failed("METADATA"))
}

fn remove(tables: &mut Tables, key: u32) -> Result<(), Error> {
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
            assert_eq!(versions(&chunks, 2), BTreeMap::new());
            chunks.remove(&key);
        }
        assert!(chunks.is_empty());
    }
}
