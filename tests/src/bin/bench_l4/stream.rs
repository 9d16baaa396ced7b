//! Bulk TCP between ends that copy nothing: `sendfile` from the page cache, and a receiver that has the kernel discard
//! what it takes (`MSG_TRUNC`, tcp(7)). The ends of iperf3 copy twice, and take most of the time.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create, sendfile},
    net::{RecvFlags, recv},
};
use serde_json::{Value, json};
use xtask::netns;

use crate::{
    Options,
    bulk::summary,
    contenders::{ALL, STREAM},
    network::{CLIENT, Contender, PODS},
    stage,
};

/// Bytes of one call at either end.
const PIECE: usize = 1 << 20;
/// A connection's window is open, and caches are warm, after this.
const WARM: Duration = Duration::from_millis(300);
/// What a round measures: many short ones tell more than few long ones where the machine is never quiet.
const TIME: Duration = Duration::from_millis(700);

/// Measures one stream and eight.
pub(crate) fn run(options: &Options) -> Result<Vec<Value>> {
    let received = Arc::new(AtomicU64::new(0));
    netns::inside(PODS, || -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, STREAM))?;
        let received = Arc::clone(&received);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let received = Arc::clone(&received);
                thread::spawn(move || {
                    // On the last CPU, and senders on the first: threads that wander make figures of two kinds. One
                    // that cannot be kept there measures all the same.
                    let _ = stage::pin();
                    discard(&connection, &received);
                });
            }
        });
        Ok(())
    })??;
    let mut all = Vec::new();
    for streams in [1, 8] {
        let mut gbps: Vec<Vec<f64>> = vec![Vec::new(); ALL.len()];
        let rounds = if options.quick {
            options.rounds
        } else {
            2 * options.rounds
        };
        for round in 0..rounds {
            for step in 0..ALL.len() {
                let k = (round + step) % ALL.len();
                gbps[k].push(carry(ALL[k], streams, &received)?);
            }
        }
        let about = json!({ "streams": streams, "ends": "zerocopy" });
        all.push(summary(&about, &gbps, "gbps"));
    }
    Ok(all)
}

/// Takes what comes until the connection ends.
fn discard(connection: &TcpStream, received: &AtomicU64) {
    let mut room = vec![0; PIECE];
    while let Ok((_, bytes)) = recv(connection, &mut room[..], RecvFlags::TRUNC) {
        if bytes == 0 {
            break;
        }
        received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Gbit/s that arrived.
fn carry(who: Contender, streams: usize, received: &AtomicU64) -> Result<f64> {
    let target: SocketAddr = (who.target(), STREAM).into();
    let connect = || TcpStream::connect_timeout(&target, Duration::from_secs(3));
    let connections: Vec<TcpStream> = netns::inside(CLIENT, || {
        (0..streams).map(|_| connect()).collect::<Result<_, _>>()
    })?
    .with_context(|| format!("{}, {target}", who.name()))?;
    let file: File = memfd_create("bulk", MemfdFlags::CLOEXEC)?.into();
    ftruncate(&file, PIECE as u64)?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for connection in &connections {
            scope.spawn(|| {
                let _ = stage::pin_to(0);
                send(connection, &file, &over);
            });
        }
        thread::sleep(WARM);
        let (before, start) = (received.load(Ordering::Relaxed), Instant::now());
        thread::sleep(TIME);
        let bytes = received.load(Ordering::Relaxed) - before;
        let elapsed = start.elapsed();
        over.store(true, Ordering::Relaxed);
        ensure!(bytes > 0, "{}: nothing arrived", who.name());
        Ok(bytes as f64 * 8.0 / elapsed.as_nanos() as f64)
    })
}

/// Sends until it is over, or the other end is gone: then too little arrives, and the figure tells.
fn send(connection: &TcpStream, file: &File, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let mut at = 0;
        if sendfile(connection, file, Some(&mut at), PIECE).is_err() {
            break;
        }
    }
}
