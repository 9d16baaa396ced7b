//! The record in a real map: whole at every moment, and written no more than it changed.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    thread,
};

use aya::EbpfLoader;
use fleetgate_tests::kernel;
use gateway_common::maps::{self, METADATA_CHUNK};
use gateway_user::{
    dataplane::{
        pins::Pins,
        record::{Part, Record, Recorder},
        tables::Tables,
    },
    ir::{
        Affinity, Backend, ClusterId, Group, GroupName, Limits, Listener, ListenerName,
        ListenerProtocol, Rule, ServiceName, Split, Steering, SteeringMode,
    },
    plan::{self, BackendKey, BackendState, Mode, ServiceAddr, Transport},
};

/// Chunks that fit the map of a test.
const CHUNKS: u32 = 64;
/// Maps that are large in a gateway and not used here.
const SIZES: [(&str, u32); 8] = [
    ("FLOWS", 1024),
    ("SERVICES", 16),
    ("RINGS", 1024),
    ("BACKENDS", 16),
    ("HOPS", 16),
    ("NEIGHBOURS", 16),
    ("SERVICE_STATS", 16),
    ("BACKEND_STATS", 16),
];

/// Pinned maps of a test, removed at its end.
struct Pinned(Pins);

impl Pinned {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let root = format!("/sys/fs/bpf/fg-record-{}-{number}", std::process::id());
        let pinned = Self(Pins::new(root));
        fs::create_dir_all(pinned.0.maps()).expect("a BPF file system at /sys/fs/bpf");
        let object = fs::read(kernel::object().unwrap()).unwrap();
        let mut loader = EbpfLoader::new();
        for (name, _) in maps::ALL {
            loader.map_pin_path(name, pinned.0.map(name));
        }
        for (name, size) in SIZES {
            loader.map_max_entries(name, size);
        }
        loader.map_max_entries(maps::METADATA.0, CHUNKS);
        loader.load(&object).unwrap();
        pinned
    }

    fn tables(&self) -> Tables {
        Tables::open(&self.0).unwrap()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.root());
    }
}

fn name(port: u16) -> ListenerName {
    ListenerName {
        gateway: "g".into(),
        port,
        protocol: ListenerProtocol::Http,
    }
}

fn group_name(port: u16) -> GroupName {
    GroupName {
        namespace: "demo".into(),
        ingress: format!("i{port}"),
        service: "web".into(),
        port: "80".into(),
    }
}

fn address(port: u16) -> ServiceAddr {
    ServiceAddr {
        transport: Transport::Tcp,
        address: ([10, 0, 0, 1], port).into(),
    }
}

/// Puts a listener with its group and service into a record; `said` is written in each of them.
fn put(record: &mut Record, port: u16, said: u64) {
    let group = Group {
        name: group_name(port),
        service: ServiceName {
            namespace: "demo".into(),
            name: "web".into(),
            port: "80".into(),
        },
        policy: Arc::default(),
        split: Split::Replicas,
        affinity: Affinity::None,
        affinity_seconds: 0,
        // Of more than one chunk.
        backends: (1..60)
            .map(|pod| Backend {
                cluster: ClusterId("c1".into()),
                address: ([10, 1, 0, pod], 8080).into(),
                pod: format!("pod-{said}-{pod}").into(),
                weight: 1_000_000,
            })
            .collect(),
        idle: Vec::new(),
        failing: Vec::new(),
    };
    let listener = Listener {
        name: name(port),
        addresses: Vec::new(),
        settings: Arc::default(),
        refused: None,
        rules: vec![Arc::new(Rule::forwarding(group.name.clone(), "spec"))],
        passthrough: Vec::new(),
        steering: Steering {
            mode: SteeringMode::Request,
            reason: said.to_string(),
        },
    };
    let service = plan::Service {
        id: u32::from(port),
        listener: listener.name.to_string(),
        group: said.to_string(),
        mode: Mode::Request,
        client_affinity: false,
        affinity_seconds: 0,
        epoch: 1,
        l4: false,
        access: None,
        limits: Limits::default(),
    };
    let ir = &mut record.ir;
    ir.listeners.insert(name(port), Arc::new(listener));
    ir.groups.insert(group.name.clone(), Arc::new(group));
    record.plan.services.insert(address(port), service);
}

