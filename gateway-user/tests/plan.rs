//! Laws of plans: ids are stable, any prefix of the steps leaves a working gateway, and the steps
//! lead to the plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use gateway_common::limits::AclKey;
use gateway_user::{
    ir::{
        AccessList, Affinity, Backend, ClusterId, Conditions, Group, GroupName, Ir, Listener,
        ListenerName, ListenerProtocol, ListenerSettings, Network, PathPattern, Rule, ServiceName,
        Split, Steering, SteeringMode,
    },
    plan::{self, BackendState, Inputs, Mode, Plan, Planner, ServiceAddr, Step},
};
use proptest::prelude::*;

const SEED: u64 = 7;
const VIPS: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))];

/// One listener of a generated configuration: pods by number with their weights.
type Shape = BTreeMap<u8, u32>;

fn pod(number: u8, weight: u32) -> Backend {
    Backend {
        cluster: ClusterId(if number.is_multiple_of(2) { "c1" } else { "c2" }.into()),
        address: ([10, 0, 0, number], 8080).into(),
        pod: format!("pod-{number}").into(),
        weight,
    }
}

fn ir(shapes: &BTreeMap<u16, Shape>) -> Ir {
    let mut ir = Ir::default();
    for (port, shape) in shapes {
        let name = GroupName {
            namespace: "a".into(),
            ingress: format!("of-{port}"),
            service: "b".into(),
            port: "80".into(),
        };
        let group = Group {
            name: name.clone(),
            service: ServiceName {
                namespace: "a".into(),
                name: "b".into(),
                port: "80".into(),
            },
            policy: Arc::default(),
            split: Split::Replicas,
            affinity: Affinity::None,
            affinity_seconds: 0,
            backends: shape
                .iter()
                .filter(|(_, w)| **w > 0)
                .map(|(n, w)| pod(*n, *w))
                .collect(),
            idle: shape
                .iter()
                .filter(|(_, w)| **w == 0)
                .map(|(n, _)| pod(*n, 0))
                .collect(),
            failing: Vec::new(),
        };
        let mode = if group.backends.is_empty() {
            SteeringMode::Request
        } else {
            SteeringMode::Connection
        };
        let rule = Rule {
            conditions: Conditions {
                paths: vec![PathPattern::Prefix(String::new())],
                ..Conditions::default()
            },
            ..Rule::forwarding(name.clone(), "")
        };
        let listener = Listener {
            name: ListenerName {
                gateway: "g".into(),
                port: *port,
                protocol: ListenerProtocol::Http,
            },
            addresses: Vec::new(),
            settings: Arc::new(ListenerSettings {
                access: shape.get(&11).map(|weight| AccessList {
                    allow: weight.is_multiple_of(2),
                    networks: [(pod(0, 1), 8), (pod(1, 1), 32)]
                        .into_iter()
                        .filter_map(|(pod, prefix)| Network::new(pod.address.ip(), prefix))
                        .collect(),
                }),
                ..ListenerSettings::default()
            }),
            refused: None,
            rules: vec![Arc::new(rule)],
            passthrough: Vec::new(),
            steering: Steering {
                mode,
                reason: String::new(),
            },
        };
        ir.groups.insert(name, Arc::new(group));
        ir.listeners
            .insert(listener.name.clone(), Arc::new(listener));
    }
    ir
}

fn next(shapes: &BTreeMap<u16, Shape>, have: &Plan, busy: &BTreeSet<u32>) -> Plan {
    let routes = (0..=255)
        .map(|n| (IpAddr::from([10, 0, 0, n]), IpAddr::from([10, 0, 1, 1])))
        .collect();
    let inputs = Inputs {
        vips: &VIPS,
        pool: &[],
        routes: &routes,
        node_ports: (10_000, 20_000),
        busy: Some(busy),
    };
    let (plan, left_out) = plan::build(&ir(shapes), &inputs, have);
    assert!(left_out.is_empty(), "{left_out:?}");
    plan
}

/// What the kernel holds, as far as steps change it.
#[derive(Default)]
struct Maps {
    services: BTreeMap<ServiceAddr, plan::Service>,
    slots: BTreeMap<u32, u32>,
    backends: BTreeMap<u32, plan::Backend>,
    sources: BTreeMap<u16, plan::Source>,
    lists: BTreeMap<AclKey, u32>,
}

