//! The law of the control side: what follows changes is what would be built from nothing.
#![allow(clippy::print_stdout, reason = "shown when an assertion fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use gateway_common::affinity::members;
use gateway_user::{
    ir::{
        self, Compiler, Group, Ir, LastGood, Listener, Options, Probe, ProbeFailure, Remembered,
        Touched,
    },
    manifest::{Changes, Reach, Snapshot},
    plan::{
        self, BackendKey, BackendState, Inputs, Mode, Plan, Planner, Region, ServiceAddr, Source,
        Step,
    },
    proxy::{RouteTable, Router},
    tls::Servers,
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

#[path = "incremental/edits.rs"]
mod edits;

use edits::{Event, cluster, event};

const VIPS: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)),
];

/// Events of one run.
const EVENTS: usize = 1_000;
/// Runs, each from a seed of its own.
const RUNS: u8 = 3;

/// The control side of an agent, without its maps.
struct Control {
    snapshot: Snapshot,
    compiler: Compiler,
    /// What follows the compiler, as the agent's record does.
    ir: Ir,
    router: Router,
    planner: Planner,
    planned: bool,
    plan: Plan,
    routes: BTreeMap<IpAddr, IpAddr>,
    busy: Option<BTreeSet<u32>>,
    /// What is probed, as the agent's prober keeps it.
    probed: BTreeMap<Probe, Option<ProbeFailure>>,
    crash: bool,
    counts: BTreeMap<&'static str, u32>,
}

/// What a plan says, whatever the history that led to it.
#[derive(Debug, Eq, PartialEq)]
struct Meaning {
    /// Listener, group and affinity, and the members with their weights; none for the proxy's.
    services: BTreeMap<ServiceAddr, (String, String, bool, Option<Weights>)>,
    /// Pods that take new flows, and the sources they are reached by.
    active: BTreeMap<BackendKey, (Arc<str>, Vec<Source>)>,
}

type Weights = BTreeMap<BackendKey, u32>;

fn meaning(plan: &Plan) -> Meaning {
    let weights = |mode: &Mode| match mode {
        Mode::Request | Mode::Empty => None,
        Mode::Connection(ring) => {
            let members = ring.members.iter();
            Some(
                members
                    .map(|it| (plan.backends[&it.backend].key.clone(), it.weight))
                    .collect(),
            )
        }
    };
    let active = |it: &&plan::Backend| it.state == BackendState::Active;
    let backend = |it: &plan::Backend| {
        let first = usize::from(it.source_first);
        let sources = plan.sources[first..first + usize::from(it.source_count)].to_vec();
        (it.key.clone(), (it.pod.clone(), sources))
    };
    Meaning {
        services: plan
            .services
            .iter()
            .map(|(address, it)| {
                let said = (
                    it.listener.clone(),
                    format!(
                        "{} {:?}",
                        it.group,
                        it.access.as_ref().map(|access| &access.list)
                    ),
                    it.client_affinity,
                    weights(&it.mode),
                );
                (*address, said)
            })
            .collect(),
        active: plan.backends.values().filter(active).map(backend).collect(),
    }
}

fn lists(plan: &Plan) -> impl Iterator<Item = u16> {
    let services = plan.services.values();
    services.filter_map(|it| it.access.as_ref().map(|access| access.id))
}

fn apart(one: &Region, other: &Region) -> bool {
    let end = |region: &Region| region.offset + region.len + members::len(region.len);
    end(one) <= other.offset || end(other) <= one.offset
}

