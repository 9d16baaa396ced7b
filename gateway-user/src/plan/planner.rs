//! From the routing model to the wanted content of the maps.

mod backends;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use gateway_common::{affinity, maglev, maps};

use super::{
    access::{Access, ROOM},
    delta::Delta,
    ids::Ids,
    model::{
        Backend, BackendKey, BackendState, Member, Mode, Plan, Region, Ring, Service, ServiceAddr,
        Source,
    },
};
use crate::ir::{AccessList, Affinity, Group, Ir, Listener, ListenerName};

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
    /// Ids of backends that still have flows; `None`: each may have some.
    pub busy: Option<&'a BTreeSet<u32>>,
}

/// Builds the wanted plan at once. Ids of what `have` knows stay; what no longer fits the bounded tables
/// is left out and named in the second value.
pub fn build(ir: &Ir, inputs: &Inputs<'_>, have: &Plan) -> (Plan, Vec<String>) {
    let mut planner = Planner::new(have);
    let delta = planner.update(ir, None, inputs, have);
    let mut want = have.clone();
    want.reserved.clear();
    want.reserved_lists.clear();
    want.apply(&delta);
    (want, planner.left_out())
}

/// Plans changes, at a cost that grows with the listeners they touch.
///
/// It follows one plan: each [`Delta`] it returns is taken as applied by the next [`Planner::update`], after
/// [`Planner::commit`]. When an apply fails, a new planner is made from what the maps may hold.
#[derive(Debug, Default)]
pub struct Planner {
    keys: BTreeMap<BackendKey, u32>,
    backend_ids: Ids,
    service_ids: Ids,
    list_ids: Ids,
    /// Entries of all lists in the trie.
    list_entries: usize,
    /// Who gives a backend new flows.
    uses: BTreeMap<u32, BTreeSet<ServiceAddr>>,
    /// The same by service.
    used: BTreeMap<ServiceAddr, Uses>,
    /// How many services name a pod that gets nothing new from them. Also those without an entry: one that gets an entry
    /// from another service, and loses it there, drains here.
    idle: BTreeMap<(BackendKey, BackendState), usize>,
    /// Addresses of each listener, by its name.
    addresses: BTreeMap<String, BTreeSet<ServiceAddr>>,
    owners: BTreeMap<ServiceAddr, String>,
    down: BTreeSet<u32>,
    /// In use by the plan, or by packets that are on their way.
    regions: BTreeSet<Region>,
    sources: Vec<Source>,
    next_generation: u16,
    /// What did not fit, by listener: tried again with each change, which may have made room.
    left_out: BTreeMap<ListenerName, Vec<String>>,
    /// What a listener lacks by itself, so that nothing but a change of it can help.
    lacking: BTreeMap<ListenerName, Vec<String>>,
    /// Freed by [`Planner::commit`].
    retired: Retired,
}

/// What a service does with pods.
#[derive(Clone, Debug, Default)]
struct Uses {
    /// They get new flows.
    active: BTreeSet<u32>,
    /// They get none, and are in this state where nobody else sends to them.
    idle: Arc<BTreeSet<(BackendKey, BackendState)>>,
}

#[derive(Debug, Default)]
struct Retired {
    regions: Vec<Region>,
    backends: Vec<u32>,
    services: Vec<u32>,
    lists: Vec<Access>,
}

/// Source address of a route (none stands for the pool), and whether it is IPv6.
type Route = (Option<IpAddr>, bool);

/// One update under way.
struct Update<'a> {
    inputs: &'a Inputs<'a>,
    have: &'a Plan,
    delta: Delta,
    /// What backends are, apart from their state.
    content: BTreeMap<u32, Backend>,
    /// Backends whose state or content may differ.
    touched: BTreeSet<u32>,
    /// Position of the sources, and how many there are.
    sources: BTreeMap<Route, Option<(u16, u16)>>,
}

