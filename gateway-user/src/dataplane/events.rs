//! The kernel's end of `fleetgate monitor`: its switch, its ring, and what it missed.

use std::{
    fs::{File, TryLockError},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use gateway_common::{
    maps,
    monitor::{Event, Switch},
};

use super::{
    Error,
    pins::Pins,
    tables::{Tables, failed, open, set},
};

/// How long the kernel goes on without being asked again: a monitor that crashed costs no longer than that.
const LEASE: Duration = Duration::from_secs(3);

/// The one monitor of these pins. Dropping it switches the kernel's side off.
pub struct Events<'a> {
    tables: &'a mut Tables,
    ring: RingBuf<MapData>,
    /// Events that were missed before this monitor.
    missed: u64,
    /// Keeps a second monitor away, which would take every other event.
    _lock: File,
}

impl<'a> Events<'a> {
    /// Takes the ring; nothing is switched on yet.
    pub fn take(pins: &Pins, tables: &'a mut Tables) -> Result<Self, Error> {
        let dir = pins.maps();
        let unusable = |cause: String| Error::Pin(dir.clone(), cause);
        let lock = File::open(&dir).map_err(|e| unusable(e.to_string()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Monitored(dir)),
            Err(TryLockError::Error(e)) => return Err(unusable(format!("no lock: {e}"))),
        }
        let mut ring: RingBuf<MapData> = open(pins, maps::EVENTS.0)?;
        // What an earlier monitor has left.
        while ring.next().is_some() {}
        let missed = missed(tables)?;
        Ok(Self {
            tables,
            ring,
            missed,
            _lock: lock,
        })
    }

    /// Tells the kernel what is wanted, from `now` (of the monotonic clock, in nanoseconds) on. Without another word it
    /// stops after three seconds.
    pub fn renew(&mut self, wanted: Switch, now: u64) -> Result<(), Error> {
        let until = now.saturating_add(LEASE.as_nanos() as u64);
        let switch = Switch { until, ..wanted };
        set(&mut self.tables.monitor, maps::MONITOR.0, 0, switch)
    }

    /// The next event, if there is one.
    pub fn read(&mut self) -> Option<Event> {
        let item = self.ring.next()?;
        Event::read(&item)
    }

    /// Events that found the ring full since this was asked last.
    pub fn missed(&mut self) -> Result<u64, Error> {
        let now = missed(self.tables)?;
        let before = std::mem::replace(&mut self.missed, now);
        Ok(now.saturating_sub(before))
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        // Where this fails, the lease ends it.
        let _ = set(
            &mut self.tables.monitor,
            maps::MONITOR.0,
            0,
            Switch::default(),
        );
    }
}

fn missed(tables: &Tables) -> Result<u64, Error> {
    let values = tables
        .monitor_scratch
        .get(&0, 0)
        .map_err(failed(maps::MONITOR_SCRATCH.0))?;
    Ok(values.iter().map(|value| value.lost).sum())
}
