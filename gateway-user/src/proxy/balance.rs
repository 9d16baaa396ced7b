//! Which backend of a group serves a request. Pure; time is an argument.
//!
//! A [`Balancer`] belongs to one worker and one group as it is now. What goes on when the group changes it takes from the
//! one before: whose turn it is. What workers share comes from [`Peers`], [`Rings`] and [`Joins`].

mod joins;
mod ring;
mod turns;
mod warming;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use gateway_common::hash;

pub(super) use self::{
    joins::Joins,
    ring::{Ring, Rings},
};
use self::{
    turns::Turns,
    warming::{Warm, Warming},
};
use super::peers::{Active, Peer, Peers};
use crate::ir::{Affinity, Group, Scheduler, matching::parameter};

/// Backends up to which all are compared for the least load.
const ALL_COMPARED: usize = 16;
/// In larger groups so many are, those whose turn is next. Two choices instead of one do most of what all could. Source:
/// Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS 12, 2001.
const COMPARED: usize = 4;
/// Turns taken at most to bring a worker to its place.
const MOST_PLACED: usize = 1024;

/// Who balances, and with what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Number of the worker, below `workers`.
    pub(super) worker: usize,
    pub(super) workers: usize,
    pub(super) peers: &'a Peers,
    pub(super) rings: &'a Rings,
    pub(super) joins: &'a Joins,
}

/// What a choice may depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice<'a> {
    pub(super) client: IpAddr,
    /// Only backends of this family are asked.
    pub(super) v6: bool,
    /// The query without its `?`.
    pub(super) query: Option<&'a str>,
    /// The backend that the client's cookie names.
    pub(super) sticky: Option<usize>,
    pub(super) now: Instant,
}

/// Picks backends of one group for one worker.
#[derive(Debug)]
pub(super) struct Balancer {
    peers: Vec<Arc<Peer>>,
    warming: Warming,
    /// IPv4 and IPv6: for a client, pods of the other family do not exist.
    sides: [Side; 2],
}

/// The backends of one family.
#[derive(Debug)]
struct Side {
    /// Their places in the group.
    members: Vec<usize>,
    turns: Turns,
    /// Where a hash may choose.
    ring: Option<Arc<Ring>>,
}

impl Balancer {
    /// For a group as it is now. `before` is what this worker had for it, `None` if it is new to it.
    pub(super) fn new(
        group: &Group,
        place: Place<'_>,
        before: Option<&Self>,
        now: Instant,
    ) -> Self {
        let known: HashMap<SocketAddr, usize> = before
            .iter()
            .flat_map(|it| it.peers.iter().zip(0..))
            .map(|(peer, at)| (peer.address, at))
            .collect();
        let warming = match group.policy.slow_start {
            Some(over) => {
                let joined = place.joins.of(group).into_iter();
                let new = joined.filter(|(_, since)| now.saturating_duration_since(*since) < over);
                let warm = new.map(|(at, since)| {
                    let address = group.backends.get(at).map(|it| it.address);
                    let had = address.and_then(|it| known.get(&it)).zip(before);
                    let had = had.and_then(|(known, before)| before.warming.get(*known));
                    (at, had.unwrap_or_else(|| Warm::new(since)).joined(since))
                });
                Warming::new(over, warm.collect::<BTreeMap<_, _>>())
            }
            None => Warming::default(),
        };
        let side = |v6: bool| {
            let all = group.backends.iter().zip(0..);
            let ours = all.filter(|(it, _)| it.address.is_ipv6() == v6);
            let members: Vec<usize> = ours.map(|(_, at)| at).collect();
            let pods = || members.iter().filter_map(|at| group.backends.get(*at));
            let turns = match before {
                Some(before) => Turns::resumed(pods().map(|it| {
                    let known = known.get(&it.address);
                    (it.weight, known.and_then(|at| before.lead(*at, v6)))
                })),
                None => {
                    let weights: Vec<u32> = pods().map(|it| it.weight).collect();
                    let mut turns = Turns::new(&weights);
                    // Workers do not move in step.
                    let first = members.len() * place.worker / place.workers.max(1);
                    for _ in 0..first.min(MOST_PLACED) {
                        turns.next(|_| true, |_, _| false);
                    }
                    turns
                }
            };
            Side {
                ring: is_hashed(group).then(|| place.rings.ring(&group.name, v6, pods())),
                turns,
                members,
            }
        };
        Self {
            sides: [side(false), side(true)],
            peers: group
                .backends
                .iter()
                .map(|it| place.peers.peer(it.address))
                .collect(),
            warming,
        }
    }

