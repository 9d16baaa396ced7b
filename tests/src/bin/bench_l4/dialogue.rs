//! Short connections per second between ends that cost next to nothing: XDP programs at the client's and the pods'
//! devices (`gateway-ebpf/src/bench/ends.rs`). With sockets at both ends, those take most of the time.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    maps::{Array, MapData},
    programs::{TestRun as _, TestRunAttrs, TestRunOptions},
};
use gateway_common::bench::{Addresses, Talk};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use xtask::netns;

use crate::{
    Options,
    bulk::summary,
    contenders::{ALL, SERVED, WEB},
    network::{CLIENT, Contender, PODS},
    stage,
};

/// Connections of one measurement.
const CONNECTIONS: u32 = 20_000;
/// How often a round is measured again where a frame was lost; each time is told.
const AGAIN: usize = 3;
/// Longest time without any progress.
const STUCK: Duration = Duration::from_secs(2);

/// Measures all contenders.
pub(crate) fn run(options: &Options) -> Result<Value> {
    let mut ends = stage::load(&options.bench_object, 1 << 10, "dialogue")?;
    for who in ALL {
        netns::inside(CLIENT, || {
            stage::attach(&mut ends, "bench_client", &who.client_device()).map(drop)
        })??;
        netns::inside(PODS, || {
            stage::attach(&mut ends, "bench_server", &who.pod_device()).map(drop)
        })??;
    }
    let mut talk: Array<MapData, Talk> = stage::array(&mut ends, "TALK")?;
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); ALL.len()];
    let mut again = Vec::new();
    let mut first = 0;
    // The first round fills caches of routes and memory, and is not counted.
    for round in 0..=options.rounds {
        for step in 0..ALL.len() {
            let k = (round + step) % ALL.len();
            let mut tries = 0;
            let rate = loop {
                let one = netns::inside(CLIENT, || {
                    shoot(&mut ends, &mut talk, ALL[k], first, options.open as u32)
                })?;
                // No two measurements share a flow: one may be remembered for minutes.
                first += CONNECTIONS;
                tries += 1;
                match one {
                    Ok(rate) => break rate,
                    Err(why) if tries <= AGAIN => again.push(format!("{}: {why:#}", ALL[k].name())),
                    Err(why) => return Err(why).context(ALL[k].name()),
                }
            };
            if round > 0 {
                rates[k].push(rate);
            }
        }
    }
    // The programs leave the devices with their object.
    drop(ends);
    let about = json!({
        "ends": "xdp",
        "connections": CONNECTIONS,
        "open_at_once": options.open,
        "again": again,
    });
    Ok(summary(&about, &rates, "per_second"))
}

fn plan(who: Contender) -> Addresses {
    let (vip, port) = match who {
        Contender::Routed => (who.pod(), SERVED),
        _ => (who.vip(), WEB),
    };
    Addresses {
        vip: vip.to_bits(),
        vip_port: port.into(),
        ..who.plan()
    }
}

/// Connections per second. All of them must be opened, answered and closed.
fn shoot(
    ends: &mut aya::Ebpf,
    talk: &mut Array<MapData, Talk>,
    who: Contender,
    first: u32,
    open: u32,
) -> Result<f64> {
    let what = Talk {
        wanted: CONNECTIONS,
        first,
        ifindex: stage::ifindex(&who.client_device())?,
        dmac: stage::words(who.mac(2)),
        smac: stage::words(who.mac(1)),
        plan: plan(who),
        ..Talk::default()
    };
    talk.set(0, what, 0)?;
    let begin = clock_gettime(ClockId::Monotonic);
    // Half of them from each CPU: the work that a frame makes is done where it is.
    let cpus = thread::available_parallelism()?.get() as u32;
    let program = stage::xdp(ends, "bench_open")?;
    for cpu in 0..cpus {
        stage::pin_to(cpu as usize)?;
        let options = TestRunOptions {
            data_in: Some(&[0; 60]),
            repeat: open / cpus,
            attrs: TestRunAttrs::new().xdp_live_frames(open / cpus),
            ..TestRunOptions::new()
        };
        program.test_run(options).context("live frames")?;
    }
    stage::unpin(cpus as usize)?;
    let mut seen = (0, Instant::now());
    let now = loop {
        let now = talk.get(&0, 0)?;
        ensure!(now.resets == 0, "{} connections were reset", now.resets);
        if now.end != 0 {
            break now;
        }
        if now.over != seen.0 {
            seen = (now.over, Instant::now());
        } else if seen.1.elapsed() > STUCK {
            bail!(
                "{} of {CONNECTIONS} connections are over, {} were begun, {} greeted",
                now.over,
                now.opened,
                now.greeted
            );
        }
        thread::sleep(Duration::from_millis(1));
    };
    ensure!(
        now.greeted == u64::from(CONNECTIONS),
        "{} of {CONNECTIONS} clients read what the pod says",
        now.greeted
    );
    let begin = begin.tv_sec as u64 * 1_000_000_000 + begin.tv_nsec as u64;
    let nanos = now.end.saturating_sub(begin);
    Ok(f64::from(CONNECTIONS) * 1e9 / nanos as f64)
}
