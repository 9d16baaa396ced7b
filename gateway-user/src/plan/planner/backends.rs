//! Backends of a plan: ids, sources, and who uses them as what.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use gateway_common::maps;

use super::{
    Backend, BackendKey, BackendState, Group, Inputs, Member, Planner, ServiceAddr, Source, Update,
    Uses,
};

/// Ports of a dedicated source address: all that are not privileged.
const POOL_PORTS: (u16, u16) = (1024, 64_512);

impl Planner {
    /// Ids and weights of a group's backends of one family, registering them on the way, and what is done with each.
    pub(super) fn members(
        &mut self,
        group: &Group,
        v6: bool,
        update: &mut Update<'_>,
        left_out: &mut Vec<String>,
    ) -> (Arc<Vec<Member>>, Uses) {
        let ours = |backend: &&crate::ir::Backend| backend.address.is_ipv6() == v6;
        let mut active = BTreeSet::new();
        let mut idle = BTreeSet::new();
        let key = |backend: &crate::ir::Backend| BackendKey {
            cluster: backend.cluster.clone(),
            address: backend.address,
        };
        let mut members = Vec::with_capacity(group.backends.len());
        for backend in group.backends.iter().filter(ours) {
            let key = key(backend);
            match self.backend(&key, &backend.pod, update) {
                Some(id) => {
                    active.insert(id);
                    members.push(Member {
                        backend: id,
                        weight: backend.weight,
                    });
                }
                None => left_out.push(format!(
                    "backend {}/{}: no id or no source address of its family for it",
                    key.cluster, key.address
                )),
            }
        }
        let draining = group.idle.iter().map(|it| (it, BackendState::Draining));
        let failing = group.failing.iter();
        let failing = failing.map(|it| (&it.backend, BackendState::Quarantined));
        for (backend, state) in draining.chain(failing).filter(|(it, _)| ours(it)) {
            let key = key(backend);
            // Only pods that may still have flows are worth an entry.
            if self.keys.contains_key(&key) {
                self.backend(&key, &backend.pod, update);
            }
            idle.insert((key, state));
        }
        members.sort_unstable_by_key(|m| m.backend);
        members.dedup_by_key(|m| m.backend);
        let idle = Arc::new(idle);
        (Arc::new(members), Uses { active, idle })
    }

    fn backend(
        &mut self,
        key: &BackendKey,
        pod: &Arc<str>,
        update: &mut Update<'_>,
    ) -> Option<u32> {
        let known = self.keys.get(key).copied();
        if let Some(id) = known.filter(|id| update.content.contains_key(id)) {
            return Some(id);
        }
        let (source_first, source_count) = self.sources(key.address.ip(), update)?;
        let old = known.and_then(|id| Some((id, update.have.backends.get(&id)?)));
        let (id, generation) = match old {
            Some((id, old)) => (id, old.generation),
            None => (self.backend_ids.take()?, self.new_generation()),
        };
        self.keys.insert(key.clone(), id);
        let backend = Backend {
            key: key.clone(),
            pod: Arc::clone(pod),
            state: BackendState::Active,
            generation,
            source_first,
            source_count,
        };
        update.content.insert(id, backend);
        update.touched.insert(id);
        Some(id)
    }

    fn new_generation(&mut self) -> u16 {
        let generation = self.next_generation;
        self.next_generation = generation.checked_add(1).unwrap_or(1);
        generation
    }

    /// Positions of the sources for a backend address, adding them where needed.
    fn sources(&mut self, backend: IpAddr, update: &mut Update<'_>) -> Option<(u16, u16)> {
        let Inputs {
            pool,
            routes,
            node_ports,
            ..
        } = update.inputs;
        let route = if pool.is_empty() {
            Some(*routes.get(&backend)?)
        } else {
            None
        };
        let family = (route, backend.is_ipv6());
        if let Some(known) = update.sources.get(&family) {
            return *known;
        }
        let (addresses, (port_first, port_count)) = match route {
            Some(route) => (vec![route], *node_ports),
            None => {
                let ours = pool.iter().filter(|it| it.is_ipv6() == backend.is_ipv6());
                (ours.copied().collect(), POOL_PORTS)
            }
        };
        let source = |address| Source {
            address,
            port_first,
            port_count,
        };
        let wanted: Vec<Source> = addresses.into_iter().map(source).collect();
        if wanted.is_empty() {
            return None;
        }
        let known = self
            .sources
            .windows(wanted.len())
            .position(|window| *window == wanted[..]);
        let at = known.unwrap_or(self.sources.len());
        let fits = at + wanted.len() <= maps::SNATS.1 as usize;
        if fits && known.is_none() {
            self.sources.extend_from_slice(&wanted);
        }
        let found = fits.then_some((at as u16, wanted.len() as u16));
        update.sources.insert(family, found);
        found
    }

    /// Replaces what a service uses.
    pub(super) fn set_uses(
        &mut self,
        address: ServiceAddr,
        uses: Uses,
        touched: &mut BTreeSet<u32>,
    ) {
        let had = self.used.remove(&address).unwrap_or_default();
        for id in had.active.difference(&uses.active) {
            if let Some(users) = self.uses.get_mut(id) {
                users.remove(&address);
                if users.is_empty() {
                    self.uses.remove(id);
                }
            }
            touched.insert(*id);
        }
        for id in uses.active.difference(&had.active) {
            self.uses.entry(*id).or_default().insert(address);
            touched.insert(*id);
        }
        if !Arc::ptr_eq(&had.idle, &uses.idle) {
            self.set_idle(&had.idle, &uses.idle, touched);
        }
        if !(uses.active.is_empty() && uses.idle.is_empty()) {
            self.used.insert(address, uses);
        }
    }

    fn set_idle(
        &mut self,
        had: &BTreeSet<(BackendKey, BackendState)>,
        now: &BTreeSet<(BackendKey, BackendState)>,
        touched: &mut BTreeSet<u32>,
    ) {
        for key in had.difference(now) {
            if let Some(count) = self.idle.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    self.idle.remove(key);
                }
            }
            touched.extend(self.keys.get(&key.0));
        }
        for key in now.difference(had) {
            *self.idle.entry(key.clone()).or_default() += 1;
            touched.extend(self.keys.get(&key.0));
        }
    }

    /// The state of each touched backend, by who uses it.
    pub(super) fn states(&mut self, update: &mut Update<'_>) {
        for id in std::mem::take(&mut update.touched) {
            let have = update.have.backends.get(&id);
            let Some(mut backend) = update.content.remove(&id).or_else(|| have.cloned()) else {
                continue;
            };
            // A pod serves if any listener sends to it; it loses its UDP flows only if none wants it.
            let idle_as = |state| self.idle.contains_key(&(backend.key.clone(), state));
            backend.state = if self.uses.contains_key(&id) {
                BackendState::Active
            } else if idle_as(BackendState::Draining) {
                BackendState::Draining
            } else if idle_as(BackendState::Quarantined) {
                BackendState::Quarantined
            } else {
                BackendState::Down
            };
            if backend.state == BackendState::Down {
                self.down.insert(id);
            } else {
                self.down.remove(&id);
            }
            if have != Some(&backend) {
                update.delta.backends.insert(id, Some(backend));
            }
        }
    }

    /// Backends that were down before this update and have no flows any more.
    pub(super) fn over(&self, inputs: &Inputs<'_>) -> Vec<u32> {
        let Some(busy) = inputs.busy else {
            return Vec::new();
        };
        self.down
            .iter()
            .filter(|id| !busy.contains(id))
            .copied()
            .collect()
    }
}