fn record(ports: std::ops::Range<u16>) -> Record {
    let mut record = Record {
        version: "1".into(),
        vips: vec![[10, 0, 0, 1].into()],
        warnings: vec!["a warning".into()],
        hops: vec![(1, [10, 0, 0, 2].into(), 1)],
        ..Record::default()
    };
    for port in ports {
        put(&mut record, port, 0);
    }
    for id in 1..40_u8 {
        let backend = plan::Backend {
            key: BackendKey {
                cluster: ClusterId("c1".into()),
                address: ([10, 1, 0, id], 8080).into(),
            },
            pod: format!("pod-{id}").into(),
            state: BackendState::Active,
            generation: 1,
            source_first: 0,
            source_count: 1,
        };
        record.plan.backends.insert(id.into(), backend);
    }
    record
}

fn parts_of(port: u16) -> BTreeSet<Part> {
    BTreeSet::from([
        Part::Head,
        Part::Listener(name(port)),
        Part::Group(group_name(port)),
        Part::Service(address(port)),
    ])
}

/// A record has no equality of its own; what it prints is all of it.
fn shown(record: &Record) -> String {
    format!("{record:#?}")
}

fn loaded(tables: &Tables) -> String {
    shown(&Record::load(tables).unwrap().expect("a record"))
}

type Chunks = BTreeMap<u32, [u8; METADATA_CHUNK]>;

/// All chunks but the header, which has key 0.
fn chunks(tables: &Tables) -> Chunks {
    let all = tables.metadata.iter().map(|it| it.unwrap());
    all.filter(|(key, _)| *key != 0).collect()
}

/// The change that wrote a chunk: its first number.
fn change(chunk: &[u8; METADATA_CHUNK]) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&chunk[..8]);
    u64::from_le_bytes(number)
}

#[test]
fn what_is_saved_is_loaded_and_what_is_no_more_is_not() {
    let pinned = Pinned::new();
    let mut tables = pinned.tables();
    assert!(Record::load(&tables).unwrap().is_none());
    let mut recorder = Recorder::open(&mut tables).unwrap();
    let mut saved = record(80..84);
    recorder.save_all(&mut tables, &saved).unwrap();
    assert_eq!(loaded(&tables), shown(&saved));
    let before = chunks(&tables).len();

    saved.ir.listeners.remove(&name(82));
    saved.ir.groups.remove(&group_name(82));
    saved.plan.services.remove(&address(82));
    recorder.save(&mut tables, &saved, &parts_of(82)).unwrap();
    assert_eq!(loaded(&tables), shown(&saved));
    assert!(chunks(&tables).len() < before);

    // By another agent, which removes what its record lacks.
    let mut recorder = Recorder::open(&mut tables).unwrap();
    assert_eq!(loaded(&tables), shown(&saved));
    let other = record(83..85);
    recorder.save_all(&mut tables, &other).unwrap();
    assert_eq!(loaded(&tables), shown(&other));
}

#[test]
fn a_change_without_its_header_is_ignored_and_cleared_by_the_next_agent() {
    let pinned = Pinned::new();
    let mut tables = pinned.tables();
    let saved = record(80..83);
    let mut recorder = Recorder::open(&mut tables).unwrap();
    recorder.save_all(&mut tables, &saved).unwrap();
    let before = chunks(&tables);
    // Newer versions of some sheets, of one only a part; and one that says that its sheet is gone.
    for (at, (key, chunk)) in before.iter().enumerate().take(8) {
        let mut chunk = *chunk;
        let newer = change(&chunk) + 1;
        chunk[..8].copy_from_slice(&newer.to_le_bytes());
        match at {
            0 => chunk[14..16].copy_from_slice(&0_u16.to_le_bytes()),
            1 => chunk[14..16].copy_from_slice(&9_u16.to_le_bytes()),
            _ => chunk[30..40].fill(b'?'),
        }
        tables.metadata.insert(1000 + key, chunk, 0).unwrap();
    }
    assert_eq!(loaded(&tables), shown(&saved));
    Recorder::open(&mut tables).unwrap();
    assert_eq!(chunks(&tables), before);
    assert_eq!(loaded(&tables), shown(&saved));
}

