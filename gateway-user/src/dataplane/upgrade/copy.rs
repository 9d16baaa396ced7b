//! Copies flows, and clients that stay with a backend, between maps of two layouts while packets use both.
//!
//! An entry is written if there is none, or one that was seen earlier. Entries of replies go first, for they hold source
//! ports: a flow whose port has become another's meanwhile is left.

use std::collections::BTreeMap;

use aya::{
    Pod,
    maps::{MapError, MapType},
    programs::{SchedClassifier, TestRun, TestRunOptions},
};
use gateway_common::{
    affinity::{Affinity, AffinityKey},
    datapath::{KEYS, KEYS_AT},
    flow::{Flow, FlowKey, flag},
    layout::Shaped,
    maps,
};

use super::shapes::{Moves, Shapes, TableShape};
use crate::dataplane::{
    Error,
    batch::{self, Raw},
    fault,
    pins::Pins,
    record::Record,
    tables::{Tables, failed},
};

/// Entries read by one system call.
const SLICE: u32 = 4096;
/// `BPF_NOEXIST` (linux/bpf.h).
const NOEXIST: u64 = 1;
/// What a flow is nothing without.
const FLOW: [&str; 13] = [
    "nat.src",
    "nat.dst",
    "nat.src_port",
    "nat.dst_port",
    "nat.addr_delta",
    "nat.port_delta",
    "nat.backend",
    "nat.service",
    "nat.hop",
    "life.last_seen",
    "life.state",
    "life.flags",
    "life.generation",
];
/// The same of what is known of a client.
const AFFINITY: [&str; 3] = ["backend", "generation", "last"];

/// Maps of another layout.
#[derive(Debug)]
pub struct Source {
    flows: Option<Table>,
    clients: Option<Table>,
    pub(super) pins: Pins,
    pub(super) shapes: Shapes,
    /// What of it cannot be taken over.
    pub trouble: Vec<String>,
}

#[derive(Debug)]
struct Table {
    map: Raw,
    keys: Moves,
    values: Moves,
}

/// What one pass over a source found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pass {
    /// Flows that are in both tables now.
    pub flows: u64,
    /// Clients that are in both tables now.
    pub clients: u64,
    /// Flows that were left, by reason.
    pub left: BTreeMap<&'static str, u64>,
}

/// Which entries of a source are looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Which {
    /// All, before our programs are attached anywhere.
    First,
    /// Those that were seen since this tick: an earlier pass had the others.
    Since(u32),
    /// All.
    All,
}

impl Which {
    fn skips(self, flow: &Flow) -> bool {
        matches!(self, Self::Since(tick) if later(tick, flow.life.last_seen))
    }
}

/// Entries that the flow table of these pins has room for.
pub(super) fn flow_table_size(pins: &Pins) -> Option<u32> {
    let map = Raw::open(&pins.map(maps::FLOWS.0), &[MapType::Hash]).ok()?;
    Some(map.entries)
}

impl Source {
    /// Opens what can be read of another layout's maps.
    pub fn open(pins: &Pins, record: Option<&Record>) -> Self {
        let mut source = Self {
            flows: None,
            clients: None,
            pins: pins.clone(),
            shapes: record.map(|it| it.shapes.clone()).unwrap_or_default(),
            trouble: Vec::new(),
        };
        // Without a record nobody has ever steered with these maps.
        if record.is_some() {
            source.flows = source.table::<FlowKey, Flow>(maps::FLOWS.0, &FLOW);
            source.clients = source.table::<AffinityKey, Affinity>(maps::AFFINITY.0, &AFFINITY);
        }
        source
    }

    fn table<K: Shaped, V: Shaped>(&mut self, name: &str, needed: &[&str]) -> Option<Table> {
        let opened = self.shapes.0.get(name).map_or_else(
            || Err("its agent did not tell its fields".to_owned()),
            |shape| Table::open::<K, V>(&self.pins, name, shape, needed),
        );
        opened
            .map_err(|why| {
                let layout = self.pins.layout();
                self.trouble
                    .push(format!("map {name} of layout {layout}: {why}"));
            })
            .ok()
    }
}

impl Table {
    fn open<K: Shaped, V: Shaped>(
        pins: &Pins,
        name: &str,
        shape: &TableShape,
        needed: &[&str],
    ) -> Result<Self, String> {
        let map = Raw::open(&pins.map(name), &[MapType::Hash, MapType::LruHash])?;
        let told = (shape.key.size as usize, shape.value.size as usize);
        if (map.key_size, map.value_size) != told {
            return Err("its agent told another size of it".to_owned());
        }
        Ok(Self {
            map,
            keys: Moves::key(&shape.key, &K::SHAPE)?,
            values: Moves::value(&shape.value, &V::SHAPE, needed)?,
        })
    }

    /// Hands over all entries, in slices.
    fn walk<K: Pod, V: Pod>(
        &self,
        name: &'static str,
        mut take: impl FnMut(&[K], &[V]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut place, mut aside) = (None, Vec::new());
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let (mut new_keys, mut new_values) = (Vec::new(), Vec::new());
        loop {
            let (read, end) = self
                .map
                .slice(&mut place, &mut keys, &mut values, SLICE)
                .map_err(failed(name))?;
            new_keys.clear();
            new_values.clear();
            for key in keys.chunks_exact(self.map.key_size).take(read) {
                new_keys.push(self.keys.make(key, &mut aside));
            }
            for value in values.chunks_exact(self.map.value_size).take(read) {
                new_values.push(self.values.make(value, &mut aside));
            }
            fault::point();
            take(&new_keys, &new_values)?;
            if end {
                return Ok(());
            }
        }
    }
}

