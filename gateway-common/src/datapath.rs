//! The packet pipeline: parse, flow?, service?, ring slot, rewrite, next hop.
//!
//! One generic piece of code for XDP, TC and user space. [`process`] calls its stages one after the
//! other and never one from within another: each is a function of its own and not inlined, because
//! the kernel adds the stacks of nested calls up to one limit of 512 bytes.

mod affinity;
mod answer;
mod claiming;
mod established;
mod guard;
mod opening;
mod other;
mod parse;
mod relay;
mod rewrite;
mod scanning;
mod sweeping;
#[cfg(any(test, feature = "user"))]
pub mod tables;
mod track;

use crate::{
    addr::Addr,
    affinity::{Affinity, AffinityKey},
    backend::{Backend, NeighbourKey, NextHop, Snat},
    config::{Admission, Config},
    flow::{Flow, FlowKey},
    limits::{Bucket, SourceKey},
    pod::{Pod, Shared},
    ports::{Mark, Pool},
    service::{Service, ServiceKey},
    verdict::{Reason, Verdict},
};

pub use parse::{Head, parse, touched};
pub use rewrite::patched_l4;
pub use scanning::Search;
pub use sweeping::{KEYS, KEYS_AT, sweep};

/// Outside the frame, or the frame could not be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outside;

/// A frame, from its Ethernet header on.
pub trait Packet {
    /// Length of the frame in bytes; of a GSO super-packet, all of it.
    fn frame_len(&self) -> u32;
    /// Bytes of payload in each of the smaller frames it will be cut into when it is sent; 0 if it
    /// will not be cut.
    fn segment(&self) -> u32;
    /// Interface it came in on.
    fn ifindex(&self) -> u32;
    /// Reads a value at a byte offset known at compile time.
    fn load<T: Pod>(&self, at: usize) -> Result<T, Outside>;
    /// Writes a value at a byte offset known at compile time.
    fn store<T: Pod>(&mut self, at: usize, value: T) -> Result<(), Outside>;
    /// Reads a value of the L4 header, whose offset depends on the IP header's length.
    #[inline(always)]
    fn load_l4<T: Pod>(&self, at: usize) -> Result<T, Outside> {
        self.load(at)
    }
    /// Writes a value of the L4 header.
    #[inline(always)]
    fn store_l4<T: Pod>(&mut self, at: usize, value: T) -> Result<(), Outside> {
        self.store(at, value)
    }
    /// Reads a value whose offset depends on more than one header.
    #[inline(always)]
    fn load_far<T: Pod>(&self, at: usize) -> Result<T, Outside> {
        self.load(at)
    }
    /// Writes a value whose offset depends on more than one header.
    #[inline(always)]
    fn store_far<T: Pod>(&mut self, at: usize, value: T) -> Result<(), Outside> {
        self.store(at, value)
    }
    /// Brings the TCP or UDP checksum at a byte offset up to date after addresses and ports have
    /// changed by these folded differences. The last write of a packet.
    fn patch_l4(&mut self, at: usize, addrs: u16, ports: u16, udp: bool) -> Result<(), Outside>;
    /// Makes this many bytes accessible, or all if there are fewer.
    #[inline(always)]
    fn reach(&mut self, _bytes: u32) {}
    /// Forgets what was learnt of the frame.
    #[inline(always)]
    fn look(&mut self) {}
    /// What the TCP or UDP checksum field at a byte offset holds, if that is only the pseudo header's
    /// part, to which the card adds the rest; None if it is complete.
    #[inline(always)]
    fn pending(&mut self, _at: usize) -> Result<Option<u16>, Outside> {
        Ok(None)
    }
    /// Puts `front` bytes before the frame and cuts it off, so that `len` bytes are left of all, and
    /// those are accessible. It is no super-packet after that.
    fn make_room(&mut self, front: usize, len: usize) -> Result<(), Outside>;
}

/// What is sent in answer to a packet; each kind has a budget of its own, so that a flood of one does
/// not silence another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answers {
    /// Echo replies.
    Echo = 0,
    /// Errors about packets whose time ends here.
    TtlExpired = 1,
    /// Errors about packets of flows that are too long for the way out.
    TooBig = 2,
}

/// Result of inserting a flow that must not exist yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Claim {
    /// Inserted.
    Done,
    /// The key exists.
    Taken,
    /// No room.
    Full,
}

/// Something that is done again and again.
pub trait Step {
    /// Does it once; whether to go on.
    fn step(&mut self) -> bool;
}

/// The tables. All by shared reference: map values are shared memory.
pub trait Tables {
    /// Whether a packet without a resolved next hop must be left alone (XDP), or is rewritten and
    /// handed to the kernel's neighbour table (TC).
    const NEEDS_HOP: bool;

