//! Opens the pins for a look: nothing here writes a map but the clock reading.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gateway_common::{
    flow::{Flow, FlowKey, flag},
    maps,
    service::{Service, mode},
};

use super::args::PinDir;
use crate::{
    dataplane::{Error, clock::Clock, pins::Pins, record::Record, tables::Tables, upgrade},
    metrics::Readings,
    plan::ServiceAddr,
};

/// How long the tick rate is measured.
const PAUSE: Duration = Duration::from_millis(50);

/// A gateway's pins, open.
pub struct Live {
    /// Where they are.
    pub pins: Pins,
    /// The maps.
    pub tables: Tables,
    /// What the last agent wrote.
    pub record: Record,
}

impl Live {
    /// Opens what is pinned.
    pub fn open(dir: &PinDir) -> Result<Self, Error> {
        let pins = Pins::new(&dir.pin_dir);
        let tables = Tables::open(&pins)?;
        upgrade::current(&pins)?;
        let record = Record::load(&tables)?
            .ok_or_else(|| Error::Record("no agent has finished writing it".to_owned()))?;
        Ok(Self {
            pins,
            tables,
            record,
        })
    }

    /// One look at the maps.
    pub fn readings(&self) -> Result<Readings, Error> {
        Readings::take(&self.tables, &self.record)
    }

    /// Now in ticks, and ticks per second.
    pub fn ticks(&self) -> Result<Ticks, Error> {
        let clock = Clock::open(&self.pins)?;
        let rate = clock.rate(&self.tables, PAUSE)?;
        let now = clock.read(&self.tables)?.ticks as u32;
        Ok(Ticks { now, rate })
    }

    /// All flow entries, sorted, none twice.
    pub fn flows(&self) -> Vec<(FlowKey, Flow)> {
        let mut flows: Vec<_> = self.tables.flow_entries().collect();
        flows.sort_unstable_by_key(|(key, _)| *key);
        flows.dedup_by_key(|(key, _)| *key);
        flows
    }

    /// Slots that each backend has in the ring of a service.
    pub fn ring(&self, service: &Service) -> Result<Slots, Error> {
        let mut slots = Slots::new();
        if matches!(service.mode, mode::NAT | mode::L4) {
            for slot in self.region(service)? {
                *slots.entry(slot).or_default() += 1;
            }
        }
        Ok(slots)
    }

    /// The ring of a service, slot by slot.
    pub fn region(&self, service: &Service) -> Result<Vec<u32>, Error> {
        let end = service
            .ring_off
            .saturating_add(service.ring_len)
            .min(maps::RINGS.1);
        (service.ring_off..end)
            .map(|at| {
                let slot = self.tables.rings.get(&at, 0);
                slot.map_err(|e| Error::Map(maps::RINGS.0, e.to_string()))
            })
            .collect()
    }
}

/// Slots of one ring by backend id.
pub type Slots = BTreeMap<u32, u32>;

/// Rings by listener address.
pub type Rings = BTreeMap<ServiceAddr, Slots>;

/// The kernel's clock at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ticks {
    /// Low 32 bits of the tick counter.
    pub now: u32,
    /// Ticks per second.
    pub rate: u32,
}

impl Ticks {
    /// How long ago a flow was last seen. A packet may be newer than the reading: that is 0.
    pub fn since(self, last_seen: u32) -> Duration {
        let ticks = self.now.wrapping_sub(last_seen);
        let ticks = if ticks > u32::MAX / 2 { 0 } else { ticks };
        Duration::from_secs_f64(f64::from(ticks) / f64::from(self.rate.max(1)))
    }
}

/// How many flows there are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FlowCount {
    /// Entries of the table, two for each flow.
    pub entries: u64,
    /// Flows by backend id.
    pub by_backend: BTreeMap<u32, u64>,
}

impl FlowCount {
    /// Counts entries.
    pub fn of(entries: &[(FlowKey, Flow)]) -> Self {
        let mut count = Self {
            entries: entries.len() as u64,
            ..Self::default()
        };
        for (_, flow) in entries {
            if flow.life.flags & flag::REPLY == 0 {
                *count.by_backend.entry(flow.nat.backend).or_default() += 1;
            }
        }
        count
    }

    /// Flows over all backends.
    pub fn flows(&self) -> u64 {
        self.by_backend.values().sum()
    }
}

/// Seconds since the epoch.
pub fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// Nanoseconds of the kernel's monotonic clock, which its programs read too.
pub fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// Whether the agent that wrote a record still runs: its process exists and carries our name.
pub fn alive(record: &Record) -> bool {
    record.pid != 0
        && record.pid != std::process::id()
        && fs::read_to_string(format!("/proc/{}/stat", record.pid)).is_ok_and(|stat| runs(&stat))
}

/// Reads a line of `/proc/<pid>/stat` (proc(5)): `pid (name) state ...`. A zombie does not run.
fn runs(stat: &str) -> bool {
    let Some((head, rest)) = stat.rsplit_once(") ") else {
        return false;
    };
    let name = head.split_once('(').map(|(_, name)| name);
    // Versions may lie side by side as `fleetgate-<version>`.
    let ours = name.is_some_and(|name| name == "fleetgate" || name.starts_with("fleetgate-"));
    ours && !rest.starts_with(['Z', 'X'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_living_process_of_our_name_is_an_agent() {
        assert!(runs("42 (fleetgate) S 1 42 42 0 -1"));
        assert!(!runs("42 (fleetgate) Z 1 42 42 0 -1"));
        assert!(runs("42 (fleetgate-0.2.0) S 1 42 42 0 -1"));
        assert!(!runs("42 (bash) S 1 42 42 0 -1"));
        assert!(!runs("42 (x) (fleetgate) S 1 42"));
        assert!(!runs(""));
    }

    #[test]
    fn idle_time_survives_the_wrap_of_the_tick_counter() {
        let ticks = Ticks { now: 50, rate: 100 };
        assert_eq!(
            ticks.since(50_u32.wrapping_sub(200)),
            Duration::from_secs(2)
        );
        assert_eq!(ticks.since(51), Duration::ZERO);
    }
}
