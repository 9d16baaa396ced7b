//! The kernel's tick counter, in which flows remember when they last spoke.

use std::time::Duration;

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use gateway_common::config::Clock as Reading;

use super::{Error, pins::Pins, tables::Tables};

/// Reads the clocks by running the pinned `fleetgate_clock` program once.
pub struct Clock {
    program: SchedClassifier,
}

/// Kernel tick rates that exist (`CONFIG_HZ`).
const RATES: [u32; 6] = [100, 250, 300, 500, 1000, 1024];

impl Clock {
    /// Opens the pinned program.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        let program =
            SchedClassifier::from_pin(pins.clock()).map_err(|e| Error::Clock(e.to_string()))?;
        Ok(Self { program })
    }

    /// Both clocks at one moment.
    pub fn read(&self, tables: &Tables) -> Result<Reading, Error> {
        let frame = [0_u8; 64];
        let options = TestRunOptions {
            data_in: Some(&frame),
            ..TestRunOptions::default()
        };
        self.program
            .test_run(options)
            .map_err(|e| Error::Clock(e.to_string()))?;
        tables
            .clock
            .get(&0, 0)
            .map_err(|e| Error::Clock(e.to_string()))
    }

    /// Ticks per second, measured over `pause` (50 ms is plenty) and rounded to a rate that exists.
    pub fn rate(&self, tables: &Tables, pause: Duration) -> Result<u32, Error> {
        let before = self.read(tables)?;
        std::thread::sleep(pause);
        let after = self.read(tables)?;
        let ticks = after.ticks.wrapping_sub(before.ticks) as f64;
        let seconds = after.nanoseconds.wrapping_sub(before.nanoseconds) as f64 / 1e9;
        let measured = ticks / seconds.max(1e-3);
        let nearest = RATES
            .into_iter()
            .min_by(|a, b| distance(*a, measured).total_cmp(&distance(*b, measured)));
        Ok(nearest.unwrap_or(RATES[0]))
    }
}

fn distance(rate: u32, measured: f64) -> f64 {
    (f64::from(rate) - measured).abs()
}
