//! Traffic limits of rules (contract section 12): requests per second, of all clients and of each client. Pure but for
//! atomics; time is in nanoseconds since any moment that all workers agree on.
//!
//! A bucket is one word: when what was spent will be paid for. Source: the generic cell rate algorithm, ITU-T I.371,
//! annex A, as a virtual schedule. As in the kernel, a bucket holds one second of its rate.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::keyed::Key;

/// Parts of a nanosecond that time is kept in: at a million requests a second their distance is rounded by less than
/// 1 in 16 000. 36 years fit.
const PARTS: u64 = 16;
const SECOND: u64 = 1_000_000_000 * PARTS;
/// Clients that share a place in the table; a lookup touches one place.
const WAYS: usize = 4;
/// Clients that are remembered at once, for all rules together: 1 MiB.
const CLIENTS: usize = 64 * 1024;

/// Requests per second, at least 1, and as many at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Rate {
    cost: u64,
    room: u64,
}

impl Rate {
    fn new(per_second: u32) -> Self {
        let rate = u64::from(per_second.max(1));
        let cost = (SECOND / rate).max(1);
        Self {
            cost,
            room: cost * rate,
        }
    }

    /// What is in the bucket afterwards if one more request may pass.
    fn spend(self, paid: u64, now: u64) -> Option<u64> {
        let then = paid.max(now) + self.cost;
        (then - now <= self.room).then_some(then)
    }

    fn take(self, bucket: &AtomicU64, now: u64) -> bool {
        let spend = |paid| self.spend(paid, now);
        bucket.fetch_update(Relaxed, Relaxed, spend).is_ok()
    }
}

/// Which budget refused a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Exceeded {
    /// That of the client's address.
    Client,
    /// That of the rule.
    Rule,
}

/// The limits of one rule, shared by all workers.
#[derive(Debug)]
pub(super) struct RuleLimit {
    per_second: Option<u32>,
    per_client: Option<u32>,
    spent: AtomicU64,
    key: Key,
    clients: Arc<Clients>,
}

impl RuleLimit {
    /// Whether a request may pass. The client is asked first: one that has used up its own budget takes nothing of the
    /// others'.
    pub(super) fn admit(&self, client: IpAddr, now_ns: u64) -> Result<(), Exceeded> {
        let now = now_ns.saturating_mul(PARTS);
        if let Some(rate) = self.per_client.map(Rate::new) {
            let octets = match client.to_canonical() {
                IpAddr::V4(it) => it.to_ipv6_mapped().octets(),
                IpAddr::V6(it) => it.octets(),
            };
            if !self.clients.take(self.key.hash([&octets[..]]), rate, now) {
                return Err(Exceeded::Client);
            }
        }
        match self.per_second.map(Rate::new) {
            Some(rate) if !rate.take(&self.spent, now) => Err(Exceeded::Rule),
            _ => Ok(()),
        }
    }
}

/// The limits of all rules, named by `N`: whatever stays the same when a configuration is loaded anew.
#[derive(Debug)]
pub(super) struct Limits<N> {
    known: Mutex<HashMap<N, Weak<RuleLimit>>>,
    clients: Arc<Clients>,
    seed: u64,
    made: AtomicU64,
}

impl<N: Eq + Hash> Limits<N> {
    /// `seed` is random, so that nobody can choose addresses that share a place.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            known: Mutex::default(),
            clients: Arc::new(Clients::new(CLIENTS)),
            seed,
            made: AtomicU64::new(0),
        }
    }

    /// The limits of a rule; asked when rules change. What was spent stays spent as long as both limits stay the same and
    /// anybody holds them.
    pub(super) fn rule(
        &self,
        name: N,
        per_second: Option<u32>,
        per_client: Option<u32>,
    ) -> Arc<RuleLimit> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let same = known.get(&name).and_then(Weak::upgrade);
        let wanted = (per_second, per_client);
        if let Some(same) = same.filter(|it| (it.per_second, it.per_client) == wanted) {
            return same;
        }
        known.retain(|_, it| it.strong_count() > 0);
        let limit = Arc::new(RuleLimit {
            per_second,
            per_client,
            spent: AtomicU64::new(0),
            // Clients of other rules, and of other limits, are other clients.
            key: Key(self.seed, self.made.fetch_add(1, Relaxed)),
            clients: Arc::clone(&self.clients),
        });
        known.insert(name, Arc::downgrade(&limit));
        limit
    }
}

/// Buckets of clients: as many as fit.
///
/// A client whose budget is whole need not be known, so its place goes to the next one without loss. Where all places
/// are taken by clients that have spent something, the one that has spent least is forgotten, and begins with a whole
/// budget again; the budget of the rule holds all the same. Two workers that meet at a place which changes hands may
/// charge the wrong one of both clients, once.
#[derive(Debug)]
struct Clients {
    places: Box<[Place]>,
}

/// One cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Place {
    /// Hash of rule and client; 0: nobody.
    who: [AtomicU64; WAYS],
    spent: [AtomicU64; WAYS],
}

impl Clients {
    fn new(clients: usize) -> Self {
        Self {
            places: (0..clients.div_ceil(WAYS).max(1))
                .map(|_| Place::default())
                .collect(),
        }
    }

