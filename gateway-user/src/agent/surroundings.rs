//! The gateway's surroundings: paths to backends, next hops, interfaces that come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use tracing::warn;

use super::gateway::Gateway;
use crate::{
    dataplane::{
        apply,
        hops::{Facts, HopChanges, Hops},
    },
    ir::Listener,
    network::{Change, Interface, Path},
};

/// Unresolved neighbours probed at one look.
const PROBES: usize = 256;
/// Entries read of the neighbour table at the start: twice its size, should it change meanwhile.
const HELD: usize = 2 * gateway_common::maps::NEIGHBOURS.1 as usize;

impl Gateway {
    /// Looks at the network after a change. One of neighbours alone moves no path.
    pub(super) async fn look_around(&mut self, change: Change) {
        if change < Change::Paths {
            self.update_hops().await;
            return;
        }
        let before = sources(&self.paths);
        self.find_paths().await;
        self.attach_again();
        if before != sources(&self.paths) || self.told != self.unreachable() {
            self.reconcile();
        }
    }

    /// Looks at everything although nothing was heard, and has the kernel make sure of the
    /// neighbours in use: redirected packets do not tell it that they are alive.
    pub(super) async fn look_again(&mut self) {
        self.look_around(Change::Paths).await;
        let first = self.options.interfaces.first();
        let clients = self.interfaces.iter().find(|i| Some(&i.name) == first);
        let probes = self.hops.probes(&self.paths, clients.map(|i| i.index));
        self.network.probe(probes).await;
    }

    /// Attaches anew when an interface was made again under its old name: its links died with it.
    fn attach_again(&mut self) {
        if self.attached.is_empty() {
            return;
        }
        let made_again = self.options.interfaces.iter().any(|name| {
            let now = self.interfaces.iter().find(|i| i.name == *name);
            now.is_some_and(|now| self.attached.get(name) != Some(&now.index))
        });
        if made_again && let Err(error) = self.attach() {
            warn!(%error, "an interface was made again and is not attached; trying again");
        }
    }

    /// Interfaces that take frames which XDP redirects: those with native XDP of our own, whose
    /// driver then has queues for it; all, where XDP runs in the stack.
    fn redirected_to(&self, interfaces: &[Interface]) -> BTreeSet<String> {
        let with = |hook: &str| {
            let hooked = self.record.interfaces.iter();
            hooked
                .filter(|i| i.hooks.starts_with(hook))
                .map(|i| i.name.clone())
                .collect()
        };
        let generic: BTreeSet<String> = with("xdp generic");
        if generic.is_empty() {
            return with("xdp native");
        }
        interfaces.iter().map(|i| i.name.clone()).collect()
    }

    pub(super) async fn find_paths(&mut self) {
        let addresses: BTreeSet<IpAddr> = self
            .record
            .ir
            .listeners
            .iter()
            .filter_map(Listener::kernel_group)
            .flat_map(|group| group.backends.iter().chain(&group.idle))
            .map(|backend| backend.address.ip())
            // Flows may still go to pods that only the plan remembers.
            .chain(
                self.record
                    .plan
                    .backends
                    .values()
                    .map(|b| b.key.address.ip()),
            )
            .collect();
        let before = self.known_paths();
        let found = self.network.paths(addresses.into_iter()).await;
        if let Some(error) = &found.error {
            warn!(%error, unknown = found.unknown.len(), "paths to some backends stay as they were");
        }
        self.paths = found.or_before(&before);
        self.update_hops().await;
        let by_backend = self.hops.by_backend();
        let unresolved: BTreeSet<(u32, IpAddr)> = self
            .paths
            .iter()
            .filter(|(address, _)| by_backend.get(address).is_none_or(|hop| *hop == 0))
            .map(|(_, path)| (path.ifindex, path.neighbour))
            .collect();
        self.network
            .probe(unresolved.into_iter().take(PROBES))
            .await;
    }

    /// The paths of the last look. Before the first one those that the plan was made with, as far
    /// as it tells: without neighbours, which leaves the way to the kernel's tables.
    fn known_paths(&self) -> BTreeMap<IpAddr, Path> {
        if !self.paths.is_empty() {
            return self.paths.clone();
        }
        let plan = &self.record.plan;
        let path = |backend: &crate::plan::Backend| {
            let address = backend.key.address.ip();
            let source = plan.sources.get(usize::from(backend.source_first))?.address;
            let path = Path {
                ifindex: 0,
                neighbour: address,
                source,
            };
            Some((address, path))
        };
        plan.backends.values().filter_map(path).collect()
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
                if self.hops.is_new() {
                    let held = self.tables.neighbours.iter().filter_map(Result::ok);
                    self.hops.take_up(held.take(HELD));
                }
                let xdp = self.redirected_to(&interfaces);
                let changes = self.hops.update(&Facts {
                    interfaces: &interfaces,
                    neighbours: &neighbours,
                    paths: &self.paths,
                    attached: &self.options.interfaces,
                    xdp: &xdp,
                    now: Instant::now(),
                });
                self.interfaces = interfaces;
                self.write_hops(&changes);
            }
            Err(error) => warn!(%error, "next hops stay as they are"),
        }
    }

    fn write_hops(&mut self, changes: &HopChanges) {
        if changes.is_empty() {
            return;
        }
        // Recorded before flows can hold them: after a crash in between nobody else gets these ids.
        let ids = self.hops.to_record();
        if self.record.hops != ids {
            self.record.hops = ids;
            self.save();
        }
        let hops = self.hops.by_backend();
        if let Err(error) = apply::apply_hops(&mut self.tables, changes, &self.record.plan, hops) {
            warn!(%error, "next hops are not up to date; writing all of them again");
            self.hops = Hops::from_record(&self.record.hops);
        }
    }

    /// Interfaces that take no packets, backends that packets cannot reach, or whose answers would not come by.
    pub(super) fn unreachable(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for name in &self.options.interfaces {
            match self.interfaces.iter().find(|i| i.name == *name) {
                None => warnings.push(format!(
                    "interface {name} is gone; it is attached again when it is back"
                )),
                Some(interface) if !interface.up => warnings.push(format!(
                    "interface {name} is down; `ip link set {name} up` lets packets in"
                )),
                Some(_) => {}
            }
        }
        let listeners = self.record.ir.listeners.iter();
        let groups = listeners.filter_map(Listener::kernel_group);
        for backend in groups.flat_map(|group| &group.backends) {
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
}

/// Source address by backend address.
pub(super) fn sources(paths: &BTreeMap<IpAddr, Path>) -> BTreeMap<IpAddr, IpAddr> {
    paths
        .iter()
        .map(|(address, path)| (*address, path.source))
        .collect()
}
