//! What a configuration and its changes cost the control plane: `cargo xtask bench control`.
//!
//! First the pure part, in this process: objects to routing model, plan, rings and the proxy's table, at several sizes.
//! Then the agent itself, on API servers and the kernel.

mod live;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal,
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use fleetgate_tests::fleet::{self, Size};
use gateway_user::{
    ir::{Compiler, LastGood, Options, Remembered, Touched},
    manifest::{Changes, ClusterId, Edit, Snapshot},
    plan::{self, Inputs, Mode, Plan, Planner},
    proxy::Router,
    tls::Servers,
};
use serde_json::{Value, json};
use xtask::console;

const VIPS: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))];
const SEED: u64 = 7;
/// Changes measured at each size.
const CHANGES: usize = 200;

/// One gateway's state, as the agent holds it.
struct Control {
    snapshot: Snapshot,
    compiler: Compiler,
    planner: Planner,
    router: Router,
    tls: Servers,
    plan: Plan,
    routes: BTreeMap<IpAddr, IpAddr>,
}

/// Where the time of one pass went.
#[derive(Clone, Copy, Default)]
struct Spent {
    apply: Duration,
    compile: Duration,
    route: Duration,
    plan: Duration,
    rings: Duration,
}

impl Spent {
    fn all(&self) -> Duration {
        self.apply + self.compile + self.route + self.plan + self.rings
    }
}

impl Control {
    fn new() -> Self {
        Self {
            snapshot: Snapshot::default(),
            compiler: Compiler::new(
                Options::default(),
                LastGood::default(),
                Remembered::default(),
            ),
            planner: Planner::new(&Plan::default()),
            router: Router::default(),
            tls: Servers::default(),
            plan: Plan::default(),
            routes: BTreeMap::new(),
        }
    }

    fn follow(&mut self, edits: Vec<Edit>, whole: bool) -> (Spent, Touched) {
        let mut spent = Spent::default();
        let mut lap = Instant::now();
        let mut split = |into: &mut Duration| {
            *into = lap.elapsed();
            lap = Instant::now();
        };
        let mut changes = Changes::default();
        for edit in edits {
            self.snapshot.apply(edit, &mut changes);
        }
        split(&mut spent.apply);
        let touched = self.compiler.update(&self.snapshot, &changes);
        split(&mut spent.compile);
        let ir = self.compiler.ir();
        self.tls
            .update(ir, &touched.listeners, &self.snapshot.secrets);
        let table = self.router.update(ir, &touched, &VIPS, &self.tls);
        split(&mut spent.route);
        // The kernel is asked for these in the agent; here one source stands for all.
        let kernel = touched.listeners.iter();
        let groups = kernel.filter_map(|name| ir.kernel_group(ir.listeners.get(name)?));
        for backend in groups.flat_map(|group| &group.backends) {
            self.routes.insert(backend.address.ip(), VIPS[0]);
        }
        let none = BTreeSet::new();
        let inputs = Inputs {
            vips: &VIPS,
            pool: &[],
            routes: &self.routes,
            node_ports: (10_000, 20_000),
            busy: Some(&none),
        };
        let listeners = (!whole).then_some(&touched.listeners);
        let delta = self.planner.update(ir, listeners, &inputs, &self.plan);
        let steps = plan::steps(&self.plan, &delta);
        self.plan.apply(&delta);
        self.planner.commit();
        split(&mut spent.plan);
        let mut slots = 0;
        for step in &steps {
            if let plan::Step::Ring(ring) = step {
                slots += self.plan.slots(ring, SEED).len();
            }
        }
        split(&mut spent.rings);
        std::hint::black_box((slots, table));
        (spent, touched)
    }