impl Control {
    fn new() -> Self {
        let mut routes = BTreeMap::new();
        for (id, pod) in (0..4).flat_map(|id| (0..10).map(move |pod| (id, pod))) {
            // One pod of each cluster cannot be reached, and two ways lead to the others.
            if pod != 9 {
                routes.insert([10, id, 0, pod].into(), [10, 9, 0, pod % 2].into());
                let v6 = |net: u8, host: u8| {
                    let parts = [0x2001, 0xdb8, net.into(), 0, 0, 0, 0, host.into()];
                    IpAddr::from(std::net::Ipv6Addr::from(parts))
                };
                routes.insert(v6(id, pod), v6(99, pod % 2));
            }
        }
        let mut control = Self {
            snapshot: Snapshot::default(),
            compiler: Compiler::new(
                Options::default(),
                LastGood::default(),
                Remembered::default(),
            ),
            ir: Ir::default(),
            router: Router::default(),
            planner: Planner::new(&Plan::default()),
            planned: false,
            plan: Plan::default(),
            routes,
            busy: None,
            probed: BTreeMap::new(),
            crash: false,
            counts: BTreeMap::new(),
        };
        let mut changes = Changes::default();
        for id in 0..3 {
            let join = manifest_join(id);
            control.snapshot.apply(join, &mut changes);
        }
        control.follow(&changes);
        control
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Takes in some events at once, as the feed hands them over.
    fn take_in(&mut self, events: &[Event]) {
        let mut changes = Changes::default();
        let mut judged = None;
        for event in events {
            match event.edit() {
                (kind, Some(edit)) => {
                    let mut its = Changes::default();
                    let mut alone = self.snapshot.clone();
                    alone.apply(edit.clone(), &mut its);
                    if !its.is_empty() {
                        self.count(kind);
                    }
                    assert_eq!(its.is_empty(), alone == self.snapshot, "{event:?}");
                    self.snapshot.apply(edit, &mut changes);
                    assert!(self.snapshot == alone);
                }
                (kind, None) => {
                    self.count(kind);
                    match event {
                        Event::Sweep(busy) => {
                            let ids = self.plan.backends.keys().copied();
                            let busy = ids.filter(|id| busy.contains(&(id % 7))).collect();
                            self.busy = Some(busy);
                        }
                        Event::Judge(which, why) => judged = Some((*which, *why)),
                        _ => self.crash = true,
                    }
                }
            }
        }
        self.follow(&changes);
        if let Some((which, why)) = judged {
            self.judge(which, why);
        }
    }

    fn follow(&mut self, changes: &Changes) {
        let before = self.ir.clone();
        let good = self.compiler.last_good().clone();
        let touched = self.compiler.update(&self.snapshot, changes);
        self.agree(&good, &before, &touched);
    }

    /// One in `which` of what is probed fails now, or is trusted again.
    fn judge(&mut self, which: u8, why: Option<ProbeFailure>) {
        let probes = self.probed.keys().enumerate();
        let some = probes.filter(|(at, _)| at % usize::from(which) == 0);
        let news: Vec<_> = some.map(|(_, probe)| (probe.clone(), why)).collect();
        if news.is_empty() {
            return;
        }
        self.count(if why.is_some() {
            "probe fails"
        } else {
            "probe passes"
        });
        self.probed.extend(news.iter().cloned());
        let before = self.ir.clone();
        let good = self.compiler.last_good().clone();
        let touched = self.compiler.judge(&self.snapshot.clone(), news);
        assert!(!touched.problems, "a pod that fails is nobody's mistake");
        self.agree(&good, &before, &touched);
    }

    /// Everything is as if it were built from nothing.
    fn agree(&mut self, good: &LastGood, before: &Ir, touched: &Touched) {
        self.same_model(good, touched);
        self.same_probes();
        self.same_routes(touched);
        self.same_plan(before, touched);
    }

    /// What is probed is what the groups need, and a new one is trusted.
    fn same_probes(&mut self) {
        let changes = self.compiler.probe_changes();
        for probe in changes.gone {
            assert!(self.probed.remove(&probe).is_some(), "{probe:?}");
        }
        for (probe, why) in changes.wanted {
            let had = self.probed.insert(probe, why);
            assert!(why.is_none() || had == Some(why));
        }
        let groups = self.ir.groups.values();
        let needed: BTreeSet<Probe> = groups.flat_map(|it| it.probes()).collect();
        assert!(self.probed.keys().eq(needed.iter()));
        for (probe, why) in &self.probed {
            assert_eq!(self.compiler.verdicts().get(probe), *why);
        }
        let groups: Vec<_> = self.ir.groups.values().cloned().collect();
        for group in groups {
            if group.is_open() {
                self.count("fails open");
            } else if !group.failing.is_empty() {
                self.count("some pods fail");
            }
        }
    }

    /// The routing model and the problems are those of a build from nothing but what was good: before this change, and
    /// also after it.
    fn same_model(&mut self, before: &LastGood, touched: &Touched) {
        let options = Options::default();
        let verdicts = self.compiler.verdicts().clone();
        let build = |good: &LastGood| ir::build_judged(&self.snapshot, good, &options, &verdicts);
        let at_once = build(before);
        let problems = self.compiler.problems();
        let built = build(self.compiler.last_good());
        let (ours, theirs) = (self.compiler.ir(), &built.ir);
        for (name, listener) in &ours.listeners {
            assert_eq!(theirs.listeners.get(name), Some(listener));
        }
        for (name, group) in &ours.groups {
            assert_eq!(theirs.groups.get(name), Some(group));
        }
        assert_eq!(*ours, *theirs);
        for problem in &built.problems {
            assert!(problems.contains(problem), "missing: {problem}");
        }
        for problem in &problems {
            assert!(built.problems.contains(problem), "too much: {problem}");
        }
        assert_eq!(problems, built.problems);
        assert_eq!(*self.compiler.last_good(), built.last_good);
        assert_eq!(at_once, built);
        self.ir.follow(self.compiler.ir(), touched);
        assert!(self.ir == built.ir, "{touched:?} is not all");
    }

    fn same_routes(&mut self, touched: &Touched) {
        let table = self
            .router
            .update(&self.ir, touched, &VIPS, &Servers::default());
        assert!(table == RouteTable::build(&self.ir, &VIPS), "{touched:?}");
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            vips: &VIPS,
            pool: &[],
            routes: &self.routes,
            node_ports: (10_000, 20_000),
            busy: self.busy.as_ref(),
        }
    }

