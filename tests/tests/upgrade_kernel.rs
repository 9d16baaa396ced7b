//! Flows of another layout's map on their way into ours, on real maps.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Instant,
};

use aya::maps::{Array, HashMap, Map, MapData, MapInfo};
use fleetgate_tests::kernel::{self, Kernel};
use gateway_common::{
    addr::{Addr, Port},
    affinity::{Affinity, AffinityKey},
    flow::{Flow, FlowKey, Life, Nat, TCP, flag, state},
    layout::{self, Kind},
    maps,
};
use gateway_user::dataplane::{
    pins::Pins,
    record::Record,
    tables::Tables,
    upgrade::{Pass, Shapes, Source, StructShape, TableShape, Which, copy},
};

/// Connections; each has two entries.
const FLOWS: u32 = 100_000;
/// The service of all of them.
const SERVICE: u16 = 3;

/// The other layout: keys in another order, values with one field more and all others elsewhere.
const KEY: &[(&str, u32, u32)] = &[
    ("proto", 0, 4),
    ("dst_port", 4, 2),
    ("src_port", 6, 2),
    ("dst", 8, 16),
    ("src", 24, 16),
];
const VALUE: &[(&str, u32, u32)] = &[
    ("ahead", 0, 8),
    ("life.bytes", 8, 8),
    ("life.last_seen", 16, 4),
    ("life.state", 20, 1),
    ("life.flags", 21, 1),
    ("life.generation", 22, 2),
    ("nat.src", 24, 16),
    ("nat.dst", 40, 16),
    ("nat.src_port", 56, 2),
    ("nat.dst_port", 58, 2),
    ("nat.addr_delta", 60, 2),
    ("nat.port_delta", 62, 2),
    ("nat.backend", 64, 4),
    ("nat.service", 68, 2),
    ("nat.hop", 70, 2),
];
type OldKey = [u8; 40];
type OldFlow = [u8; 72];

fn shape(size: u32, fields: &[(&str, u32, u32)]) -> StructShape {
    let fields = fields.iter();
    StructShape {
        size,
        fields: fields
            .map(|(name, offset, size)| ((*name).to_owned(), (*offset, *size)))
            .collect(),
    }
}

/// Lays the fields of a struct out as the other layout has them.
fn lay<const N: usize>(fields: &[(&str, u32, u32)], values: &[(&str, Vec<u8>)]) -> [u8; N] {
    let mut bytes = [0xee; N];
    for (name, value) in values {
        let (_, at, size) = fields.iter().find(|it| it.0 == *name).unwrap();
        let (at, size) = (*at as usize, *size as usize);
        bytes[at..at + size].copy_from_slice(value);
    }
    bytes
}

fn address(addr: Addr) -> Vec<u8> {
    addr.0.into_iter().flat_map(u32::to_ne_bytes).collect()
}

fn old_key(key: &FlowKey) -> OldKey {
    let port = |port: Port| port.0.to_ne_bytes().to_vec();
    lay(
        KEY,
        &[
            ("src", address(key.src)),
            ("dst", address(key.dst)),
            ("src_port", port(key.src_port)),
            ("dst_port", port(key.dst_port)),
            ("proto", key.proto.to_ne_bytes().to_vec()),
        ],
    )
}

fn old_flow(Flow { nat, life }: &Flow) -> OldFlow {
    let short = |value: u16| value.to_ne_bytes().to_vec();
    lay(
        VALUE,
        &[
            ("nat.src", address(nat.src)),
            ("nat.dst", address(nat.dst)),
            ("nat.src_port", short(nat.src_port.0)),
            ("nat.dst_port", short(nat.dst_port.0)),
            ("nat.addr_delta", short(nat.addr_delta)),
            ("nat.port_delta", short(nat.port_delta)),
            ("nat.backend", nat.backend.to_ne_bytes().to_vec()),
            ("nat.service", short(nat.service)),
            ("nat.hop", short(nat.hop)),
            ("life.last_seen", life.last_seen.to_ne_bytes().to_vec()),
            ("life.state", vec![life.state]),
            ("life.flags", vec![life.flags]),
            ("life.generation", short(life.generation)),
            ("life.bytes", life.bytes.to_ne_bytes().to_vec()),
        ],
    )
}

