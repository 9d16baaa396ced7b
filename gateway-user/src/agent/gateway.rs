//! The one owner of maps, links and proxy.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::SyncSender,
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use aya::Ebpf;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{Error, Options, judging::Said, options::Source, publishing::Publishing, sweeper};
use crate::{
    dataplane::{
        self, apply, attach,
        clock::Clock,
        gc::Sweep,
        hops::Hops,
        load::load,
        pins::Pins,
        ports,
        record::{Part, Record, Recorder},
        tables::Tables,
        upgrade::{Found, Upgrade},
    },
    health::{self, Prober},
    ir::{self, Compiler, LastGood, Remembered, Verdicts},
    manifest::Snapshot,
    network::{Interface, Network, Path},
    plan::{self, Planner},
    problem::Problem,
    proxy::{
        Proxy, ProxyConfig, ProxyStats, Router,
        access_log::{self, AccessLog},
        trace::export::{self, Traces},
    },
    source::kubernetes::Board,
    status,
    tls::Servers,
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
    /// What probes of pods met.
    pub health: Arc<health::Counters>,
    /// Source ports in use by backend at the last sweep.
    pub ports: ArcSwap<BTreeMap<u32, u32>>,
    /// Counters of the proxy.
    pub proxy: Arc<ProxyStats>,
    /// Lines of the access log.
    pub access_log: Arc<access_log::Counters>,
    /// Spans of requests.
    pub traces: Arc<export::Counters>,
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
    /// Of the kernel's clock.
    pub(super) ticks_per_second: u32,
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
    pub(super) access_log: AccessLog,
    pub(super) traces: Traces,
    pub(super) router: Router,
    /// What HTTPS listeners end TLS with.
    pub(super) tls: Servers,
    /// Certificates that are over, or soon are, as told last.
    pub(super) lapsed: Vec<Problem>,
    pub(super) snapshot: Snapshot,
    pub(super) compiler: Compiler,
    pub(super) planner: Planner,
    /// The planner has seen every listener since it was made.
    pub(super) planned: bool,
    pub(super) recorder: Recorder,
    /// Parts of the record that are newer than what the map holds.
    pub(super) unsaved: BTreeSet<Part>,
    pub(super) shown: Instant,
    /// Backends that have flows; `None` until a sweep has told since the last change.
    pub(super) busy: Option<BTreeSet<u32>>,
    /// The flow table is nearly full, and timeouts are short.
    pub(super) pressed: bool,
    /// Wakes the sweeper.
    pub(super) sweeper: Option<SyncSender<()>>,
    /// When the maps were last changed: a sweep that began before says nothing about it.
    pub(super) changed: Instant,
    /// Keeps a second agent off these pins.
    _lock: File,
    pub(super) record: Record,
    pub(super) shared: Arc<Shared>,
    /// Everything is to be written again: an earlier agent stopped in the middle of a change.
    pub(super) rewrite: bool,
    /// Maps of another layout are to be taken over before anything else.
    pub(super) upgrade: Option<Upgrade>,
    /// Warnings of the surroundings in the record.
    pub(super) told: Vec<String>,
    /// Manifests have been taken in.
    pub(super) configured: bool,
    /// The source has said something.
    pub(super) published: bool,
    pub(super) publishing: Option<Publishing>,
    pub(super) prober: Prober,
    /// Lines about health checks.
    pub(super) said: Said,
}

/// How long the tick rate is measured.
const MEASURE: Duration = Duration::from_millis(50);
/// Pause between two looks at the samples.
const FLUSH: Duration = Duration::from_millis(50);

