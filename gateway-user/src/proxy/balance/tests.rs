use std::{net::SocketAddr, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::ir::{Backend, ClusterId, GroupName, Policy, ServiceName, Split};

pub(super) fn backends(weights: &[u32]) -> Vec<Backend> {
    let backend = |(index, weight): (usize, &u32)| Backend {
        cluster: ClusterId("c1".into()),
        address: SocketAddr::from(([10, 0, 0, 1], 1000 + index as u16)),
        pod: "pod".into(),
        weight: *weight,
    };
    weights.iter().enumerate().map(backend).collect()
}

fn group(weights: &[u32], scheduler: Scheduler) -> Group {
    Group {
        name: GroupName::default(),
        service: ServiceName {
            namespace: "demo".into(),
            name: "web".into(),
            port: "80".into(),
        },
        policy: Arc::new(Policy {
            scheduler,
            ..Policy::default()
        }),
        split: Split::Replicas,
        affinity: Affinity::None,
        affinity_seconds: 0,
        backends: backends(weights),
        idle: Vec::new(),
        failing: Vec::new(),
    }
}

struct Node {
    peers: Peers,
    rings: Rings,
    joins: Joins,
    now: Instant,
}

impl Node {
    fn new() -> Self {
        Self {
            peers: Peers::default(),
            rings: Rings::new(7),
            joins: Joins::default(),
            now: Instant::now(),
        }
    }

    fn balancer(&self, group: &Group, worker: usize, before: Option<&Balancer>) -> Balancer {
        let place = Place {
            worker,
            workers: 4,
            peers: &self.peers,
            rings: &self.rings,
            joins: &self.joins,
        };
        self.joins.update([group].into_iter(), self.now);
        Balancer::new(group, place, before, self.now)
    }

    fn choice(&self, client: u32) -> Choice<'static> {
        Choice {
            client: IpAddr::from((0x0a00_0000 + client).to_be_bytes()),
            v6: false,
            query: None,
            sticky: None,
            now: self.now,
        }
    }
}

fn count(picks: usize, backends: usize, mut pick: impl FnMut(usize) -> Option<usize>) -> Vec<u32> {
    let mut had = vec![0; backends];
    for number in 0..picks {
        had[pick(number).expect("a backend")] += 1;
    }
    had
}

#[test]
fn every_worker_splits_60_to_40_exactly() {
    let weights = [30_000_000, 30_000_000, 13_333_333, 13_333_333, 13_333_333];
    let (node, group) = (Node::new(), group(&weights, Scheduler::RoundRobin));
    for worker in 0..4 {
        let mut balancer = node.balancer(&group, worker, None);
        let had = count(2000, 5, |_| {
            balancer.pick(&group, &node.choice(0), |_| true)
        });
        for (had, expected) in had.iter().zip([600_u32, 600, 267, 267, 267]) {
            assert!(had.abs_diff(expected) <= 2, "{had}");
        }
    }
}

#[test]
fn workers_begin_at_different_backends() {
    let (node, group) = (Node::new(), group(&[1; 8], Scheduler::RoundRobin));
    let first = |worker| {
        node.balancer(&group, worker, None)
            .pick(&group, &node.choice(0), |_| true)
    };
    assert_eq!([0, 1, 2, 3].map(first), [0, 2, 4, 6].map(Some));
}

#[test]
fn a_group_that_changes_all_the_time_still_gives_everybody_a_turn() {
    let node = Node::new();
    let all = group(&[1; 50], Scheduler::RoundRobin);
    let mut less = all.clone();
    less.backends.pop();
    let mut balancer = node.balancer(&all, 0, None);
    let had = count(98, 50, |number| {
        let group = if number % 2 == 0 { &less } else { &all };
        balancer = node.balancer(group, 0, Some(&balancer));
        balancer.pick(group, &node.choice(0), |_| true)
    });
    assert!(had[..49].iter().all(|had| (1..=3).contains(had)), "{had:?}");
}

#[test]
fn the_least_busy_for_its_weight_is_picked_and_all_workers_count() {
    let (node, group) = (Node::new(), group(&[1, 3], Scheduler::LeastConnections));
    let mut workers: Vec<_> = (0..4).map(|it| node.balancer(&group, it, None)).collect();
    let mut open = Vec::new();
    let had = count(40, 2, |number| {
        let balancer = &mut workers[number % 4];
        let picked = balancer.pick(&group, &node.choice(0), |_| true)?;
        open.push(balancer.begin(picked)?);
        Some(picked)
    });
    assert_eq!(had, [10, 30]);
    drop(open);
    let had = count(40, 2, |_| {
        workers[0].pick(&group, &node.choice(0), |_| true)
    });
    assert_eq!(had, [10, 30], "in turn when nobody is busy");
}

