//! Removes flows that are over, tells which backends still have some, and how many source ports are in use.
//!
//! The table is read in slices by one system call each. What looks over is named to `fleetgate_sweep`, which looks again
//! in the kernel, at both directions, and removes the flow there: a packet that renewed it in the meantime counts. So a
//! sweep holds a slice in memory, not the table, and a few system calls for 4096 entries.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use gateway_common::{
    backend::{self, Backend},
    datapath::{KEYS, KEYS_AT},
    flow::{Flow, FlowKey, TCP, flag, state},
    maps,
};

use super::{
    Error, batch,
    pins::Pins,
    tables::{Tables, failed},
};

/// Entries read by one system call.
const SLICE: usize = 4096;

/// Result of one pass over the flow table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sweep {
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub took: Duration,
    /// Entries seen.
    pub seen: u64,
    /// Entries removed.
    pub removed: u64,
    /// Backends that have live flows.
    pub busy: BTreeSet<u32>,
    /// Source ports in use by backend, of the protocol that uses more.
    pub ports: BTreeMap<u32, u32>,
}

/// The pinned program that removes flows.
pub struct Remover {
    program: SchedClassifier,
    frame: Vec<u8>,
}

impl Remover {
    /// Opens the pinned program.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        let path = pins.sweep();
        let program = SchedClassifier::from_pin(&path);
        Ok(Self {
            program: program.map_err(|e| Error::Pin(path, e.to_string()))?,
            frame: Vec::new(),
        })
    }

    /// Removes those of these flows that are over; returns how many entries went.
    pub fn remove(&mut self, keys: &[FlowKey]) -> Result<u64, Error> {
        let mut removed = 0;
        for keys in keys.chunks(KEYS) {
            self.frame.clear();
            self.frame.resize(KEYS_AT, 0);
            for key in keys {
                let addresses = key.src.0.into_iter().chain(key.dst.0);
                self.frame.extend(addresses.flat_map(u32::to_ne_bytes));
                self.frame.extend(key.src_port.0.to_ne_bytes());
                self.frame.extend(key.dst_port.0.to_ne_bytes());
                self.frame.extend(key.proto.to_ne_bytes());
            }
            let options = TestRunOptions {
                data_in: Some(&self.frame),
                ..TestRunOptions::default()
            };
            let ran = self.program.test_run(options);
            removed += u64::from(ran.map_err(failed(maps::FLOWS.0))?.return_value);
        }
        Ok(removed)
    }
}

/// Whether an entry has been silent for longer than its state allows.
pub fn expired(flow: &Flow, now: u32, timeout_ticks: &[u32; state::COUNT]) -> bool {
    flow.life.silent(
        now,
        timeout_ticks[usize::from(flow.life.state) % state::COUNT],
    )
}

/// Walks the whole table once. A flow goes when both directions are silent, an entry without its sibling when it is
/// silent itself. Of a backend that is gone, flows of UDP and those that are not open yet go at once.
pub fn sweep(
    tables: &Tables,
    remover: &mut Remover,
    began: Instant,
    now: u32,
    timeout_ticks: &[u32; state::COUNT],
) -> Result<Sweep, Error> {
    let mut keys = vec![FlowKey::default(); SLICE];
    let mut flows = vec![Flow::default(); SLICE];
    let mut place = None;
    let mut backends: HashMap<u32, Option<Backend>> = HashMap::new();
    let mut ports: BTreeMap<u32, [u32; 2]> = BTreeMap::new();
    let mut over = Vec::with_capacity(SLICE);
    let mut sweep = Sweep {
        began,
        took: Duration::ZERO,
        seen: 0,
        removed: 0,
        busy: BTreeSet::new(),
        ports: BTreeMap::new(),
    };
    loop {
        let (read, end) = batch::lookup(tables.flow_slab.fd(), &mut place, &mut keys, &mut flows)
            .map_err(failed(maps::FLOWS.0))?;
        over.clear();
        let mut of = BTreeSet::new();
        for (key, flow) in keys.iter().zip(&flows).take(read) {
            sweep.seen += 1;
            let id = flow.nat.backend;
            let silent = expired(flow, now, timeout_ticks);
            if silent
                || lost(
                    flow,
                    *backends
                        .entry(id)
                        .or_insert_with(|| tables.backends.get(&id, 0).ok()),
                )
            {
                over.push(*key);
                of.insert(id);
                // Not known to be gone before the next pass sees none.
                if !silent {
                    sweep.busy.insert(id);
                }
                continue;
            }
            sweep.busy.insert(id);
            if flow.life.flags & flag::REPLY != 0 {
                ports.entry(id).or_default()[usize::from(key.proto == TCP)] += 1;
            }
        }
        let removed = remover.remove(&over)?;
        sweep.removed += removed;
        if removed < over.len() as u64 {
            // Some were renewed since they were read, or were removed with their sibling.
            sweep.busy.append(&mut of);
        }
        if end {
            break;
        }
    }
    sweep.ports = ports
        .into_iter()
        .map(|(id, [udp, tcp])| (id, udp.max(tcp)))
        .collect();
    sweep.took = began.elapsed();
    Ok(sweep)
}

/// Whether a flow has no backend any more and nothing to lose: it moves, or was never open.
fn lost(flow: &Flow, backend: Option<Backend>) -> bool {
    let moves = matches!(
        flow.life.state,
        state::TCP_OPENING | state::UDP_OPENING | state::UDP_ESTABLISHED
    );
    moves
        && backend.is_none_or(|backend| {
            backend.generation != flow.life.generation
                || backend.state == backend::state::DOWN
                || backend.state == 0
        })
}
