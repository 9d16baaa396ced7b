//! The one owner of maps, links and proxy.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use aya::Ebpf;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{Error, Options, surroundings::sources, sweeper};
use crate::{
    dataplane::{
        self, apply, attach, clock::Clock, gc::Sweep, hops::Hops, load::load, pins::Pins, ports,
        record::Record, tables::Tables,
    },
    ir::{self, LastGood},
    manifest::{Changes, Edit, Snapshot},
    network::{Interface, Network, Path},
    plan::{self, Inputs, Plan},
    proxy::{Proxy, ProxyConfig, ProxyStats, RouteTable},
};

/// What the admin server shows.
pub struct Shared {
    /// Whether the plan is in the kernel.
    pub ready: AtomicBool,
    /// The agent's view.
    pub record: ArcSwap<Record>,
    /// Entries of the flow table at the last sweep.
    pub flows: AtomicU64,
    /// Counters of the proxy.
    pub proxy: Arc<ProxyStats>,
    /// Where the maps are.
    pub pins: Pins,
}

/// The running gateway.
pub(super) struct Gateway {
    pub(super) options: Options,
    pub(super) pins: Pins,
    // Holds the programs; the links are pinned.
    pub(super) ebpf: Ebpf,
    pub(super) tables: Tables,
    pub(super) network: Network,
    pub(super) interfaces: Vec<Interface>,
    /// Index of each interface when it was attached; empty before.
    pub(super) attached: BTreeMap<String, u32>,
    pub(super) hops: Hops,
    pub(super) paths: BTreeMap<IpAddr, Path>,
    pub(super) proxy: Proxy,
    pub(super) snapshot: Snapshot,
    pub(super) last_good: LastGood,
    /// Backends that have flows; `None` until a sweep has told since the last change.
    pub(super) busy: Option<BTreeSet<u32>>,
    /// When the maps were last changed: a sweep that began before says nothing about it.
    pub(super) changed: Instant,
    /// Keeps a second agent off these pins.
    _lock: File,
    pub(super) record: Record,
    pub(super) shared: Arc<Shared>,
    /// Everything is to be written again: an earlier agent stopped in the middle of a change.
    pub(super) rewrite: bool,
    /// Warnings of the surroundings in the record.
    pub(super) told: Vec<String>,
    /// Manifests have been taken in.
    configured: bool,
}

/// How long the tick rate is measured.
const MEASURE: Duration = Duration::from_millis(50);
/// Pause between two looks at the samples.
const FLUSH: Duration = Duration::from_millis(50);
/// Problems logged by one configuration; all of them are in `fleetgate status`.
const LOGGED_PROBLEMS: usize = 20;

impl Gateway {
    /// Loads programs onto new or pinned maps and takes up what an earlier agent left. Packets
    /// notice nothing yet.
    pub(super) async fn start(options: Options, network: Network) -> Result<Self, Error> {
        let interfaces = network.interfaces().await?;
        for wanted in &options.interfaces {
            if !interfaces.iter().any(|i| i.name == *wanted) {
                let known = interfaces.into_iter().map(|i| i.name).collect();
                return Err(Error::NoInterface {
                    wanted: wanted.clone(),
                    known,
                });
            }
        }
        let vips = vips(&options, &interfaces)?;
        let pins = Pins::new(&options.pin_dir);
        // Before anything is pinned: an agent that is refused leaves nothing behind.
        let had = earlier_ports(&pins)?;
        let wanted = options.snat.is_empty().then_some(options.snat_ports);
        ports::check(wanted, had)?;
        let lock = pins.lock()?;
        let mut ebpf = load(&pins, options.max_flows)?;
        if options.sample_every > 0 {
            log_samples(&mut ebpf);
        }
        let mut tables = Tables::open(&pins)?;
        let rate = Clock::open(&pins)?.rate(&tables, MEASURE)?;
        let seed = plan::ring_seed(&options.ring_secret);
        apply::configure(&mut tables, seed as u32, rate, options.sample_every)?;
        // A record that cannot be read is no empty one: ids and regions of live flows are in it.
        let record = Record::load(&tables)?.unwrap_or_default();
        let node_ports = wanted.map_or((0, 0), |(first, last)| (first, last - first + 1));
        let hops = Hops::from_record(&record.hops);
        let (rewrite, plan) = have_of(&record);
        let record = Record {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: now(),
            vips,
            node_ports,
            // `applying` stays as it is: until everything is written, the maps hold a mix.
            plan,
            interface_names: interfaces
                .iter()
                .map(|i| (i.index, i.name.clone()))
                .collect(),
            ..record
        };
        // First the note, then the deed: `unload` gives back what the record names.
        record.save(&mut tables)?;
        ports::take(wanted, had)?;
        let proxy = Proxy::start(ProxyConfig::default())?;
        let shared = Arc::new(Shared {
            ready: AtomicBool::new(false),
            record: ArcSwap::from_pointee(record.clone()),
            flows: AtomicU64::new(0),
            proxy: proxy.stats(),
            pins: pins.clone(),
        });
        Ok(Self {
            options,
            pins,
            ebpf,
            tables,
            network,
            interfaces,
            attached: BTreeMap::new(),
            hops,
            paths: BTreeMap::new(),
            proxy,
            snapshot: Snapshot::default(),
            last_good: LastGood::default(),
            busy: None,
            changed: Instant::now(),
            _lock: lock,
            record,
            shared,
            rewrite,
            told: Vec::new(),
            configured: false,
        })
    }