/// Copies what these maps do not have. Flows are counted before they are written: a crash in between counts too many, which
/// costs room, where too few would refuse flows for ever.
///
/// # Errors
/// When a map cannot be read or written.
pub fn copy(
    source: &Source,
    pins: &Pins,
    tables: &mut Tables,
    which: Which,
) -> Result<Pass, Error> {
    let mut pass = Pass::default();
    if let Some(flows) = &source.flows {
        let mut live = Live::open(pins)?;
        if which == Which::First && tables.flows.keys().next().is_none() {
            all(flows, tables, &mut live, &mut pass)?;
        } else {
            missing(flows, tables, &mut live, which, &mut pass)?;
        }
    }
    if let Some(clients) = &source.clients {
        clients.walk(
            maps::AFFINITY.0,
            |keys: &[AffinityKey], values: &[Affinity]| {
                for (key, value) in keys.iter().zip(values) {
                    let there = tables.affinity.get(key, 0).ok();
                    if there.is_none_or(|there| later(value.last, there.last)) {
                        let done = tables.affinity.insert(key, value, 0);
                        done.map_err(failed(maps::AFFINITY.0))?;
                    }
                    pass.clients += 1;
                }
                Ok(())
            },
        )?;
    }
    Ok(pass)
}

/// Into an empty table.
fn all(flows: &Table, tables: &Tables, live: &mut Live, pass: &mut Pass) -> Result<(), Error> {
    flows.walk(maps::FLOWS.0, |keys: &[FlowKey], values: &[Flow]| {
        let requests = |values: &[Flow]| {
            let requests = values.iter().filter(|it| it.life.flags & flag::REPLY == 0);
            requests
                .map(|it| u32::from(it.nat.service))
                .collect::<Vec<_>>()
        };
        live.count(&requests(values))?;
        let (done, error) = batch::update_entries(tables.flow_slab.fd(), keys, values);
        pass.flows += requests(&values[..done]).len() as u64;
        if error.is_err() {
            let left = requests(&values[done..]).len() as u64;
            *pass.left.entry(FULL).or_default() += left;
        }
        Ok(())
    })
}

/// Why a flow is left.
const FULL: &str = "the flow table is full";
const TAKEN: &str = "its source port has become another flow's";
const HALF: &str = "it has no entry for replies";

/// Into a table that packets use, or that an earlier attempt has filled.
fn missing(
    flows: &Table,
    tables: &mut Tables,
    live: &mut Live,
    which: Which,
    pass: &mut Pass,
) -> Result<(), Error> {
    flows.walk(maps::FLOWS.0, |keys: &[FlowKey], values: &[Flow]| {
        for (key, flow) in keys.iter().zip(values) {
            if flow.life.flags & flag::REPLY != 0 && !which.skips(flow) {
                // Where there is no room, the other entry finds none of its own, and tells.
                let _ = write(tables, key, flow);
            }
        }
        Ok(())
    })?;
    flows.walk(maps::FLOWS.0, |keys: &[FlowKey], values: &[Flow]| {
        for (key, flow) in keys.iter().zip(values) {
            if flow.life.flags & flag::REPLY != 0 || which.skips(flow) {
                continue;
            }
            let reply_key = flow.nat.reverse_key(key.proto);
            let left = match tables.flows.get(&reply_key, 0) {
                Err(_) => Some(HALF),
                Ok(reply) if reply.nat.reverse_key(key.proto) != *key => Some(TAKEN),
                Ok(_) => {
                    if tables.flows.get(key, 0).is_err() {
                        live.count(&[u32::from(flow.nat.service)])?;
                    }
                    write(tables, key, flow).err()
                }
            };
            match left {
                None => pass.flows += 1,
                Some(why) => *pass.left.entry(why).or_default() += 1,
            }
        }
        Ok(())
    })
}

fn write(tables: &mut Tables, key: &FlowKey, flow: &Flow) -> Result<(), &'static str> {
    let there = match tables.flows.get(key, 0) {
        Ok(there) => there,
        Err(_) => match tables.flows.insert(key, flow, NOEXIST) {
            Ok(()) => return Ok(()),
            // A packet was faster: its entry is the newer one.
            Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::EEXIST) => {
                return Ok(());
            }
            Err(_) => return Err(FULL),
        },
    };
    if later(flow.life.last_seen, there.life.last_seen) {
        tables.flows.insert(key, flow, 0).map_err(|_| FULL)?;
    }
    Ok(())
}

/// Whether one reading of a tick counter that wraps is later than another.
fn later(one: u32, other: u32) -> bool {
    one.wrapping_sub(other) as i32 > 0
}

/// The pinned program that counts live flows.
struct Live {
    program: SchedClassifier,
    frame: Vec<u8>,
}

impl Live {
    fn open(pins: &Pins) -> Result<Self, Error> {
        let path = pins.live();
        let program = SchedClassifier::from_pin(&path);
        Ok(Self {
            program: program.map_err(|e| Error::Pin(path, e.to_string()))?,
            frame: Vec::new(),
        })
    }

    /// One more flow of each of these services.
    fn count(&mut self, services: &[u32]) -> Result<(), Error> {
        for services in services.chunks(KEYS) {
            self.frame.clear();
            self.frame.resize(KEYS_AT, 0);
            let words = services.iter().flat_map(|service| service.to_ne_bytes());
            self.frame.extend(words);
            let options = TestRunOptions {
                data_in: Some(&self.frame),
                ..TestRunOptions::default()
            };
            self.program
                .test_run(options)
                .map_err(failed(maps::LIVE.0))?;
        }
        Ok(())
    }
}
