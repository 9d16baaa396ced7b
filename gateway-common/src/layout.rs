//! What the pinned maps look like, and the one number that names it.
//!
//! Programs of one layout never meet maps of another: the number is in the name of the pin folder. It is computed from
//! the name, kind, size and fields of every map, so that no change of shape can be forgotten. The agent also leaves the
//! fields of the maps that are worth it in its record, so that any other version can read these by name.

use crate::{
    affinity::{Affinity, AffinityKey},
    backend::{Backend, NeighbourKey, NextHop, Snat},
    config::{Admission, Clock, Config},
    datapath::Search,
    flow::{Flow, FlowKey},
    limits::{AclKey, Bucket, SourceKey},
    maps,
    monitor::{Event, Scratch, Switch},
    ports::Mark,
    service::{Service, ServiceKey},
    stats::{Count, Traffic},
    vip::{Budget, VipKey},
};

/// Raised when bytes of the same shape come to mean something else (a unit, the numbers of a state, what a hash of ours
/// gives): such maps are other maps.
pub const SEMANTICS: u32 = 1;

/// A field of a map's key or value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Field {
    /// Its name; of a struct inside, with dots.
    pub name: &'static str,
    /// Bytes before it.
    pub offset: u32,
    /// Its bytes.
    pub size: u32,
}

/// A map's key or value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shape {
    /// Its bytes.
    pub size: u32,
    /// All that it has.
    pub fields: &'static [Field],
}

/// A type whose fields are known: see [`shape!`](crate::shape).
pub trait Shaped {
    /// They.
    const SHAPE: Shape;
}

/// A pinned map.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout {
    /// Its name, and that of its pin.
    pub name: &'static str,
    /// How the kernel keeps it.
    pub kind: Kind,
    /// How many entries it has room for; 0 where the agent says.
    pub entries: u32,
    /// Its keys.
    pub key: Shape,
    /// Its values.
    pub value: Shape,
}

/// How the kernel keeps a map: `enum bpf_map_type` (linux/bpf.h).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Kind {
    /// `BPF_MAP_TYPE_HASH`.
    Hash = 1,
    /// `BPF_MAP_TYPE_ARRAY`.
    Array = 2,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    PerCpuArray = 6,
    /// `BPF_MAP_TYPE_LRU_HASH`.
    LruHash = 9,
    /// `BPF_MAP_TYPE_LPM_TRIE`.
    LpmTrie = 11,
    /// `BPF_MAP_TYPE_SOCKMAP`.
    SockMap = 15,
    /// `BPF_MAP_TYPE_RINGBUF`.
    RingBuf = 27,
}

/// Tells the fields of a `repr(C)` struct, in any order; it does not compile when they do not cover it whole.
#[macro_export]
macro_rules! shape {
    ($type:ty { $($($path:ident).+),+ $(,)? }) => {
        impl $crate::layout::Shaped for $type {
            const SHAPE: $crate::layout::Shape = $crate::layout::Shape {
                size: core::mem::size_of::<$type>() as u32,
                fields: &[$( $crate::layout::Field {
                    name: $crate::layout::without_blanks(stringify!($($path).+)),
                    offset: core::mem::offset_of!($type, $($path).+) as u32,
                    size: $crate::layout::size(|it: &$type| &it.$($path).+),
                } ),+],
            };
        }
        const _: () = assert!($crate::layout::covers(&<$type as $crate::layout::Shaped>::SHAPE));
    };
}

/// Bytes of what a function points at.
pub const fn size<T, F>(_: fn(&T) -> &F) -> u32 {
    size_of::<F>() as u32
}

/// The name as it is; a compiler that put blanks into it would change every layout.
pub const fn without_blanks(name: &'static str) -> &'static str {
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        assert!(bytes[at] != b' ', "a field's name with a blank");
        at += 1;
    }
    name
}

