//! Packets per second: the same generator through each contender to where frames end, all on one CPU.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf,
    programs::{SchedClassifier, TcAttachType},
};
use gateway_common::{
    bench::{Generator, way},
    flow::UDP,
};
use serde::Serialize;
use serde_json::Value;
use xtask::{console, netns};

use crate::{
    Options,
    flows::{BACK, FORTH, Tables},
    network::{CLIENT, Contender, PODS},
    rounds::Figure,
    stage::{self, Source},
};

/// Who is compared; the floor comes beside them.
pub(crate) const CONTENDERS: [Contender; 4] = [
    Contender::Xdp,
    Contender::Tc,
    Contender::Nftables,
    Contender::Routed,
];
/// Live flows of each. No more: nftables knows 262 144 in all (`nf_conntrack_max` of the whole machine).
const FLOWS: [u32; 3] = [1, 1_000, 100_000];
/// Room in the flow tables: two entries for each flow, and as much again.
const ROOM: u32 = 1 << 19;
/// Device whose peer only drops: what generating and dropping costs.
const FLOOR: (&str, &str) = ("f0", "f1");

/// What one contender reached.
#[derive(Debug, Serialize)]
struct Line {
    who: &'static str,
    /// Millions of packets per second from the generator to where they end.
    mpps: Figure,
    /// ns per packet, without generating and dropping.
    net_ns: Figure,
    rounds: usize,
    refused: Vec<String>,
}

/// Measures all contenders, with few flows and with more.
pub(crate) fn run(options: &Options) -> Result<Value> {
    netns::ip_batch(
        Some(CLIENT),
        &[
            format!("link add {} type veth peer name {}", FLOOR.0, FLOOR.1),
            format!("link set {} up", FLOOR.0),
            format!("link set {} up", FLOOR.1),
        ],
    )?;
    let mut source = netns::inside(CLIENT, || -> Result<Source> {
        let mut source = Source::load(options, ROOM, "rate")?;
        stage::attach(&mut source.ebpf, "bench_sink", FLOOR.1)?;
        Ok(source)
    })??;
    let mut gateways: Vec<(Ebpf, Option<Tables>)> = Vec::new();
    for one in CONTENDERS {
        gateways.push(prepare(options, one, &mut source)?);
    }
    let mut all = Vec::new();
    let mut filled = 0;
    for flows in FLOWS {
        for tables in gateways
            .iter_mut()
            .filter_map(|(_, tables)| tables.as_mut())
        {
            tables.fill(filled..flows, UDP)?;
        }
        filled = flows;
        all.push(netns::inside(CLIENT, || -> Result<Value> {
            stage::pin()?;
            measure(options, flows, &mut source, &gateways)
        })??);
    }
    // Sinks go with the source, so that the parts after this one find their pods again.
    drop(source);
    Ok(Value::Array(all))
}

/// Puts a contender's programs in place, and the sink behind it that costs it least.
fn prepare(
    options: &Options,
    one: Contender,
    source: &mut Source,
) -> Result<(Ebpf, Option<Tables>)> {
    let device = one.pod_device();
    let xdp = one == Contender::Xdp;
    netns::inside(PODS, || -> Result<()> {
        if xdp {
            stage::attach(&mut source.ebpf, "bench_sink", &device).map(drop)
        } else {
            tc(&mut source.ebpf, "bench_sink_tc", &device)
        }
    })??;
    if !matches!(one, Contender::Xdp | Contender::Tc) {
        // Not used: every contender has the same shape.
        return Ok((stage::load(&options.bench_object, ROOM, one.name())?, None));
    }
    netns::inside(&one.namespace(), || -> Result<(Ebpf, Option<Tables>)> {
        let mut gateway = stage::load(&options.object, ROOM, one.name())?;
        let mut tables = Tables::take(&mut gateway, one.plan())?;
        let (cl0, up0) = (stage::ifindex("cl0")?, stage::ifindex("up0")?);
        tables.hop(FORTH, up0, one.mac(4), one.mac(3))?;
        tables.hop(BACK, cl0, one.mac(1), one.mac(2))?;
        if xdp {
            stage::attach(&mut gateway, "fleetgate_xdp", "cl0")?;
        } else {
            tc(&mut gateway, "fleetgate_tc", "cl0")?;
        }
        Ok((gateway, Some(tables)))
    })?
}

fn tc(ebpf: &mut Ebpf, name: &str, device: &str) -> Result<()> {
    let program: &mut SchedClassifier = ebpf
        .program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?
        .try_into()?;
    program
        .attach(device, TcAttachType::Ingress)
        .with_context(|| format!("{name} on {device}"))
        .map(drop)
}

