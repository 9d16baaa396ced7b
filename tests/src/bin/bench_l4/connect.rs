//! Short connections per second between real sockets: connect, a word from the pod, close.

use std::{
    io::{self, Read},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use xtask::netns;

use crate::{
    Options,
    bulk::summary,
    contenders::{self, GREETING},
    network::CLIENT,
};

/// Connections of one measurement.
const CONNECTIONS: u32 = 4_000;
/// Measures all contenders.
pub(crate) fn run(options: &Options) -> Result<Value> {
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); contenders::ALL.len()];
    // The first round fills caches of routes and memory, and is not counted.
    for round in 0..=options.rounds {
        for step in 0..contenders::ALL.len() {
            let k = (round + step) % contenders::ALL.len();
            let target = contenders::web(contenders::ALL[k]);
            let rate = netns::inside(CLIENT, || shoot(target, options.open))??;
            if round > 0 {
                rates[k].push(rate);
            }
        }
    }
    let about = json!({
        "ends": "sockets",
        "connections": CONNECTIONS,
        "open_at_once": options.open,
    });
    Ok(summary(&about, &rates, "per_second"))
}

/// Connections per second. All of them must be answered.
fn shoot(target: SocketAddr, threads: usize) -> Result<f64> {
    let left = AtomicU32::new(CONNECTIONS);
    let failed = AtomicU32::new(0);
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let take = |n: u32| n.checked_sub(1);
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                    .is_ok()
                {
                    if once(target).is_err() {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let elapsed = start.elapsed();
    let failed = failed.into_inner();
    if failed > 0 {
        bail!("{failed} of {CONNECTIONS} connections to {target} failed");
    }
    Ok(f64::from(CONNECTIONS) / elapsed.as_secs_f64())
}

fn once(target: SocketAddr) -> io::Result<()> {
    // Blocking with a bound, which costs fewer calls than a connect that is polled.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_write_timeout(Some(Duration::from_secs(3)))?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    socket.connect(&target.into())?;
    let mut connection: TcpStream = socket.into();
    let mut word = [0; GREETING.len()];
    connection.read_exact(&mut word)?;
    if &word == GREETING {
        Ok(())
    } else {
        Err(io::Error::other("somebody else answered"))
    }
}