    /// The configuration.
    fn config(&self) -> Option<&Config>;
    /// Kernel ticks, low 32 bits.
    fn now(&self) -> u32;
    /// Looks a flow up.
    fn flow(&self, key: &FlowKey) -> Option<&Shared<Flow>>;
    /// Inserts a flow if its key is free; atomic.
    fn claim(&self, key: &FlowKey, flow: &Flow) -> Claim;
    /// Removes a flow entry; whether it was there.
    fn forget(&self, key: &FlowKey) -> bool;
    /// Looks a service up.
    fn service(&self, key: &ServiceKey) -> Option<&Service>;
    /// Backend id in a slot of the ring slab.
    fn slot(&self, index: u32) -> Option<u32>;
    /// A backend.
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// A next hop.
    fn hop(&self, id: u32) -> Option<&NextHop>;
    /// Next hop back to the neighbour that handed us a frame; 0 if the agent does not know it yet.
    fn neighbour(&self, key: &NeighbourKey) -> u32;
    /// A source address.
    fn snat(&self, index: u32) -> Option<&Snat>;
    /// Notes about full port ranges in a slot; tables without them search each time.
    #[inline(always)]
    fn mark(&self, _slot: u32) -> Option<&Shared<Mark>> {
        None
    }
    /// Counts that a port of the areas in a slot was freed; atomic, after its entry is gone.
    #[inline(always)]
    fn freed(&self, _slot: u32) {}
    /// Lends memory for a search; `None` if there is none.
    #[inline(always)]
    fn search<R>(&self, go: impl FnOnce(&mut Search) -> R) -> Option<R> {
        Some(go(&mut Search::default()))
    }
    /// Repeats a step until it has enough, at most this often.
    #[inline(always)]
    fn repeat<S: Step>(&self, times: u32, state: &mut S) {
        for _ in 0..times {
            if !state.step() {
                break;
            }
        }
    }
    /// Removes a reply entry: its source port is free again. Whether it was there.
    #[inline(always)]
    fn free(&self, reply: &FlowKey) -> bool {
        if !self.forget(reply) {
            return false;
        }
        let seed = match self.config() {
            Some(config) => config.seed,
            None => 0,
        };
        for area in Pool::of(seed, reply).areas(reply.dst_port.host()) {
            self.freed(area.slot());
        }
        true
    }
    /// The backend that a client had last.
    fn affinity(&self, key: &AffinityKey) -> Option<&Shared<Affinity>>;
    /// Notes the backend that a client has now.
    fn remember(&self, key: &AffinityKey, affinity: &Affinity);
    /// Whether an address is that of a listener.
    fn vip(&self, addr: &Addr) -> bool;
    /// Takes one from the budget of a kind of answer, if there is one left (RFC 1812 section 4.3.2.8,
    /// RFC 4443 section 2.4 (f)).
    fn may_answer(&self, kind: Answers) -> bool;
    /// Nanoseconds of a clock that never goes back.
    fn nanoseconds(&self) -> u64;
    /// Whether an access list lets a client in; a list that is not there lets nobody in.
    fn allowed(&self, acl: u16, client: &Addr) -> bool;
    /// Budget of all clients of a service together.
    fn budget(&self, service: u32) -> Option<&Shared<Bucket>>;
    /// Budget of one client at a service; `None`: not seen lately.
    fn source(&self, key: &SourceKey) -> Option<&Shared<Bucket>>;
    /// Remembers a client that was not seen lately.
    fn add_source(&self, key: &SourceKey, bucket: &Bucket);
    /// Adds to what is spent of a bucket; atomic.
    fn spend(&self, bucket: &Shared<Bucket>, nanoseconds: u64);
    /// Counts a forwarded packet of a flow.
    fn count_traffic(&self, service: u32, backend: u32, reply: bool, bytes: u32);
    /// Counts a packet that the limits of a service have kept out.
    fn count_refused(&self, service: u32);
    /// Counts an opened flow.
    fn count_opened(&self, service: u32, backend: u32);
    /// Counts a flow that is gone.
    #[inline(always)]
    fn count_closed(&self, _service: u32) {}

    /// A flow is there that was not opened here.
    fn count_live(&self, _service: u32) {}
    /// Live flows of a service; of id 0, all of them.
    #[inline(always)]
    fn live(&self, _service: u32) -> u64 {
        0
    }
    /// Who may open flows in a table that is nearly full; `None` is everybody.
    #[inline(always)]
    fn admission(&self) -> Option<&Admission> {
        None
    }
}

/// Runs the whole pipeline over one frame and rewrites it in place.
#[inline(always)]
pub fn process<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let mut verdict = steer(packet, tables);
    if verdict.is(Verdict::OTHER) {
        verdict = other::other(packet, tables);
        if verdict.is(Verdict::ERROR) {
            verdict = relay::relay(packet, tables);
        }
    }
    if verdict.refused().is_some() {
        verdict = answer::answer(packet, tables, verdict);
    }
    verdict
}

/// TCP and UDP.
#[inline(always)]
fn steer<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let mut verdict = established::established(packet, tables, false);
    if verdict.is(Verdict::TRACK) {
        verdict = track::track(packet, tables);
    }
    if verdict.is(Verdict::MISS) {
        verdict = opening::opening(packet, tables);
    }
    if verdict.guarded() {
        verdict = guard::guard(packet, tables, verdict);
    }
    if verdict.sticks() {
        verdict = affinity::affinity(packet, tables, verdict);
    }
    if verdict.opens() {
        let choice = verdict;
        verdict = claiming::claiming(packet, tables, choice);
        if verdict.is(Verdict::SCAN) {
            verdict = scanning::scanning(packet, tables, choice);
        }
    }
    // One place for both that come here: what is called twice is verified twice.
    if verdict.is(Verdict::CONTINUE) {
        verdict = settle(established::established(packet, tables, true));
    }
    verdict
}

/// A flow that another CPU removed between two stages: the stack answers, the client tries again.
#[inline(always)]
fn settle(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::MISS | Verdict::TRACK => Verdict::because(Reason::NoFlow),
        verdict => verdict,
    }
}