/// Whether each byte belongs to exactly one field.
pub const fn covers(shape: &Shape) -> bool {
    let mut byte = 0;
    while byte < shape.size {
        let (mut fields, mut at) = (0, 0);
        while at < shape.fields.len() {
            let field = &shape.fields[at];
            if field.offset <= byte && byte < field.offset + field.size {
                fields += 1;
                // A field is looked at as a whole.
                if field.offset == byte && field.size > 0 {
                    let (mut other, end) = (0, byte + field.size);
                    while other < shape.fields.len() {
                        let it = &shape.fields[other];
                        if other != at && it.offset < end && byte < it.offset + it.size {
                            return false;
                        }
                        other += 1;
                    }
                    byte = end - 1;
                }
            }
            at += 1;
        }
        if fields == 0 {
            return false;
        }
        byte += 1;
    }
    let mut at = 0;
    while at < shape.fields.len() {
        if shape.fields[at].offset + shape.fields[at].size > shape.size {
            return false;
        }
        at += 1;
    }
    true
}

/// A shape without fields of its own.
macro_rules! plain {
    ($($type:ty),*) => { $(
        impl Shaped for $type {
            const SHAPE: Shape = Shape {
                size: size_of::<$type>() as u32,
                fields: &[Field { name: "it", offset: 0, size: size_of::<$type>() as u32 }],
            };
        }
    )* };
}
plain!(u32, u64, [u8; maps::METADATA_CHUNK]);

/// No key.
impl Shaped for () {
    const SHAPE: Shape = Shape {
        size: 0,
        fields: &[],
    };
}

