//! A small gateway for tests: one listener of each kind, three pods in two clusters.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use gateway_common::{
    addr::Port,
    backend::{self as kernel, NextHop, Snat},
    flow::{Flow, FlowKey, Life, Nat, TCP, flag, state},
    service::{self, mode},
    stats::{Count, Traffic},
    verdict::Reason,
};

use crate::{
    cli::live::Rings,
    dataplane::record::{InterfaceRecord, Record},
    ir::{
        Affinity, Backend, ClusterId, Group, GroupName, HeaderMatch, HostPattern, Ir, Limits,
        Listener, ListenerName, ListenerProtocol, PathPattern, Rule, ServiceName, Split, Steering,
        SteeringMode,
    },
    metrics::Readings,
    plan::{
        self, BackendKey, BackendState, Member, Mode, Plan, Region, Ring, ServiceAddr, Source,
        Transport,
    },
    problem::{ObjectRef, Problem, Severity},
};

/// (cluster, pod, address, weight) of the kernel's backends, whose ids count from 1.
const PODS: [(&str, &str, &str, u32); 3] = [
    ("c1", "web-a", "10.1.0.1:80", 30),
    ("c1", "web-b", "10.1.0.2:80", 30),
    ("c2", "web-c", "10.2.0.1:80", 40),
];

/// Slots of these backends in the only ring.
const SLOTS: [u32; 3] = [306, 306, 409];

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn service_addr(text: &str) -> ServiceAddr {
    ServiceAddr {
        transport: Transport::Tcp,
        address: address(text),
    }
}

fn cluster(name: &str) -> ClusterId {
    ClusterId(name.into())
}

fn pod(cluster_name: &str, pod: &str, at: &str, weight: u32) -> Backend {
    Backend {
        cluster: cluster(cluster_name),
        address: address(at),
        pod: pod.into(),
        weight,
    }
}

fn group(ingress: &str, name: &str, split: Split, backends: Vec<Backend>) -> Arc<Group> {
    Arc::new(Group {
        name: GroupName {
            namespace: "demo".to_owned(),
            ingress: ingress.to_owned(),
            service: name.to_owned(),
            port: "80".to_owned(),
        },
        service: ServiceName {
            namespace: "demo".to_owned(),
            name: name.to_owned(),
            port: "80".to_owned(),
        },
        policy: Arc::default(),
        split,
        affinity: Affinity::None,
        affinity_seconds: 0,
        backends,
        idle: Vec::new(),
        failing: Vec::new(),
    })
}

fn rule(priority: u32, group: &Group) -> Rule {
    let place = format!("spec.rules[0].http.paths[{}]", priority - 1);
    Rule::forwarding(group.name.clone(), place)
}

fn listener(
    port: u16,
    mode: SteeringMode,
    reason: &str,
    rules: Vec<Rule>,
) -> (ListenerName, Arc<Listener>) {
    let name = name(port);
    let listener = Listener {
        name: name.clone(),
        addresses: Vec::new(),
        settings: Arc::default(),
        refused: None,
        rules: rules.into_iter().map(Arc::new).collect(),
        passthrough: Vec::new(),
        steering: Steering {
            mode,
            reason: reason.to_owned(),
        },
    };
    (name, Arc::new(listener))
}

/// The listener of this port.
pub(crate) fn name(port: u16) -> ListenerName {
    ListenerName {
        gateway: "demo".to_owned(),
        port,
        protocol: ListenerProtocol::Http,
    }
}