impl Maps {
    fn step(&mut self, step: &Step, want: &Plan) {
        match step {
            Step::Source(at, source) => {
                self.sources.insert(*at, *source);
            }
            Step::Backend { id, backend, .. } => {
                self.backends.insert(*id, backend.clone());
            }
            Step::Ring(ring) => {
                let slots = want.slots(ring, SEED);
                assert_eq!(slots.len() as u32, ring.region.len);
                self.slots.extend((ring.region.offset..).zip(slots));
            }
            Step::Service {
                address, service, ..
            } => {
                self.services.insert(*address, service.clone());
            }
            Step::RemoveService(address) => {
                self.services.remove(address);
            }
            Step::Grace => {}
            Step::RemoveBackend(id) => {
                self.backends.remove(id);
            }
            Step::List(access) => self.lists.extend(plan::entries(access.id, &access.list)),
            Step::RemoveList(access) => {
                for key in plan::entries(access.id, &access.list).keys() {
                    self.lists.remove(key);
                }
            }
        }
    }

    /// Every slot a packet can reach leads to an active backend with a source, and each ring is
    /// whole: of one plan or the other. Every access list a packet can ask is whole, too, and its own.
    fn works(&self, have: &Plan, want: &Plan) {
        let mut lists = BTreeSet::new();
        for (address, service) in &self.services {
            if let Some(access) = &service.access {
                let id = u32::from(access.id);
                assert!(lists.insert(id), "{address}: list {id} of two services");
                let mine = self.lists.iter().filter(|(key, _)| key.net.acl == id);
                let mine: BTreeMap<_, _> = mine.map(|(key, value)| (*key, *value)).collect();
                assert_eq!(mine, plan::entries(access.id, &access.list), "{address}");
            }
            let Mode::Connection(ring) = &service.mode else {
                continue;
            };
            let region = ring.region;
            let slots: Vec<u32> = (region.offset..region.offset + region.len)
                .map(|at| self.slots[&at])
                .collect();
            let whole = [have, want]
                .into_iter()
                .any(|plan| plan.slots(ring, SEED) == slots);
            assert!(whole, "{address}: a ring of two plans");
            for id in slots.iter().collect::<BTreeSet<_>>() {
                let backend = &self.backends[id];
                assert_eq!(
                    backend.state,
                    BackendState::Active,
                    "{address}: slot of {id}"
                );
                assert!(self.sources.contains_key(&backend.source_first));
            }
        }
    }
}

