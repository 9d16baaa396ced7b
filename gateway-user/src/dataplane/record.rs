//! What the agent knows beyond the maps, kept in a map: names, routes, problems, the plan.
//!
//! The CLI reads it with the agent down, and the next agent starts from it. Two generations of
//! chunks alternate; the header (key 0) names the valid one and is written last.

use std::{collections::BTreeMap, net::IpAddr};

use gateway_common::maps::METADATA_CHUNK;
use serde::{Deserialize, Serialize};

use super::{Error, tables::Tables};
use crate::{ir::Ir, plan::Plan, problem::Problem};

/// One agent's view, whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// Version of the agent that wrote this.
    pub version: String,
    /// Its process id; alive only if `/proc` says so.
    pub pid: u32,
    /// When it started, seconds since the epoch.
    pub started: u64,
    /// Counts configurations applied since the pins were made.
    pub generation: u64,
    /// When the last one was applied, seconds since the epoch.
    pub applied_at: u64,
    /// Addresses of listeners that name none.
    pub vips: Vec<IpAddr>,
    /// Which hook each interface got, and why.
    pub interfaces: Vec<InterfaceRecord>,
    /// Reserved source ports of node addresses: first and count; count 0 when a pool is used.
    pub node_ports: (u16, u16),
    /// The routing model.
    pub ir: Ir,
    /// What the maps hold.
    pub plan: Plan,
    /// Set while a plan is being applied: the maps hold a mix of `plan` and this one.
    pub applying: Option<Plan>,
    /// Ids of next hops: (interface index, neighbour address, id).
    pub hops: Vec<(u32, IpAddr, u16)>,
    /// Everything that is wrong with the configuration.
    pub problems: Vec<Problem>,
    /// What did not fit, or cannot be reached.
    pub warnings: Vec<String>,
    /// Names of interfaces by index, for tables.
    pub interface_names: BTreeMap<u32, String>,
}

/// How packets of one interface reach the programs.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct InterfaceRecord {
    /// Interface name.
    pub name: String,
    /// `tc`, or `xdp native + tc`, or `xdp generic + tc`.
    pub hooks: String,
    /// Why not another one.
    pub reason: String,
}

/// Header: generation bit and length.
const HEADER: u32 = 0;
/// Chunks of generation 0 start at 1, those of generation 1 at 1 + this.
const HALF: u32 = 1 << 15;
/// A reader tries again this often when the agent writes at the same time.
const ATTEMPTS: usize = 50;

impl Record {
    /// Reads the record, whole, also while an agent is writing; `None` if no agent has finished writing one.
    pub fn load(tables: &Tables) -> Result<Option<Self>, Error> {
        let header = || tables.metadata.get(&HEADER, 0).ok();
        for _ in 0..ATTEMPTS {
            let Some(before) = header() else {
                return Ok(None);
            };
            let record = Self::read(tables, &before);
            // What a header names stays in place until the next header is written.
            if header() == Some(before) {
                return record.map(Some);
            }
        }
        Err(Error::Record(
            "it changes faster than it can be read".to_owned(),
        ))
    }

    fn read(tables: &Tables, header: &[u8; METADATA_CHUNK]) -> Result<Self, Error> {
        let Header { half, len, .. } = Header::unpack(header);
        let mut bytes = Vec::with_capacity(len);
        let mut key = 1 + half * HALF;
        while bytes.len() < len {
            let chunk = tables
                .metadata
                .get(&key, 0)
                .map_err(|e| Error::Record(format!("chunk {key}: {e}")))?;
            let wanted = (len - bytes.len()).min(METADATA_CHUNK);
            bytes.extend_from_slice(&chunk[..wanted]);
            key += 1;
        }
        serde_json::from_slice(&bytes).map_err(|e| Error::Record(e.to_string()))
    }

    /// Writes the record aside, then makes it the valid one.
    pub fn save(&self, tables: &mut Tables) -> Result<(), Error> {
        let bytes = serde_json::to_vec(self).map_err(|e| Error::Record(e.to_string()))?;
        let chunks = bytes.chunks(METADATA_CHUNK);
        if chunks.len() as u32 >= HALF - 1 {
            return Err(Error::Record(format!("{} bytes are too many", bytes.len())));
        }
        let old = tables
            .metadata
            .get(&HEADER, 0)
            .ok()
            .map(|header| Header::unpack(&header));
        let half = 1 - old.map_or(1, |old| old.half);
        for (key, chunk) in (1 + half * HALF..).zip(chunks) {
            let mut padded = [0; METADATA_CHUNK];
            padded[..chunk.len()].copy_from_slice(chunk);
            put(tables, key, &padded)?;
        }
        let header = Header {
            half,
            len: bytes.len(),
            sequence: old.map_or(0, |old| old.sequence.wrapping_add(1)),
        };
        put(tables, HEADER, &header.pack())?;
        if let Some(Header { half, len, .. }) = old {
            for key in (1 + half * HALF..).take(len.div_ceil(METADATA_CHUNK)) {
                // A chunk that is already gone was removed by an agent that died here.
                let _ = tables.metadata.remove(&key);
            }
        }
        Ok(())
    }
}

fn put(tables: &mut Tables, key: u32, chunk: &[u8; METADATA_CHUNK]) -> Result<(), Error> {
    tables
        .metadata
        .insert(key, chunk, 0)
        .map_err(super::tables::failed("METADATA"))
}

/// Names the valid generation of chunks.
#[derive(Clone, Copy)]
struct Header {
    /// Which of the two.
    half: u32,
    /// Bytes of the record.
    len: usize,
    /// Counts records written, so that a reader sees that there was another one.
    sequence: u64,
}

impl Header {
    fn pack(self) -> [u8; METADATA_CHUNK] {
        let mut bytes = [0; METADATA_CHUNK];
        bytes[..4].copy_from_slice(&self.half.to_le_bytes());
        bytes[4..12].copy_from_slice(&(self.len as u64).to_le_bytes());
        bytes[12..20].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    fn unpack(bytes: &[u8; METADATA_CHUNK]) -> Self {
        let (mut half, mut len, mut sequence) = ([0; 4], [0; 8], [0; 8]);
        half.copy_from_slice(&bytes[..4]);
        len.copy_from_slice(&bytes[4..12]);
        sequence.copy_from_slice(&bytes[12..20]);
        Self {
            half: u32::from_le_bytes(half).min(1),
            len: u64::from_le_bytes(len).min(1 << 28) as usize,
            sequence: u64::from_le_bytes(sequence),
        }
    }
}