    /// What the admin server shows.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Starts the sweeping of flows.
    pub(super) fn sweeps(&self) -> Result<mpsc::Receiver<Sweep>, Error> {
        Ok(sweeper::start(self.pins.clone())?)
    }

    /// Hands packets to the programs: from here on the gateway steers.
    pub(super) fn attach(&mut self) -> Result<(), Error> {
        let interfaces: Vec<Interface> = self
            .options
            .interfaces
            .iter()
            .filter_map(|name| self.interfaces.iter().find(|i| i.name == *name).cloned())
            .collect();
        if self.attached.is_empty() {
            // Only now does the proxy know its listeners.
            if let Some(socket) = self.proxy.sockets().next() {
                self.tables
                    .sockets
                    .set(0, &socket, 0)
                    .map_err(|e| dataplane::Error::Map("SOCKETS", e.to_string()))?;
            }
            attach::sk_lookup(&mut self.ebpf, &self.pins)?;
        }
        self.record.interfaces =
            attach::interfaces(&mut self.ebpf, &self.pins, &interfaces, self.options.xdp)?;
        for interface in &self.record.interfaces {
            info!(interface = %interface.name, hooks = %interface.hooks, reason = %interface.reason, "attached");
        }
        self.attached = interfaces.into_iter().map(|i| (i.name, i.index)).collect();
        let _ = self.save();
        self.tell_ready();
        Ok(())
    }

    /// Takes in a new state of the manifests.
    pub(super) async fn configure(&mut self, edits: Vec<Edit>) {
        let mut changes = Changes::default();
        for edit in edits {
            self.snapshot.apply(edit, &mut changes);
        }
        if self.withheld().is_some() {
            self.record.problems = self.snapshot.problems.values().flatten().cloned().collect();
            self.proxy
                .update(RouteTable::build(&self.record.ir, &self.record.vips));
            self.find_paths().await;
            // Also completes what the last agent may have left half done.
            self.reconcile();
            return;
        }
        self.configured = true;
        let options = ir::Options {
            steering: self.options.steering,
        };
        let built = ir::build(&self.snapshot, &self.last_good, &options);
        self.last_good = built.last_good;
        let mut problems: Vec<_> = self.snapshot.problems.values().flatten().cloned().collect();
        problems.extend(built.problems);
        problems.sort();
        problems.dedup();
        let new = problems
            .iter()
            .filter(|p| self.record.problems.binary_search(p).is_err());
        for problem in new.take(LOGGED_PROBLEMS) {
            warn!(object = %problem.object, field = %problem.field, "{}; {}", problem.message, problem.remedy);
        }
        self.record.problems = problems;
        self.record.ir = built.ir;
        self.record.generation += 1;
        // The proxy first: it may be handed a listener that the kernel had.
        self.proxy
            .update(RouteTable::build(&self.record.ir, &self.record.vips));
        self.find_paths().await;
        self.reconcile();
        info!(
            generation = self.record.generation,
            listeners = self.record.ir.listeners.len(),
            problems = self.record.problems.len(),
            "configuration applied"
        );
    }

    /// Why the manifests of a start are not taken at their word: an earlier agent knew listeners,
    /// and these hold nothing, or could not be read whole.
    fn withheld(&self) -> Option<String> {
        let known = self.record.ir.listeners.len();
        if self.configured || known == 0 {
            return None;
        }
        let snapshot = &self.snapshot;
        let empty = snapshot.gateways.is_empty() && snapshot.ingresses.is_empty();
        let cut = !snapshot.whole;
        (empty || cut).then(|| {
            let what = if cut { "cannot be read whole" } else { "holds no gateway and no Ingress" };
            format!(
                "{} {what}: the {known} listeners of the last agent go on until it does; `fleetgate \
                 unload` ends them",
                self.options.manifests.display()
            )
        })
    }

    /// Takes in which backends still have flows.
    pub(super) fn swept(&mut self, sweep: Sweep) {
        self.shared
            .flows
            .store(sweep.seen.saturating_sub(sweep.removed), Ordering::Relaxed);
        if sweep.began < self.changed {
            return;
        }
        let plan = &self.record.plan;
        let over = plan
            .backends
            .iter()
            .any(|(id, b)| b.state == plan::BackendState::Down && !sweep.busy.contains(id));
        self.busy = Some(sweep.busy);
        if over {
            self.reconcile();
        }
    }