fn shapes() -> impl Strategy<Value = BTreeMap<u16, Shape>> {
    let shape = prop::collection::btree_map(0..12_u8, 0..4_u32, 0..8);
    prop::collection::btree_map(80..84_u16, shape, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn every_prefix_of_the_steps_leaves_a_working_gateway(
        worlds in prop::collection::vec((shapes(), prop::collection::btree_set(1..12_u32, 0..6)), 1..6),
    ) {
        let mut have = Plan::default();
        let mut maps = Maps::default();
        for (shapes, busy) in worlds {
            let want = next(&shapes, &have, &busy);
            for step in plan::diff(&have, &want) {
                maps.step(&step, &want);
                maps.works(&have, &want);
            }
            prop_assert_eq!(&maps.services, &want.services);
            prop_assert_eq!(&maps.backends, &want.backends);
            prop_assert!(plan::diff(&want, &want).is_empty());
            have = want;
        }
    }

    #[test]
    fn an_id_stays_with_its_pod_and_is_given_away_only_after_it_was_removed(
        worlds in prop::collection::vec((shapes(), prop::collection::btree_set(1..12_u32, 0..6)), 2..6),
    ) {
        let mut have = Plan::default();
        for (shapes, busy) in worlds {
            let want = next(&shapes, &have, &busy);
            for (id, old) in &have.backends {
                match want.backends.get(id) {
                    Some(new) => {
                        prop_assert_eq!(&new.key, &old.key);
                        prop_assert_eq!(new.generation, old.generation);
                    }
                    None => prop_assert!(!busy.contains(id), "backend {} still has flows", id),
                }
            }
            have = want;
        }
    }

    #[test]
    fn a_change_of_one_listener_rewrites_no_other(
        before in shapes(),
        shape in prop::collection::btree_map(0..12_u8, 1..4_u32, 1..8),
    ) {
        let have = next(&before, &Plan::default(), &BTreeSet::new());
        let mut after = before.clone();
        after.insert(90, shape);
        let want = next(&after, &have, &BTreeSet::new());
        for (address, service) in &have.services {
            prop_assert_eq!(&want.services[address], service);
        }
    }
}

#[test]
fn a_pod_that_is_gone_goes_down_and_is_removed_when_its_flows_are_over() {
    let both = BTreeMap::from([(80, Shape::from([(1, 1), (2, 1)]))]);
    let one = BTreeMap::from([(80, Shape::from([(1, 1)]))]);
    let first = next(&both, &Plan::default(), &BTreeSet::new());
    let id = |plan: &Plan| {
        plan.backends
            .iter()
            .find(|(_, b)| &*b.pod == "pod-2")
            .map(|(id, b)| (*id, b.state))
    };
    let Some((gone, _)) = id(&first) else {
        panic!("pod-2 has no id")
    };
    let busy = BTreeSet::from([gone]);
    let second = next(&one, &first, &busy);
    assert_eq!(id(&second), Some((gone, BackendState::Down)));
    let third = next(&one, &second, &busy);
    assert_eq!(id(&third), Some((gone, BackendState::Down)));
    assert_eq!(id(&next(&one, &third, &BTreeSet::new())), None);
}

#[test]
fn a_hundred_services_of_a_hundred_and_fifty_pods_have_a_ring_each() {
    let shape: Shape = (1..=150).map(|number| (number, 1)).collect();
    let shapes: BTreeMap<u16, Shape> = (1..=100).map(|port| (port, shape.clone())).collect();
    let plan = next(&shapes, &Plan::default(), &BTreeSet::new());
    let lengths: Vec<u32> = plan.regions().iter().map(|region| region.len).collect();
    let of = |len: u32| lengths.iter().filter(|it| **it == len).count();
    // The slab is for 30 of the length that moves least; half of it is kept for those that would have none.
    assert_eq!((of(131_071), of(16_381)), (15, 85));
}

#[test]
fn a_pod_without_weight_drains() {
    let both = BTreeMap::from([(80, Shape::from([(1, 1), (2, 1)]))]);
    let drained = BTreeMap::from([(80, Shape::from([(1, 1), (2, 0)]))]);
    let first = next(&both, &Plan::default(), &BTreeSet::new());
    let second = next(&drained, &first, &BTreeSet::new());
    let states: BTreeSet<_> = second
        .backends
        .values()
        .map(|b| (b.pod.to_string(), format!("{:?}", b.state)))
        .collect();
    assert!(
        states.contains(&("pod-2".into(), "Draining".into())),
        "{states:?}"
    );
}

#[test]
fn a_pod_that_one_listener_gives_up_drains_where_another_names_it_without_weight() {
    let routes = (0..=255)
        .map(|n| (IpAddr::from([10, 0, 0, n]), IpAddr::from([10, 0, 1, 1])))
        .collect();
    let busy = (0..100).collect();
    let inputs = Inputs {
        vips: &VIPS,
        pool: &[],
        routes: &routes,
        node_ports: (10_000, 20_000),
        busy: Some(&busy),
    };
    // The first listener names the pod before anybody has given it an id.
    let before = BTreeMap::from([
        (80, Shape::from([(1, 1), (2, 0)])),
        (81, Shape::from([(2, 1)])),
    ]);
    let mut after = before.clone();
    after.insert(81, Shape::from([(3, 1)]));
    let (before, after) = (ir(&before), ir(&after));
    let mut plan = Plan::default();
    let mut planner = Planner::new(&plan);
    let delta = planner.update(&before, None, &inputs, &plan);
    plan.apply(&delta);
    planner.commit();
    let only: BTreeSet<ListenerName> = after
        .listeners
        .keys()
        .filter(|name| name.port == 81)
        .cloned()
        .collect();
    let (at_once, _) = plan::build(&after, &inputs, &plan);
    let delta = planner.update(&after, Some(&only), &inputs, &plan);
    plan.apply(&delta);
    let state = |plan: &Plan| {
        let pod = plan.backends.values().find(|it| &*it.pod == "pod-2");
        pod.map(|it| it.state)
    };
    assert_eq!(state(&at_once), Some(BackendState::Draining));
    assert_eq!(state(&plan), state(&at_once));
}

#[test]
fn each_address_of_a_listener_has_the_pods_of_its_own_family() {
    let mut ir = ir(&BTreeMap::from([(80, Shape::from([(1, 1), (2, 1)]))]));
    let name = ir.groups.keys().next().cloned().expect("a group");
    let mut group = Group::clone(&ir.groups[&name]);
    let v6 = Backend {
        address: "[2001:db8::7]:8080".parse().expect("an address"),
        ..pod(7, 5)
    };
    group.backends.push(v6.clone());
    ir.groups.insert(name, Arc::new(group));
    let vips: [IpAddr; 2] = [VIPS[0], "2001:db8::1".parse().expect("an address")];
    let plan_with = |pool: &[IpAddr]| {
        let inputs = Inputs {
            vips: &vips,
            pool,
            routes: &BTreeMap::new(),
            node_ports: (0, 0),
            busy: None,
        };
        plan::build(&ir, &inputs, &Plan::default())
    };
    let pool: Vec<IpAddr> = ["192.0.2.9", "2001:db8::9", "2001:db8::a"]
        .map(|it| it.parse().expect("an address"))
        .into();
    let (plan, left_out) = plan_with(&pool);
    assert!(left_out.is_empty(), "{left_out:?}");
    for (address, service) in &plan.services {
        let Mode::Connection(ring) = &service.mode else {
            panic!("{address} is steered by the kernel")
        };
        let v6 = address.address.is_ipv6();
        assert_eq!(ring.members.len(), if v6 { 1 } else { 2 }, "{address}");
        for member in ring.members.iter() {
            let backend = &plan.backends[&member.backend];
            assert_eq!(backend.key.address.is_ipv6(), v6);
            let first = usize::from(backend.source_first);
            let sources = &plan.sources[first..first + usize::from(backend.source_count)];
            assert_eq!(sources.len(), if v6 { 2 } else { 1 });
            assert!(sources.iter().all(|it| it.address.is_ipv6() == v6));
        }
    }
    // A pool of one family does not lend its addresses to the other one.
    let (plan, left_out) = plan_with(&pool[..1]);
    assert!(left_out[0].contains("2001:db8::7"), "{left_out:?}");
    assert!(plan.backends.values().all(|it| it.key.address.is_ipv4()));
}

#[test]
fn a_listener_without_pods_of_a_family_is_told_and_looked_at_only_when_it_is_touched() {
    let shapes = [80, 81].map(|port| (port, Shape::from([(1, 1), (2, 1)])));
    let mut ir = ir(&BTreeMap::from(shapes));
    let vips: [IpAddr; 2] = [VIPS[0], "2001:db8::1".parse().expect("an address")];
    let pool = VIPS;
    let inputs = Inputs {
        vips: &vips,
        pool: &pool,
        routes: &BTreeMap::new(),
        node_ports: (0, 0),
        busy: None,
    };
    let mut have = Plan::default();
    let mut planner = Planner::new(&have);
    let delta = planner.update(&ir, None, &inputs, &have);
    have.apply(&delta);
    planner.commit();
    let told = planner.left_out();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|it| it.contains("2001:db8::1")), "{told:?}");

    // Both groups lose a pod, and only one listener is said to be touched: if the other one changes, it was looked at.
    for group in ir.groups.values_mut() {
        Arc::make_mut(group).backends.pop();
    }
    let [touched, other] = [81, 80].map(|port| {
        let mut names = ir.listeners.keys();
        names
            .find(|name| name.port == port)
            .cloned()
            .expect("a listener")
    });
    let only = BTreeSet::from([touched]);
    let delta = planner.update(&ir, Some(&only), &inputs, &have);
    let ports: BTreeSet<u16> = delta.services.keys().map(|it| it.address.port()).collect();
    assert_eq!(ports, BTreeSet::from([81]));
    have.apply(&delta);
    planner.commit();
    assert_eq!(planner.left_out(), told);

    // It is told for as long as it is so.
    for name in [&other, only.first().expect("a listener")] {
        let mut with = ir.clone();
        for group in with.groups.values_mut() {
            let v6 = "[2001:db8::7]:8080".parse().expect("an address");
            Arc::make_mut(group).backends.push(Backend {
                address: v6,
                ..pod(7, 5)
            });
        }
        let pool = [VIPS[0], "2001:db8::9".parse().expect("an address")];
        let inputs = Inputs {
            pool: &pool,
            ..inputs
        };
        let before = planner.left_out().len();
        let delta = planner.update(&with, Some(&BTreeSet::from([name.clone()])), &inputs, &have);
        have.apply(&delta);
        planner.commit();
        assert_eq!(planner.left_out().len(), before - 1);
    }
}