fn measure(
    options: &Options,
    flows: u32,
    source: &mut Source,
    gateways: &[(Ebpf, Option<Tables>)],
) -> Result<Value> {
    let floor = Generator {
        ifindex: stage::ifindex(FLOOR.0)?,
        flows,
        proto: UDP,
        plan: Contender::Xdp.plan(),
        ..Generator::default()
    };
    let mut nanos: Vec<Vec<f64>> = vec![Vec::new(); CONTENDERS.len() + 1];
    let mut refused: Vec<Vec<String>> = vec![Vec::new(); CONTENDERS.len() + 1];
    // The first round opens flows, where they are not written, and is not counted.
    for round in 0..=options.rounds {
        let frames = if round == 0 {
            options.frames.max(flows)
        } else {
            options.frames
        };
        let in_turn = u32::from(round == 0);
        let mut one = vec![None; CONTENDERS.len() + 1];
        for step in 0..=CONTENDERS.len() {
            let k = (round + step) % (CONTENDERS.len() + 1);
            let shot = if k == CONTENDERS.len() {
                shoot(source, &floor, frames, None)
            } else {
                let who = CONTENDERS[k];
                let generator = Generator {
                    ifindex: stage::ifindex(&who.client_device())?,
                    way: if who == Contender::Routed {
                        way::DIRECT
                    } else {
                        way::REQUEST
                    },
                    dmac: stage::words(who.mac(2)),
                    smac: stage::words(who.mac(1)),
                    plan: who.plan(),
                    in_turn,
                    ..floor
                };
                shoot(source, &generator, frames, gateways[k].1.as_ref())
            };
            match shot {
                Ok(ns) => one[k] = Some(ns),
                Err(why) => refused[k].push(format!("{why:#}")),
            }
        }
        if round > 0 && one.iter().all(Option::is_some) {
            for (all, one) in nanos.iter_mut().zip(one) {
                all.extend(one);
            }
        }
    }
    let base = nanos.pop().unwrap_or_default();
    if base.is_empty() {
        bail!("no round counts: {refused:?}");
    }
    let mpps = |all: &[f64]| Figure::of(all.iter().map(|ns| 1000.0 / ns));
    let lines: Vec<Line> = CONTENDERS
        .iter()
        .zip(&nanos)
        .zip(refused)
        .map(|((who, all), refused)| Line {
            who: who.name(),
            mpps: mpps(all),
            net_ns: Figure::of(all.iter().zip(&base).map(|(ns, base)| ns - base)),
            rounds: all.len(),
            refused,
        })
        .collect();
    for line in &lines {
        console::note(format_args!(
            "   {flows} flows, {}: {:.3} M packets/s ({:.3} to {:.3}), net {:.0} ns, {} rounds, {} refused",
            line.who,
            line.mpps.median,
            line.mpps.min,
            line.mpps.max,
            line.net_ns.median,
            line.rounds,
            line.refused.len()
        ));
    }
    let net = |k: usize| -> Vec<f64> {
        nanos[k]
            .iter()
            .zip(&base)
            .map(|(ns, base)| ns - base)
            .collect()
    };
    Ok(serde_json::json!({
        "flows": flows,
        "floor_ns": Figure::of(base.iter().copied()),
        "contenders": lines,
        "xdp_by_nftables": Figure::ratio(&nanos[2], &nanos[0]),
        "tc_by_nftables": Figure::ratio(&nanos[2], &nanos[1]),
        "xdp_by_routed": Figure::ratio(&nanos[3], &nanos[0]),
        "tc_by_routed": Figure::ratio(&nanos[3], &nanos[1]),
        "xdp_by_nftables_net": Figure::ratio(&net(2), &net(0)),
        "tc_by_nftables_net": Figure::ratio(&net(2), &net(1)),
    }))
}

/// ns per packet from the first that was made to the last that arrived, by the kernel's clock: setting the generator up
/// and taking it down waits for timer ticks, and is nobody's work. An error is a round that cannot be trusted.
fn shoot(
    source: &mut Source,
    what: &Generator,
    frames: u32,
    tables: Option<&Tables>,
) -> Result<f64> {
    let translated = tables.map(Tables::translated).transpose()?;
    let before = source.arrivals()?;
    let start = source.arrived()?;
    source.send(what, frames)?;
    let mut seen = source.arrived()? - start;
    let mut last = Instant::now();
    while seen < u64::from(frames) && last.elapsed() < Duration::from_millis(100) {
        thread::sleep(Duration::from_millis(1));
        let now = source.arrived()? - start;
        if now > seen {
            (seen, last) = (now, Instant::now());
        }
    }
    // The kernel drops where its queues overflow; what got through in that time is what counts, but not of a round that
    // lost much.
    if seen * 100 < u64::from(frames) * 99 {
        bail!("{seen} of {frames} frames arrived");
    }
    if let (Some(tables), Some(before)) = (tables, translated) {
        let translated = tables.translated()? - before;
        if translated != u64::from(frames) && translated != seen {
            bail!("{translated} of {frames} frames were translated");
        }
    }
    let after = source.arrivals()?;
    let mut moved = before
        .iter()
        .zip(&after)
        .filter(|(one, other)| one != other);
    let (Some((before, after)), None) = (moved.next(), moved.next()) else {
        bail!("frames did not all arrive on one CPU");
    };
    let (Some(elapsed), Some(counted @ 1..)) = (
        after.at.checked_sub(source.begun()?),
        after.stamped.checked_sub(before.count),
    ) else {
        bail!("too few frames to know how long they took");
    };
    Ok(elapsed as f64 / counted as f64)
}
