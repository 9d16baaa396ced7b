//! Backends of a plan: ids, sources, and who uses them as what.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use gateway_common::maps;

use super::{
    Backend, BackendKey, BackendState, Group, Inputs, Member, Planner, ServiceAddr, Source, Update,
};

/// Ports of a dedicated source address: all that are not privileged.
const POOL_PORTS: (u16, u16) = (1024, 64_512);

impl Planner {
    /// Ids and weights of a group's backends, registering them on the way.
    pub(super) fn members(
        &mut self,
        group: &Group,
        uses: &mut BTreeMap<u32, BackendState>,
        update: &mut Update<'_>,
        left_out: &mut Vec<String>,
    ) -> Arc<Vec<Member>> {
        let key = |backend: &crate::ir::Backend| BackendKey {
            cluster: backend.cluster.clone(),
            address: backend.address,
        };
        let mut members = Vec::with_capacity(group.backends.len());
        for backend in &group.backends {
            let key = key(backend);
            match self.backend(&key, &backend.pod, update) {
                Some(id) => {
                    uses.insert(id, BackendState::Active);
                    members.push(Member {
                        backend: id,
                        weight: backend.weight,
                    });
                }
                None => left_out.push(format!(
                    "backend {}/{}: no id or no source address for it",
                    key.cluster, key.address
                )),
            }
        }
        let idle = group.idle.iter().map(|it| (it, BackendState::Draining));
        let failing = group.failing.iter();
        let failing = failing.map(|it| (&it.backend, BackendState::Quarantined));
        for (backend, state) in idle.chain(failing) {
            let key = key(backend);
            // Only pods that may still have flows are worth an entry.
            if self.keys.contains_key(&key)
                && let Some(id) = self.backend(&key, &backend.pod, update)
            {
                uses.entry(id).or_insert(state);
            }
        }
        members.sort_unstable_by_key(|m| m.backend);
        members.dedup_by_key(|m| m.backend);
        Arc::new(members)
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
        if let Some(known) = update.sources.get(&route) {
            return *known;
        }
        let (addresses, (port_first, port_count)) = match route {
            Some(route) => (vec![route], *node_ports),
            None => (pool.to_vec(), POOL_PORTS),
        };
        let source = |address| Source {
            address,
            port_first,
            port_count,
        };
        let wanted: Vec<Source> = addresses.into_iter().map(source).collect();
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
        update.sources.insert(route, found);
        found
    }

    /// Replaces what a service uses.
    pub(super) fn set_uses(
        &mut self,
        address: ServiceAddr,
        uses: BTreeMap<u32, BackendState>,
        touched: &mut BTreeSet<u32>,
    ) {
        let had = self.used.remove(&address).unwrap_or_default();
        for id in had.keys().filter(|id| !uses.contains_key(id)) {
            if let Some(users) = self.uses.get_mut(id) {
                users.remove(&address);
                if users.is_empty() {
                    self.uses.remove(id);
                }
            }
            touched.insert(*id);
        }
        for (id, state) in &uses {
            if had.get(id) != Some(state) {
                let users = self.uses.entry(*id).or_default();
                users.insert(address, *state);
                touched.insert(*id);
            }
        }
        if !uses.is_empty() {
            self.used.insert(address, uses);
        }
    }

    /// The state of each touched backend, by who uses it.
    pub(super) fn states(&mut self, update: &mut Update<'_>) {
        for id in std::mem::take(&mut update.touched) {
            let have = update.have.backends.get(&id);
            let Some(mut backend) = update.content.remove(&id).or_else(|| have.cloned()) else {
                continue;
            };
            let users = self.uses.get(&id);
            // A pod serves if any listener sends to it; it loses its UDP flows only if none wants it.
            let used_as = |state| users.is_some_and(|users| users.values().any(|it| *it == state));
            let states = [
                BackendState::Active,
                BackendState::Draining,
                BackendState::Quarantined,
            ];
            let state = states.into_iter().find(|state| used_as(*state));
            backend.state = state.unwrap_or(BackendState::Down);
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
