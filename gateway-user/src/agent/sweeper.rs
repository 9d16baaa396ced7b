//! The thread that removes flows which are over.

use std::{
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tracing::warn;

use crate::dataplane::{
    Error,
    clock::Clock,
    gc::{Sweep, sweep},
    pins::Pins,
    tables::Tables,
};

/// Pause between two passes.
const PAUSE: Duration = Duration::from_secs(2);

/// Starts sweeping; ends when the receiver is gone. Walks its own handles of the maps, so that a
/// large table never holds up a change.
pub(super) fn start(pins: Pins) -> Result<mpsc::Receiver<Sweep>, Error> {
    let mut tables = Tables::open(&pins)?;
    let clock = Clock::open(&pins)?;
    let (report, reports) = mpsc::channel(1);
    let swept = move || {
        loop {
            thread::sleep(PAUSE);
            if report.is_closed() {
                return;
            }
            let began = Instant::now();
            let pass = clock.read(&tables).and_then(|now| {
                let config = tables
                    .config
                    .get(&0, 0)
                    .map_err(|e| Error::Map("CONFIG", e.to_string()))?;
                Ok(sweep(
                    &mut tables,
                    began,
                    now.ticks as u32,
                    &config.timeout_ticks,
                ))
            });
            match pass {
                Ok(sweep) => {
                    if report.blocking_send(sweep).is_err() {
                        return;
                    }
                }
                Err(error) => warn!(%error, "flows could not be swept; trying again"),
            }
        }
    };
    thread::Builder::new()
        .name("sweeper".into())
        .spawn(swept)
        .map_err(|e| Error::Load(format!("no thread for sweeping flows: {e}")))?;
    Ok(reports)
}
