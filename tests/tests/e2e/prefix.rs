//! The agent ends before every single write of a change, and of the start that completes it.

use std::{
    collections::{BTreeSet, hash_map::RandomState},
    hash::BuildHasher,
    net::SocketAddr,
};

use anyhow::{Context, Result, ensure};
use fleetgate_tests::e2e::{
    Gateway, VIP,
    manifests::{self, Ingress, WEB},
    wire::{self, Held},
};
use gateway_user::{
    dataplane::{pins::Pins, record::Record, tables::Tables},
    plan::{BackendState, Plan},
};
use xtask::lab::topology::HTTP_PORT;

/// More writes than any change of this file has.
const MOST: u64 = 400;
/// All of them are too many for each run: one of so many, from a random one on. `FLEETGATE_EVERY_WRITE=0` takes all.
const STRIDE: u64 = 8;
/// An allow list that lets the lab's client in.
const WHITE: &str = "    aclConfig: {aclType: White, aclEntries: [192.0.2.0/24, 10.210.0.2]}\n";

/// One of two worlds: between them a listener comes and another goes, rings and access lists change, and pods come back
/// or do not take connections any more. [`WEB`] serves in both.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum World {
    A,
    B,
}

impl World {
    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn ports(self) -> [u16; 2] {
        match self {
            Self::A => [WEB, WEB + 1],
            Self::B => [WEB, WEB + 2],
        }
    }

    /// The pods that take connections.
    fn serves(self, pod: &str) -> bool {
        match self {
            Self::A => pod != "c2-p3",
            Self::B => !matches!(pod, "c1-p1" | "c2-p2"),
        }
    }

    /// Saves it, all files at once for a source that waits for silence.
    fn save(self, gateway: &Gateway) -> Result<()> {
        let (more, weights) = match self {
            Self::A => ("", [("c1", 30), ("c2", 70)]),
            Self::B => (WHITE, [("c1", 60), ("c2", 40)]),
        };
        let ports = self.ports();
        gateway.write("fleet/gateway.yaml", &manifests::gateway(&ports, more))?;
        let ingress = Ingress::new("web", WEB).ports(&ports).weights(&weights);
        gateway.write("fleet/web.yaml", &ingress.yaml())?;
        let ready = |pod: &str| self.serves(pod);
        for (path, text) in manifests::clusters("web", HTTP_PORT, "None", ready) {
            gateway.write(&path, &text)?;
        }
        Ok(())
    }

    /// Whether this is what the record says is in the kernel, whole.
    fn is_in_force(self, record: &Record) -> bool {
        let plan = &record.plan;
        let listeners: BTreeSet<SocketAddr> = plan.services.keys().map(|it| it.address).collect();
        let wanted = self.ports().map(|port| SocketAddr::from((VIP, port)));
        let pods = xtask::lab::topology::pods();
        let serving = pods
            .iter()
            .map(|pod| &*pod.name)
            .filter(|pod| self.serves(pod));
        record.applying.is_none()
            && listeners == BTreeSet::from(wanted)
            && active(plan) == serving.map(str::to_owned).collect()
            && plan.services.values().all(|it| it.mode.ring().is_some())
    }
}

/// Names of the pods that take new connections.
fn active(plan: &Plan) -> BTreeSet<String> {
    let backends = plan.backends.values();
    let active = backends.filter(|it| it.state == BackendState::Active);
    active.map(|it| it.pod.to_string()).collect()
}

fn record(gateway: &Gateway) -> Result<Record> {
    let tables = Tables::open(&Pins::new(gateway.pins()))?;
    Record::load(&tables)?.context("no record")
}