impl Planner {
    /// A planner that goes on from `have`. Its first update must be of everything.
    pub fn new(have: &Plan) -> Self {
        let mut planner = Self {
            backend_ids: Ids::new(maps::BACKENDS.1, have.backends.keys().copied()),
            service_ids: Ids::new(maps::SERVICES.1, have.services.values().map(|it| it.id)),
            list_ids: Ids::new(1 << 16, list_ids(have)),
            // A source keeps its position as long as any backend may have flows by it.
            sources: have.sources.clone(),
            next_generation: have.next_generation.max(1),
            ..Self::default()
        };
        for (id, backend) in &have.backends {
            planner.keys.insert(backend.key.clone(), *id);
            if backend.state == BackendState::Down {
                planner.down.insert(*id);
            }
        }
        for (address, service) in &have.services {
            planner.own(*address, &service.listener);
            if let Mode::Connection(ring) = &service.mode {
                planner.regions.insert(ring.region);
            }
            if let Some(access) = &service.access {
                planner.list_entries += Access::size(&access.list);
            }
        }
        planner.regions.extend(&have.reserved);
        planner.retired.regions.clone_from(&have.reserved);
        // Of these only the id is left; their entries are cleared before it is free.
        let none = Arc::new(AccessList {
            allow: true,
            networks: Vec::new(),
        });
        let reserved = have.reserved_lists.iter().map(|id| Access {
            id: *id,
            list: Arc::clone(&none),
        });
        planner.retired.lists.extend(reserved);
        planner.list_entries += 2 * have.reserved_lists.len();
        planner
    }

    /// What did not fit.
    pub fn left_out(&self) -> Vec<String> {
        let all = self.left_out.values().chain(self.lacking.values());
        all.flatten().cloned().collect()
    }

    /// The delta of the last update is in the maps: what it replaced is free again.
    pub fn commit(&mut self) {
        let Retired {
            regions,
            backends,
            services,
            lists,
        } = std::mem::take(&mut self.retired);
        for region in regions {
            self.regions.remove(&region);
        }
        backends
            .into_iter()
            .for_each(|id| self.backend_ids.free(id));
        services
            .into_iter()
            .for_each(|id| self.service_ids.free(id));
        for access in lists {
            self.list_entries -= Access::size(&access.list);
            self.list_ids.free(u32::from(access.id));
        }
    }

    /// What must change in `have` for these listeners; for all with `None`. Backends that are down and no longer busy
    /// are removed in any case.
    pub fn update(
        &mut self,
        ir: &Ir,
        listeners: Option<&BTreeSet<ListenerName>>,
        inputs: &Inputs<'_>,
        have: &Plan,
    ) -> Delta {
        let mut update = Update {
            inputs,
            have,
            delta: Delta::default(),
            content: BTreeMap::new(),
            touched: BTreeSet::new(),
            sources: BTreeMap::new(),
        };
        let over = self.over(inputs);
        let names: BTreeSet<ListenerName> = match listeners {
            Some(some) => some.iter().chain(self.left_out.keys()).cloned().collect(),
            None => {
                update.touched.extend(have.backends.keys());
                ir.listeners.keys().cloned().collect()
            }
        };
        if listeners.is_none() {
            self.forget_others(ir, &mut update);
        }
        for name in &names {
            self.left_out.remove(name);
            self.lacking.remove(name);
            let wanted = wanted(ir, name, inputs);
            let had = self.addresses.get(&name.to_string());
            let gone: Vec<ServiceAddr> = had
                .into_iter()
                .flatten()
                .filter(|address| !wanted.contains(address))
                .copied()
                .collect();
            for address in gone {
                self.remove(address, &mut update);
            }
        }
        for name in &names {
            if let Some(listener) = ir.listeners.get(name) {
                self.listener(ir, listener, &mut update);
            }
        }
        self.states(&mut update);
        for id in over {
            // Somebody names it again.
            if !self.down.remove(&id) {
                continue;
            }
            if let Some(backend) = have.backends.get(&id) {
                self.keys.remove(&backend.key);
            }
            update.delta.backends.insert(id, None);
            self.retired.backends.push(id);
        }
        for (at, source) in self.sources.iter().enumerate().skip(have.sources.len()) {
            update.delta.sources.push((at as u16, *source));
        }
        update.delta.next_generation = self.next_generation;
        update.delta
    }

    fn own(&mut self, address: ServiceAddr, listener: &str) {
        let theirs = self.addresses.entry(listener.to_owned()).or_default();
        theirs.insert(address);
        self.owners.insert(address, listener.to_owned());
    }

    /// Services of listeners that the routing model does not know.
    fn forget_others(&mut self, ir: &Ir, update: &mut Update<'_>) {
        let known: BTreeSet<String> = ir.listeners.keys().map(ToString::to_string).collect();
        let others = self
            .addresses
            .iter()
            .filter(|(name, _)| !known.contains(*name));
        let gone: Vec<ServiceAddr> = others.flat_map(|(_, all)| all).copied().collect();
        for address in gone {
            self.remove(address, update);
        }
        let known = |name: &ListenerName, _: &mut Vec<String>| ir.listeners.contains_key(name);
        self.left_out.retain(known);
        self.lacking.retain(known);
    }

