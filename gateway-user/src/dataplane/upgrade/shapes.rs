//! Fields of maps as the record tells them, and how a struct of one version becomes that of another.

use std::collections::BTreeMap;

use aya::Pod;
use gateway_common::{
    layout::{self, Shape},
    maps,
};
use serde::{Deserialize, Serialize};

use crate::dataplane::batch;

/// Maps that another version may read.
const READABLE: [&str; 5] = [
    maps::FLOWS.0,
    maps::AFFINITY.0,
    maps::SERVICE_STATS.0,
    maps::BACKEND_STATS.0,
    maps::REASON_STATS.0,
];

/// Fields of maps, by name of the map.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shapes(pub BTreeMap<String, TableShape>);

/// Fields of one map.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableShape {
    /// Of its keys.
    pub key: StructShape,
    /// Of its values.
    pub value: StructShape,
}

/// Fields of one struct.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StructShape {
    /// Its bytes.
    pub size: u32,
    /// Offset and bytes by name.
    pub fields: BTreeMap<String, (u32, u32)>,
}

impl Shapes {
    /// Those of this program.
    pub fn ours() -> Self {
        let maps = layout::ALL.iter().filter(|it| READABLE.contains(&it.name));
        let shape = |map: &layout::Layout| TableShape {
            key: (&map.key).into(),
            value: (&map.value).into(),
        };
        Self(maps.map(|map| (map.name.to_owned(), shape(map))).collect())
    }
}

impl From<&Shape> for StructShape {
    fn from(shape: &Shape) -> Self {
        let fields = shape.fields.iter();
        Self {
            size: shape.size,
            fields: fields
                .map(|it| (it.name.to_owned(), (it.offset, it.size)))
                .collect(),
        }
    }
}

/// Where the fields of one of our structs lie in that of another version.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Moves {
    /// From, to, bytes.
    pieces: Vec<(usize, usize, usize)>,
    /// Bytes of ours.
    size: usize,
}

impl Moves {
    /// A key: every field must be there, in both.
    pub(super) fn key(old: &StructShape, new: &Shape) -> Result<Self, String> {
        let known: Vec<&str> = new.fields.iter().map(|it| it.name).collect();
        let moves = Self::value(old, new, &known)?;
        let more = old.fields.keys().find(|it| !known.contains(&it.as_str()));
        match more {
            Some(name) => Err(format!("its keys have a field more, {name}")),
            None => Ok(moves),
        }
    }

    /// A value: these fields must be there; others that are not are zero.
    pub(super) fn value(old: &StructShape, new: &Shape, needed: &[&str]) -> Result<Self, String> {
        let mut pieces = Vec::new();
        for field in new.fields {
            match old.fields.get(field.name) {
                Some((offset, size)) if *size == field.size => {
                    if offset.checked_add(*size).is_none_or(|end| end > old.size) {
                        return Err(format!("its field {} lies outside of it", field.name));
                    }
                    pieces.push((*offset as usize, field.offset as usize, *size as usize));
                }
                found if needed.contains(&field.name) => {
                    let name = field.name;
                    return Err(match found {
                        Some((_, size)) => {
                            format!("its field {name} has {size} bytes, not {}", field.size)
                        }
                        None => format!("it has no field {name}"),
                    });
                }
                _ => {}
            }
        }
        Ok(Self {
            pieces,
            size: new.size as usize,
        })
    }

    /// One of ours, made from one of theirs.
    pub(super) fn make<T: Pod>(&self, old: &[u8], aside: &mut Vec<u8>) -> T {
        aside.clear();
        aside.resize(self.size, 0);
        for (from, to, len) in &self.pieces {
            if let Some(bytes) = old.get(*from..from + len) {
                aside[*to..to + len].copy_from_slice(bytes);
            }
        }
        batch::pod(aside)
    }
}

#[cfg(test)]
mod tests {
    use gateway_common::{
        flow::{Flow, FlowKey, Life},
        layout::Shaped,
    };

    use super::*;

    fn old() -> StructShape {
        StructShape::from(&Flow::SHAPE)
    }

    #[test]
    fn fields_go_where_they_belong_and_new_ones_are_zero() {
        let mut old = old();
        // Eight bytes more in front, one field that we do not know, one of ours that it does not have.
        for (offset, _) in old.fields.values_mut() {
            *offset += 8;
        }
        old.size += 8;
        old.fields.insert("ahead".into(), (0, 8));
        old.fields.remove("life.bytes");
        let moves = Moves::value(&old, &Flow::SHAPE, &["life.state"]).unwrap();
        let mut bytes = vec![0xff; old.size as usize];
        let at = old.fields["life.last_seen"].0 as usize;
        bytes[at..at + 4].copy_from_slice(&7_u32.to_ne_bytes());
        let flow: Flow = moves.make(&bytes, &mut Vec::new());
        assert_eq!(
            flow.life,
            Life {
                last_seen: 7,
                state: 0xff,
                flags: 0xff,
                generation: 0xffff,
                bytes: 0
            }
        );
        assert_eq!(flow.nat.backend, u32::MAX);
    }

    #[test]
    fn a_key_that_lacks_a_field_or_has_one_of_another_size_or_one_more_is_refused() {
        let old = StructShape::from(&FlowKey::SHAPE);
        assert!(Moves::key(&old, &FlowKey::SHAPE).is_ok());
        let changed = |change: &dyn Fn(&mut StructShape)| {
            let mut old = old.clone();
            change(&mut old);
            Moves::key(&old, &FlowKey::SHAPE).unwrap_err()
        };
        let error = changed(&|old| {
            old.fields.remove("proto");
        });
        assert_eq!(error, "it has no field proto");
        let error = changed(&|old| old.fields.get_mut("proto").unwrap().1 = 2);
        assert_eq!(error, "its field proto has 2 bytes, not 4");
        let error = changed(&|old| {
            old.fields.insert("zone".into(), (36, 4));
        });
        assert_eq!(error, "its keys have a field more, zone");
    }

    #[test]
    fn what_lies_outside_of_a_struct_is_refused() {
        let mut old = old();
        old.fields.insert("life.state".into(), (u32::MAX, 1));
        assert!(Moves::value(&old, &Flow::SHAPE, &[]).is_err());
        old.fields.insert("life.state".into(), (64, 1));
        assert!(Moves::value(&old, &Flow::SHAPE, &[]).is_err());
    }

    #[test]
    fn the_record_tells_the_fields_of_what_is_worth_reading() {
        let shapes = Shapes::ours();
        assert_eq!(shapes.0.len(), READABLE.len());
        let text = serde_json::to_string(&shapes).unwrap();
        assert_eq!(serde_json::from_str::<Shapes>(&text).unwrap(), shapes);
    }
}
