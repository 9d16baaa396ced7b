//! Next hops: stable ids for neighbours, so that a neighbour that changes its MAC address takes its
//! flows along.
//!
//! Pure: network facts come in, map changes go out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    ops::Bound,
    time::{Duration, Instant},
};

use gateway_common::{
    backend::{self, NeighbourKey, NextHop},
    maps,
};

use crate::network::{Interface, Neighbour, Path};

/// Who has an id: interface index and address.
type Key = (u32, IpAddr);

/// Ids given so far, and what the maps hold under them.
#[derive(Clone, Debug)]
pub struct Hops {
    hops: BTreeMap<Key, Hop>,
    /// In the order they are given out.
    free: VecDeque<u16>,
    neighbours: BTreeMap<NeighbourKey, u16>,
    backends: BTreeMap<IpAddr, u16>,
    probed: Option<Key>,
    took_up: bool,
}

#[derive(Clone, Debug)]
struct Hop {
    id: u16,
    /// What the map holds; `None`: whatever an earlier agent or a failed write left.
    held: Option<NextHop>,
    /// When the neighbour was last known, or needed for a backend; `None`: not since the start.
    seen: Option<Instant>,
}

impl Hop {
    fn resolved(&self) -> bool {
        self.held.is_some_and(|hop| hop.ifindex != 0)
    }
}

/// A neighbour that no backend needs keeps its entry this long after it was last known.
const LINGER: Duration = Duration::from_secs(30);
/// With fewer free ids than this, ids of neighbours that are gone are given out again.
const SPARE: usize = maps::HOPS.1 as usize / 16;
/// Neighbours probed at one look.
const PROBES: usize = 256;

/// What the network looks like.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// All links.
    pub interfaces: &'a [Interface],
    /// All neighbours whose MAC address is known.
    pub neighbours: &'a [Neighbour],
    /// The way to each backend address.
    pub paths: &'a BTreeMap<IpAddr, Path>,
    /// Names of the interfaces with our programs.
    pub attached: &'a [String],
    /// Names of the interfaces that take frames which XDP redirects.
    pub xdp: &'a BTreeSet<String>,
    /// When this was so.
    pub now: Instant,
}

/// What must change in the maps.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HopChanges {
    /// Next hops to write.
    pub hops: Vec<(u16, NextHop)>,
    /// Neighbours to write.
    pub neighbours: Vec<(NeighbourKey, u16)>,
    /// Neighbours to remove.
    pub gone: Vec<NeighbourKey>,
    /// Backend addresses that now have another next hop.
    pub addresses: BTreeSet<IpAddr>,
}

impl HopChanges {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Hops {
    fn default() -> Self {
        Self::from_record(&[])
    }
}

impl Hops {
    /// Starts from the ids of an earlier agent: flows in the kernel use them. What the maps hold
    /// is not known, so the next update writes everything.
    pub fn from_record(ids: &[(u32, IpAddr, u16)]) -> Self {
        let mut free: BTreeSet<u16> = (1..maps::HOPS.1 as u16).collect();
        let mut hops = BTreeMap::new();
        for (ifindex, address, id) in ids {
            if free.remove(id) {
                let hop = Hop {
                    id: *id,
                    held: None,
                    seen: None,
                };
                hops.insert((*ifindex, *address), hop);
            }
        }
        Self {
            hops,
            free: free.into_iter().collect(),
            neighbours: BTreeMap::new(),
            backends: BTreeMap::new(),
            probed: None,
            took_up: false,
        }
    }

    /// Ids for the record.
    pub fn to_record(&self) -> Vec<(u32, IpAddr, u16)> {
        self.hops
            .iter()
            .map(|((ifindex, address), hop)| (*ifindex, *address, hop.id))
            .collect()
    }

    /// Whether [`Hops::take_up`] is still to be called.
    pub fn is_new(&self) -> bool {
        !self.took_up
    }

