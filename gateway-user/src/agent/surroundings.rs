//! The gateway's surroundings: paths to backends, next hops, interfaces that come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use tracing::warn;

use super::gateway::Gateway;
use crate::{dataplane::apply, ir::SteeringMode, network::Path};

impl Gateway {
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

    pub(super) async fn find_paths(&mut self) {
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

    /// Backends that packets cannot reach, or whose answers would not come by.
    pub(super) fn unreachable(&self) -> Vec<String> {
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
}

/// Source address by backend address.
pub(super) fn sources(paths: &BTreeMap<IpAddr, Path>) -> BTreeMap<IpAddr, IpAddr> {
    paths
        .iter()
        .map(|(address, path)| (*address, path.source))
        .collect()
}
