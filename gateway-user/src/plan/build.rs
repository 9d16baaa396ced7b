//! From the routing model to the wanted content of the maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use gateway_common::{maglev, maps};

use super::model::{
    Backend, BackendKey, BackendState, Member, Mode, Plan, Region, Ring, Service, ServiceAddr,
    Source, Transport,
};
use crate::ir::{Affinity, Group, Ir, Listener};

/// What a plan depends on beside the routing model.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Addresses of listeners that name none.
    pub vips: &'a [IpAddr],
    /// Dedicated source addresses; empty: each backend's own entry of `routes`.
    pub pool: &'a [IpAddr],
    /// Source address by which the node reaches a backend address.
    pub routes: &'a BTreeMap<IpAddr, IpAddr>,
    /// Reserved ports of node addresses: first and count.
    pub node_ports: (u16, u16),
    /// Ids of backends that still have flows.
    pub busy: &'a BTreeSet<u32>,
}

/// Ports of a dedicated source address: all that are not privileged.
const POOL_PORTS: (u16, u16) = (1024, 64_512);

/// Builds the wanted plan. Ids of what `have` knows stay; what no longer fits the bounded tables
/// is left out and named in the second value.
pub fn build(ir: &Ir, inputs: &Inputs<'_>, have: &Plan) -> (Plan, Vec<String>) {
    let mut builder = Builder::new(inputs, have);
    for listener in &ir.listeners {
        builder.listener(listener);
    }
    builder.finish()
}

struct Builder<'a> {
    inputs: &'a Inputs<'a>,
    have: &'a Plan,
    want: Plan,
    ids: BTreeMap<BackendKey, u32>,
    free_backend: u32,
    free_service: u32,
    used_services: BTreeSet<u32>,
    regions: Vec<Region>,
    left_out: Vec<String>,
}

impl<'a> Builder<'a> {
    fn new(inputs: &'a Inputs<'a>, have: &'a Plan) -> Self {
        // A source keeps its position as long as any backend may have flows by it.
        let want = Plan {
            sources: have.sources.clone(),
            next_generation: have.next_generation.max(1),
            ..Plan::default()
        };
        let ids = have
            .backends
            .iter()
            .map(|(id, b)| (b.key.clone(), *id))
            .collect();
        let used_services = have.services.values().map(|s| s.id).collect();
        let mut regions: Vec<Region> = have.reserved.clone();
        regions.extend(have.regions());
        Self {
            inputs,
            have,
            want,
            ids,
            free_backend: 1,
            free_service: 1,
            used_services,
            regions,
            left_out: Vec::new(),
        }
    }

    fn listener(&mut self, listener: &Listener) {
        let addresses = if listener.addresses.is_empty() {
            self.inputs.vips
        } else {
            &listener.addresses
        };
        let group = listener.kernel_group().map(|group| &**group);
        let members = group.map(|group| self.members(group));
        for ip in addresses {
            let address = ServiceAddr {
                transport: Transport::Tcp,
                address: SocketAddr::new(*ip, listener.name.port),
            };
            if self.want.services.contains_key(&address) {
                self.left_out.push(format!(
                    "listener {}: {address} belongs to another listener",
                    listener.name
                ));
                continue;
            }
            self.service(address, listener, group, members.as_ref());
        }
    }

    fn service(
        &mut self,
        address: ServiceAddr,
        listener: &Listener,
        group: Option<&Group>,
        members: Option<&Arc<Vec<Member>>>,
    ) {
        let old = self.have.services.get(&address);
        let mode = match members {
            Some(members) if !members.is_empty() => match self.ring(members, old) {
                Some(ring) => Mode::Connection(ring),
                None => {
                    self.left_out.push(format!(
                        "listener {}: no room for a ring of {} backends; the proxy steers it",
                        listener.name,
                        members.len()
                    ));
                    Mode::Request
                }
            },
            _ => Mode::Request,
        };
        let Some(id) = old.map(|s| s.id).or_else(|| self.new_service_id()) else {
            self.left_out.push(format!(
                "listener {}: more than {} listener addresses",
                listener.name,
                maps::SERVICES.1 - 1
            ));
            return;
        };
        let mut service = Service {
            id,
            listener: listener.name.to_string(),
            group: group.map(|g| g.service.to_string()).unwrap_or_default(),
            mode,
            client_affinity: group.is_some_and(|g| g.affinity == Affinity::ClientIp),
            epoch: old.map_or(1, |s| s.epoch),
        };
        if old.is_some_and(|old| *old != service) {
            service.epoch = service.epoch.wrapping_add(1);
        }
        self.want.services.insert(address, service);
    }

    fn new_service_id(&mut self) -> Option<u32> {
        while self.used_services.contains(&self.free_service) {
            self.free_service += 1;
        }
        (self.free_service < maps::SERVICES.1).then(|| {
            self.used_services.insert(self.free_service);
            self.free_service
        })
    }

