//! Next hops: stable ids for neighbours, so that a neighbour that changes its MAC address takes its
//! flows along.
//!
//! Pure: network facts come in, map changes go out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use gateway_common::{
    backend::{self, NeighbourKey, NextHop},
    maps,
};

use crate::network::{Interface, Neighbour, Path};

/// Ids given so far, and what the maps hold under them.
#[derive(Clone, Debug, Default)]
pub struct Hops {
    ids: BTreeMap<(u32, IpAddr), u16>,
    written: BTreeMap<u16, NextHop>,
    neighbours: BTreeMap<NeighbourKey, u16>,
    backends: BTreeMap<IpAddr, u16>,
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

impl Hops {
    /// Starts from the ids of an earlier agent: flows in the kernel use them.
    pub fn from_record(ids: &[(u32, IpAddr, u16)]) -> Self {
        Self {
            ids: ids.iter().map(|(i, ip, id)| ((*i, *ip), *id)).collect(),
            ..Self::default()
        }
    }

    /// Ids for the record.
    pub fn to_record(&self) -> Vec<(u32, IpAddr, u16)> {
        self.ids
            .iter()
            .map(|((i, ip), id)| (*i, *ip, *id))
            .collect()
    }

    /// Next hop id by backend address; 0 where it is not resolved.
    pub fn by_backend(&self) -> &BTreeMap<IpAddr, u16> {
        &self.backends
    }

    /// Takes in what the network looks like now. `paths`: the way to each backend address.
    /// Neighbours of backends get ids first; then all others, as far as the table reaches.
    pub fn update(
        &mut self,
        interfaces: &[Interface],
        neighbours: &[Neighbour],
        paths: &BTreeMap<IpAddr, Path>,
    ) -> HopChanges {
        let mut changes = HopChanges::default();
        let towards: BTreeSet<(u32, IpAddr)> = paths
            .values()
            .map(|path| (path.ifindex, path.neighbour))
            .collect();
        let (first, later): (Vec<_>, Vec<_>) = neighbours
            .iter()
            .partition(|n| towards.contains(&(n.ifindex, n.address)));
        let mut known = BTreeMap::new();
        for neighbour in first.into_iter().chain(later) {
            let Some(interface) = interfaces.iter().find(|i| i.index == neighbour.ifindex) else {
                continue;
            };
            let Some(id) = self.id(neighbour.ifindex, neighbour.address) else {
                break;
            };
            let hop = NextHop {
                ifindex: interface.index,
                dmac: neighbour.mac,
                smac: interface.mac,
                mtu: u16::try_from(interface.mtu).unwrap_or(u16::MAX),
                flags: backend::XDP,
            };
            if self.written.get(&id) != Some(&hop) {
                self.written.insert(id, hop);
                changes.hops.push((id, hop));
            }
            let [a, b, c, d, e, f] = neighbour.mac;
            let mac = [[a, b], [c, d], [e, f]].map(u16::from_ne_bytes);
            let key = NeighbourKey {
                ifindex: interface.index,
                mac,
                zero: 0,
            };
            known.entry(key).or_insert(id);
        }
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
        let backends: BTreeMap<IpAddr, u16> = paths
            .iter()
            .map(|(address, path)| {
                // A neighbour that is being probed again keeps its last address meanwhile.
                let id = self.ids.get(&(path.ifindex, path.neighbour)).copied();
                (
                    *address,
                    id.filter(|id| self.written.contains_key(id)).unwrap_or(0),
                )
            })
            .collect();
        for (address, id) in &backends {
            if self.backends.get(address) != Some(id) {
                changes.addresses.insert(*address);
            }
        }
        self.backends = backends;
        changes
    }

    fn id(&mut self, ifindex: u32, address: IpAddr) -> Option<u16> {
        if let Some(id) = self.ids.get(&(ifindex, address)) {
            return Some(*id);
        }
        let used: BTreeSet<u16> = self.ids.values().copied().collect();
        let id = (1..maps::HOPS.1 as u16).find(|id| !used.contains(id))?;
        self.ids.insert((ifindex, address), id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface() -> Interface {
        Interface {
            index: 3,
            name: "eth0".into(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            kind: None,
            addresses: Vec::new(),
            up: true,
        }
    }

    fn neighbour(last: u8, mac: u8) -> Neighbour {
        Neighbour {
            ifindex: 3,
            address: IpAddr::from([10, 0, 0, last]),
            mac: [2, 0, 0, 0, 1, mac],
        }
    }

    fn path(via: u8) -> Path {
        Path {
            ifindex: 3,
            neighbour: IpAddr::from([10, 0, 0, via]),
            source: IpAddr::from([10, 0, 0, 1]),
        }
    }

    #[test]
    fn a_neighbour_that_changes_its_mac_keeps_its_id() {
        let mut hops = Hops::default();
        let pod = IpAddr::from([10, 9, 0, 1]);
        let paths = BTreeMap::from([(pod, path(9))]);
        let first = hops.update(&[interface()], &[neighbour(9, 1)], &paths);
        let id = hops.by_backend()[&pod];
        assert_eq!(first.hops.len(), 1);
        assert_eq!(first.addresses, BTreeSet::from([pod]));
        let second = hops.update(&[interface()], &[neighbour(9, 2)], &paths);
        assert_eq!(
            second.hops,
            [(
                id,
                NextHop {
                    dmac: [2, 0, 0, 0, 1, 2],
                    ..first.hops[0].1
                }
            )]
        );
        assert!(second.addresses.is_empty());
        assert_eq!(second.gone.len(), 1);
    }

    #[test]
    fn a_neighbour_that_vanishes_for_a_moment_keeps_serving() {
        let mut hops = Hops::default();
        let pod = IpAddr::from([10, 9, 0, 1]);
        let paths = BTreeMap::from([(pod, path(9))]);
        hops.update(&[interface()], &[neighbour(9, 1)], &paths);
        let changes = hops.update(&[interface()], &[], &paths);
        assert!(changes.hops.is_empty() && changes.addresses.is_empty());
        assert_ne!(hops.by_backend()[&pod], 0);
    }

    #[test]
    fn ids_of_an_earlier_agent_are_kept() {
        let mut hops = Hops::from_record(&[(3, IpAddr::from([10, 0, 0, 9]), 7)]);
        hops.update(
            &[interface()],
            &[neighbour(8, 1), neighbour(9, 2)],
            &BTreeMap::new(),
        );
        let ids: BTreeMap<_, _> = hops
            .to_record()
            .into_iter()
            .map(|(_, ip, id)| (ip, id))
            .collect();
        assert_eq!(ids[&IpAddr::from([10, 0, 0, 9])], 7);
        assert_eq!(ids[&IpAddr::from([10, 0, 0, 8])], 1);
    }

    #[test]
    fn an_unchanged_network_changes_nothing() {
        let mut hops = Hops::default();
        let seen = [neighbour(9, 1)];
        hops.update(&[interface()], &seen, &BTreeMap::new());
        assert!(
            hops.update(&[interface()], &seen, &BTreeMap::new())
                .is_empty()
        );
    }
}