fn ir() -> Ir {
    let weights = [(cluster("c1"), 60), (cluster("c2"), 40)].into();
    let web = PODS.map(|(cluster, name, at, weight)| pod(cluster, name, at, weight));
    let web = group("web", "web", Split::Clusters(weights), web.into());
    let gray_pods = vec![pod("c2", "gray-a", "10.2.0.9:80", 1)];
    let of_gray = group("gray", "gray", Split::Replicas, gray_pods);
    let mut gray = rule(1, &of_gray);
    gray.conditions.hosts = vec![
        HostPattern::Exact("a.example".to_owned()),
        HostPattern::OneLabel(".b.example".to_owned()),
    ];
    gray.conditions.paths = vec![PathPattern::Exact("/x".to_owned())];
    gray.conditions.headers = vec![HeaderMatch {
        name: "stage".to_owned(),
        values: vec!["g".to_owned(), "h".to_owned()],
    }];
    let none = group("gray", "none", Split::Replicas, Vec::new());
    let mut shop = rule(2, &none);
    shop.conditions.paths = vec![PathPattern::Prefix("/shop".to_owned())];
    Ir {
        listeners: BTreeMap::from([
            listener(
                80,
                SteeringMode::Connection,
                "one rule covers every request",
                vec![rule(1, &web)],
            ),
            listener(
                8080,
                SteeringMode::Request,
                "rule 1 (demo/gray) reads header \"stage\"",
                vec![gray, shop],
            ),
        ]),
        groups: [web, of_gray, none]
            .map(|group| (group.name.clone(), group))
            .into(),
    }
}

fn plan() -> Plan {
    let mut plan = Plan {
        next_generation: 3,
        sources: ["10.9.0.1", "10.9.0.2"]
            .map(|ip| Source {
                address: ip.parse().unwrap(),
                port_first: 20_000,
                port_count: 100,
            })
            .into(),
        ..Plan::default()
    };
    let mut members = Vec::new();
    for (id, (cluster_name, pod, at, weight)) in (1..).zip(PODS) {
        members.push(Member {
            backend: id,
            weight,
        });
        let backend = plan::Backend {
            key: BackendKey {
                cluster: cluster(cluster_name),
                address: address(at),
            },
            pod: pod.into(),
            state: if id == 3 {
                BackendState::Draining
            } else {
                BackendState::Active
            },
            generation: if id == 3 { 2 } else { 1 },
            source_first: 0,
            source_count: 2,
        };
        plan.backends.insert(id, backend);
    }
    let ring = Ring {
        region: Region {
            offset: 100,
            len: 1021,
        },
        members: Arc::new(members),
    };
    let services = [
        (
            "10.0.0.1:80",
            "demo:80/HTTP",
            "demo/web:80",
            Mode::Connection(ring),
            3,
        ),
        ("10.0.0.1:8080", "demo:8080/HTTP", "", Mode::Request, 1),
    ];
    for (id, (at, listener, group, mode, epoch)) in (1..).zip(services) {
        let service = plan::Service {
            id,
            listener: listener.to_owned(),
            group: group.to_owned(),
            mode,
            client_affinity: false,
            affinity_seconds: 0,
            epoch,
            l4: false,
            access: None,
            limits: Limits::default(),
        };
        plan.services.insert(service_addr(at), service);
    }
    plan
}

/// What the agent wrote.
pub(crate) fn record() -> Record {
    Record {
        version: "0.1.0".to_owned(),
        pid: 42,
        started: 9_100,
        generation: 7,
        applied_at: 9_900,
        vips: vec!["10.0.0.1".parse().unwrap()],
        interfaces: vec![InterfaceRecord {
            name: "eth0".to_owned(),
            hooks: "tc".to_owned(),
            reason: "driver has no native XDP".to_owned(),
        }],
        ir: ir(),
        plan: plan(),
        problems: vec![Problem {
            object: ObjectRef {
                cluster: None,
                kind: "Ingress".to_owned(),
                namespace: "demo".to_owned(),
                name: "bad".to_owned(),
            },
            field: "spec.rules[0]".to_owned(),
            message: "no Service \"nope\"".to_owned(),
            remedy: "create it".to_owned(),
            severity: Severity::Error,
        }],
        warnings: vec!["no route to 10.9.9.9".to_owned()],
        interface_names: BTreeMap::from([(2, "eth0".to_owned())]),
        ..Record::default()
    }
}

fn traffic(flows: u64, incoming: (u64, u64), outgoing: (u64, u64)) -> Traffic {
    Traffic {
        flows,
        in_packets: incoming.0,
        in_bytes: incoming.1,
        out_packets: outgoing.0,
        out_bytes: outgoing.1,
        ..Traffic::default()
    }
}