    /// Ids and weights of a group's backends, registering them on the way.
    fn members(&mut self, group: &Group) -> Arc<Vec<Member>> {
        let mut members = Vec::with_capacity(group.backends.len());
        for backend in &group.backends {
            let key = BackendKey {
                cluster: backend.cluster.clone(),
                address: backend.address,
            };
            match self.backend(&key, &backend.pod, BackendState::Active) {
                Some(id) => members.push(Member {
                    backend: id,
                    weight: backend.weight,
                }),
                None => self.left_out.push(format!(
                    "backend {}/{}: no id or no source address for it",
                    key.cluster, key.address
                )),
            }
        }
        for backend in &group.idle {
            let key = BackendKey {
                cluster: backend.cluster.clone(),
                address: backend.address,
            };
            // Only pods that may still have flows are worth an entry.
            if self.ids.contains_key(&key) {
                self.backend(&key, &backend.pod, BackendState::Draining);
            }
        }
        members.sort_unstable_by_key(|m| m.backend);
        members.dedup_by_key(|m| m.backend);
        Arc::new(members)
    }

    fn backend(&mut self, key: &BackendKey, pod: &Arc<str>, state: BackendState) -> Option<u32> {
        let known = self.ids.get(key).copied();
        if let Some(id) = known
            && let Some(already) = self.want.backends.get_mut(&id)
        {
            if state == BackendState::Active {
                already.state = state;
            }
            return Some(id);
        }
        let (source_first, source_count) = self.sources(key.address.ip())?;
        let (id, generation) = match known.and_then(|id| Some((id, self.have.backends.get(&id)?))) {
            Some((id, old)) => (id, old.generation),
            None => (self.new_backend_id()?, self.new_generation()),
        };
        self.ids.insert(key.clone(), id);
        let backend = Backend {
            key: key.clone(),
            pod: Arc::clone(pod),
            state,
            generation,
            source_first,
            source_count,
        };
        self.want.backends.insert(id, backend);
        Some(id)
    }

    fn new_backend_id(&mut self) -> Option<u32> {
        while self.have.backends.contains_key(&self.free_backend)
            || self.want.backends.contains_key(&self.free_backend)
        {
            self.free_backend += 1;
        }
        (self.free_backend < maps::BACKENDS.1).then_some(self.free_backend)
    }

    fn new_generation(&mut self) -> u16 {
        let generation = self.want.next_generation;
        self.want.next_generation = generation.checked_add(1).unwrap_or(1);
        generation
    }

    /// Positions of the sources for a backend address, adding them where needed.
    fn sources(&mut self, backend: IpAddr) -> Option<(u16, u16)> {
        let (wanted, (port_first, port_count)) = if self.inputs.pool.is_empty() {
            (
                vec![*self.inputs.routes.get(&backend)?],
                self.inputs.node_ports,
            )
        } else {
            (self.inputs.pool.to_vec(), POOL_PORTS)
        };
        let wanted: Vec<Source> = wanted
            .into_iter()
            .map(|address| Source {
                address,
                port_first,
                port_count,
            })
            .collect();
        let known = self
            .want
            .sources
            .windows(wanted.len())
            .position(|window| *window == wanted[..]);
        let at = known.unwrap_or(self.want.sources.len());
        if at + wanted.len() > maps::SNATS.1 as usize {
            return None;
        }
        if known.is_none() {
            self.want.sources.extend_from_slice(&wanted);
        }
        Some((at as u16, wanted.len() as u16))
    }

    /// The old ring if nothing changed, else a free region for a new one.
    fn ring(&mut self, members: &Arc<Vec<Member>>, old: Option<&Service>) -> Option<Ring> {
        if let Some(Service {
            mode: Mode::Connection(ring),
            ..
        }) = old
            && ring.members == *members
            && self.same_backends(members)
        {
            return Some(ring.clone());
        }
        let len = maglev::ring_len(members.len());
        self.regions.sort_unstable();
        let mut offset = 0;
        for region in &self.regions {
            if offset + len <= region.offset {
                break;
            }
            offset = offset.max(region.offset + region.len);
        }
        let fits = offset.checked_add(len)? <= maps::RINGS.1;
        let region = Region { offset, len };
        fits.then(|| {
            self.regions.push(region);
            Ring {
                region,
                members: Arc::clone(members),
            }
        })
    }

    /// Whether these ids mean the same pods as before.
    fn same_backends(&self, members: &[Member]) -> bool {
        members.iter().all(|m| {
            match (
                self.have.backends.get(&m.backend),
                self.want.backends.get(&m.backend),
            ) {
                (Some(old), Some(new)) => old.key == new.key,
                _ => false,
            }
        })
    }

    /// Keeps backends that are no longer wanted as long as they have flows.
    fn finish(mut self) -> (Plan, Vec<String>) {
        for (id, old) in &self.have.backends {
            if self.want.backends.contains_key(id) {
                continue;
            }
            if self.inputs.busy.contains(id) || old.state != BackendState::Down {
                let gone = Backend {
                    state: BackendState::Down,
                    ..old.clone()
                };
                self.want.backends.insert(*id, gone);
            }
        }
        (self.want, self.left_out)
    }
}