#[test]
fn a_write_that_fails_leaves_the_record_as_it_was_and_the_next_one_succeeds() {
    let pinned = Pinned::new();
    let mut tables = pinned.tables();
    let mut recorder = Recorder::open(&mut tables).unwrap();
    let mut saved = record(80..83);
    recorder.save_all(&mut tables, &saved).unwrap();
    let before = chunks(&tables);
    // More than the map takes.
    let error = recorder.save_all(&mut tables, &record(80..160));
    assert!(error.is_err());
    assert_eq!(loaded(&tables), shown(&saved));
    assert_eq!(chunks(&tables), before);

    put(&mut saved, 81, 7);
    recorder.save(&mut tables, &saved, &parts_of(81)).unwrap();
    assert_eq!(loaded(&tables), shown(&saved));
    Recorder::open(&mut tables).unwrap();
    assert_eq!(loaded(&tables), shown(&saved));
}

#[test]
fn a_sheet_that_did_not_change_is_not_written_again() {
    let pinned = Pinned::new();
    let mut tables = pinned.tables();
    let mut recorder = Recorder::open(&mut tables).unwrap();
    let mut saved = record(80..84);
    recorder.save_all(&mut tables, &saved).unwrap();
    let first = chunks(&tables);
    let header = tables.metadata.get(&0, 0).unwrap();
    recorder.save_all(&mut tables, &saved).unwrap();
    assert_eq!(chunks(&tables), first);
    assert_eq!(tables.metadata.get(&0, 0).unwrap(), header);

    put(&mut saved, 82, 1);
    recorder.save_all(&mut tables, &saved).unwrap();
    let newest = |chunks: &Chunks| chunks.values().map(change).max().unwrap();
    let now = chunks(&tables);
    let kept = now.iter().filter(|(key, it)| first.get(key) == Some(it));
    let written = now.values().filter(|it| change(it) > newest(&first));
    // Listener and service of one chunk each, and a group of two or more.
    let (kept, written) = (kept.count(), written.count());
    assert_eq!(kept + written, first.len());
    assert!((4..=8).contains(&written), "{written} of {}", first.len());

    // Nor by an agent that takes over.
    let mut recorder = Recorder::open(&mut tables).unwrap();
    recorder.save_all(&mut tables, &saved).unwrap();
    assert_eq!(chunks(&tables), now);
}

#[test]
fn a_reader_gets_a_whole_record_while_an_agent_writes() {
    let pinned = Pinned::new();
    let mut tables = pinned.tables();
    let mut recorder = Recorder::open(&mut tables).unwrap();
    let mut saved = record(80..84);
    recorder.save_all(&mut tables, &saved).unwrap();
    let over = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=1_000 {
                saved.generation = round;
                for port in 80..84 {
                    put(&mut saved, port, round);
                }
                let mut parts: BTreeSet<Part> = (80..84).flat_map(parts_of).collect();
                // A listener that comes and goes.
                if round.is_multiple_of(2) {
                    put(&mut saved, 90, round);
                } else {
                    saved.ir.listeners.remove(&name(90));
                    saved.ir.groups.remove(&group_name(90));
                    saved.plan.services.remove(&address(90));
                }
                parts.extend(parts_of(90));
                recorder.save(&mut tables, &saved, &parts).unwrap();
            }
            over.store(true, Relaxed);
        });
        let tables = pinned.tables();
        let mut seen = BTreeSet::new();
        while !over.load(Relaxed) {
            let record = Record::load(&tables).unwrap().expect("a record");
            whole(&record);
            seen.insert(record.generation);
        }
        seen
    });
    assert!(seen.len() > 20, "only {} records read", seen.len());
}

/// All of one change.
fn whole(record: &Record) {
    let said = record.generation;
    let ports: Vec<u16> = match said.is_multiple_of(2) && said > 0 {
        true => vec![80, 81, 82, 83, 90],
        false => vec![80, 81, 82, 83],
    };
    let ir = &record.ir;
    assert!(ir.listeners.keys().map(|it| it.port).eq(ports.clone()));
    let groups: Vec<GroupName> = ports.iter().map(|port| group_name(*port)).collect();
    assert!(ir.groups.keys().eq(&groups), "{said}");
    for listener in ir.listeners.values() {
        assert_eq!(listener.steering.reason, said.to_string());
    }
    for group in ir.groups.values() {
        assert_eq!(group.backends.len(), 59);
        assert_eq!(&*group.backends[58].pod, format!("pod-{said}-59"));
    }
    assert_eq!(record.plan.services.len(), ports.len());
    for service in record.plan.services.values() {
        assert_eq!(service.group, said.to_string());
    }
    assert_eq!(record.plan.backends.len(), 39);
}