    fn same_plan(&mut self, before: &Ir, touched: &Touched) {
        let had = self.plan.clone();
        let listeners = Some(&touched.listeners).filter(|_| self.planned);
        self.planned = true;
        self.step(listeners.cloned());
        if std::mem::take(&mut self.crash) {
            // As the agent: everything is planned again, and nothing that packets may use is written.
            self.step(None);
        }
        let (fresh, left_out) = plan::build(&self.ir, &self.inputs(), &Plan::default());
        assert_eq!(meaning(&self.plan), meaning(&fresh));
        assert_eq!(self.planner.left_out(), left_out);
        self.same_states();
        let mut counted = BTreeSet::new();
        for service in self.plan.services.values() {
            counted.insert(match service.mode {
                Mode::Connection(_) => "steered by the kernel",
                Mode::Request => "steered by the proxy",
                Mode::Empty => "of nobody",
            });
        }
        counted.extend(left_out.first().map(|_| "left out"));
        for what in counted {
            self.count(what);
        }
        self.stable(&had, before);
    }

    /// What is left of a pod depends on who names it now, not on what was touched since.
    fn same_states(&self) {
        let (again, _) = plan::build(&self.ir, &self.inputs(), &self.plan);
        for (id, backend) in &again.backends {
            let ours = self.plan.backends.get(id).map(|ours| ours.state);
            assert_eq!(ours, Some(backend.state), "{:?}", backend.key);
        }
    }

    /// One change of the plan, and what its steps may touch; a crash leaves it half done.
    fn step(&mut self, listeners: Option<BTreeSet<ir::ListenerName>>) {
        let have = self.plan.clone();
        let mut planner = std::mem::take(&mut self.planner);
        let delta = planner.update(&self.ir, listeners.as_ref(), &self.inputs(), &have);
        let steps = plan::steps(&have, &delta);
        let replaced = self.plan.apply(&delta);
        assert!(
            steps == plan::diff(&have, &self.plan)
                || !have.reserved.is_empty()
                || !have.reserved_lists.is_empty()
        );
        let lists: Vec<u16> = lists(&have)
            .chain(have.reserved_lists.iter().copied())
            .collect();
        let in_use: Vec<Region> = have.regions().into_iter().chain(have.reserved).collect();
        for step in &steps {
            match step {
                Step::Ring(ring) => {
                    for region in &in_use {
                        assert!(apart(region, &ring.region), "{ring:?} lies in {region:?}");
                    }
                }
                Step::List(access) => assert!(!lists.contains(&access.id), "{access:?} is in use"),
                Step::Service { address, .. } => {
                    let was = have.services.get(address);
                    assert_ne!(self.plan.services.get(address), was);
                }
                Step::RemoveBackend(id) => {
                    assert!(!self.busy.as_ref().is_none_or(|busy| busy.contains(id)));
                }
                _ => {}
            }
        }
        let regions = self.plan.regions();
        for (at, one) in regions.iter().enumerate() {
            assert!(regions[at + 1..].iter().all(|other| apart(one, other)));
        }
        self.planner = planner;
        if self.crash && listeners.is_some() {
            self.plan.interrupted(&replaced);
            self.planner = Planner::new(&self.plan);
            return;
        }
        self.plan.reserved.clear();
        self.plan.reserved_lists.clear();
        self.planner.commit();
        if !steps.is_empty() {
            self.busy = None;
        }
    }