    /// Learns what the neighbour table holds, so that the next update removes what is stale.
    pub fn take_up(&mut self, neighbours: impl Iterator<Item = (NeighbourKey, u32)>) {
        self.neighbours = neighbours
            .map(|(key, id)| (key, u16::try_from(id).unwrap_or(0)))
            .collect();
        self.took_up = true;
    }

    /// Next hop id by backend address; 0 where it is not resolved.
    pub fn by_backend(&self) -> &BTreeMap<IpAddr, u16> {
        &self.backends
    }

    /// Takes in ways to further backends. False where a neighbour on them is not resolved: then only a look at the
    /// network helps.
    pub fn follow(&mut self, paths: &BTreeMap<IpAddr, Path>) -> bool {
        let mut resolved = true;
        for (address, path) in paths {
            let hop = self.hops.get(&(path.ifindex, path.neighbour));
            let id = hop.filter(|hop| hop.resolved()).map_or(0, |hop| hop.id);
            self.backends.insert(*address, id);
            resolved &= id != 0;
        }
        resolved
    }

    /// Takes in what the network looks like now. Neighbours of backends get ids first; then those
    /// on attached interfaces, as far as the table reaches.
    pub fn update(&mut self, facts: &Facts<'_>) -> HopChanges {
        let mut changes = HopChanges::default();
        let interfaces: BTreeMap<u32, &Interface> =
            facts.interfaces.iter().map(|i| (i.index, i)).collect();
        let towards = towards(facts.paths);
        let needed = |n: &&Neighbour| towards.contains(&(n.ifindex, n.address));
        let attached = |n: &&Neighbour| {
            interfaces
                .get(&n.ifindex)
                .is_some_and(|i| facts.attached.contains(&i.name))
        };
        let neighbours = facts.neighbours.iter();
        let first = neighbours.clone().filter(needed);
        let later = neighbours.filter(|n| attached(n) && !needed(n));
        let taken: Vec<(&Interface, &Neighbour)> = first
            .chain(later)
            .filter_map(|n| Some((*interfaces.get(&n.ifindex)?, n)))
            .collect();
        let present: BTreeSet<Key> = taken
            .iter()
            .map(|(_, n)| (n.ifindex, n.address))
            .chain(towards.iter().copied())
            .collect();
        self.reclaim(&present);

        // One neighbour has addresses of both families, and a flow may hold the id of either.
        let alive: BTreeSet<(u32, [u8; 6])> =
            taken.iter().map(|(_, n)| (n.ifindex, n.mac)).collect();
        let mut known = BTreeMap::new();
        for (interface, neighbour) in taken {
            let Some(hop) = self.hop((neighbour.ifindex, neighbour.address)) else {
                continue;
            };
            hop.seen = Some(facts.now);
            let entry = entry(interface, neighbour, facts.xdp.contains(&interface.name));
            if hop.held != Some(entry) {
                hop.held = Some(entry);
                changes.hops.push((hop.id, entry));
            }
            known.entry(sender(neighbour)).or_insert(hop.id);
        }
        for (key, hop) in &mut self.hops {
            let seen = *hop.seen.get_or_insert(facts.now);
            let held = hop.held.filter(|held| held.ifindex != 0);
            let lives = held.is_some_and(|held| alive.contains(&(held.ifindex, held.dmac)));
            if present.contains(key) || lives {
                // Towards a backend: one that is being probed again keeps its last MAC address.
                hop.seen = Some(facts.now);
            }
            let over = !(present.contains(key) || lives) && facts.now.duration_since(seen) > LINGER;
            let cleared = hop.held == Some(NextHop::default());
            if !cleared && (over || !interfaces.contains_key(&key.0)) {
                hop.held = Some(NextHop::default());
                changes.hops.push((hop.id, NextHop::default()));
            }
        }
        self.follow_neighbours(known, &mut changes);
        self.follow_backends(facts.paths, &mut changes);
        changes
    }