    fn rings(&self) -> usize {
        let services = self.plan.services.values();
        let ring = |mode: &Mode| matches!(mode, Mode::Connection(_));
        services.filter(|it| ring(&it.mode)).count()
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text
        .split(' ')
        .nth(1)
        .and_then(|it| it.parse().ok())
        .unwrap_or(0);
    pages * 4096
}

fn size(endpoints: usize) -> Size {
    let services = endpoints / 100;
    Size {
        clusters: 10,
        services,
        pods: 10,
        rules: services * 10,
        steered: services / 10,
    }
}

fn measure(size: Size) -> Value {
    let before = resident();
    let edits = size.edits();
    let mut control = Control::new();
    let (cold, _) = control.follow(edits, true);
    let memory = resident().saturating_sub(before);
    let mut kernel = Vec::new();
    let mut proxy = Vec::new();
    let mut rules = Vec::new();
    for at in 0..CHANGES {
        let cluster = at / 2 % size.clusters;
        let id = ClusterId(format!("c{cluster}").into());
        let flip = |service: usize| {
            // One pod goes, or comes back.
            let ready = if at % 2 == 0 {
                size.pods - 1
            } else {
                size.pods
            };
            fleet::edit(
                Some(&id),
                ("EndpointSlice", size.slice(cluster, service, ready)),
            )
        };
        let steered = at / 2 % size.steered;
        let (spent, touched) = control.follow(vec![flip(steered)], false);
        assert_eq!(touched.groups.len(), 1, "one Service, one group");
        kernel.push(spent);
        let other = size.steered + at / 2 % (size.services - size.steered);
        proxy.push(control.follow(vec![flip(other)], false).0);
        // Every cluster has a weight, so that each of its pods counts.
        let (_, mut ingress) = size.fleet_ingress(steered);
        let notes = &mut ingress["metadata"]["annotations"];
        for (cluster, id) in size.cluster_ids().enumerate() {
            let weight = match (cluster, at % 2) {
                (0, 0) => 11,
                (1, 0) => 9,
                _ => 100 / size.clusters,
            };
            let key = format!("alb.ingress.kubernetes.io/cluster-weight.{id}");
            notes[key] = weight.to_string().into();
        }
        let edit = fleet::edit(None, ("Ingress", ingress));
        rules.push(control.follow(vec![edit], false).0);
    }
    json!({
        "endpoints": size.endpoints(),
        "services": size.services * size.clusters,
        "rules": size.rules,
        "kernel_rings": control.rings(),
        "cold_ms": ms(cold.all()),
        "cold_stages_ms": stages(&cold),
        "memory_mib": memory as f64 / f64::from(1 << 20),
        "endpoint_change_kernel": distribution(&kernel),
        "endpoint_change_proxy": distribution(&proxy),
        "weights_of_an_ingress": distribution(&rules),
    })
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn stages(spent: &Spent) -> Value {
    json!({
        "apply": ms(spent.apply), "compile": ms(spent.compile), "route": ms(spent.route),
        "plan": ms(spent.plan), "rings": ms(spent.rings),
    })
}

fn distribution(spent: &[Spent]) -> Value {
    let mut all: Vec<Spent> = spent.to_vec();
    all.sort_by_key(Spent::all);
    let at = |part: usize| all[(all.len() - 1) * part / 100];
    json!({
        "median_ms": ms(at(50).all()), "p99_ms": ms(at(99).all()), "max_ms": ms(at(100).all()),
        "median_stages_ms": stages(&at(50)),
    })
}

/// `bench-control [AGENT] SIZE...`: with an agent the live part too, at the last size.
fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let sizes: Vec<usize> = asked.iter().filter_map(|it| it.parse().ok()).collect();
    let agent = asked.first().filter(|it| it.parse::<usize>().is_err());
    let progress = |what: String| {
        if std::io::stderr().is_terminal() {
            eprintln!(".. {what}");
        }
    };
    let mut found = Vec::new();
    for endpoints in &sizes {
        progress(format!("{endpoints} endpoints in this process"));
        found.push(measure(size(*endpoints)));
    }
    let mut result = json!({"pure": found});
    if let (Some(agent), Some(endpoints)) = (agent, sizes.last()) {
        progress(format!(
            "{endpoints} endpoints through API servers and the agent"
        ));
        match live::measure(size(*endpoints), &PathBuf::from(agent)) {
            Ok(live) => result["live"] = live,
            Err(error) => {
                eprintln!("error: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    }
    console::say(&result);
    ExitCode::SUCCESS
}