/// The two entries of a connection, requests first.
fn flow(number: u32, last_seen: u32) -> [(FlowKey, Flow); 2] {
    let addr = |number: u32| Addr([0, 0, 0xffff_u32.to_be(), number.to_be()]);
    let [high, low] = [(number / 50_000) as u16, (number % 50_000) as u16];
    let key = FlowKey {
        src: addr(0x0a00_0000 + u32::from(high)),
        dst: addr(0xc000_0201),
        src_port: Port::from_host(low + 1_024),
        dst_port: Port::from_host(80),
        proto: TCP,
    };
    let nat = Nat {
        src: addr(0x0a01_0001 + u32::from(high)),
        dst: addr(0x0a02_0001),
        src_port: Port::from_host(low + 10_000),
        dst_port: Port::from_host(8_080),
        addr_delta: 7,
        port_delta: low,
        backend: number % 90 + 1,
        service: SERVICE,
        hop: 2,
    };
    let life = Life {
        last_seen,
        state: state::TCP_ESTABLISHED,
        flags: 0,
        generation: 9,
        bytes: u64::from(number) << 20,
    };
    let reply = Nat {
        src: key.dst,
        dst: key.src,
        src_port: key.dst_port,
        dst_port: key.src_port,
        addr_delta: !7,
        port_delta: !low,
        hop: 1,
        ..nat
    };
    let back = Life {
        flags: flag::REPLY,
        ..life
    };
    [
        (key, Flow { nat, life }),
        (
            nat.reverse_key(TCP),
            Flow {
                nat: reply,
                life: back,
            },
        ),
    ]
}

/// A new hash with this room, pinned.
fn pinned<K: aya::Pod, V: aya::Pod>(room: u32, pin: PathBuf) -> HashMap<MapData, K, V> {
    let made = HashMap::<_, K, V>::create(room, 0).unwrap();
    made.pin(&pin).unwrap();
    let map = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
    map.try_into().unwrap()
}

/// Our maps, and beside them a folder of another layout.
struct Maps {
    _kernel: Kernel,
    pins: Pins,
    other: Pins,
    tables: Tables,
    old: HashMap<MapData, OldKey, OldFlow>,
    record: Record,
}

impl Maps {
    fn new(room: u32) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        kernel::own_network().unwrap();
        let number = NUMBER.fetch_add(1, Relaxed);
        let root = PathBuf::from(format!("/sys/fs/bpf/fg-up-{}-{number}", std::process::id()));
        let pins = Pins::new(&root);
        let kernel = Kernel::load_pinned(room, Some(&pins)).unwrap();
        let folder = root.join("maps-0000000000000001");
        fs::create_dir(&folder).unwrap();
        let old = pinned(2 * FLOWS + 100, folder.join(maps::FLOWS.0));
        let shapes = Shapes(BTreeMap::from([(
            maps::FLOWS.0.to_owned(),
            TableShape {
                key: shape(40, KEY),
                value: shape(72, VALUE),
            },
        )]));
        let record = Record {
            shapes,
            ..Record::default()
        };
        let [other] = <[Pins; 1]>::try_from(pins.others()).unwrap();
        Self {
            _kernel: kernel,
            tables: Tables::open(&pins).unwrap(),
            pins,
            other,
            old,
            record,
        }
    }

    fn put(&mut self, entries: &[(FlowKey, Flow)]) {
        for (key, flow) in entries {
            self.old.insert(old_key(key), old_flow(flow), 0).unwrap();
        }
    }

    fn copy(&mut self, which: Which) -> Pass {
        let source = Source::open(&self.other, Some(&self.record));
        copy(&source, &self.pins, &mut self.tables, which).unwrap()
    }

    fn live(&self) -> [u64; 2] {
        let map = MapData::from_pin(self.pins.map(maps::LIVE.0)).unwrap();
        let live: Array<_, u64> = Map::from_map_data(map).unwrap().try_into().unwrap();
        [0, u32::from(SERVICE)].map(|at| live.get(&at, 0).unwrap())
    }

    fn has(&self, entries: &[(FlowKey, Flow)]) -> bool {
        let has = |(key, flow): &(FlowKey, Flow)| self.tables.flows.get(key, 0).ok() == Some(*flow);
        entries.iter().all(has)
    }
}

