//! The gateway's surroundings: paths to backends, next hops, interfaces that come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Bound,
    time::Instant,
};

use tracing::warn;

use super::gateway::Gateway;
use crate::{
    dataplane::{
        apply,
        hops::{Facts, HopChanges, Hops},
        record::Part,
    },
    ir::Touched,
    network::{Change, Interface, Path},
};

/// Unresolved neighbours probed at one look.
const PROBES: usize = 256;
/// Paths asked for again at one look: a route that changes is also heard of.
const LOOKED: usize = 2048;
/// Entries read of the neighbour table at the start: twice its size, should it change meanwhile.
const HELD: usize = 2 * gateway_common::maps::NEIGHBOURS.1 as usize;

impl Gateway {
    /// Looks at the network after a change. One of neighbours alone moves no path.
    pub(super) async fn look_around(&mut self, change: Change) {
        if change < Change::Paths {
            self.update_hops().await;
            return;
        }
        let before = self.routes.clone();
        self.find_paths().await;
        self.after_look(before);
    }

    fn after_look(&mut self, before: BTreeMap<IpAddr, IpAddr>) {
        self.attach_again();
        if before != self.routes || self.told != self.unreachable() {
            self.reconcile(None);
        }
    }

    /// Looks again although nothing was heard, at [`LOOKED`] of the paths in turn, and has the kernel make sure of
    /// the neighbours in use: redirected packets do not tell it that they are alive.
    pub(super) async fn look_again(&mut self) {
        let before = self.routes.clone();
        let rest = (
            self.looked.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        );
        let mut turn: BTreeSet<IpAddr> = self
            .paths
            .range(rest)
            .map(|(address, _)| *address)
            .take(LOOKED)
            .collect();
        self.looked = turn.last().copied().filter(|_| turn.len() == LOOKED);
        turn.extend(self.pathless.iter().take(LOOKED));
        self.find_paths_of(turn, true).await;
        self.after_look(before);
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
        let ir = &self.record.ir;
        let addresses: BTreeSet<IpAddr> = ir
            .served()
            .filter_map(|listener| ir.kernel_group(listener))
            .flat_map(|group| group.pods())
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
        if self.paths.is_empty() {
            self.paths = self.known_paths();
        }
        self.paths.retain(|address, _| addresses.contains(address));
        self.routes = sources(&self.paths);
        self.pathless.clear();
        self.find_paths_of(addresses, true).await;
    }

    /// Ways to pods of changed groups that were not asked for yet.
    pub(super) async fn find_new_paths(&mut self, touched: &Touched) {
        let ir = &self.record.ir;
        let listeners = touched.listeners.iter();
        let new: BTreeSet<IpAddr> = listeners
            .filter_map(|name| ir.kernel_group(ir.listeners.get(name)?))
            .flat_map(|group| group.pods())
            .map(|backend| backend.address.ip())
            .filter(|address| !self.paths.contains_key(address))
            .collect();
        if new.is_empty() {
            return;
        }
        self.find_paths_of(new, false).await;
        let warnings = self.unreachable();
        self.told = warnings;
    }

    /// Asks for these ways. What the kernel gives no answer about stays as it was.
    async fn find_paths_of(&mut self, addresses: BTreeSet<IpAddr>, look_at_all: bool) {
        let found = self.network.paths(addresses.iter().copied()).await;
        if let Some(error) = &found.error {
            warn!(%error, unknown = found.unknown.len(), "paths to some backends stay as they were");
        }
        for address in &addresses {
            if found.unknown.contains(address) {
                continue;
            }
            match found.found.get(address) {
                Some(path) => {
                    self.routes.insert(*address, path.source);
                    self.paths.insert(*address, path.clone());
                    self.pathless.remove(address);
                }
                None => {
                    self.routes.remove(address);
                    self.paths.remove(address);
                    self.pathless.insert(*address);
                }
            }
        }
        if !look_at_all && self.hops.follow(&found.found) {
            return;
        }
        self.update_hops().await;
        let by_backend = self.hops.by_backend();
        let unresolved: BTreeSet<(u32, IpAddr)> = addresses
            .iter()
            .filter_map(|address| Some((address, self.paths.get(address)?)))
            .filter(|(address, _)| by_backend.get(address).is_none_or(|hop| *hop == 0))
            .map(|(_, path)| (path.ifindex, path.neighbour))
            .collect();
        self.network
            .probe(unresolved.into_iter().take(PROBES))
            .await;
    }

    /// The paths that the plan was made with, as far as it tells: without neighbours, which leaves the way to the
    /// kernel's tables.
    fn known_paths(&self) -> BTreeMap<IpAddr, Path> {
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
            self.unsaved.insert(Part::Hops);
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
        let ir = &self.record.ir;
        let groups = ir.served().filter_map(|listener| ir.kernel_group(listener));
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