const fn map<K: Shaped, V: Shaped>(map: (&'static str, u32), kind: Kind) -> Layout {
    Layout {
        name: map.0,
        kind,
        entries: map.1,
        key: K::SHAPE,
        value: V::SHAPE,
    }
}

/// The fields of every map of [`maps::ALL`], in that order.
pub const ALL: &[Layout] = &[
    // Of any size: the agent says.
    map::<FlowKey, Flow>((maps::FLOWS.0, 0), Kind::Hash),
    map::<ServiceKey, Service>(maps::SERVICES, Kind::Hash),
    map::<VipKey, u32>(maps::VIPS, Kind::Hash),
    map::<u32, Budget>(maps::ANSWERS, Kind::PerCpuArray),
    map::<u32, u32>(maps::RINGS, Kind::Array),
    map::<u32, Backend>(maps::BACKENDS, Kind::Array),
    map::<u32, NextHop>(maps::HOPS, Kind::Array),
    map::<NeighbourKey, u32>(maps::NEIGHBOURS, Kind::Hash),
    map::<u32, Snat>(maps::SNATS, Kind::Array),
    map::<u32, Mark>(maps::PORT_MARKS, Kind::Array),
    map::<u32, Search>(maps::SEARCH, Kind::PerCpuArray),
    map::<u32, u64>(maps::LIVE, Kind::Array),
    map::<u32, Admission>(maps::ADMISSION, Kind::Array),
    map::<u32, Config>(maps::CONFIG, Kind::Array),
    map::<u32, Clock>(maps::CLOCK, Kind::Array),
    map::<u32, Traffic>(maps::SERVICE_STATS, Kind::PerCpuArray),
    map::<u32, Traffic>(maps::BACKEND_STATS, Kind::PerCpuArray),
    map::<u32, Count>(maps::REASON_STATS, Kind::PerCpuArray),
    map::<AclKey, u32>(maps::ACLS, Kind::LpmTrie),
    map::<u32, Bucket>(maps::BUDGETS, Kind::Array),
    map::<SourceKey, Bucket>(maps::SOURCES, Kind::LruHash),
    map::<u32, Switch>(maps::MONITOR, Kind::Array),
    map::<u32, Scratch>(maps::MONITOR_SCRATCH, Kind::PerCpuArray),
    // The kernel knows nothing of what is in it.
    map::<(), Event>(maps::EVENTS, Kind::RingBuf),
    map::<u32, u32>(maps::SOCKETS, Kind::SockMap),
    map::<AffinityKey, Affinity>(maps::AFFINITY, Kind::LruHash),
    map::<u32, [u8; maps::METADATA_CHUNK]>(maps::METADATA, Kind::Hash),
];

/// FNV-1a (draft-eastlake-fnv) over all that these maps are, each part told from the next.
pub const fn hash(maps: &[Layout], semantics: u32) -> u64 {
    let mut h = word(0xcbf2_9ce4_8422_2325, semantics);
    let mut at = 0;
    while at < maps.len() {
        let map = &maps[at];
        h = bytes(h, map.name.as_bytes());
        h = word(h, map.kind as u32);
        h = word(h, map.entries);
        h = fields(h, &map.key);
        h = fields(h, &map.value);
        at += 1;
    }
    h
}

const fn fields(mut h: u64, shape: &Shape) -> u64 {
    h = word(h, shape.size);
    h = word(h, shape.fields.len() as u32);
    let mut at = 0;
    while at < shape.fields.len() {
        let field = &shape.fields[at];
        h = bytes(h, field.name.as_bytes());
        h = word(h, field.offset);
        h = word(h, field.size);
        at += 1;
    }
    h
}

const fn bytes(mut h: u64, bytes: &[u8]) -> u64 {
    h = word(h, bytes.len() as u32);
    let mut at = 0;
    while at < bytes.len() {
        h = (h ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    h
}

const fn word(h: u64, word: u32) -> u64 {
    let [a, b, c, d] = word.to_le_bytes();
    let (mut h, mut at) = (h, 0);
    while at < 4 {
        h = (h ^ [a, b, c, d][at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    h
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pinned_map_is_described() {
        assert_eq!(ALL.len(), maps::ALL.len());
        for (described, (name, entries)) in ALL.iter().zip(maps::ALL) {
            assert_eq!(described.name, *name);
            let sized = described.name == maps::FLOWS.0;
            assert_eq!(
                described.entries,
                if sized { 0 } else { *entries },
                "{name}"
            );
        }
    }

    #[test]
    fn the_fields_of_each_struct_cover_it_without_gap_or_overlap() {
        for map in ALL {
            assert!(covers(&map.key), "key of {}", map.name);
            assert!(covers(&map.value), "value of {}", map.name);
        }
    }

    /// Shape with these fields: name, offset, size.
    fn of(size: u32, fields: &[(&'static str, u32, u32)]) -> Shape {
        let field = |&(name, offset, size): &_| Field { name, offset, size };
        Shape {
            size,
            // A few bytes of a test.
            fields: fields.iter().map(field).collect::<Vec<_>>().leak(),
        }
    }

    #[test]
    fn a_gap_or_an_overlap_or_a_field_beyond_the_end_is_seen() {
        assert!(covers(&of(8, &[("a", 0, 4), ("b", 4, 4)])));
        assert!(covers(&of(8, &[("b", 4, 4), ("a", 0, 4)])));
        assert!(!covers(&of(8, &[("a", 0, 4)])));
        assert!(!covers(&of(8, &[("a", 0, 4), ("b", 6, 2)])));
        assert!(!covers(&of(8, &[("a", 0, 4), ("b", 2, 6)])));
        assert!(!covers(&of(8, &[("a", 0, 4), ("b", 4, 2), ("c", 4, 4)])));
        assert!(!covers(&of(4, &[("a", 0, 4), ("b", 4, 4)])));
    }

    #[test]
    fn the_number_changes_with_every_change_of_shape() {
        let layout = |value: Shape| Layout {
            name: "MAP",
            kind: Kind::Hash,
            entries: 8,
            key: u32::SHAPE,
            value,
        };
        let plain = layout(of(8, &[("a", 0, 4), ("b", 4, 4)]));
        let number = hash(&[plain], 1);
        let others = [
            layout(of(12, &[("a", 0, 4), ("b", 4, 4), ("c", 8, 4)])),
            layout(of(8, &[("a", 4, 4), ("b", 0, 4)])),
            layout(of(8, &[("a", 0, 2), ("b", 2, 6)])),
            layout(of(8, &[("a", 0, 4), ("c", 4, 4)])),
            Layout {
                entries: 9,
                ..plain
            },
            Layout {
                kind: Kind::LruHash,
                ..plain
            },
            Layout {
                name: "PAM",
                ..plain
            },
            Layout {
                key: u64::SHAPE,
                ..plain
            },
        ];
        for other in others {
            assert_ne!(hash(&[other], 1), number, "{other:?}");
        }
        assert_ne!(hash(&[plain], 2), number);
        assert_ne!(hash(&[plain, plain], 1), number);
        assert_eq!(hash(&[plain], 1), number);
    }

    #[test]
    fn fields_inside_structs_have_their_own_names() {
        let names = |shape: &Shape| shape.fields.iter().any(|it| it.name == "life.last_seen");
        assert!(names(&Flow::SHAPE));
    }
}