impl Drop for Maps {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.pins.root());
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "how long it took is worth knowing")]
fn a_hundred_thousand_flows_of_another_layout_are_copied_once_and_kept_up_to_date() {
    let mut maps = Maps::new(3 * FLOWS);
    for number in 0..FLOWS {
        maps.put(&flow(number, 1_000));
    }
    let began = Instant::now();
    let pass = maps.copy(Which::First);
    eprintln!("{FLOWS} flows into an empty table: {:?}", began.elapsed());
    assert_eq!((pass.flows, pass.left), (u64::from(FLOWS), BTreeMap::new()));
    assert_eq!(maps.live(), [u64::from(FLOWS); 2]);
    assert!((0..FLOWS).all(|number| maps.has(&flow(number, 1_000))));

    // Meanwhile: one went on here, one there, one was opened there, and one port there has become another's here.
    let [here, there, opened] = [flow(1, 1_500), flow(2, 1_500), flow(FLOWS, 1_500)];
    for (key, flow) in &here {
        maps.tables.flows.insert(key, flow, 0).unwrap();
    }
    maps.put(&there);
    maps.put(&opened);
    let [late, late_reply] = flow(FLOWS + 1, 1_200);
    let mut taken = late_reply;
    taken.1.nat.dst_port = Port::from_host(1);
    taken.1.life.last_seen = 1_500;
    maps.tables.flows.insert(taken.0, taken.1, 0).unwrap();
    maps.put(&[late, late_reply]);

    let began = Instant::now();
    let pass = maps.copy(Which::Since(1_200));
    eprintln!(
        "{FLOWS} flows of which some were seen since: {:?}",
        began.elapsed()
    );
    assert_eq!((pass.flows, pass.left.len()), (2, 1));
    assert!(maps.has(&there) && maps.has(&opened));

    let began = Instant::now();
    let pass = maps.copy(Which::All);
    eprintln!("{FLOWS} flows looked at again: {:?}", began.elapsed());
    assert!(maps.has(&here) && maps.has(&there) && maps.has(&opened) && maps.has(&[taken]));
    assert_eq!(pass.flows, u64::from(FLOWS) + 1);
    let left: Vec<_> = pass.left.into_iter().collect();
    assert_eq!(left, [("its source port has become another flow's", 1)]);
    assert_eq!(maps.live(), [u64::from(FLOWS) + 1; 2]);
    assert!(maps.tables.flows.get(&late.0, 0).is_err());
}

#[test]
fn what_finds_no_room_is_told_and_what_does_is_there() {
    let mut maps = Maps::new(1_000);
    for number in 0..1_000 {
        maps.put(&flow(number, 1_000));
    }
    for _ in 0..2 {
        let pass = maps.copy(Which::First);
        assert_eq!(
            pass.flows + pass.left.values().sum::<u64>(),
            1_000,
            "{pass:?}"
        );
        assert!(
            pass.left.contains_key("the flow table is full") || pass.flows < 1_000,
            "{pass:?}"
        );
    }
}