    fn remove(&mut self, address: ServiceAddr, update: &mut Update<'_>) {
        if let Some(owner) = self.owners.remove(&address)
            && let Some(theirs) = self.addresses.get_mut(&owner)
        {
            theirs.remove(&address);
            if theirs.is_empty() {
                self.addresses.remove(&owner);
            }
        }
        self.set_uses(address, Uses::default(), &mut update.touched);
        if let Some(old) = update.have.services.get(&address) {
            self.retired.services.push(old.id);
            if let Mode::Connection(ring) = &old.mode {
                self.retired.regions.push(ring.region);
            }
            self.retired.lists.extend(old.access.clone());
            update.delta.services.insert(address, None);
        }
    }

    fn listener(&mut self, ir: &Ir, listener: &Listener, update: &mut Update<'_>) {
        let addresses = wanted(ir, &listener.name, update.inputs);
        if addresses.is_empty() {
            return;
        }
        let (mut left_out, mut lacking) = (Vec::new(), Vec::new());
        let name = listener.name.to_string();
        let group = ir.kernel_group(listener).map(|group| &**group);
        // Each address gets pods of its own family: nothing translates between the two.
        let mut families = BTreeMap::new();
        for address in addresses {
            if self
                .owners
                .get(&address)
                .is_some_and(|owner| *owner != name)
            {
                left_out.push(format!(
                    "listener {name}: {address} belongs to another listener"
                ));
                continue;
            }
            let v6 = address.address.is_ipv6();
            if let (Some(group), None) = (group, families.get(&v6)) {
                let found = self.members(group, v6, update, &mut left_out);
                let other = |it: &crate::ir::Backend| it.address.is_ipv6() != v6;
                if !group.backends.is_empty() && group.backends.iter().all(other) {
                    lacking.push(format!(
                        "listener {name}: no pod of {} has an address of the family of {}, so its clients get nothing",
                        group.service,
                        address.address.ip()
                    ));
                }
                families.insert(v6, found);
            }
            let (members, uses) = match families.get(&v6) {
                Some((members, uses)) => (Some(members), uses.clone()),
                None => (None, Uses::default()),
            };
            if !self.service(address, listener, group, members, update, &mut left_out) {
                continue;
            }
            self.set_uses(address, uses, &mut update.touched);
        }
        if !left_out.is_empty() {
            self.left_out.insert(listener.name.clone(), left_out);
        }
        if !lacking.is_empty() {
            self.lacking.insert(listener.name.clone(), lacking);
        }
    }

    /// False: it is not served, and why is left out.
    fn service(
        &mut self,
        address: ServiceAddr,
        listener: &Listener,
        group: Option<&Group>,
        members: Option<&Arc<Vec<Member>>>,
        update: &mut Update<'_>,
        left_out: &mut Vec<String>,
    ) -> bool {
        let old = update.have.services.get(&address);
        let l4 = listener.name.protocol.is_l4();
        let without = if l4 { Mode::Empty } else { Mode::Request };
        let access = match &listener.settings.access {
            None => None,
            Some(list) => match self.access(list, old) {
                Some(access) => Some(access),
                // Without its list it would be open to everybody.
                None => {
                    left_out.push(format!(
                        "listener {}: no room for its access list, so {address} takes no connections",
                        listener.name
                    ));
                    self.remove(address, update);
                    return false;
                }
            },
        };
        let mode = match members {
            Some(members) if !members.is_empty() => match self.ring(members, old, update) {
                Some(ring) => Mode::Connection(ring),
                None => {
                    let instead = if l4 {
                        "it takes no connections"
                    } else {
                        "the proxy steers it"
                    };
                    left_out.push(format!(
                        "listener {}: no room for a ring of {} backends; {instead}",
                        listener.name,
                        members.len()
                    ));
                    without
                }
            },
            _ => without,
        };
        let Some(id) = old.map(|s| s.id).or_else(|| self.service_ids.take()) else {
            left_out.push(format!(
                "listener {}: more than {} listener addresses",
                listener.name,
                maps::SERVICES.1 - 1
            ));
            return false;
        };
        let mut service = Service {
            id,
            listener: listener.name.to_string(),
            group: group.map(|g| g.service.to_string()).unwrap_or_default(),
            mode,
            client_affinity: group.is_some_and(|g| g.affinity == Affinity::ClientIp),
            affinity_seconds: group.map_or(0, |group| group.affinity_seconds),
            epoch: old.map_or(1, |s| s.epoch),
            l4,
            access,
            limits: listener.settings.limits,
        };
        self.own(address, &service.listener);
        if let Some(old) = old {
            // Another listener gave the address up in this very update.
            if update.delta.services.remove(&address).is_some() {
                self.retired.services.retain(|it| *it != old.id);
                if let Mode::Connection(ring) = &service.mode {
                    self.retired.regions.retain(|it| *it != ring.region);
                }
                self.retired
                    .lists
                    .retain(|it| old.access.as_ref() != Some(it));
            }
            if *old == service {
                return true;
            }
            service.epoch = service.epoch.wrapping_add(1);
            if let Mode::Connection(ring) = &old.mode
                && old.mode != service.mode
                && !self.retired.regions.contains(&ring.region)
            {
                self.retired.regions.push(ring.region);
            }
            if old.access != service.access {
                self.retired.lists.extend(old.access.clone());
            }
        }
        update.delta.services.insert(address, Some(service));
        true
    }

