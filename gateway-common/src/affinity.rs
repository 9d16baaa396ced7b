//! Clients that stay with a backend for a while: `sessionAffinity: ClientIP` with its timeout.

#![allow(unsafe_code, reason = "volatile access to shared map memory, see pod")]

use crate::{addr::Addr, hash, pod::Shared, shape, shared_read};

/// A client of a service. Aligned like [`crate::flow::FlowKey`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AffinityKey {
    /// Address of the client.
    pub client: Addr,
    /// [`crate::service::Service::id`].
    pub service: u32,
    /// Always zero.
    pub zero: u32,
}

/// The backend that a client had last.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Affinity {
    /// The same field as below, elsewhere: the feature is for tests of upgrades.
    #[cfg(feature = "other-layout")]
    pub last: u32,
    /// Its id.
    pub backend: u32,
    /// [`crate::backend::Backend::generation`] at that time.
    pub generation: u16,
    /// Always zero.
    pub zero: u16,
    /// Low 32 bits of the kernel's tick counter when the client last opened a flow.
    #[cfg(not(feature = "other-layout"))]
    pub last: u32,
}

const _: () = assert!(size_of::<AffinityKey>() == 24 && size_of::<Affinity>() == 12);

shape!(AffinityKey {
    client,
    service,
    zero,
});
shape!(Affinity {
    backend,
    generation,
    zero,
    last,
});

impl Shared<Affinity> {
    /// Field by field: another CPU may write it meanwhile, or the map give the element to another client.
    #[inline(always)]
    pub fn read(&self) -> Affinity {
        Affinity {
            backend: shared_read!(self, backend),
            generation: shared_read!(self, generation),
            zero: 0,
            last: shared_read!(self, last),
        }
    }

    /// The client has opened another flow.
    #[inline(always)]
    pub fn renew(&self, now: u32) {
        let at = self.as_ptr();
        // SAFETY: as in `shared_read!`; of two racing writes the last stays.
        unsafe { (&raw mut (*at).last).write_volatile(now) }
    }
}

/// The members of a ring as a set behind its slots, so that a flip changes both at once: whether a backend is in a ring
/// cannot be told from the slots without reading all of them.
///
/// An open hash table: each id stands at its place or up to [`TRIES`] - 1 behind it; 0 is nobody.
pub mod members {
    use super::hash;

    /// Entries looked at for one id.
    pub const TRIES: u32 = 8;

    /// Length of the set of a ring. A ring has at least 100 slots a member (of up to 1 310), so the set is filled by a
    /// sixth at most.
    pub const fn len(ring_len: u32) -> u32 {
        ring_len / 16 + TRIES
    }

    /// Where an id would stand first.
    #[inline(always)]
    pub const fn place(id: u32, ring_len: u32) -> u32 {
        hash::scale(hash::mix(id), ring_len / 16)
    }

    /// The set of these ids. One that finds no place is left out: its clients go where the ring says.
    #[cfg(any(test, feature = "user"))]
    pub fn build(ids: impl IntoIterator<Item = u32>, ring_len: u32) -> Vec<u32> {
        let mut set = vec![0; len(ring_len) as usize];
        for id in ids {
            let place = place(id, ring_len) as usize;
            let mut tries = set[place..place + TRIES as usize].iter_mut();
            if let Some(free) = tries.find(|it| **it == 0) {
                *free = id;
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::members::{TRIES, build, len, place};
    use crate::maglev;

    #[test]
    fn every_member_of_an_ordinary_ring_is_found_and_nobody_else() {
        for count in [1, 10, 100, 1_000, 1_310] {
            let ring_len = maglev::ring_len(count);
            let ids = || (1..=count as u32).map(|id| id * 97 % 131_071);
            let set = build(ids(), ring_len);
            assert_eq!(set.len(), len(ring_len) as usize);
            let has = |id: u32| {
                let place = place(id, ring_len) as usize;
                set[place..place + TRIES as usize].contains(&id)
            };
            let missing = ids().filter(|id| !has(*id)).count();
            assert_eq!(missing, 0, "of {count}");
            let members: Vec<u32> = ids().collect();
            assert!(
                (1..131_072)
                    .filter(|id| has(*id))
                    .all(|id| members.contains(&id))
            );
        }
    }

    #[test]
    fn a_ring_with_far_more_members_than_it_is_made_for_leaves_some_out_and_holds_the_rest() {
        let ring_len = maglev::ring_len(100_000);
        let set = build(1..=100_000, ring_len);
        let held = set.iter().filter(|id| **id != 0).count();
        assert!(held > 8_000, "{held}");
    }
}