/// What the maps say.
pub(crate) fn readings() -> Readings {
    let entry = |id, mode, epoch, ring: (u32, u32)| service::Service {
        id,
        ring_off: ring.0,
        ring_len: ring.1,
        epoch,
        mode,
        ..service::Service::default()
    };
    let mut readings = Readings {
        flow_table_size: 1 << 20,
        ..Readings::default()
    };
    let moved = traffic(5, (1_000, 2_048), (900, 1 << 20));
    readings.services.insert(
        service_addr("10.0.0.1:80"),
        (entry(1, mode::NAT, 3, (100, 1021)), moved),
    );
    readings.services.insert(
        service_addr("10.0.0.1:8080"),
        (entry(2, mode::L7, 1, (0, 0)), Traffic::default()),
    );
    for (id, planned) in plan().backends {
        let backend = kernel::Backend {
            addr: planned.key.address.ip().into(),
            port: Port::from_host(planned.key.address.port()),
            state: match planned.state {
                BackendState::Active => kernel::state::ACTIVE,
                _ => kernel::state::DRAINING,
            },
            hop: u16::from(id == 1),
            generation: planned.generation,
            snat_first: 0,
            snat_count: 2,
            ..kernel::Backend::default()
        };
        let traffic = match id {
            1 => traffic(3, (10, 1024), (20, 5 * 1024)),
            _ => Traffic::default(),
        };
        readings.backends.insert(id, (backend, traffic));
    }
    let hop = NextHop {
        ifindex: 2,
        dmac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        ..NextHop::default()
    };
    readings.hops.insert(1, hop);
    for (id, source) in (0..).zip(plan().sources) {
        let snat = Snat {
            addr: source.address.into(),
            port_first: source.port_first,
            port_count: source.port_count,
        };
        readings.sources.insert(id, snat);
    }
    let count = |packets, bytes| Count { packets, bytes };
    readings.reasons = vec![
        (Reason::NoBackend, count(4, 4096)),
        (Reason::Proxy, count(1_500, 1 << 20)),
    ];
    readings
}

/// Slots by listener address and backend.
pub(crate) fn rings() -> Rings {
    let slots = (1..).zip(SLOTS).collect();
    Rings::from([(service_addr("10.0.0.1:80"), slots)])
}

/// The ring, slot by slot.
pub(crate) fn region() -> Vec<u32> {
    (1..)
        .zip(SLOTS)
        .flat_map(|(id, slots)| std::iter::repeat_n(id, slots as usize))
        .collect()
}

/// A flow key, from texts.
pub(crate) fn key(from: &str, to: &str) -> FlowKey {
    let (from, to) = (address(from), address(to));
    FlowKey {
        src: from.ip().into(),
        dst: to.ip().into(),
        src_port: Port::from_host(from.port()),
        dst_port: Port::from_host(to.port()),
        proto: TCP,
    }
}

fn flow(from: &str, to: &str, backend: u32, life: Life) -> Flow {
    let new = key(from, to);
    Flow {
        nat: Nat {
            src: new.src,
            dst: new.dst,
            src_port: new.src_port,
            dst_port: new.dst_port,
            backend,
            service: 1,
            ..Nat::default()
        },
        life,
    }
}

/// A whole flow of backend 1, and half a flow of a pod that had id 3 before.
pub(crate) fn flows() -> Vec<(FlowKey, Flow)> {
    let life = |state, generation, last_seen, bytes| Life {
        last_seen,
        state,
        generation,
        bytes,
        flags: 0,
    };
    let reply = Life {
        flags: flag::REPLY,
        ..life(state::TCP_ESTABLISHED, 1, 900, 4096)
    };
    let (client, vip) = ("198.51.100.7:4000", "10.0.0.1:80");
    let (source, pod) = ("10.9.0.1:20000", "10.1.0.1:80");
    vec![
        (
            key(client, vip),
            flow(source, pod, 1, life(state::TCP_ESTABLISHED, 1, 800, 1024)),
        ),
        (key(pod, source), flow(vip, client, 1, reply)),
        (
            key("198.51.100.8:4000", vip),
            flow(
                "10.9.0.1:20001",
                "10.2.0.1:80",
                3,
                life(state::TCP_OPENING, 1, 100, 60),
            ),
        ),
    ]
}
