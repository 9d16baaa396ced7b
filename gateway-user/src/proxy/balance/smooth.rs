//! Picks as the connection engine does them until it uses the [`Balancer`](super::Balancer). Pure.

use std::net::{IpAddr, SocketAddr};

use crate::ir::{Affinity, Backend, Group};

/// Smooth weighted round robin: after any number of turns every backend is within one turn of its share.
/// Source: nginx, `ngx_http_upstream_round_robin.c`.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct RoundRobin {
    current: Vec<i64>,
}

impl RoundRobin {
    /// Starts at a different place for each worker, so that workers do not move in step.
    pub(in crate::proxy) fn new(backends: &[Backend], worker: usize, workers: usize) -> Self {
        let mut turns = Self {
            current: vec![0; backends.len()],
        };
        for _ in 0..(backends.len() * worker / workers.max(1)).min(1024) {
            turns.next(backends, |_| true);
        }
        turns
    }

    /// The next backend among those that are eligible; none if none is.
    pub(in crate::proxy) fn next(
        &mut self,
        backends: &[Backend],
        eligible: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<usize> = None;
        for (index, backend) in backends.iter().enumerate() {
            if backend.weight == 0 || !eligible(index) {
                continue;
            }
            let weight = i64::from(backend.weight);
            total += weight;
            self.current[index] += weight;
            if best.is_none_or(|best| self.current[index] > self.current[best]) {
                best = Some(index);
            }
        }
        self.current[best?] -= total;
        best
    }
}

/// Picks for one request: by turns, or always the same one for a client where the group says so.
pub(in crate::proxy) fn pick(
    group: &Group,
    turns: &mut RoundRobin,
    client: IpAddr,
    eligible: impl Fn(usize) -> bool,
) -> Option<usize> {
    match group.affinity {
        Affinity::None => turns.next(&group.backends, eligible),
        Affinity::ClientIp => rendezvous(&group.backends, client, eligible),
    }
}

/// Weighted rendezvous hashing: losing a backend moves only its own clients, and every worker and node agrees.
/// Source: Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005 (logarithmic method).
fn rendezvous(
    backends: &[Backend],
    client: IpAddr,
    eligible: impl Fn(usize) -> bool,
) -> Option<usize> {
    let score = |backend: &Backend| {
        // 53 bits fill a double exactly; never 0, whose logarithm has no value.
        let unit = ((mix(client, backend.address) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        f64::from(backend.weight) / -unit.ln()
    };
    backends
        .iter()
        .enumerate()
        .filter(|(index, backend)| backend.weight > 0 && eligible(*index))
        .max_by(|(_, a), (_, b)| score(a).total_cmp(&score(b)))
        .map(|(index, _)| index)
}

/// FNV-1a over both addresses, then the finaliser of MurmurHash3.
fn mix(client: IpAddr, backend: SocketAddr) -> u64 {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in octets(client)
        .into_iter()
        .chain(octets(backend.ip()))
        .chain(backend.port().to_be_bytes())
    {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::balance::tests::backends;

    #[test]
    fn turns_are_smooth_and_shares_exact() {
        let backends = backends(&[5, 1, 1]);
        let mut turns = RoundRobin::new(&backends, 0, 1);
        let order: Vec<_> = (0..7)
            .map(|_| turns.next(&backends, |_| true).expect("some"))
            .collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn every_worker_splits_60_to_40_exactly() {
        let backends = backends(&[30_000_000, 30_000_000, 13_333_333, 13_333_333, 13_333_333]);
        for worker in 0..4 {
            let mut turns = RoundRobin::new(&backends, worker, 4);
            let mut hits = [0_i32; 5];
            for _ in 0..2000 {
                hits[turns.next(&backends, |_| true).expect("some")] += 1;
            }
            for (hit, expected) in hits.iter().zip([600, 600, 266, 266, 266]) {
                assert!((hit - expected).abs() <= 3, "{hits:?}");
            }
        }
    }

    #[test]
    fn backends_that_are_not_eligible_or_weigh_nothing_are_never_picked() {
        let backends = backends(&[1, 0, 1]);
        let mut turns = RoundRobin::new(&backends, 0, 1);
        assert!((0..10).all(|_| turns.next(&backends, |index| index != 0) == Some(2)));
        assert_eq!(turns.next(&backends, |index| index == 1), None);
        assert_eq!(turns.next(&[], |_| true), None);
    }

    #[test]
    fn a_client_keeps_its_backend_when_another_one_leaves() {
        let backends = backends(&[1, 1, 1, 3]);
        let mut hits = [0_u32; 4];
        for client in 0..6000_u32 {
            let client = IpAddr::from((client + 0x0a00_0000).to_be_bytes());
            let before = rendezvous(&backends, client, |_| true).expect("some");
            hits[before] += 1;
            if before != 2 {
                assert_eq!(
                    rendezvous(&backends, client, |index| index != 2),
                    Some(before)
                );
            }
        }
        assert!(
            (900..1100).contains(&hits[0]) && (2850..3150).contains(&hits[3]),
            "{hits:?}"
        );
    }
}