#[test]
fn one_that_hangs_among_many_gets_little_of_the_least_loaded() {
    let (node, group) = (Node::new(), group(&[1; 200], Scheduler::LeastConnections));
    let mut balancer = node.balancer(&group, 0, None);
    let _hangs: Vec<_> = (0..50).map(|_| balancer.begin(7)).collect();
    let had = count(1990, 200, |_| {
        balancer.pick(&group, &node.choice(0), |_| true)
    });
    assert_eq!(had[7], 0);
    assert!(
        had.iter()
            .filter(|it| **it != 0)
            .all(|it| (9..=11).contains(it))
    );
}

#[test]
fn hashes_agree_on_all_workers_and_nodes() {
    let weights = [1, 2, 3, 4];
    let by_source = group(&weights, Scheduler::SourceHash);
    let by_query = group(&weights, Scheduler::QueryHash("user".into()));
    let (one, two) = (Node::new(), Node::new());
    let source = [
        one.balancer(&by_source, 0, None),
        two.balancer(&by_source, 3, None),
    ];
    let query = [
        one.balancer(&by_query, 0, None),
        two.balancer(&by_query, 3, None),
    ];
    let mut had = [0; 4];
    let (mut source, mut query) = (source, query);
    for client in 0..2000 {
        let picked = source
            .each_mut()
            .map(|it| it.pick(&by_source, &one.choice(client), |_| true));
        assert_eq!(picked[0], picked[1]);
        had[picked[0].expect("some")] += 1;
        let plain = format!("a=b&user=u{client}&user=x");
        let escaped = format!("%75ser=%75{client}");
        let mut queries = [plain.as_str(), escaped.as_str()].into_iter();
        let picked = query.each_mut().map(|it| {
            let choice = Choice {
                query: queries.next(),
                ..one.choice(client)
            };
            it.pick(&by_query, &choice, |_| true)
        });
        assert_eq!(picked[0], picked[1]);
    }
    for (had, expected) in had.iter().zip([200_u32, 400, 600, 800]) {
        assert!(expected.abs_diff(*had) < 80, "{had} for {expected}");
    }
}

#[test]
fn a_query_without_the_parameter_goes_in_turn() {
    let group = group(&[1; 4], Scheduler::QueryHash("user".into()));
    let node = Node::new();
    for query in [None, Some(""), Some("user="), Some("User=1"), Some("use=r")] {
        let mut balancer = node.balancer(&group, 0, None);
        let choice = Choice {
            query,
            ..node.choice(0)
        };
        let had = count(4, 4, |_| balancer.pick(&group, &choice, |_| true));
        assert_eq!(had, [1; 4], "{query:?}");
    }
}

#[test]
fn a_backend_that_fails_moves_its_own_clients_only_and_one_that_goes_little_more() {
    for (scheduler, affinity) in [
        (Scheduler::SourceHash, Affinity::None),
        (Scheduler::RoundRobin, Affinity::ClientIp),
    ] {
        let mut all = group(&[1; 20], scheduler);
        all.affinity = affinity;
        let node = Node::new();
        let mut less = all.clone();
        less.backends.pop();
        let mut with = node.balancer(&all, 0, None);
        let mut without = node.balancer(&less, 0, None);
        let (mut own, mut moved) = (0, 0);
        for client in 0..4000 {
            let choice = node.choice(client);
            let before = with.pick(&all, &choice, |_| true);
            let failed = with.pick(&all, &choice, |it| it != 19);
            assert!(failed.is_some() && failed != Some(19));
            assert!(before == failed || before == Some(19));
            own += u32::from(before == Some(19));
            moved += u32::from(without.pick(&less, &choice, |_| true) != before);
        }
        assert!(
            f64::from(moved) <= 1.6 * f64::from(own),
            "{moved} for {own}"
        );
    }
}