    /// Neighbours to make sure of now: those towards backends and the known ones on the clients'
    /// interface. A bounded number at each call; further ones come in turn.
    pub fn probes(&mut self, paths: &BTreeMap<IpAddr, Path>, clients: Option<u32>) -> Vec<Key> {
        let mut in_use = towards(paths);
        in_use.extend(
            self.hops
                .iter()
                .filter(|((ifindex, _), hop)| Some(*ifindex) == clients && hop.resolved())
                .map(|(key, _)| *key),
        );
        let turn: Vec<Key> = match self.probed {
            None => in_use.into_iter().take(PROBES).collect(),
            Some(last) => in_use
                .range((Bound::Excluded(last), Bound::Unbounded))
                .chain(in_use.range(..=last))
                .take(PROBES)
                .copied()
                .collect(),
        };
        self.probed = turn.last().copied();
        turn
    }

    fn hop(&mut self, key: Key) -> Option<&mut Hop> {
        use std::collections::btree_map::Entry;
        match self.hops.entry(key) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) => Some(entry.insert(Hop {
                id: self.free.pop_front()?,
                held: None,
                seen: None,
            })),
        }
    }

    /// Frees ids when few are left: those whose entries were cleared before, longest unseen first.
    /// A flow may still hold such an id and would follow it to the wrong neighbour, so never
    /// while the table has room.
    fn reclaim(&mut self, present: &BTreeSet<Key>) {
        let missing = SPARE.saturating_sub(self.free.len());
        if missing == 0 {
            return;
        }
        let mut gone: Vec<(Option<Instant>, Key)> = self
            .hops
            .iter()
            .filter(|(key, hop)| hop.held == Some(NextHop::default()) && !present.contains(key))
            .map(|(key, hop)| (hop.seen, *key))
            .collect();
        gone.sort_unstable();
        for (_, key) in gone.into_iter().take(missing) {
            self.free.extend(self.hops.remove(&key).map(|hop| hop.id));
        }
    }

    fn follow_neighbours(&mut self, known: BTreeMap<NeighbourKey, u16>, changes: &mut HopChanges) {
        for (key, id) in &known {
            if self.neighbours.get(key) != Some(id) {
                changes.neighbours.push((*key, *id));
            }
        }
        changes.gone = self
            .neighbours
            .keys()
            .filter(|key| !known.contains_key(key))
            .copied()
            .collect();
        self.neighbours = known;
    }

    fn follow_backends(&mut self, paths: &BTreeMap<IpAddr, Path>, changes: &mut HopChanges) {
        let backends: BTreeMap<IpAddr, u16> = paths
            .iter()
            .map(|(address, path)| {
                let hop = self.hops.get(&(path.ifindex, path.neighbour));
                let id = hop.filter(|hop| hop.resolved()).map_or(0, |hop| hop.id);
                (*address, id)
            })
            .collect();
        let changed = backends
            .iter()
            .filter(|(address, id)| self.backends.get(address) != Some(id));
        changes
            .addresses
            .extend(changed.map(|(address, _)| *address));
        let lost = self.backends.iter().filter(|(_, id)| **id != 0);
        let lost = lost.filter(|(address, _)| !backends.contains_key(address));
        changes.addresses.extend(lost.map(|(address, _)| *address));
        self.backends = backends;
    }
}

fn towards(paths: &BTreeMap<IpAddr, Path>) -> BTreeSet<Key> {
    paths
        .values()
        .filter(|path| path.ifindex != 0)
        .map(|path| (path.ifindex, path.neighbour))
        .collect()
}

fn entry(interface: &Interface, neighbour: &Neighbour, xdp: bool) -> NextHop {
    NextHop {
        ifindex: interface.index,
        dmac: neighbour.mac,
        smac: interface.mac,
        mtu: u16::try_from(interface.mtu).unwrap_or(u16::MAX),
        flags: if xdp { backend::XDP } else { 0 },
    }
}

fn sender(neighbour: &Neighbour) -> NeighbourKey {
    let [a, b, c, d, e, f] = neighbour.mac;
    NeighbourKey {
        ifindex: neighbour.ifindex,
        mac: [[a, b], [c, d], [e, f]].map(u16::from_ne_bytes),
        zero: 0,
    }
}

#[cfg(test)]
mod tests;