    fn take(&self, hash: u64, rate: Rate, now: u64) -> bool {
        let hash = hash.max(1);
        let place = ((u128::from(hash) * self.places.len() as u128) >> 64) as usize;
        let Some(place) = self.places.get(place) else {
            return true;
        };
        let ways = || place.who.iter().zip(&place.spent);
        let find = || ways().find(|(who, _)| who.load(Relaxed) == hash);
        if let Some((_, spent)) = find() {
            return rate.take(spent, now);
        }
        let Some((who, spent)) = ways().min_by_key(|(_, spent)| spent.load(Relaxed)) else {
            return true;
        };
        let (before, had) = (who.load(Relaxed), spent.load(Relaxed));
        match who.compare_exchange(before, hash, Relaxed, Relaxed) {
            Ok(_) => {
                // Whoever was here had a whole budget, or is forgotten.
                let _ = spent.compare_exchange(had, now, Relaxed, Relaxed);
                rate.take(spent, now)
            }
            // Another worker was first, perhaps for this client.
            Err(_) => find().is_none_or(|(_, spent)| rate.take(spent, now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    fn client(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + number).to_be_bytes())
    }

    #[test]
    fn a_limit_that_stays_the_same_remembers_what_was_spent() {
        let limits = Limits::new(1);
        let rule = limits.rule("a", Some(10), Some(3));
        let admitted = |rule: &RuleLimit, of| (0..20).filter(|_| rule.admit(of, 0).is_ok()).count();
        assert_eq!(admitted(&rule, client(1)), 3);
        let again = limits.rule("a", Some(10), Some(3));
        drop(rule);
        assert_eq!(admitted(&again, client(1)), 0);
        assert_eq!(again.admit(client(1), 0), Err(Exceeded::Client));
        assert_eq!(
            (2..9).map(|it| admitted(&again, client(it))).sum::<usize>(),
            7
        );
        assert_eq!(again.admit(client(9), 0), Err(Exceeded::Rule));
        assert_eq!(
            admitted(&limits.rule("b", None, Some(3)), client(1)),
            3,
            "another rule"
        );
        assert_eq!(
            admitted(&limits.rule("a", Some(11), Some(3)), client(1)),
            3,
            "another limit"
        );
    }

    #[test]
    fn workers_share_one_budget() {
        let limits = Limits::new(1);
        let rule = limits.rule("a", Some(1000), Some(100));
        let passed = |address: u32| {
            thread::scope(|scope| {
                let worker = |_| {
                    let rule = &rule;
                    let admit = move || {
                        (0..500)
                            .filter(|_| rule.admit(client(address), 5).is_ok())
                            .count()
                    };
                    scope.spawn(admit)
                };
                let workers: Vec<_> = (0..4).map(worker).collect();
                workers
                    .into_iter()
                    .map(|it| it.join().expect("no panic"))
                    .sum::<usize>()
            })
        };
        // They may meet at a client's first request, see `Clients`.
        let first = passed(0);
        assert!((100..=104).contains(&first), "{first}");
        let passed: usize = (1..30).map(passed).sum();
        assert_eq!(first + passed, 1000);
    }

    #[test]
    fn more_clients_than_fit_never_share_a_budget_for_long() {
        let clients = Clients::new(64);
        let rate = Rate::new(1);
        // A thousand clients with one request in two seconds, each of which is within its limit.
        let key = Key(1, 2);
        let at = |turn: u64| turn * 2 * MS * PARTS;
        let refused = (0..10_000_u64).filter(|turn| {
            let hash = key.hash([&(turn % 1000).to_le_bytes()[..]]);
            !clients.take(hash, rate, at(*turn))
        });
        assert_eq!(refused.count(), 0);
    }

    proptest! {
        #[test]
        fn a_budget_lets_through_what_a_bucket_of_tokens_would(
            rate in prop_oneof![1_u32..20, 1_u32..100_000, Just(1_000_000)],
            pauses in prop::collection::vec(prop_oneof![Just(0_u64), 0..5 * MS, 0..2000 * MS], 1..300),
            start in 0_u64..(1 << 55),
        ) {
            let limits = Limits::new(1);
            let rule = limits.rule("a", Some(rate), None);
            // Tokens in billionths. What the distance of requests is rounded by makes the bucket a little faster.
            let (full, mut now) = (u128::from(rate) * 1_000_000_000, start);
            let mut tokens = full;
            let mut since_start = 0_u128;
            for pause in pauses {
                now += pause;
                since_start += u128::from(pause);
                tokens = (tokens + u128::from(pause) * u128::from(rate)).min(full);
                let rounding = since_start * u128::from(rate) / 15_000 + u128::from(rate);
                let passes = rule.admit(client(1), now).is_ok();
                if tokens >= 1_000_000_000 {
                    prop_assert!(passes);
                } else if passes {
                    prop_assert!(tokens + rounding >= 1_000_000_000, "{tokens}");
                }
                if passes {
                    tokens = tokens.saturating_sub(1_000_000_000);
                }
            }
        }

        #[test]
        fn under_steady_demand_it_is_the_rate_to_one_request(
            rate in 1_u32..2000,
            step_ns in 1_000_u64..3 * MS,
            per_client in any::<bool>(),
        ) {
            prop_assume!(u64::from(rate) * step_ns < 1_000_000_000);
            let limits = Limits::new(1);
            let limit = |on: bool| on.then_some(rate);
            let rule = limits.rule("a", limit(!per_client), limit(per_client));
            let passed = (0..20_000).filter(|it| rule.admit(client(1), 7 + it * step_ns).is_ok());
            let time = 19_999.0 * step_ns as f64 / 1e9;
            let (passed, share) = (passed.count() as f64, f64::from(rate) * time);
            let asked = 20_000_f64;
            let burst = f64::from(rate);
            prop_assert!(passed <= share * (1.0 + 1.0 / 16_000.0) + burst);
            prop_assert!(passed >= (share + burst - 1.0).min(asked) - 1.0);
        }
    }
}