#[test]
fn an_interrupted_apply_never_writes_into_rings_that_packets_may_use() {
    let one = BTreeMap::from([(80, Shape::from([(1, 1), (2, 1)]))]);
    let other = BTreeMap::from([(80, Shape::from([(1, 3), (3, 1)]))]);
    let third = BTreeMap::from([(80, Shape::from([(4, 1)]))]);
    let applied = next(&one, &Plan::default(), &BTreeSet::new());
    let mut applying = next(&other, &applied, &BTreeSet::new());
    applying.reserved = applied.regions();
    let want = next(&third, &applying, &BTreeSet::new());
    let used: Vec<_> = applied
        .regions()
        .into_iter()
        .chain(applying.regions())
        .collect();
    for new in want.regions() {
        for old in &used {
            let apart = new.offset + new.len <= old.offset || old.offset + old.len <= new.offset;
            assert!(apart, "{new:?} lies in {old:?}");
        }
    }
    assert!(want.reserved.is_empty());
}

#[test]
fn the_record_gives_the_plan_back() {
    let shapes = BTreeMap::from([(80, Shape::from([(1, 1), (2, 5)])), (81, Shape::new())]);
    let plan = next(&shapes, &Plan::default(), &BTreeSet::new());
    let Ok(text) = serde_json::to_string(&plan) else {
        panic!("a plan is JSON")
    };
    let Ok(back) = serde_json::from_str::<Plan>(&text) else {
        panic!("JSON is a plan")
    };
    assert_eq!(back, plan);
}