impl Gateway {
    /// Loads programs onto new or pinned maps and takes up what an earlier agent left. Packets
    /// notice nothing yet.
    pub(super) async fn start(
        options: Options,
        network: Network,
        prober: Prober,
    ) -> Result<Self, Error> {
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
        let had = Found::look(&pins)?;
        let had = had.record().map_or((0, 0), |record| record.node_ports);
        let wanted = options.snat.is_empty().then_some(options.snat_ports);
        ports::check(wanted, had)?;
        let lock = pins.lock()?;
        let found = Found::look(&pins)?;
        let mut ebpf = load(&pins, options.max_flows.max(found.flow_table_size()))?;
        if options.sample_every > 0 {
            log_samples(&mut ebpf);
        }
        let mut tables = Tables::open(&pins)?;
        dataplane::vips::adopt(&mut tables)?;
        let rate = Clock::open(&pins)?.rate(&tables, MEASURE)?;
        let seed = plan::ring_seed(&options.ring_secret);
        let timeouts = &apply::TIMEOUTS;
        apply::configure(
            &mut tables,
            seed as u32,
            rate,
            options.sample_every,
            timeouts,
        )?;
        // A record that cannot be read is no empty one: ids and regions of live flows are in it.
        let (mut record, upgrade) = found.settle(&pins, &mut tables)?;
        let mut recorder = Recorder::open(&mut tables)?;
        let node_ports = wanted.map_or((0, 0), |(first, last)| (first, last - first + 1));
        let hops = Hops::from_record(&record.hops);
        let replaced = record.applying.clone();
        // Rings are written where they are: the members are the same, so any mix of both leads to one of them.
        let other_rings =
            record.rings != plan::ring_stamp(seed) && !record.plan.regions().is_empty();
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
        raise_open_files();
        let access_log = AccessLog::start(&options.access_log)?;
        let traces = Traces::start(options.collector.as_ref())
            .map_err(|error| Error::Io("cannot start the thread that sends traces", error))?;
        let config = ProxyConfig {
            workers: options.proxy_workers,
            drain_timeout: options.drain_timeout,
            secret: options.ring_secret.clone().into_bytes(),
            ..ProxyConfig::default()
        };
        let proxy = Proxy::start_observed(config, &access_log, &traces)?;
        let router = Router::new(options.ring_secret.as_bytes());
        let ir_options = ir::Options {
            steering: options.steering,
        };
        // Clusters that cannot be asked at first go on with the pods that served.
        let remembered = Remembered::of(&record.ir);
        let publishing = match &options.source {
            Source::Manifests(_) => None,
            Source::Kubernetes(fleet) => Publishing::start(fleet)?,
        };
        let mut compiler = Compiler::new(ir_options, LastGood::default(), remembered);
        // Who failed at the last agent fails until a probe says otherwise.
        compiler.start_from(Verdicts::of(&record.ir));
        let shared = Arc::new(Shared {
            ready: AtomicBool::new(false),
            record: ArcSwap::from_pointee(record.clone()),
            stale: AtomicBool::new(false),
            flows: AtomicU64::new(0),
            health: prober.counters(),
            ports: ArcSwap::default(),
            proxy: proxy.stats(),
            access_log: access_log.counters(),
            traces: traces.counters(),
            pins: pins.clone(),
            servers: OnceLock::new(),
            status: publishing.as_ref().map(Publishing::counters),
        });
        Ok(Self {
            options,
            pins,
            ebpf,
            tables,
            ticks_per_second: rate,
            network,
            interfaces,
            attached: BTreeMap::new(),
            hops,
            paths: BTreeMap::new(),
            routes: BTreeMap::new(),
            pathless: BTreeSet::new(),
            looked: None,
            proxy,
            access_log,
            traces,
            router,
            tls: Servers::default(),
            lapsed: Vec::new(),
            snapshot: Snapshot::default(),
            compiler,
            planner: Planner::new(&record.plan),
            planned: false,
            recorder,
            unsaved: BTreeSet::new(),
            shown: Instant::now(),
            busy: None,
            pressed: false,
            sweeper: None,
            changed: Instant::now(),
            _lock: lock,
            record,
            shared,
            rewrite: replaced.is_some() || other_rings,
            upgrade,
            told: Vec::new(),
            configured: false,
            published: false,
            publishing,
            prober,
            said: Said::new(Instant::now()),
        })
    }