    /// Ids stay with what they stand for, and what was not touched is not written.
    fn stable(&mut self, had: &Plan, before: &Ir) {
        let ids = |plan: &Plan| {
            let ids = plan.backends.iter();
            ids.map(|(id, it)| (it.key.clone(), (*id, it.generation)))
                .collect::<BTreeMap<_, _>>()
        };
        let now = ids(&self.plan);
        assert_eq!(now.len(), self.plan.backends.len(), "a pod has two ids");
        for (key, id) in ids(had) {
            assert!(now.get(&key).is_none_or(|now| *now == id), "{key:?}");
        }
        let services: BTreeSet<u32> = self.plan.services.values().map(|it| it.id).collect();
        assert_eq!(services.len(), self.plan.services.len());
        let named = |ir: &Ir, name: &str| -> Option<(Arc<Listener>, Option<Arc<Group>>)> {
            let mut all = ir.listeners.values();
            let listener = all.find(|it| it.name.to_string() == name)?;
            Some((listener.clone(), ir.kernel_group(listener).cloned()))
        };
        for (address, old) in &had.services {
            let Some(new) = self.plan.services.get(address) else {
                continue;
            };
            assert_eq!(new.id, old.id, "{address}");
            let now = named(&self.ir, &old.listener);
            if now.is_some() && now == named(before, &old.listener) {
                assert_eq!(new, old, "{address} was not touched");
            }
        }
    }
}

fn manifest_join(id: u8) -> gateway_user::manifest::Edit {
    gateway_user::manifest::Edit::Cluster(cluster(id), Reach::Connected)
}

#[test]
fn what_follows_changes_is_what_would_be_built_from_nothing() {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for run in 1..=RUNS {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[run; 32]);
        let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
        // The second part tells which events are taken in together with the next one.
        let events = prop::collection::vec((event(), prop::bool::weighted(0.1)), EVENTS);
        let events = events.new_tree(&mut runner).expect("events").current();
        let mut control = Control::new();
        let mut together = Vec::new();
        for (number, (event, wait)) in events.into_iter().enumerate() {
            together.push(event);
            if !wait {
                println!("run {run}, event {number}: {together:?}");
                control.take_in(&together);
                together.clear();
            }
        }
        for (what, times) in control.counts {
            *counts.entry(what).or_default() += times;
        }
    }
    for (what, least) in [
        ("gateway", 150),
        ("gateway gone", 10),
        ("class", 25),
        ("class gone", 5),
        ("ingress", 400),
        ("ingress gone", 30),
        ("service", 150),
        ("service gone", 15),
        ("slice", 400),
        ("slice gone", 20),
        ("secret", 10),
        ("cluster", 80),
        ("leave", 15),
        ("unreadable", 15),
        ("sweep", 100),
        ("probe fails", 30),
        ("probe passes", 20),
        ("some pods fail", 200),
        ("fails open", 100),
        ("crash", 30),
        ("steered by the kernel", 250),
        ("steered by the proxy", 1000),
        ("of nobody", 400),
        ("left out", 40),
    ] {
        let times = counts.get(what).copied().unwrap_or_default();
        assert!(times >= least, "{what} only {times} times: {counts:?}");
    }
}