#[test]
fn a_map_whose_keys_cannot_be_read_is_left_and_the_reason_told() {
    let mut maps = Maps::new(1_000);
    maps.put(&flow(1, 1_000));
    let mut shapes = maps.record.shapes.clone();
    let key = &mut shapes.0.get_mut(maps::FLOWS.0).unwrap().key;
    key.fields.insert("proto".into(), (0, 2));
    maps.record.shapes = shapes;
    let source = Source::open(&maps.other, Some(&maps.record));
    let told = source.trouble.join("; ");
    assert!(
        told.contains("map FLOWS of layout 0000000000000001: its field proto has 2 bytes, not 4"),
        "{told}"
    );
    assert_eq!(maps.copy(Which::First).flows, 0);
    assert!(maps.tables.flows.keys().next().is_none());
    // Nor is one that is not what its agent told.
    maps.record
        .shapes
        .0
        .get_mut(maps::FLOWS.0)
        .unwrap()
        .key
        .size = 44;
    let source = Source::open(&maps.other, Some(&maps.record));
    assert!(
        source.trouble[0].contains("another size"),
        "{:?}",
        source.trouble
    );
}

#[test]
fn clients_that_stay_with_a_backend_are_copied_too_unless_ours_are_newer() {
    let mut maps = Maps::new(1_000);
    let mut old: HashMap<_, [u8; 24], [u8; 12]> = pinned(1_000, maps.other.map(maps::AFFINITY.0));
    const CLIENT: &[(&str, u32, u32)] = &[("service", 0, 4), ("zero", 4, 4), ("client", 8, 16)];
    const STAYS: &[(&str, u32, u32)] = &[
        ("last", 0, 4),
        ("zero", 4, 2),
        ("generation", 6, 2),
        ("backend", 8, 4),
    ];
    let shape = TableShape {
        key: shape(24, CLIENT),
        value: shape(12, STAYS),
    };
    maps.record
        .shapes
        .0
        .insert(maps::AFFINITY.0.to_owned(), shape);
    let client = |number: u32| AffinityKey {
        client: Addr([0, 0, 0xffff_u32.to_be(), number]),
        service: 5,
        zero: 0,
    };
    let stays = |last: u32| Affinity {
        backend: last,
        generation: 4,
        zero: 0,
        last,
    };
    for number in 0..100 {
        let key: [u8; 24] = lay(
            CLIENT,
            &[
                ("client", address(client(number).client)),
                ("service", 5_u32.to_ne_bytes().to_vec()),
                ("zero", vec![0; 4]),
            ],
        );
        let value: [u8; 12] = lay(
            STAYS,
            &[
                ("backend", 50_u32.to_ne_bytes().to_vec()),
                ("generation", 4_u16.to_ne_bytes().to_vec()),
                ("zero", vec![0; 2]),
                ("last", 50_u32.to_ne_bytes().to_vec()),
            ],
        );
        old.insert(key, value, 0).unwrap();
    }
    maps.tables
        .affinity
        .insert(client(1), stays(49), 0)
        .unwrap();
    maps.tables
        .affinity
        .insert(client(2), stays(51), 0)
        .unwrap();
    assert_eq!(maps.copy(Which::First).clients, 100);
    for number in 0..100 {
        let there = maps.tables.affinity.get(&client(number), 0).unwrap();
        assert_eq!(there, stays(if number == 2 { 51 } else { 50 }), "{number}");
    }
}

#[test]
fn every_pinned_map_is_what_its_layout_says() {
    let maps = Maps::new(1_000);
    for described in layout::ALL {
        let info = MapInfo::from_pin(maps.pins.map(described.name)).unwrap();
        let name = described.name;
        assert_eq!(
            info.map_type().unwrap() as u32,
            described.kind as u32,
            "{name}"
        );
        if described.kind == Kind::RingBuf {
            continue;
        }
        assert_eq!(info.key_size(), described.key.size, "keys of {name}");
        assert_eq!(info.value_size(), described.value.size, "values of {name}");
    }
}