    /// What the admin server shows.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Starts the sweeping of flows.
    pub(super) fn sweeps(&mut self) -> Result<mpsc::Receiver<Sweep>, Error> {
        let (sweeps, wake) = sweeper::start(self.pins.clone())?;
        self.sweeper = Some(wake);
        Ok(sweeps)
    }

    /// Has flows of backends that are gone removed now.
    pub(super) fn purge(&self) {
        if let Some(sweeper) = &self.sweeper {
            // One that is waiting already is enough.
            let _ = sweeper.try_send(());
        }
    }

    /// Hands packets to the programs: from here on the gateway steers.
    pub(super) fn attach(&mut self) -> Result<(), Error> {
        self.hand_over_sockets()?;
        self.attach_interfaces()?;
        self.tell_ready();
        Ok(())
    }

    pub(super) fn attach_interfaces(&mut self) -> Result<(), Error> {
        let interfaces = self.wanted_interfaces();
        self.record.interfaces = attach::interfaces(
            &mut self.ebpf,
            &self.pins,
            &interfaces,
            self.options.xdp,
            self.options.tc,
        )?;
        for interface in &self.record.interfaces {
            info!(interface = %interface.name, hooks = %interface.hooks, reason = %interface.reason, "attached");
        }
        self.attached = interfaces.into_iter().map(|i| (i.name, i.index)).collect();
        let _ = self.save();
        Ok(())
    }

    /// The interfaces to attach to, as far as they are there.
    pub(super) fn wanted_interfaces(&self) -> Vec<Interface> {
        let names = self.options.interfaces.iter();
        names
            .filter_map(|name| self.interfaces.iter().find(|i| i.name == *name).cloned())
            .collect()
    }

    /// Gives the proxy what is for it. Only once it knows its listeners and their certificates, which no record holds:
    /// until then requests are those of the proxy before, if there is one.
    pub(super) fn hand_over_sockets(&mut self) -> Result<(), Error> {
        if let Some(socket) = self.proxy.sockets().next() {
            self.tables
                .sockets
                .set(0, &socket, 0)
                .map_err(|e| dataplane::Error::Map("SOCKETS", e.to_string()))?;
        }
        // Nobody listens for IPv6 where the node has none.
        if let Some(socket) = self.proxy.socket_v6() {
            self.tables
                .sockets
                .set(1, &socket, 0)
                .map_err(|e| dataplane::Error::Map("SOCKETS", e.to_string()))?;
        }
        attach::sk_lookup(&mut self.ebpf, &self.pins)?;
        Ok(())
    }

    /// Takes in which backends still have flows.
    pub(super) fn swept(&mut self, sweep: Sweep) {
        let entries = sweep.seen.saturating_sub(sweep.removed);
        self.shared.flows.store(entries, Ordering::Relaxed);
        self.ease(entries);
        self.shared.ports.store(Arc::new(sweep.ports));
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

    pub(super) fn tell_ready(&self) {
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
        self.access_log.finish();
        self.traces.finish();
    }
}

fn vips(options: &Options, interfaces: &[Interface]) -> Result<Vec<IpAddr>, Error> {
    if !options.vips.is_empty() {
        let vips = options.vips.iter();
        return Ok(vips.map(IpAddr::to_canonical).collect());
    }
    let first = options.interfaces.first().cloned().unwrap_or_default();
    let interface = interfaces.iter().find(|i| i.name == first);
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = interface
        .map(|i| i.addresses.clone())
        .unwrap_or_default()
        .into_iter()
        .partition(IpAddr::is_ipv4);
    // IPv6 addresses come and go by themselves: beside IPv4 they serve only if `--vip` names them.
    let addresses = if v4.is_empty() { v6 } else { v4 };
    if addresses.is_empty() {
        Err(Error::NoVip(first))
    } else {
        Ok(addresses)
    }
}

pub(super) fn now() -> u64 {
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

/// The proxy needs a file for every connection; the soft limit is there for programs that use select(2).
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(cause) = setrlimit(Resource::Nofile, raised) {
        warn!(%cause, "the limit of open files stays as it is; fewer connections can be served");
    }
}
