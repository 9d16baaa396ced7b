//! The one owner of maps, links and proxy.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::IpAddr,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use aya::Ebpf;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{Error, Options, sweeper};
use crate::{
    dataplane::{
        apply, attach, clock::Clock, gc::Sweep, hops::Hops, load::load, pins::Pins, ports,
        record::Record, tables::Tables,
    },
    ir::{self, LastGood, SteeringMode},
    network::{Interface, Network, Path},
    plan::{self, Inputs, Plan},
    proxy::{Proxy, ProxyConfig, ProxyStats, RouteTable},
    source::Published,
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
    options: Options,
    pins: Pins,
    // Holds the programs; the links are pinned.
    ebpf: Ebpf,
    tables: Tables,
    network: Network,
    interfaces: Vec<Interface>,
    /// Index of each interface when it was attached; empty before.
    attached: BTreeMap<String, u32>,
    hops: Hops,
    paths: BTreeMap<IpAddr, Path>,
    proxy: Proxy,
    published: Arc<Published>,
    last_good: LastGood,
    busy: BTreeSet<u32>,
    record: Record,
    shared: Arc<Shared>,
    /// Everything is to be written again: an earlier agent stopped in the middle of a change.
    rewrite: bool,
    /// Keeps other agents away from these pins.
    _lock: File,
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
        let (first, last) = options.snat_ports;
        if options.snat.is_empty() {
            // Before anything is pinned: an agent that is refused leaves nothing behind.
            ports::check(first..=last, &earlier_ports(&pins, first..=last))?;
        }
        let lock = pins.lock()?;
        let mut ebpf = load(&pins, options.max_flows)?;
        if options.sample_every > 0 {
            log_samples(&mut ebpf);
        }
        let mut tables = Tables::open(&pins)?;
        let rate = Clock::open(&pins)?.rate(&tables, MEASURE)?;
        let seed = plan::ring_seed(&options.ring_secret);
        apply::configure(&mut tables, seed as u32, rate, options.sample_every)?;
        let record = match Record::load(&tables) {
            Ok(record) => record.unwrap_or_default(),
            Err(error) => {
                warn!(%error, "starting from an empty plan");
                Record::default()
            }
        };
        let hops = Hops::from_record(&record.hops);
        let (rewrite, plan) = have_of(&record);
        let node_ports = if options.snat.is_empty() {
            (first, last - first + 1)
        } else {
            (0, 0)
        };
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
        if options.snat.is_empty() {
            // First the note, then the deed: `unload` gives back what the record names.
            record.save(&mut tables)?;
            ports::reserve(first..=last)?;
        }
        let proxy = Proxy::start(ProxyConfig::default())?;
        if let Some(socket) = proxy.sockets().next() {
            tables
                .sockets
                .set(0, &socket, 0)
                .map_err(|e| crate::dataplane::Error::Map("SOCKETS", e.to_string()))?;
        }
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
            published: Arc::default(),
            last_good: LastGood::default(),
            busy: BTreeSet::new(),
            record,
            shared,
            rewrite,
            _lock: lock,
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
            attach::sk_lookup(&mut self.ebpf, &self.pins)?;
        }
        self.record.interfaces =
            attach::interfaces(&mut self.ebpf, &self.pins, &interfaces, self.options.xdp)?;
        for interface in &self.record.interfaces {
            info!(interface = %interface.name, hooks = %interface.hooks, reason = %interface.reason, "attached");
        }
        self.attached = interfaces.into_iter().map(|i| (i.name, i.index)).collect();
        self.save();
        self.shared.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes in a new state of the manifests.
    pub(super) async fn configure(&mut self, published: Arc<Published>) {
        self.published = published;
        let options = ir::Options {
            steering: self.options.steering,
        };
        let built = ir::build(&self.published.snapshot, &self.last_good, &options);
        self.last_good = built.last_good;
        let mut problems = self.published.problems.clone();
        problems.extend(built.problems);
        problems.sort();
        problems.dedup();
        let new = problems
            .iter()
            .filter(|p| !self.record.problems.contains(p));
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

    /// Looks at links, routes and neighbours again. `probe`: has the kernel make sure of the
    /// neighbours in use, since redirected packets do not tell it that they are alive.
    pub(super) async fn look_around(&mut self, probe: bool) {
        let before = self.paths.clone();
        if probe {
            self.find_paths().await;
            let towards: BTreeSet<(u32, IpAddr)> = self
                .paths
                .values()
                .map(|p| (p.ifindex, p.neighbour))
                .collect();
            for (ifindex, address) in towards {
                self.network.probe(ifindex, address).await;
            }
        }
        self.update_hops().await;
        self.attach_again();
        if sources(&before) != sources(&self.paths) {
            self.reconcile();
        }
    }

    /// Attaches anew when an interface was made again under its old name: its links died with it.
    fn attach_again(&mut self) {
        let made_again = self.options.interfaces.iter().any(|name| {
            let now = self.interfaces.iter().find(|i| i.name == *name);
            now.is_some_and(|now| {
                self.attached
                    .get(name)
                    .is_some_and(|then| *then != now.index)
            })
        });
        if made_again && let Err(error) = self.attach() {
            warn!(%error, "an interface was made again and is not attached; trying again");
        }
    }

    /// Takes in which backends still have flows.
    pub(super) async fn swept(&mut self, sweep: Sweep) {
        self.busy = sweep.busy;
        self.shared
            .flows
            .store(sweep.seen - sweep.removed, Ordering::Relaxed);
        let plan = &self.record.plan;
        let over = plan
            .backends
            .iter()
            .any(|(id, b)| b.state == plan::BackendState::Down && !self.busy.contains(id));
        if over {
            self.reconcile();
        }
    }

    /// Ends the agent, not the gateway.
    pub(super) fn stop(self, drain: Duration) {
        self.proxy.shutdown(drain);
    }

    async fn find_paths(&mut self) {
        let addresses: BTreeSet<IpAddr> = self
            .record
            .ir
            .listeners
            .iter()
            .filter(|listener| listener.steering.mode == SteeringMode::Connection)
            .filter_map(|listener| listener.rules.first())
            .flat_map(|rule| rule.group.backends.iter().chain(&rule.group.idle))
            .map(|backend| backend.address.ip())
            .collect();
        self.paths = self.network.paths(addresses.into_iter()).await;
        self.update_hops().await;
        let by_backend = self.hops.by_backend();
        let unresolved: BTreeSet<(u32, IpAddr)> = self
            .paths
            .iter()
            .filter(|(address, _)| by_backend.get(address).is_none_or(|hop| *hop == 0))
            .map(|(_, path)| (path.ifindex, path.neighbour))
            .collect();
        for (ifindex, address) in unresolved {
            self.network.probe(ifindex, address).await;
        }
    }

    async fn update_hops(&mut self) {
        let facts = async {
            Ok::<_, crate::network::Error>((
                self.network.interfaces().await?,
                self.network.neighbours().await?,
            ))
        };
        match facts.await {
            Ok((interfaces, neighbours)) => {
                let changes = self.hops.update(&interfaces, &neighbours, &self.paths);
                self.interfaces = interfaces;
                if changes.is_empty() {
                    return;
                }
                let hops = self.hops.by_backend();
                if let Err(error) =
                    apply::apply_hops(&mut self.tables, &changes, &self.record.plan, hops)
                {
                    warn!(%error, "next hops are not up to date");
                }
                self.record.hops = self.hops.to_record();
                self.save();
            }
            Err(error) => warn!(%error, "next hops stay as they are"),
        }
    }

    /// Plans, and brings the maps to the plan.
    fn reconcile(&mut self) {
        let routes = sources(&self.paths);
        let inputs = Inputs {
            vips: &self.record.vips,
            pool: &self.options.snat,
            routes: &routes,
            node_ports: self.record.node_ports,
            busy: &self.busy,
        };
        let (want, mut warnings) = plan::build(&self.record.ir, &inputs, &self.record.plan);
        warnings.extend(self.unreachable());
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
            self.save();
            return;
        }
        self.record.applying = Some(want.clone());
        self.save();
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
                self.save();
            }
            Err(error) => {
                warn!(%error, "the plan is in the kernel only in part; trying again with the next change");
                (self.rewrite, self.record.plan) = have_of(&self.record);
            }
        }
    }

    /// Backends that packets cannot reach, or whose answers would not come by.
    fn unreachable(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let backends = self.record.ir.listeners.iter().filter_map(|listener| {
            let connection = listener.steering.mode == SteeringMode::Connection;
            connection.then(|| listener.rules.first()).flatten()
        });
        for backend in backends.flat_map(|rule| &rule.group.backends) {
            let address = backend.address.ip();
            match self.paths.get(&address) {
                None => warnings.push(format!(
                    "backend {}/{} ({address}): the node has no route to it",
                    backend.cluster, backend.pod
                )),
                Some(path) => {
                    let known = self.interfaces.iter().find(|i| i.index == path.ifindex);
                    if let Some(interface) =
                        known.filter(|i| !self.options.interfaces.contains(&i.name))
                    {
                        warnings.push(format!(
                            "backend {}/{} ({address}) is reached by {}; add --interface {} so that its answers pass \
                             the programs",
                            backend.cluster, backend.pod, interface.name, interface.name
                        ));
                    }
                }
            }
        }
        warnings.sort();
        warnings.dedup();
        warnings
    }

    fn save(&mut self) {
        if let Err(error) = self.record.save(&mut self.tables) {
            warn!(%error, "the CLI shows an older state");
        }
        self.shared.record.store(Arc::new(self.record.clone()));
    }
}

/// Source ports that an earlier agent of these pins may have reserved; `wanted` if it left links, but a record that
/// this version cannot read.
fn earlier_ports(pins: &Pins, wanted: RangeInclusive<u16>) -> Vec<u16> {
    let record = Tables::open(pins).and_then(|tables| Record::load(&tables));
    match record {
        Ok(Some(record)) => {
            let (first, count) = record.node_ports;
            (first..=u16::MAX).take(usize::from(count)).collect()
        }
        _ if pins.links().is_empty() => Vec::new(),
        _ => wanted.collect(),
    }
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

/// Source address by backend address.
fn sources(paths: &BTreeMap<IpAddr, Path>) -> BTreeMap<IpAddr, IpAddr> {
    paths
        .iter()
        .map(|(address, path)| (*address, path.source))
        .collect()
}

fn vips(options: &Options, interfaces: &[Interface]) -> Result<Vec<IpAddr>, Error> {
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
