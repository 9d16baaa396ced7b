//! A gateway that is changed, restarted and cut off all the time, and clients that must not notice.
//!
//! Clients hold connections, transfer without end, and open short connections, to two kernel-steered Services whose
//! pods differ, so that an answer of the wrong Service shows. Meanwhile weights, pods and clusters change, the agent
//! ends and starts with its programs loaded anew, interfaces go down and come back, and pods die. The order is drawn
//! from a seed. Nothing may be reset, and nothing answered by a pod that does not belong there, but for connections of
//! pods that died.

mod clients;
mod events;
mod ledger;
mod world;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;
use xtask::{lab::topology::CLIENT, netns};

use self::{clients::Clients, events::Events, ledger::Ledger, world::World};
use crate::e2e::Gateway;

pub use ledger::Told;

/// How long and in which order.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long changes go on.
    pub lasting: Duration,
    /// Seed of their order.
    pub seed: u64,
}

/// What clients met.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Seed of the order of events.
    pub seed: u64,
    /// How long it went on.
    pub seconds: f64,
    /// Events by kind.
    pub events: BTreeMap<&'static str, u64>,
    /// Times the agent ran with other program ids in the same links.
    pub programs_replaced: u64,
    /// Requests over connections that were held all the time.
    pub held_requests: u64,
    /// Bytes that were read over transfers, each compared with what the pod must have sent.
    pub transferred_bytes: u64,
    /// Connections of one request.
    pub short_connections: u64,
    /// The longest that one request took, of those that were answered: what a flap of an interface costs.
    pub longest_request_ms: u64,
    /// Failures of connections whose pod died.
    pub excused: u64,
    /// Every other failure.
    pub resets: Vec<Told>,
    /// Answers of pods that do not belong there.
    pub misrouted: Vec<Told>,
}

impl Report {
    /// Whether nothing was lost.
    pub fn clean(&self) -> bool {
        self.resets.is_empty() && self.misrouted.is_empty()
    }
}

/// Runs it all in a lab of its own.
pub fn run(options: Options) -> Result<Report> {
    let mut gateway = Gateway::new()?;
    let world = World::default();
    world.write(&gateway)?;
    gateway.start()?;
    let ledger = Ledger::new(&world);
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let mut events = Events::new(world, options.seed);
    let worked = thread::scope(|scope| -> Result<()> {
        let (clients, stopped) = (Clients::new(&ledger, &stop), &stop);
        let load = scope.spawn(move || netns::inside(CLIENT, || clients.run()));
        let worked = events.go_on(&mut gateway, &ledger, began + options.lasting);
        stopped.store(true, Ordering::Relaxed);
        load.join().ok().context("a client panicked")??;
        worked
    });
    let mut report = ledger.report();
    worked.with_context(|| format!("an event could not be done; clients met {report:?}"))?;
    report.seed = options.seed;
    report.seconds = began.elapsed().as_secs_f64();
    report.events = events.counts;
    report.programs_replaced = events.programs_replaced;
    Ok(report)
}
