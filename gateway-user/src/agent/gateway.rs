//! The one owner of maps, links and proxy.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use aya::Ebpf;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{Error, Options, options::Source, publishing::Publishing, sweeper};
use crate::{
    dataplane::{
        self, apply, attach,
        clock::Clock,
        gc::Sweep,
        hops::Hops,
        load::load,
        pins::Pins,
        ports,
        record::{ClusterRecord, Part, Record, Recorder},
        tables::Tables,
    },
    ir::{self, ClusterId, Compiler, LastGood, ListenerName, Remembered, Touched},
    manifest::{Changes, ClusterObjects, Edit, Reach, Snapshot},
    network::{Interface, Network, Path},
    plan::{self, Inputs, Plan, Planner},
    proxy::{Proxy, ProxyConfig, ProxyStats, Router},
    source::kubernetes::Board,
    status,
};

/// What the admin server shows.
pub struct Shared {
    /// Whether the plan is in the kernel.
    pub ready: AtomicBool,
    /// The agent's view, of a large gateway up to a second old.
    pub record: ArcSwap<Record>,
    /// There is a newer one than that.
    pub stale: AtomicBool,
    /// Entries of the flow table at the last sweep.
    pub flows: AtomicU64,
    /// Counters of the proxy.
    pub proxy: Arc<ProxyStats>,
    /// Where the maps are.
    pub pins: Pins,
    /// The fleet's API servers; nothing where a directory is the source.
    pub servers: OnceLock<Board>,
    /// What was written to the fleet.
    pub status: Option<Arc<status::Counters>>,
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
    /// Source address by backend address, from the paths.
    pub(super) routes: BTreeMap<IpAddr, IpAddr>,
    /// Backend addresses that had no way at the last look.
    pub(super) pathless: BTreeSet<IpAddr>,
    /// Where the next partial look at the paths goes on.
    pub(super) looked: Option<IpAddr>,
    pub(super) proxy: Proxy,
    router: Router,
    pub(super) snapshot: Snapshot,
    pub(super) compiler: Compiler,
    planner: Planner,
    /// The planner has seen every listener since it was made.
    planned: bool,
    recorder: Recorder,
    /// Parts of the record that are newer than what the map holds.
    pub(super) unsaved: BTreeSet<Part>,
    shown: Instant,
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
    /// The source has said something.
    published: bool,
    pub(super) publishing: Option<Publishing>,
}

