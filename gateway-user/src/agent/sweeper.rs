//! The thread that removes flows which are over.

use std::{
    sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tracing::warn;

use crate::dataplane::{
    Error,
    clock::Clock,
    gc::{Remover, Sweep, sweep},
    pins::Pins,
    tables::Tables,
};

/// Pause between two passes.
const PAUSE: Duration = Duration::from_secs(2);

/// Starts sweeping; ends when the receiver is gone. Walks its own handles of the maps, so that a
/// large table never holds up a change.
/// What is sent to the sender wakes it before its time.
pub(super) fn start(pins: Pins) -> Result<(mpsc::Receiver<Sweep>, SyncSender<()>), Error> {
    let tables = Tables::open(&pins)?;
    let mut remover = Remover::open(&pins)?;
    let (wake, woken) = sync_channel(1);
    let clock = Clock::open(&pins)?;
    let (report, reports) = mpsc::channel(1);
    let swept = move || {
        loop {
            match woken.recv_timeout(PAUSE) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => thread::sleep(PAUSE),
            }
            if report.is_closed() {
                return;
            }
            let began = Instant::now();
            let pass = clock.read(&tables).and_then(|now| {
                let config = tables
                    .config
                    .get(&0, 0)
                    .map_err(|e| Error::Map("CONFIG", e.to_string()))?;
                sweep(
                    &tables,
                    &mut remover,
                    began,
                    now.ticks as u32,
                    &config.timeout_ticks,
                )
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
    Ok((reports, wake))
}
