//! Looks at every source port of a backend, for the flow that found none at random.
//!
//! A free port is found if there is one, at any of the backend's source addresses. Blocks and whole ranges that were
//! found full are skipped until one of their ports is freed, see [`crate::ports`]: a flow towards a backend without any
//! free port costs a few lookups, and each freed port one search of its block.

use super::{
    Claim, Packet, Step, Tables,
    claiming::{addr_delta, answer, link, read_key, spread},
};
use crate::{
    addr::Port,
    backend::Snat,
    flow::{Flow, FlowKey},
    hash, maps,
    ports::{Area, BLOCK, Pool},
    shape,
    verdict::{Reason, Verdict},
};

/// Free ports that other CPUs may take away before a block is passed by.
const RACES: u32 = 64;
/// Rounds that the longest range takes: one for each block, one to begin.
const ROUNDS: u32 = 65_536 / BLOCK + 2;

/// Opens the chosen flow at any free port. CONTINUE: it is in the table.
#[inline(never)]
pub(super) fn scanning<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    choice: Verdict,
) -> Verdict {
    let mut key = FlowKey::default();
    if read_key(packet, &mut key) == 0 {
        return Verdict::PASS;
    }
    let Some(backend) = tables.backend(choice.choice().backend) else {
        return Verdict::because(Reason::NoBackend);
    };
    let seed = match tables.config() {
        Some(config) => config.seed,
        None => 0,
    };
    let spread = spread(seed, &key);
    let units = (backend.snat_count as u32).min(maps::SNATS.1);
    let searched = tables.search(|search| {
        (search.reply, search.flow) =
            answer(tables, &key, backend, &choice.choice(), &Snat::default());
        search.seed = seed;
        search.spread = spread;
        search.first_unit = backend.snat_first as u32;
        search.units = units;
        search.unit = hash::scale(spread, units);
        search.units_left = units;
        search.blocks_left = 0;
        search.races = 0;
        search.outcome = TAKEN;
        let mut scan = Scan { search, tables };
        tables.repeat(units * ROUNDS + RACES, &mut scan);
        let search = scan.search;
        match search.outcome {
            DONE => link(tables, &key, &search.reply, &mut search.flow, backend),
            FULL => Verdict::because(Reason::FlowTableFull),
            _ => Verdict::because(Reason::SnatExhausted),
        }
    });
    searched.unwrap_or(Verdict::because(Reason::SnatExhausted))
}

/// The values of [`Search::outcome`].
const TAKEN: u32 = 0;
const DONE: u32 = 1;
const FULL: u32 = 2;

/// Where a search is. In map memory of its CPU: of what lies on the stack the verifier would follow every value
/// through every round, and there is no room for it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Search {
    /// Key of the reply entry: of the address that is searched.
    reply: FlowKey,
    flow: Flow,
    /// The pool that is searched.
    pool: u64,
    /// Ports of the pool freed before the search began.
    pool_freed: u64,
    seed: u32,
    spread: u32,
    /// Index of the backend's first source address.
    first_unit: u32,
    /// How many it has.
    units: u32,
    /// Which of them is next.
    unit: u32,
    units_left: u32,
    /// Which block is next.
    block: u32,
    blocks_left: u32,
    /// First and last port of the pool.
    first: u32,
    last: u32,
    races: u32,
    /// What became of the claim.
    outcome: u32,
}

const _: () = assert!(size_of::<Search>() == 168);
shape!(Search {
    reply,
    flow,
    pool,
    pool_freed,
    seed,
    spread,
    first_unit,
    units,
    unit,
    units_left,
    block,
    blocks_left,
    first,
    last,
    races,
    outcome,
});

/// One round of a search.
struct Scan<'a, T> {
    search: &'a mut Search,
    tables: &'a T,
}

