//! A proxy that is changed, whose certificates are swapped, whose pods come and go and whose program is replaced, under
//! load of every kind that it serves: nothing may fail.
//!
//! Clients of HTTP/1.1, HTTP/2, gRPC and WebSocket, in plain and through TLS, ask pods that say who they are. Each answer
//! is looked at: status, bytes, whether that pod may answer, and which certificate was shown. The order of changes is
//! drawn from a seed.

mod certificates;
mod clients;
mod events;
mod grpc;
mod http1;
mod ledger;
mod pods;
mod websocket;
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

use self::{
    certificates::Authority,
    clients::Clients,
    events::Events,
    ledger::Ledger,
    world::{HTTP, HTTPS, Seat},
};
use crate::e2e::Gateway;

pub use ledger::{Failure, Kind};

/// How long, how much, and in which order.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long clients ask.
    pub lasting: Duration,
    /// Changes of the configuration; certificates and pods change beside them.
    pub changes: u32,
    /// Seed of their order.
    pub seed: u64,
}

/// How the program was replaced.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Upgrade {
    /// Seconds after the start.
    pub at: f64,
    /// Until the new one served, in milliseconds.
    pub ready_ms: u64,
    /// The new one has maps of another layout.
    pub other_layout: bool,
}

/// What clients met.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Seed of the order of events.
    pub seed: u64,
    /// How long it went on.
    pub seconds: f64,
    /// What each kind of client met.
    pub kinds: BTreeMap<&'static str, Kind>,
    /// Events by kind.
    pub events: BTreeMap<&'static str, u64>,
    /// The upgrade.
    pub upgrade: Option<Upgrade>,
    /// The first failures.
    pub failures: Vec<Failure>,
}

impl Report {
    /// Whether every request was answered, and rightly.
    pub fn clean(&self) -> bool {
        let kinds = self.kinds.values();
        kinds
            .clone()
            .all(|it| it.failed == 0 && it.asked == it.answered)
            && kinds.len() > 0
    }
}

/// Runs it all in a lab of its own.
pub fn run(options: Options) -> Result<Report> {
    let mut gateway = Gateway::new()?;
    let (seats, lines) = Seat::all();
    for (namespace, line) in lines {
        gateway.ip(&namespace, &line)?;
    }
    let authority = Authority::new()?;
    let certificate = authority.sign()?;
    let (world, running) = events::first(&seats, &certificate)?;
    gateway.remove("fleet/web.yaml")?;
    for cluster in ["c1", "c2"] {
        gateway.remove(&format!("clusters/{cluster}/web.yaml"))?;
    }
    world.write(&gateway, &mut BTreeMap::new())?;
    gateway.start()?;
    for port in [HTTP, HTTPS] {
        gateway.until_steering(port, "request", "")?;
    }
    let ledger = Ledger::new(world.clone(), certificate.der);
    let stop = AtomicBool::new(false);
    let until = Instant::now() + options.lasting;
    let mut events = Events::new(options, &authority, &ledger, seats, (world, running));
    let worked = thread::scope(|scope| -> Result<()> {
        let (ledger, stop, authority) = (&ledger, &stop, &authority);
        let asking = move || Clients::new(ledger, stop, authority, options.seed)?.run();
        let load = scope.spawn(move || netns::inside(CLIENT, asking));
        let worked = events.go_on(&mut gateway, until);
        stop.store(true, Ordering::Relaxed);
        load.join().ok().context("a client panicked")???;
        worked
    });
    let (counts, upgrade) = (std::mem::take(&mut events.counts), events.upgrade);
    events.end();
    let (lasted, kinds, failures) = ledger.close();
    worked.with_context(|| format!("an event could not be done; clients met {failures:?}"))?;
    Ok(Report {
        seed: options.seed,
        seconds: lasted.as_secs_f64(),
        kinds,
        events: counts,
        upgrade,
        failures,
    })
}