#[test]
fn a_changed_access_list_is_written_aside_and_the_old_one_cleared_last() {
    let world = |weight| BTreeMap::from([(80, Shape::from([(1, 1), (11, weight)]))]);
    let have = next(&world(1), &Plan::default(), &BTreeSet::new());
    let want = next(&world(2), &have, &BTreeSet::new());
    let steps = plan::diff(&have, &want);
    let at = |wanted: fn(&Step) -> bool| steps.iter().position(wanted);
    let places = [
        at(|it| matches!(it, Step::List(_))),
        at(|it| matches!(it, Step::Service { .. })),
        at(|it| matches!(it, Step::Grace)),
        at(|it| matches!(it, Step::RemoveList(_))),
    ];
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{steps:?}"
    );
    let id = |plan: &Plan| lists(plan).next();
    assert_ne!(id(&have), id(&want));
    // Its id is free again once it was cleared, and an unchanged list is left alone.
    let third = next(&world(1), &want, &BTreeSet::new());
    assert_eq!(id(&third), id(&have));
    let same = plan::diff(&third, &next(&world(1), &third, &BTreeSet::new()));
    assert!(same.is_empty(), "{same:?}");
}

#[test]
fn the_lists_of_an_interrupted_apply_are_not_written_over() {
    let world = |weight| BTreeMap::from([(80, Shape::from([(1, 1), (11, weight)]))]);
    let have = next(&world(1), &Plan::default(), &BTreeSet::new());
    let mut applying = next(&world(2), &have, &BTreeSet::new());
    let used: Vec<u16> = lists(&have).chain(lists(&applying)).collect();
    applying.reserved_lists = lists(&have).collect();
    let want = next(
        &BTreeMap::from([(81, Shape::from([(11, 1)]))]),
        &applying,
        &BTreeSet::new(),
    );
    assert!(lists(&want).all(|id| !used.contains(&id)), "{used:?}");
    assert!(want.reserved_lists.is_empty());
}

fn lists(plan: &Plan) -> impl Iterator<Item = u16> {
    let services = plan.services.values();
    services.filter_map(|it| it.access.as_ref().map(|access| access.id))
}
