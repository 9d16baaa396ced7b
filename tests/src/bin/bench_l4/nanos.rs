//! ns per packet of an established flow: the kernel's own run time statistics of each program, on the same frames of the
//! same flows in the same rounds.

use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf,
    sys::{Stats, enable_stats},
};
use gateway_common::{
    bench::{Addresses, Generator, way},
    flow::{TCP, UDP},
};
use serde::Serialize;
use xtask::{console, netns};

use crate::{
    Options,
    flows::{BACK, FORTH, Tables, memory},
    network,
    rounds::Figure,
    stage::{self, Source},
};

const NAMESPACE: &str = "fg-bench-ns";
/// Programs, in the order of a round.
const PROGRAMS: [&str; 4] = [
    "bench_empty",
    "bench_reference",
    "bench_touch",
    "fleetgate_xdp",
];
/// Whose program it is.
const EMPTY: usize = 0;
const REFERENCE: usize = 1;
const TOUCH: usize = 2;
const FLEETGATE: usize = 3;

/// Room in the flow table: two entries for each of 1 M flows.
const ROOM: u32 = 1 << 21;

/// Who sends.
const SMAC: [u16; 3] = [2, 0, 0x0200];

const PLAN: Addresses = Addresses {
    client: 0x0a80_0001,
    vip: 0xcb00_710a,
    snat: 0xc612_0001,
    pod: 0x0a01_0001,
    pod_mask: 63,
    vip_port: 80,
    pod_port: 8080,
};

/// One line of the result.
#[derive(Debug, Serialize)]
pub(crate) struct Case {
    /// Live flows in the table, two entries each.
    flows: u32,
    /// `udp` or `tcp`.
    proto: &'static str,
    /// `request` or `reply`.
    way: &'static str,
    /// Rounds that count.
    rounds: usize,
    /// ns of the empty program.
    empty: Figure,
    /// Net ns of the reference program.
    reference: Figure,
    /// Net ns of the reference program that also notes when a flow spoke.
    touch: Figure,
    /// Net ns of the gateway.
    fleetgate: Figure,
    /// Gateway by reference, round by round.
    ratio: Figure,
    /// Gateway by the reference that touches the flow.
    ratio_touch: Figure,
    /// Smallest of one by smallest of the other.
    ratio_of_mins: f64,
    /// Rounds that were refused, and why.
    refused: Vec<String>,
}

/// All lines.
#[derive(Debug, Serialize)]
pub(crate) struct Nanos {
    /// Of established flows; in the result on its own.
    pub(crate) cases: Vec<Case>,
    /// Of packets that open a flow.
    pub(crate) opening: Opening,
}

/// What a new flow costs.
#[derive(Debug, Serialize)]
pub(crate) struct Opening {
    /// Flows opened in each round, in a table that was empty.
    flows: u32,
    /// Net ns of a packet that opens one: service, ring, source port, both entries, translation.
    ns: Figure,
    /// Entries the table has room for, two for each flow.
    table_entries: u32,
    /// Kernel memory it takes, in MiB, full or empty.
    table_mib: f64,
    refused: Vec<String>,
}

struct Stand {
    source: Source,
    gateway: Ebpf,
    tables: Tables,
    outs: [u32; PROGRAMS.len()],
    /// Frames of one flow after the other.
    in_turn: bool,
}