    /// Tries again what could not be brought into the kernel.
    pub(super) fn try_again(&mut self) {
        if self.record.applying.is_some() {
            self.reconcile();
            self.tell_ready();
        }
    }

    fn tell_ready(&self) {
        let ready = !self.attached.is_empty() && self.record.applying.is_none();
        if ready && !self.shared.ready.swap(true, Ordering::AcqRel) {
            info!("ready: the plan is in the kernel");
        }
    }

    /// Ends the agent, not the gateway.
    pub(super) fn stop(self, drain: Duration) {
        self.proxy.shutdown(drain);
    }

    /// Plans, and brings the maps to the plan.
    pub(super) fn reconcile(&mut self) {
        let routes = sources(&self.paths);
        // Before the first sweep every backend may have flows.
        let all: BTreeSet<u32> = self.record.plan.backends.keys().copied().collect();
        let inputs = Inputs {
            vips: &self.record.vips,
            pool: &self.options.snat,
            routes: &routes,
            node_ports: self.record.node_ports,
            busy: self.busy.as_ref().unwrap_or(&all),
        };
        let (want, mut warnings) = plan::build(&self.record.ir, &inputs, &self.record.plan);
        let unreachable = self.unreachable();
        warnings.extend(unreachable.iter().cloned());
        warnings.extend(self.withheld());
        self.told = unreachable;
        let nothing = Plan::default();
        let have = if self.rewrite {
            &nothing
        } else {
            &self.record.plan
        };
        let steps = plan::diff(have, &want);
        if self.record.warnings != warnings {
            warnings.iter().for_each(|warning| warn!("{warning}"));
            self.record.warnings = warnings;
        }
        self.record.applied_at = now();
        if steps.is_empty() && !self.rewrite {
            let _ = self.save();
            return;
        }
        self.record.applying = Some(want.clone());
        if !self.save() {
            // A crash in the middle would leave the next agent without a trace of this plan.
            warn!("the plan is not applied before it is on record; trying again");
            return;
        }
        self.changed = Instant::now();
        self.busy = None;
        let context = apply::Context {
            want: &want,
            ring_seed: plan::ring_seed(&self.options.ring_secret),
            hops: self.hops.by_backend(),
        };
        match apply::apply(&mut self.tables, &steps, context) {
            Ok(()) => {
                if self.rewrite {
                    let removed = apply::remove_unknown_services(&mut self.tables, &want);
                    info!(removed, "took up an interrupted change");
                    self.rewrite = false;
                }
                self.record.plan = want;
                self.record.applying = None;
                let _ = self.save();
            }
            Err(error) => {
                warn!(%error, "the plan is in the kernel only in part; trying again");
                (self.rewrite, self.record.plan) = have_of(&self.record);
            }
        }
    }

    /// Writes the record; false if the maps hold an older one.
    pub(super) fn save(&mut self) -> bool {
        let saved = self.record.save(&mut self.tables);
        if let Err(error) = &saved {
            warn!(%error, "the CLI shows an older state");
        }
        self.shared.record.store(Arc::new(self.record.clone()));
        saved.is_ok()
    }
}

/// Source ports that an earlier agent of these pins reserved: first and count.
fn earlier_ports(pins: &Pins) -> Result<(u16, u16), Error> {
    if !pins.maps().is_dir() {
        return Ok((0, 0));
    }
    let record = Record::load(&Tables::open(pins)?)?;
    Ok(record.map_or((0, 0), |record| record.node_ports))
}

/// Where an interrupted apply left the maps: everything is to be written again, and nothing into
/// ring regions that either plan uses.
fn have_of(record: &Record) -> (bool, Plan) {
    let Some(applying) = &record.applying else {
        return (false, record.plan.clone());
    };
    let mut plan = applying.clone();
    plan.reserved = record.plan.regions();
    plan.reserved.extend_from_slice(&record.plan.reserved);
    for (id, backend) in &record.plan.backends {
        plan.backends.entry(*id).or_insert_with(|| backend.clone());
    }
    (true, plan)
}

fn vips(options: &Options, interfaces: &[Interface]) -> Result<Vec<IpAddr>, Error> {
    if let Some(vip) = options.vips.iter().find(|vip| vip.is_ipv6()) {
        return Err(Error::Ipv6Vip(*vip));
    }
    if !options.vips.is_empty() {
        return Ok(options.vips.clone());
    }
    let first = options.interfaces.first().cloned().unwrap_or_default();
    let interface = interfaces.iter().find(|i| i.name == first);
    let addresses = interface.map(|i| i.addresses.clone()).unwrap_or_default();
    if addresses.is_empty() {
        Err(Error::NoVip(first))
    } else {
        Ok(addresses)
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// Prints the kernel's samples to our log, from a task of their own.
fn log_samples(ebpf: &mut Ebpf) {
    let mut logger = match aya_log::EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        Err(error) => {
            warn!(%error, "packets are not sampled");
            return;
        }
    };
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(FLUSH).await;
            logger.flush();
        }
    });
}