#[test]
fn a_cookie_comes_first_unless_its_backend_may_not_be_asked() {
    for scheduler in [
        Scheduler::RoundRobin,
        Scheduler::SourceHash,
        Scheduler::LeastConnections,
    ] {
        let (node, group) = (Node::new(), group(&[1; 4], scheduler));
        let mut balancer = node.balancer(&group, 0, None);
        let sticky = |sticky| Choice {
            sticky,
            ..node.choice(1)
        };
        assert_eq!(balancer.pick(&group, &sticky(Some(2)), |_| true), Some(2));
        let other = balancer.pick(&group, &sticky(Some(2)), |it| it != 2);
        assert!(other.is_some_and(|it| it != 2));
        assert!(balancer.pick(&group, &sticky(Some(9)), |_| true).is_some());
    }
}

#[test]
fn each_family_has_backends_of_its_own() {
    let schedulers = [
        Scheduler::RoundRobin,
        Scheduler::SourceHash,
        Scheduler::LeastConnections,
    ];
    for (scheduler, affinity) in
        schedulers
            .into_iter()
            .zip([Affinity::ClientIp, Affinity::None, Affinity::None])
    {
        let mut group = group(&[1, 1, 1], scheduler);
        group.affinity = affinity;
        group.backends[1].address = "[2001:db8::1]:80".parse().expect("an address");
        let node = Node::new();
        let mut balancer = node.balancer(&group, 0, None);
        for client in 0..20 {
            let v6 = Choice {
                v6: true,
                sticky: Some(0),
                ..node.choice(client)
            };
            assert_eq!(balancer.pick(&group, &v6, |_| true), Some(1));
            assert_ne!(
                balancer.pick(&group, &node.choice(client), |_| true),
                Some(1)
            );
        }
    }
}

#[test]
fn a_pod_that_joins_starts_with_a_tenth_and_has_its_share_in_the_end() {
    for scheduler in [Scheduler::RoundRobin, Scheduler::LeastConnections] {
        let mut node = Node::new();
        let mut all = group(&[10; 4], scheduler.clone());
        all.policy = Arc::new(Policy {
            scheduler,
            slow_start: Some(Duration::from_secs(100)),
            ..Policy::default()
        });
        let mut less = all.clone();
        less.backends.pop();
        let mut balancer = node.balancer(&less, 0, None);
        let even = count(300, 3, |_| balancer.pick(&less, &node.choice(0), |_| true));
        assert_eq!(even, [100; 3], "nobody starts slowly with the process");
        balancer = node.balancer(&all, 0, Some(&balancer));
        // To a worker that has not met the group it is as new.
        let mut other = node.balancer(&all, 1, None);
        let had = count(310, 4, |_| other.pick(&all, &node.choice(0), |_| true));
        assert!(had[3].abs_diff(10) <= 2, "{had:?}");
        // Another change in between makes nobody start anew.
        let half = Duration::from_secs(50);
        for (wait, expected) in [(Duration::ZERO, 10_u32), (half, 55), (half, 100)] {
            node.now += wait;
            balancer = node.balancer(&all, 0, Some(&balancer));
            let had = count(300 + expected as usize, 4, |_| {
                balancer.pick(&all, &node.choice(0), |_| true)
            });
            assert!(had[3].abs_diff(expected) <= 2, "{had:?}");
        }
        // Nobody else is there: it serves all the same.
        balancer = node.balancer(&all, 0, Some(&node.balancer(&less, 0, None)));
        assert_eq!(balancer.pick(&all, &node.choice(0), |it| it == 3), Some(3));
    }
}

proptest! {
    #[test]
    fn whoever_is_picked_is_eligible_and_somebody_is_if_anybody_can(
        weights in prop::collection::vec(1_u32..5, 0..40),
        out in prop::collection::vec(any::<bool>(), 40),
        kind in 0..5,
        clients in prop::collection::vec(any::<u16>(), 1..40),
    ) {
        let mut group = group(&weights, match kind {
            0 | 1 => Scheduler::RoundRobin,
            2 => Scheduler::LeastConnections,
            3 => Scheduler::SourceHash,
            _ => Scheduler::QueryHash("q".into()),
        });
        if kind == 0 {
            group.affinity = Affinity::ClientIp;
        }
        let node = Node::new();
        let mut balancer = node.balancer(&group, 1, None);
        let any = (0..weights.len()).any(|it| !out[it]);
        let mut open = Vec::new();
        for client in clients {
            let query = format!("q={client}");
            let choice = Choice { query: Some(&query), ..node.choice(client.into()) };
            let picked = balancer.pick(&group, &choice, |it| !out[it]);
            prop_assert_eq!(picked.is_some(), any);
            if let Some(picked) = picked {
                prop_assert!(!out[picked]);
                open.push(balancer.begin(picked));
            }
        }
    }
}
