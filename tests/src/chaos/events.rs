//! What is done to the gateway.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use xtask::{lab::topology::GATEWAY, netns};

use super::{
    ledger::Ledger,
    world::{Listed, RESTLESS, SERVICES, World},
};
use crate::{
    e2e::{Gateway, pod_named},
    random::Random,
};

/// The events in turn, the order of each round drawn anew.
const KINDS: [&str; 9] = [
    "weights",
    "pod unready",
    "pod gone",
    "pod dies",
    "cluster leaves",
    "agent stopped",
    "agent killed",
    "client link flaps",
    "cluster link flaps",
];

/// Does events, and counts them.
#[derive(Debug)]
pub(super) struct Events {
    world: World,
    random: Random,
    /// Events done, by kind.
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// Times the agent came back with other programs in the same links.
    pub(super) programs_replaced: u64,
}

impl Events {
    /// From this state on, in the order of this seed.
    pub(super) fn new(world: World, seed: u64) -> Self {
        Self {
            world,
            random: Random::new(seed),
            counts: BTreeMap::new(),
            programs_replaced: 0,
        }
    }

    /// Until it is time.
    pub(super) fn go_on(
        &mut self,
        gateway: &mut Gateway,
        ledger: &Ledger,
        until: Instant,
    ) -> Result<()> {
        let mut round = Vec::new();
        while Instant::now() < until {
            if round.is_empty() {
                round = KINDS.to_vec();
            }
            let kind = round.swap_remove(self.random.below(round.len()));
            self.once(kind, gateway, ledger)
                .with_context(|| kind.to_owned())?;
            *self.counts.entry(kind).or_default() += 1;
            self.pause(100, 900);
        }
        Ok(())
    }

    fn once(&mut self, kind: &'static str, gateway: &mut Gateway, ledger: &Ledger) -> Result<()> {
        match kind {
            "weights" => {
                let (service, ..) = SERVICES[self.random.below(SERVICES.len())];
                match self.random.below(5) {
                    0 => self.world.weights.remove(service),
                    share => self
                        .world
                        .weights
                        .insert(service, [0, 10, 50, 100][share - 1]),
                };
                ledger.event(format!("weights {:?}", self.world.weights));
                self.save(gateway, ledger)
            }
            "pod unready" => self.away(Listed::Unready, gateway, ledger),
            "pod gone" => self.away(Listed::Gone, gateway, ledger),
            "pod dies" => self.dies(gateway, ledger),
            "cluster leaves" => self.leaves(gateway, ledger),
            "agent stopped" | "agent killed" => self.restart(kind, gateway, ledger),
            "client link flaps" => self.flap("cl0", None, gateway, ledger),
            _ => {
                let (device, route) = match self.random.below(2) {
                    0 => ("c1", "route replace 10.221.1.0/24 via 10.211.1.2"),
                    _ => ("c2", "route replace 10.221.2.0/24 via 10.211.2.2"),
                };
                self.flap(device, Some(route), gateway, ledger)
            }
        }
    }

    fn save(&self, gateway: &Gateway, ledger: &Ledger) -> Result<()> {
        self.world.write(gateway)?;
        ledger.wanted(&self.world);
        Ok(())
    }

    /// A pod leaves while it serves what it has, and comes back.
    fn away(&mut self, listed: Listed, gateway: &Gateway, ledger: &Ledger) -> Result<()> {
        let pod = RESTLESS[self.random.below(RESTLESS.len())];
        ledger.event(format!("{pod} {listed:?}"));
        self.world.away.insert(pod, listed);
        self.save(gateway, ledger)?;
        self.pause(300, 2_500);
        ledger.event(format!("{pod} back"));
        self.world.away.remove(pod);
        self.save(gateway, ledger)
    }

    /// A pod's server is killed, the pod is removed, and comes back.
    fn dies(&mut self, gateway: &mut Gateway, ledger: &Ledger) -> Result<()> {
        let name = RESTLESS[self.random.below(RESTLESS.len())];
        let pod = pod_named(name)?;
        ledger.event(format!("{name} dies"));
        ledger.dies(name);
        gateway.lab.kill_pod(&pod)?;
        self.pause(50, 300);
        self.world.away.insert(name, Listed::Gone);
        self.save(gateway, ledger)?;
        self.pause(1_000, 2_000);
        gateway.lab.start_pod(&pod)?;
        self.world.away.remove(name);
        ledger.event(format!("{name} started again"));
        self.save(gateway, ledger)?;
        ledger.buried(name);
        Ok(())
    }

    fn leaves(&mut self, gateway: &Gateway, ledger: &Ledger) -> Result<()> {
        let cluster = ["c1", "c2"][self.random.below(2)];
        ledger.event(format!("cluster {cluster} leaves"));
        let weights = std::mem::take(&mut self.world.weights);
        self.world.clusters.remove(cluster);
        self.save(gateway, ledger)?;
        self.pause(500, 2_500);
        ledger.event(format!("cluster {cluster} joins"));
        self.world.clusters.insert(cluster);
        self.world.weights = weights;
        self.save(gateway, ledger)
    }

    fn restart(&mut self, kind: &str, gateway: &mut Gateway, ledger: &Ledger) -> Result<()> {
        ledger.event(kind.to_owned());
        let before = gateway.links()?;
        if kind == "agent stopped" {
            gateway.stop()?;
        } else {
            gateway.kill()?;
        }
        self.pause(0, 1_500);
        gateway.start()?;
        ledger.event(format!("{kind}, started again"));
        let after = gateway.links()?;
        // The links of TC stay, that of the socket lookup is made anew beside the old one.
        let program = |link: u32| before.iter().find(|(id, _)| *id == link).map(|(_, it)| *it);
        let kept = after
            .iter()
            .filter_map(|(link, now)| Some((program(*link)?, *now)));
        let kept: Vec<(u32, u32)> = kept.collect();
        if kept.len() >= 3 && kept.iter().all(|(old, new)| old != new) {
            self.programs_replaced += 1;
        }
        // What was saved meanwhile counts from now on.
        ledger.wanted(&self.world);
        Ok(())
    }

    fn flap(
        &mut self,
        device: &str,
        route: Option<&str>,
        gateway: &Gateway,
        ledger: &Ledger,
    ) -> Result<()> {
        ledger.event(format!("{device} down"));
        gateway.ip(GATEWAY, &format!("link set {device} down"))?;
        self.pause(100, 600);
        let mut lines = vec![format!("link set {device} up")];
        lines.extend(route.map(str::to_owned));
        netns::ip_batch(Some(GATEWAY), &lines)?;
        ledger.event(format!("{device} up"));
        Ok(())
    }

    fn pause(&mut self, least_ms: usize, most_ms: usize) {
        let ms = least_ms + self.random.below(most_ms - least_ms);
        thread::sleep(Duration::from_millis(ms as u64));
    }
}