/// How long the tick rate is measured.
const MEASURE: Duration = Duration::from_millis(50);
/// Pause between two looks at the samples.
const FLUSH: Duration = Duration::from_millis(50);
/// Problems logged by one configuration; all of them are in `fleetgate status`.
const LOGGED_PROBLEMS: usize = 20;
/// A record with fewer groups and backends is shown after each change.
const SMALL: usize = 2_000;
/// A larger one at most this often: a copy takes milliseconds.
pub(super) const SHOW: Duration = Duration::from_secs(1);

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
        let mut record = Record::load(&tables)?.unwrap_or_default();
        let mut recorder = Recorder::open(&mut tables)?;
        let node_ports = wanted.map_or((0, 0), |(first, last)| (first, last - first + 1));
        let hops = Hops::from_record(&record.hops);
        let replaced = record.applying.clone();
        if let Some(replaced) = &replaced {
            record.plan.interrupted(replaced);
        }
        let record = Record {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: now(),
            vips,
            node_ports,
            // `applying` stays as it is: until everything is written, the maps hold a mix.
            interface_names: interfaces
                .iter()
                .map(|i| (i.index, i.name.clone()))
                .collect(),
            ..record
        };
        // First the note, then the deed: `unload` gives back what the record names.
        recorder.save_all(&mut tables, &record)?;
        ports::take(wanted, had)?;
        let proxy = Proxy::start(ProxyConfig::default())?;
        let ir_options = ir::Options {
            steering: options.steering,
        };
        // Clusters that cannot be asked at first go on with the pods that served.
        let remembered = Remembered::of(&record.ir);
        let publishing = match &options.source {
            Source::Manifests(_) => None,
            Source::Kubernetes(fleet) => Publishing::start(fleet)?,
        };
        let compiler = Compiler::new(ir_options, LastGood::default(), remembered);
        let shared = Arc::new(Shared {
            ready: AtomicBool::new(false),
            record: ArcSwap::from_pointee(record.clone()),
            stale: AtomicBool::new(false),
            flows: AtomicU64::new(0),
            proxy: proxy.stats(),
            pins: pins.clone(),
            servers: OnceLock::new(),
            status: publishing.as_ref().map(Publishing::counters),
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
            routes: BTreeMap::new(),
            pathless: BTreeSet::new(),
            looked: None,
            proxy,
            router: Router::default(),
            snapshot: Snapshot::default(),
            compiler,
            planner: Planner::new(&record.plan),
            planned: false,
            recorder,
            unsaved: BTreeSet::new(),
            shown: Instant::now(),
            busy: None,
            changed: Instant::now(),
            _lock: lock,
            record,
            shared,
            rewrite: replaced.is_some(),
            told: Vec::new(),
            configured: false,
            published: false,
            publishing,
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

    /// Goes on with what the last agent served, as long as the source says nothing.
    pub(super) async fn carry_on(&mut self) {
        if self.record.ir.listeners.is_empty() {
            warn!(source = %self.options.source, "nothing is known of the configuration yet");
            return;
        }
        // The last agent followed them; this one does not yet.
        for cluster in &mut self.record.clusters {
            if cluster.is_known() {
                cluster.reach = ClusterRecord::LOST.to_owned();
            }
        }
        let all = Touched::all(&self.record.ir);
        self.route(&all);
        self.find_paths().await;
        // Also completes what the last agent may have left half done.
        self.reconcile(None);
    }

    /// Takes in what changed in the manifests.
    pub(super) async fn configure(&mut self, edits: Vec<Edit>) {
        self.published = true;
        let mut changes = Changes::default();
        for edit in edits {
            self.snapshot.apply(edit, &mut changes);
        }
        if self.withheld().is_some() {
            let problems = self.snapshot.problems.values().flatten();
            self.record.problems = problems.cloned().collect();
            self.unsaved.insert(Part::Problems);
            return self.carry_on().await;
        }
        let mut touched = Touched::default();
        if !self.configured {
            self.configured = true;
            changes = Changes::all(&self.snapshot);
            // What only the last agent knew goes.
            touched = Touched::all(&self.record.ir);
        }
        if changes.is_empty() {
            return;
        }
        let new = self.compiler.update(&self.snapshot, &changes);
        touched.listeners.extend(new.listeners);
        touched.groups.extend(new.groups);
        self.record.ir.follow(self.compiler.ir(), &touched);
        self.unsaved.extend(Part::of_model(&touched));
        if new.problems {
            self.tell_problems();
        }
        if changes.clusters {
            let before = std::mem::take(&mut self.record.clusters);
            let clusters = self.snapshot.clusters.iter();
            let clusters = clusters.map(|(id, it)| cluster(id, it, &before));
            self.record.clusters = clusters.collect();
        }
        self.record.generation += 1;
        // The proxy first: it may be handed a listener that the kernel had.
        self.route(&touched);
        if self.planned {
            self.find_new_paths(&touched).await;
        } else {
            self.find_paths().await;
        }
        self.reconcile(Some(&touched.listeners));
        if new.problems || !touched.listeners.is_empty() || changes.clusters || says(&changes) {
            self.publish();
        }
        self.tell_ready();
        info!(
            generation = self.record.generation,
            listeners = touched.listeners.len(),
            groups = touched.groups.len(),
            problems = self.record.problems.len(),
            "configuration applied"
        );
    }

    fn route(&mut self, touched: &Touched) {
        if touched.is_empty() && self.router.is_used() {
            return;
        }
        let (ir, vips) = (&self.record.ir, &self.record.vips);
        self.proxy.update(self.router.update(ir, touched, vips));
    }

    fn tell_problems(&mut self) {
        let mut problems = self.compiler.problems();
        problems.extend(self.snapshot.problems.values().flatten().cloned());
        problems.sort();
        problems.dedup();
        let new = problems
            .iter()
            .filter(|p| self.record.problems.binary_search(p).is_err());
        for problem in new.take(LOGGED_PROBLEMS) {
            warn!(object = %problem.object, field = %problem.field, "{}; {}", problem.message, problem.remedy);
        }
        self.record.problems = problems;
        self.unsaved.insert(Part::Problems);
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
            let what = match (self.published, cut) {
                (false, _) => "was not read yet",
                (true, true) => "cannot be read whole",
                (true, false) => "holds no gateway and no Ingress",
            };
            format!(
                "{} {what}: until that changes, the {known} listeners of the last agent go on; `fleetgate \
                 unload` ends them",
                self.options.source
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
            self.reconcile(Some(&BTreeSet::new()));
        }
    }

    /// Tries again what could not be brought into the kernel.
    pub(super) fn try_again(&mut self) {
        if self.record.applying.is_some() {
            self.reconcile(None);
            self.tell_ready();
        }
    }

    fn tell_ready(&self) {
        let known = self.published || !self.record.ir.listeners.is_empty();
        let ready = known && !self.attached.is_empty() && self.record.applying.is_none();
        if ready && !self.shared.ready.swap(true, Ordering::AcqRel) {
            info!("ready: the plan is in the kernel");
        }
    }

    /// Ends the agent, not the gateway.
    pub(super) fn stop(mut self, drain: Duration) {
        if let Some(publishing) = self.publishing.take() {
            publishing.stop();
        }
        self.proxy.shutdown(drain);
    }

    /// Plans for these listeners (all with `None`), and brings the maps to the plan.
    pub(super) fn reconcile(&mut self, listeners: Option<&BTreeSet<ListenerName>>) {
        let inputs = Inputs {
            vips: &self.record.vips,
            pool: &self.options.snat,
            routes: &self.routes,
            node_ports: self.record.node_ports,
            // Before the first sweep every backend may have flows.
            busy: self.busy.as_ref(),
        };
        let listeners = listeners.filter(|_| self.planned && !self.rewrite);
        let delta = self
            .planner
            .update(&self.record.ir, listeners, &inputs, &self.record.plan);
        self.planned = true;
        if listeners.is_none() {
            self.told = self.unreachable();
        }
        let mut warnings = self.planner.left_out();
        warnings.extend(self.told.iter().cloned());
        warnings.extend(self.withheld());
        if self.record.warnings != warnings {
            warnings.iter().for_each(|warning| warn!("{warning}"));
            self.record.warnings = warnings;
        }
        self.record.applied_at = now();
        let mut steps = plan::steps(&self.record.plan, &delta);
        if steps.is_empty() && !self.rewrite {
            self.planner.commit();
            let _ = self.save();
            return;
        }
        let mut replaced = self.record.plan.apply(&delta);
        if self.rewrite {
            steps = plan::diff(&Plan::default(), &self.record.plan);
            // What the interrupted change replaced is not free before everything is written.
            replaced.regions.append(&mut self.record.plan.reserved);
        }
        self.record.applying = Some(replaced);
        let parts = Part::of_delta(&delta);
        if !self.save_parts(parts) {
            // A crash in the middle would leave the next agent without a trace of this plan.
            warn!("the plan is not applied before it is on record; trying again");
            return self.interrupted();
        }
        self.changed = Instant::now();
        self.busy = None;
        let context = apply::Context {
            want: &self.record.plan,
            ring_seed: plan::ring_seed(&self.options.ring_secret),
            hops: self.hops.by_backend(),
        };
        match apply::apply(&mut self.tables, &steps, context) {
            Ok(()) => {
                if self.rewrite {
                    let plan = &self.record.plan;
                    let removed = apply::remove_unknown_services(&mut self.tables, plan);
                    info!(removed, "took up an interrupted change");
                    self.rewrite = false;
                }
                self.planner.commit();
                self.record.applying = None;
                let _ = self.save();
            }
            Err(error) => {
                warn!(%error, "the plan is in the kernel only in part; trying again");
                self.interrupted();
            }
        }
    }

    /// What the maps hold is a mix: everything is written again, and nothing where packets may still look.
    fn interrupted(&mut self) {
        if let Some(replaced) = &self.record.applying {
            self.record.plan.interrupted(replaced);
        }
        self.planner = Planner::new(&self.record.plan);
        self.planned = false;
        self.rewrite = true;
        self.unsaved.extend(self.record.parts());
    }

    /// Writes what of the record is newer than the map; false if the map holds an older one.
    pub(super) fn save(&mut self) -> bool {
        let parts = std::mem::take(&mut self.unsaved);
        let saved = self.save_parts(parts.clone());
        if !saved {
            self.unsaved.extend(parts);
        }
        self.show();
        saved
    }

    fn save_parts(&mut self, mut parts: BTreeSet<Part>) -> bool {
        parts.insert(Part::Head);
        let saved = self.recorder.save(&mut self.tables, &self.record, &parts);
        if let Err(error) = &saved {
            warn!(%error, "the CLI shows an older state");
            self.unsaved.extend(parts);
        }
        saved.is_ok()
    }

    /// Shows the record to the admin server: at once while it is small, at most once a second when it is large.
    pub(super) fn show(&mut self) {
        let entries = self.record.ir.groups.len() + self.record.plan.backends.len();
        if entries > SMALL && self.shown.elapsed() < SHOW {
            self.shared.stale.store(true, Ordering::Release);
            return;
        }
        self.shown = Instant::now();
        self.shared.stale.store(false, Ordering::Release);
        self.shared.record.store(Arc::new(self.record.clone()));
    }

    /// Shows the record if it is newer than what is shown.
    pub(super) fn show_again(&mut self) {
        if self.shared.stale.load(Ordering::Acquire) {
            self.show();
        }
    }
}

/// Whether objects that have a status changed.
fn says(changes: &Changes) -> bool {
    !(changes.gateways.is_empty() && changes.ingresses.is_empty() && changes.classes.is_empty())
}

/// What is known of a cluster, given what was known before.
fn cluster(id: &ClusterId, it: &ClusterObjects, before: &[ClusterRecord]) -> ClusterRecord {
    let known = |had: &ClusterRecord| *had.id == *id.0 && had.is_known();
    let reach = match it.reach {
        Reach::Connected => "connected",
        Reach::Lost => ClusterRecord::LOST,
        // An earlier agent listed it: what it said last serves on.
        Reach::Unknown if before.iter().any(known) => ClusterRecord::LOST,
        Reach::Unknown => ClusterRecord::UNKNOWN,
    };
    ClusterRecord {
        id: id.to_string(),
        reach: reach.to_owned(),
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