/// Measures all cases.
pub(crate) fn run(options: &Options) -> Result<Nanos> {
    let mut lines = Vec::new();
    for k in 0..PROGRAMS.len() {
        lines.push(format!("link add a{k} type veth peer name b{k}"));
        lines.push(format!("link set a{k} up"));
        lines.push(format!("link set b{k} up"));
    }
    netns::ip_batch(None, &[format!("netns add {NAMESPACE}")])?;
    network::quiet(NAMESPACE)?;
    netns::ip_batch(Some(NAMESPACE), &lines)?;
    netns::inside(NAMESPACE, || {
        stage::pin()?;
        let mut stand = Stand::new(options)?;
        let _stats = enable_stats(Stats::RunTime).context("BPF_ENABLE_STATS (Linux 5.8)")?;
        let sizes: &[u32] = if !options.flows.is_empty() {
            &options.flows
        } else if options.quick {
            &[1, 1_000, 100_000]
        } else {
            &[1, 1_000, 100_000, 1_000_000]
        };
        let opening = stand.opening(options)?;
        let mut cases = Vec::new();
        let mut have = 0;
        for &flows in sizes {
            let tcp = flows <= 100_000;
            if tcp {
                stand.tables.fill(have..flows, TCP)?;
            } else {
                // There is room for a million flows, not for these as well.
                stand.tables.clear(0..have, TCP)?;
            }
            stand.tables.fill(have..flows, UDP)?;
            have = flows;
            cases.push(stand.case(options, flows, UDP, way::REQUEST)?);
            cases.push(stand.case(options, flows, UDP, way::REPLY)?);
            if tcp {
                cases.push(stand.case(options, flows, TCP, way::REQUEST)?);
            }
        }
        Ok(Nanos { cases, opening })
    })?
}

impl Stand {
    fn new(options: &Options) -> Result<Self> {
        let mut gateway = stage::load(&options.object, ROOM, "ns")?;
        let mut source = Source::load(options, ROOM, "ns")?;
        let mut tables = Tables::take(&mut gateway, PLAN)?;
        let mut outs = [0; PROGRAMS.len()];
        for (k, name) in PROGRAMS.iter().enumerate() {
            let own = k == FLEETGATE;
            let ebpf = if own { &mut gateway } else { &mut source.ebpf };
            stage::attach(ebpf, name, &format!("b{k}"))?;
            stage::attach(&mut source.ebpf, "bench_sink", &format!("a{k}"))?;
            outs[k] = stage::ifindex(&format!("a{k}"))?;
        }
        // Back out of the interface they came in on, as the reference sends them.
        let own = stage::ifindex(&format!("b{FLEETGATE}"))?;
        for hop in [FORTH, BACK] {
            tables.hop(hop, own, [2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 8])?;
        }
        Ok(Self {
            source,
            gateway,
            tables,
            outs,
            in_turn: false,
        })
    }

    fn case(&mut self, options: &Options, flows: u32, proto: u32, way: u32) -> Result<Case> {
        let mut nanos: [Vec<f64>; PROGRAMS.len()] = Default::default();
        let mut refused = Vec::new();
        // With few flows, a neighbour of this machine that takes cache for a while is most of the noise: what is compared
        // lies close together then, and there is more of it.
        let (rounds, frames) = if flows <= 1_000 {
            (options.rounds * 4, options.frames / 2)
        } else {
            (options.rounds, options.frames)
        };
        // The first round warms caches and is not counted.
        for round in 0..=rounds {
            let mut one = [0.0; PROGRAMS.len()];
            let mut fair = true;
            for step in 0..PROGRAMS.len() {
                let k = (round + step) % PROGRAMS.len();
                match self.shoot(k, flows, proto, way, frames) {
                    Ok(ns) => one[k] = ns,
                    Err(why) => {
                        refused.push(format!("{}: {why:#}", PROGRAMS[k]));
                        fair = false;
                    }
                }
            }
            if fair && round > 0 {
                for (all, one) in nanos.iter_mut().zip(one) {
                    all.push(one);
                }
            }
        }
        if nanos[EMPTY].is_empty() {
            bail!("no round of {flows} flows counts: {}", refused.join("; "));
        }
        let net = |k: usize| -> Vec<f64> {
            nanos[k]
                .iter()
                .zip(&nanos[EMPTY])
                .map(|(ns, empty)| ns - empty)
                .collect()
        };
        let min = |k: usize| nanos[k].iter().copied().fold(f64::MAX, f64::min);
        let case = Case {
            flows,
            proto: if proto == TCP { "tcp" } else { "udp" },
            way: if way == way::REPLY {
                "reply"
            } else {
                "request"
            },
            rounds: nanos[EMPTY].len(),
            empty: Figure::of(nanos[EMPTY].iter().copied()),
            reference: Figure::of(net(REFERENCE)),
            touch: Figure::of(net(TOUCH)),
            fleetgate: Figure::of(net(FLEETGATE)),
            ratio: Figure::ratio(&net(FLEETGATE), &net(REFERENCE)),
            ratio_touch: Figure::ratio(&net(FLEETGATE), &net(TOUCH)),
            ratio_of_mins: crate::rounds::round(
                (min(FLEETGATE) - min(EMPTY)) / (min(REFERENCE) - min(EMPTY)),
            ),
            refused,
        };
        console::note(format_args!(
            "   {flows} flows, {} {}: empty {:.0}, reference +{:.0}, touch +{:.0}, fleetgate +{:.0} ns; ratio {:.2} ({:.2} to {:.2}; of mins {:.2}; touch {:.2})",
            case.proto,
            case.way,
            case.empty.median,
            case.reference.median,
            case.touch.median,
            case.fleetgate.median,
            case.ratio.median,
            case.ratio.min,
            case.ratio.max,
            case.ratio_of_mins,
            case.ratio_touch.median,
        ));
        Ok(case)
    }

