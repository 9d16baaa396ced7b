//! Consistent hashing: the rings of the kernel's plan, found by a number. Pure but for one lock when a group changes.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use gateway_common::{hash, maglev};

use super::is_hashed;
use crate::ir::{Backend, Group, GroupName};

/// Slots tried before all members are, one after the other.
const TRIES: u64 = 32;

/// Who has which slot, as places among the members that it was made for.
///
/// Whoever knows the same members and the same seed has the same ring. When members change, little else moves than what
/// must: see [`maglev::ring_len`].
#[derive(Debug)]
pub(in crate::proxy) struct Ring {
    members: Vec<(SocketAddr, u64, u32)>,
    slots: OnceLock<Vec<u32>>,
}

impl Ring {
    fn slots(&self, seed: u64) -> &[u32] {
        self.slots.get_or_init(|| {
            let entry = |(id, member): (u32, &(SocketAddr, u64, u32))| maglev::Entry {
                id,
                identity: member.1,
                weight: member.2,
            };
            let entries: Vec<_> = (0..).zip(&self.members).map(entry).collect();
            maglev::build(&entries, maglev::ring_len(entries.len()), seed)
        })
    }

    /// The member for a well-mixed number; another one where that is not eligible, by weight and always the same.
    pub(super) fn member(&self, key: u64, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let slots = self.slots.get()?;
        let slot = |number: u64| {
            let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let at = hash::mix64(key.wrapping_add(number)) >> 32;
            slots.get(hash::scale(at as u32, slots.len() as u32) as usize)
        };
        let found = (0..TRIES).filter_map(slot).map(|it| *it as usize);
        let mut found = found.filter(|it| eligible(*it));
        found.next().or_else(|| {
            let members = self.members.len();
            let first = hash::scale((key >> 32) as u32, members as u32) as usize;
            let all = (first..members).chain(0..first);
            let mut weighted = all.filter(|it| self.members.get(*it).is_some_and(|it| it.2 > 0));
            weighted.find(|it| eligible(*it))
        })
    }
}

/// The rings that workers share, so that each is made once.
#[derive(Debug)]
pub(in crate::proxy) struct Rings {
    seed: u64,
    known: Mutex<HashMap<(GroupName, bool), Weak<Ring>>>,
}

impl Rings {
    /// `seed` is that of the kernel's rings, [`ring_seed`](crate::plan::ring_seed), so that all nodes agree.
    pub(in crate::proxy) fn new(seed: u64) -> Self {
        Self {
            seed,
            known: Mutex::default(),
        }
    }

    /// The rings that a group needs. A large one takes some 20 ms to make: who holds these before workers see the group
    /// spares them the wait.
    pub(in crate::proxy) fn prepare(&self, group: &Group) -> Option<[Arc<Ring>; 2]> {
        let ring = |v6: bool| {
            let pods = group.backends.iter();
            self.ring(
                &group.name,
                v6,
                pods.filter(|it| it.address.is_ipv6() == v6),
            )
        };
        is_hashed(group).then(|| [false, true].map(ring))
    }

    /// The ring of these pods of a group. The first who asks makes it; who asks meanwhile for the same waits.
    pub(super) fn ring<'a>(
        &self,
        group: &GroupName,
        v6: bool,
        pods: impl Iterator<Item = &'a Backend>,
    ) -> Arc<Ring> {
        let member = |it: &Backend| {
            let name = format!("{}/{}", it.cluster, it.address);
            (it.address, hash::name(0, name.as_bytes()), it.weight)
        };
        let members: Vec<_> = pods.map(member).collect();
        let ring = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let name = (group.clone(), v6);
            let same = known.get(&name).and_then(Weak::upgrade);
            match same.filter(|it| it.members == members) {
                Some(same) => same,
                None => {
                    known.retain(|_, ring| ring.strong_count() > 0);
                    let ring = Arc::new(Ring {
                        members,
                        slots: OnceLock::new(),
                    });
                    known.insert(name, Arc::downgrade(&ring));
                    ring
                }
            }
        };
        ring.slots(self.seed);
        ring
    }
}