    /// The old list if nothing changed, else a free id for a new one.
    fn access(&mut self, list: &AccessList, old: Option<&Service>) -> Option<Access> {
        if let Some(had) = old.and_then(|old| old.access.as_ref())
            && *had.list == *list
        {
            return Some(had.clone());
        }
        let size = Access::size(list);
        if self.list_entries + size > ROOM {
            return None;
        }
        let id = u16::try_from(self.list_ids.take()?).ok()?;
        self.list_entries += size;
        Some(Access {
            id,
            list: Arc::new(list.clone()),
        })
    }

    /// The old ring if nothing changed, else a free region for a new one.
    fn ring(
        &mut self,
        members: &Arc<Vec<Member>>,
        old: Option<&Service>,
        update: &Update<'_>,
    ) -> Option<Ring> {
        if let Some(Service {
            mode: Mode::Connection(ring),
            ..
        }) = old
            && ring.members == *members
            && members
                .iter()
                .all(|member| update.have.backends.contains_key(&member.backend))
        {
            return Some(ring.clone());
        }
        // A longer ring moves less when members change. Only half of the slab is for those that are longer than their
        // shares need: a node where it is full has another ring than one where it is not, which is better than none.
        let lengths = [
            (maglev::ring_len(members.len()), maps::RINGS.1 / 2),
            (maglev::least_len(members.len()), maps::RINGS.1),
        ];
        let region = lengths
            .into_iter()
            .find_map(|(len, end)| self.region(len, end))?;
        self.regions.insert(region);
        Some(Ring {
            region,
            members: Arc::clone(members),
        })
    }

    /// The first free region that has room for a ring of this length before `end`.
    fn region(&self, len: u32, end: u32) -> Option<Region> {
        // Behind the slots lies the set of members.
        let room = |len| len + affinity::members::len(len);
        let mut offset = 0;
        for region in &self.regions {
            if offset + room(len) <= region.offset {
                break;
            }
            offset = offset.max(region.offset + room(region.len));
        }
        (offset.checked_add(room(len))? <= end).then_some(Region { offset, len })
    }
}

/// Ids of lists in use by a plan, or by packets that are on their way.
fn list_ids(plan: &Plan) -> impl Iterator<Item = u32> {
    let used = plan.services.values().filter_map(|it| it.access.as_ref());
    let used = used.map(|access| access.id);
    used.chain(plan.reserved_lists.iter().copied())
        .map(u32::from)
}

/// Where a listener is to be reached; nowhere when it is gone or refused.
fn wanted(ir: &Ir, name: &ListenerName, inputs: &Inputs<'_>) -> BTreeSet<ServiceAddr> {
    let Some(listener) = ir.listeners.get(name).filter(|it| it.refused.is_none()) else {
        return BTreeSet::new();
    };
    let addresses = if listener.addresses.is_empty() {
        inputs.vips
    } else {
        &listener.addresses
    };
    let address = |ip: &IpAddr| ServiceAddr {
        transport: name.protocol.transport(),
        address: SocketAddr::new(*ip, name.port),
    };
    addresses.iter().map(address).collect()
}