/// What must hold wherever the agent ended: the next one starts from the model and the plan of one change, and every
/// listener of both worlds answers, held connections where they were.
fn works(gateway: &Gateway, held: &mut Held) -> Result<()> {
    held.stay()?;
    let tally = wire::burst(WEB, 20)?;
    ensure!((tally.requests, tally.failed()) == (20, 0), "{tally:?}");
    let record = record(gateway)?;
    let serving = record.ir.groups.values().flat_map(|group| &group.backends);
    let serving: BTreeSet<String> = serving.map(|it| it.pod.to_string()).collect();
    ensure!(
        serving == active(&record.plan),
        "the model says {serving:?}, the plan {:?}",
        active(&record.plan)
    );
    Ok(())
}

/// What must hold when a change is whole: its listeners, its pods, and the kernel as the plan says.
fn converged(gateway: &Gateway, world: World) -> Result<()> {
    for port in world.ports() {
        let tally = wire::burst(port, 40)?;
        ensure!((tally.requests, tally.failed()) == (40, 0), "{tally:?}");
        let astray = tally.by_pod.keys().find(|pod| {
            let name = pod.rsplit('/').next().unwrap_or_default();
            !world.serves(name)
        });
        ensure!(astray.is_none(), "{world:?}: {tally:?}");
    }
    for gone in world
        .other()
        .ports()
        .iter()
        .filter(|it| !world.ports().contains(it))
    {
        let outcome = wire::outcome(*gone);
        ensure!(outcome == "ConnectionRefused", "{gone}: {outcome}");
    }
    let services = gateway.json(&["services"])?;
    let services = services.as_array().context("an array")?;
    let agree = services.iter().all(|it| it["agrees"] == true);
    ensure!(agree && services.len() == 2, "{services:?}");
    // A ring's members, and the pods of the model, are those of this world.
    let record = record(gateway)?;
    ensure!(world.is_in_force(&record), "{:?}", record.plan);
    Ok(())
}

#[test]
fn an_agent_that_crashes_before_any_write_of_a_change_leaves_a_working_gateway() -> Result<()> {
    let mut gateway = Gateway::new()?;
    let mut world = World::A;
    world.save(&gateway)?;
    gateway.start()?;
    let mut held = Held::open(WEB, 12)?;
    let mut crashes = 0;
    let (first, stride) = match std::env::var("FLEETGATE_EVERY_WRITE") {
        Ok(first) => (first.parse()?, 1),
        Err(_) => (RandomState::new().hash_one(0) % STRIDE, STRIDE),
    };
    // Each write of the change to B and of the change to A, until both are over before the crash comes.
    let mut whole = 0;
    for turn in 0..2 * MOST {
        let write = first + turn / 2 * stride;
        world = world.other();
        let story = format!("to {world:?}, at write {write}");
        gateway.crash_at(Some(write))?;
        world.save(&gateway)?;
        let crashed = gateway
            .crashes_or(|gateway| Ok(world.is_in_force(&record(gateway)?)))
            .with_context(|| story.clone())?;
        if crashed {
            crashes += 1;
            whole = 0;
            works(&gateway, &mut held).with_context(|| story.clone())?;
            // The one that takes it up meets writes of its own: most of the time it is let through.
            if crashes % 8 == 1 {
                gateway.launch()?;
                if gateway.crashes_or(|gateway| {
                    Ok(gateway.admin("/readyz").is_ok_and(|it| it.0 == 200))
                })? {
                    crashes += 1;
                    works(&gateway, &mut held).with_context(|| format!("{story}, and again"))?;
                } else {
                    gateway.kill()?;
                }
            }
        } else {
            whole += 1;
            gateway.kill()?;
        }
        gateway.crash_at(None)?;
        gateway.start().with_context(|| story.clone())?;
        converged(&gateway, world).with_context(|| story.clone())?;
        held.stay().with_context(|| story.clone())?;
        if whole == 2 {
            break;
        }
    }
    ensure!(whole == 2, "a change of more than {MOST} writes");
    // Both ways write services, rings, backends and the record.
    ensure!(crashes > 5, "only {crashes} crashes");
    Ok(())
}