    fn lead(&self, backend: usize, v6: bool) -> Option<f64> {
        let side = &self.sides[usize::from(v6)];
        side.turns.lead(side.members.binary_search(&backend).ok()?)
    }

    /// What all workers know of a backend.
    pub(super) fn peer(&self, backend: usize) -> Option<&Arc<Peer>> {
        self.peers.get(backend)
    }

    /// Counts a request to a backend for as long as the answer is kept.
    pub(super) fn begin(&self, backend: usize) -> Option<Active> {
        Some(self.peers.get(backend)?.begin())
    }

    /// A backend for a request, by its place in `group`, which is the one it was made for; none if none is eligible.
    ///
    /// A cookie comes first; then a hash, of what the scheduler says or else, where the Service has affinity, of the client's
    /// address; then turns.
    pub(super) fn pick(
        &mut self,
        group: &Group,
        asked: &Choice<'_>,
        eligible: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let Self {
            peers,
            warming,
            sides,
        } = self;
        let Side {
            members,
            turns,
            ring,
        } = &mut sides[usize::from(asked.v6)];
        let place = |member: usize| members.get(member).copied();
        if let Some(sticky) = asked.sticky
            && members.binary_search(&sticky).is_ok()
            && eligible(sticky)
        {
            return Some(sticky);
        }
        let key = match &group.policy.scheduler {
            Scheduler::SourceHash => Some(client_key(asked.client)),
            Scheduler::QueryHash(name) => asked.query.and_then(|it| query_key(it, name)),
            Scheduler::RoundRobin | Scheduler::LeastConnections => {
                (group.affinity == Affinity::ClientIp).then(|| client_key(asked.client))
            }
        };
        if let (Some(key), Some(ring)) = (key, ring) {
            let ours = |member: usize| place(member).is_some_and(&eligible);
            return place(ring.member(key, ours)?);
        }
        warming.end(asked.now);
        let least = group.policy.scheduler == Scheduler::LeastConnections;
        let load = |member: usize| {
            let known = place(member).and_then(|at| Some((at, peers.get(at)?)));
            let Some((at, peer)) = known.filter(|_| least) else {
                return 0.0;
            };
            let weight = group.backends.get(at).map_or(1, |it| it.weight.max(1));
            f64::from(peer.active()) / (f64::from(weight) * warming.part(at, asked.now))
        };
        let yields = |member: usize, own: bool| {
            place(member).is_some_and(|at| warming.yields(at, own, asked.now))
        };
        let ours = |member: usize| place(member).is_some_and(&eligible);
        let most = match least {
            true if members.len() <= ALL_COMPARED => members.len(),
            true => COMPARED,
            false => 1,
        };
        let picked = place(turns.least_of(most, ours, yields, load)?)?;
        warming.took(picked, asked.now);
        Some(picked)
    }
}

/// Whether a hash may choose.
fn is_hashed(group: &Group) -> bool {
    match group.policy.scheduler {
        Scheduler::SourceHash | Scheduler::QueryHash(_) => true,
        Scheduler::RoundRobin | Scheduler::LeastConnections => group.affinity == Affinity::ClientIp,
    }
}

fn client_key(client: IpAddr) -> u64 {
    let octets = match client {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    hash::name(0, &octets)
}

/// A parameter that is there and not empty: all clients without a value would meet at one backend.
fn query_key(query: &str, name: &str) -> Option<u64> {
    let value: Vec<u8> = parameter(query, name)?.collect();
    (!value.is_empty()).then(|| hash::name(0, &value))
}

#[cfg(test)]
mod tests;
