//! Bulk TCP between ends that copy nothing: `sendfile` from the page cache, and a receiver that has the kernel discard
//! what it takes (`MSG_TRUNC`, tcp(7)). The ends of iperf3 copy twice, and take most of the time.
//!
//! Every contender's connections stay open, and take short turns: a virtual machine has better and worse seconds, and a
//! round of many turns gives each contender as much of both.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
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
/// What the contender before has under way arrives, and caches are warm, after this.
const WARM: Duration = Duration::from_millis(50);
/// What a turn measures.
const TURN: Duration = Duration::from_millis(150);
/// Turns of each contender in a round.
const TURNS: usize = 8;

/// Nobody's turn.
const PAUSE: usize = usize::MAX;
/// Senders end.
const OVER: usize = usize::MAX - 1;

/// Whose turn it is.
#[derive(Default)]
struct Turn {
    whose: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Turn {
    fn whose(&self) -> usize {
        self.whose.load(Ordering::Acquire)
    }

    fn give(&self, whom: usize) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.whose.store(whom, Ordering::Release);
        drop(guard);
        self.changed.notify_all();
    }

    /// Waits for one's turn. False: it is over.
    fn wait(&self, me: usize) -> bool {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let others = |(): &mut ()| ![me, OVER].contains(&self.whose());
        drop(self.changed.wait_while(guard, others));
        self.whose() != OVER
    }
}

/// Bytes that each contender has brought.
type Received = [AtomicU64; ALL.len()];

/// Measures one stream and eight.
pub(crate) fn run(options: &Options) -> Result<Vec<Value>> {
    let received = Arc::new(Received::default());
    serve(&received)?;
    let mut all = Vec::new();
    for streams in [1, 8] {
        let gbps = carry(streams, options.rounds, &received)?;
        let about = json!({ "streams": streams, "ends": "zerocopy" });
        all.push(summary(&about, &gbps, "gbps"));
    }
    Ok(all)
}

/// Takes and counts what comes to each contender's pod.
fn serve(received: &Arc<Received>) -> Result<()> {
    let listener = netns::inside(PODS, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, STREAM)))??;
    let received = Arc::clone(received);
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let received = Arc::clone(&received);
            thread::spawn(move || {
                // On the last CPU, and senders on the first: threads that wander make figures of two kinds. One
                // that cannot be kept there measures all the same.
                let _ = stage::pin();
                let here = connection.local_addr().map(|it| it.ip()).ok();
                let of = |one: &Contender| here == Some(IpAddr::V4(one.pod()));
                if let Some(k) = ALL.iter().position(of) {
                    discard(&connection, &received[k]);
                }
            });
        }
    });
    Ok(())
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

/// Gbit/s that arrived, by contender and round.
fn carry(streams: usize, rounds: usize, received: &Received) -> Result<Vec<Vec<f64>>> {
    let mut connections = Vec::new();
    for (k, who) in ALL.iter().enumerate() {
        let target: SocketAddr = (who.target(), STREAM).into();
        let connect = || TcpStream::connect_timeout(&target, Duration::from_secs(3));
        for _ in 0..streams {
            let connection = netns::inside(CLIENT, connect)?
                .with_context(|| format!("{}, {target}", who.name()))?;
            connections.push((k, connection));
        }
    }
    let file: File = memfd_create("bulk", MemfdFlags::CLOEXEC)?.into();
    ftruncate(&file, PIECE as u64)?;
    let turn = Turn::default();
    turn.give(PAUSE);
    thread::scope(|scope| {
        for (k, connection) in &connections {
            scope.spawn(|| {
                let _ = stage::pin_to(0);
                send(connection, &file, &turn, *k);
            });
        }
        let gbps = measure(rounds, &turn, received);
        turn.give(OVER);
        gbps
    })
}

fn measure(rounds: usize, turn: &Turn, received: &Received) -> Result<Vec<Vec<f64>>> {
    let mut gbps = vec![Vec::new(); ALL.len()];
    for _ in 0..rounds {
        let mut sums = [(0, Duration::ZERO); ALL.len()];
        for first in 0..TURNS {
            for step in 0..ALL.len() {
                let k = (first + step) % ALL.len();
                turn.give(k);
                thread::sleep(WARM);
                let (before, start) = (received[k].load(Ordering::Relaxed), Instant::now());
                thread::sleep(TURN);
                let bytes = received[k].load(Ordering::Relaxed) - before;
                ensure!(bytes > 0, "{}: nothing arrived", ALL[k].name());
                sums[k].0 += bytes;
                sums[k].1 += start.elapsed();
            }
        }
        for (all, (bytes, time)) in gbps.iter_mut().zip(sums) {
            all.push(bytes as f64 * 8.0 / time.as_nanos() as f64);
        }
    }
    Ok(gbps)
}

/// Sends when it is its turn, until it is over or the other end is gone: then too little arrives, and the figure tells.
fn send(connection: &TcpStream, file: &File, turn: &Turn, me: usize) {
    while turn.wait(me) {
        while turn.whose() == me {
            let mut at = 0;
            if sendfile(connection, file, Some(&mut at), PIECE).is_err() {
                return;
            }
        }
    }
}