impl<T: Tables> Step for Scan<'_, T> {
    #[inline(always)]
    fn step(&mut self) -> bool {
        if self.search.blocks_left == 0 {
            return self.next_unit();
        }
        let area = Pool(self.search.pool).block(self.search.block);
        let freed = self.freed(area);
        if self.full(area, freed) {
            self.next_block();
            return true;
        }
        let Some(port) = self.free_port() else {
            self.mark(area, freed);
            self.next_block();
            return true;
        };
        self.search.reply.dst_port = Port::from_host(port);
        self.search.outcome = match self.tables.claim(&self.search.reply, &self.search.flow) {
            Claim::Done => DONE,
            Claim::Full => FULL,
            Claim::Taken => TAKEN,
        };
        if self.search.outcome != TAKEN {
            return false;
        }
        // Another CPU was faster: look at the block again.
        self.search.races += 1;
        if self.search.races > RACES {
            // Not known to be full, so neither is the pool.
            self.search.pool_freed = self.search.pool_freed.wrapping_sub(1);
            self.next_block();
        }
        true
    }
}

impl<T: Tables> Scan<'_, T> {
    /// Begins with the next source address. False: there is none left.
    #[inline(always)]
    fn next_unit(&mut self) -> bool {
        if self.search.units_left == 0 {
            return false;
        }
        self.search.units_left -= 1;
        let at = self.search.first_unit + self.search.unit;
        self.search.unit = if self.search.unit + 1 < self.search.units {
            self.search.unit + 1
        } else {
            0
        };
        let Some(snat) = self.tables.snat(at) else {
            return true;
        };
        let count = snat.port_count as u32;
        // One of the other family leads to no pod of this one.
        if count == 0 || snat.addr.is_v4() != self.search.reply.src.is_v4() {
            return true;
        }
        self.search.first = snat.port_first as u32;
        self.search.last = (self.search.first + count - 1).min(u16::MAX as u32);
        self.search.reply.dst = snat.addr;
        self.search.pool = Pool::of(self.search.seed, &self.search.reply).0;
        self.search.pool_freed = self.freed(Pool(self.search.pool).whole());
        if self.full(Pool(self.search.pool).whole(), self.search.pool_freed) {
            return true;
        }
        let (nat, reply) = (&self.search.flow.nat, &self.search.reply);
        let delta = addr_delta(&nat.dst, &nat.src, &reply.dst, &reply.src);
        self.search.flow.nat.addr_delta = !delta;
        let (first, last) = self.blocks();
        self.search.blocks_left = last - first + 1;
        self.search.block =
            first + hash::scale(hash::mix(self.search.spread), self.search.blocks_left);
        true
    }

    /// Goes on to the next block of this address; after the last one the pool is known to be full.
    #[inline(always)]
    fn next_block(&mut self) {
        let (first, last) = self.blocks();
        self.search.block = if self.search.block < last {
            self.search.block + 1
        } else {
            first
        };
        self.search.blocks_left -= 1;
        if self.search.blocks_left == 0 {
            self.mark(Pool(self.search.pool).whole(), self.search.pool_freed);
        }
    }

    /// First and last block of the range.
    #[inline(always)]
    fn blocks(&self) -> (u32, u32) {
        (self.search.first / BLOCK, self.search.last / BLOCK)
    }

    /// A port of this block that nobody has.
    #[inline(always)]
    fn free_port(&mut self) -> Option<u16> {
        let (first, last) = (self.search.first, self.search.last);
        let from = (self.search.block * BLOCK).max(first);
        let to = (self.search.block * BLOCK + BLOCK - 1).min(last);
        for offset in 0..BLOCK {
            let port = from + offset;
            if port > to {
                break;
            }
            self.search.reply.dst_port = Port::from_host(port as u16);
            if self.tables.flow(&self.search.reply).is_none() {
                return Some(port as u16);
            }
        }
        None
    }

    /// How often ports of an area were freed.
    #[inline(always)]
    fn freed(&self, area: Area) -> u64 {
        match self.tables.mark(area.slot()) {
            Some(mark) => mark.freed(),
            None => 0,
        }
    }

    /// Whether an area was found full and nothing of it was freed since.
    #[inline(always)]
    fn full(&self, area: Area, freed: u64) -> bool {
        match self.tables.mark(area.slot()) {
            Some(mark) => mark.full() == area.stamp(freed, self.search.first, self.search.last),
            None => false,
        }
    }

    #[inline(always)]
    fn mark(&self, area: Area, freed: u64) {
        if let Some(mark) = self.tables.mark(area.slot()) {
            mark.set_full(area.stamp(freed, self.search.first, self.search.last));
        }
    }
}