    fn opening(&mut self, options: &Options) -> Result<Opening> {
        let own = stage::ifindex(&format!("b{FLEETGATE}"))?;
        self.tables.listen(UDP, own, SMAC)?;
        let flows = options.frames.min(50_000);
        let (mut nanos, mut refused) = (Vec::new(), Vec::new());
        for round in 0..=options.rounds {
            let empty = self.shoot(EMPTY, flows, UDP, way::REQUEST, flows);
            let before = self.tables.opened()?;
            self.in_turn = true;
            let full = self.shoot(FLEETGATE, flows, UDP, way::REQUEST, flows);
            self.in_turn = false;
            let opened = self.tables.opened()? - before;
            self.tables.empty()?;
            match (empty, full) {
                (Ok(empty), Ok(full)) if opened == u64::from(flows) => {
                    if round > 0 {
                        nanos.push(full - empty);
                    }
                }
                (Err(why), _) | (_, Err(why)) => refused.push(format!("{why:#}")),
                _ => refused.push(format!("{opened} of {flows} flows were opened")),
            }
        }
        self.tables.close(UDP)?;
        let pin = Path::new(stage::PINS).join("ns/FLOWS");
        let opening = Opening {
            flows,
            ns: Figure::of(nanos),
            table_entries: ROOM,
            table_mib: crate::rounds::round(memory(&pin)? as f64 / f64::from(1 << 20)),
            refused,
        };
        console::note(format_args!(
            "   a new flow: +{:.0} ns ({:.0} to {:.0}), {} rounds refused; table of {ROOM} entries: {:.0} MiB",
            opening.ns.median,
            opening.ns.min,
            opening.ns.max,
            opening.refused.len(),
            opening.table_mib
        ));
        Ok(opening)
    }

    /// ns per run of one program over this many frames. An error is a round that cannot be trusted.
    fn shoot(&mut self, k: usize, flows: u32, proto: u32, way: u32, frames: u32) -> Result<f64> {
        let what = Generator {
            ifindex: self.outs[k],
            flows,
            proto,
            way,
            in_turn: u32::from(self.in_turn),
            dmac: [2, 0, 0x0100],
            smac: SMAC,
            plan: PLAN,
            ..Generator::default()
        };
        let before = (
            self.spent(k)?,
            self.source.arrived()?,
            self.tables.translated()?,
        );
        self.source.send(&what, frames)?;
        let after = (
            self.spent(k)?,
            self.source.arrived()?,
            self.tables.translated()?,
        );
        let frames = u64::from(frames);
        let (time, runs) = (after.0.0 - before.0.0, after.0.1 - before.0.1);
        let arrived = after.1 - before.1;
        let translated = after.2 - before.2;
        if runs != frames {
            bail!("{runs} of {frames} frames met the program");
        }
        if k != EMPTY && arrived != frames {
            bail!("{arrived} of {frames} frames came back");
        }
        if k == FLEETGATE && translated != frames {
            bail!("{translated} of {frames} frames were translated");
        }
        Ok(time as f64 / runs as f64)
    }

    fn spent(&self, k: usize) -> Result<(u64, u64)> {
        let ebpf = if k == FLEETGATE {
            &self.gateway
        } else {
            &self.source.ebpf
        };
        stage::spent(ebpf, PROGRAMS[k])
    }
}
