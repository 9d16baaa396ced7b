//! Copies counters of traffic, field by field: none goes backwards.

use aya::{
    Pod,
    maps::{MapData, MapType, PerCpuArray, PerCpuValues},
};
use gateway_common::{
    layout::Shaped,
    maps,
    stats::{Count, Traffic},
};

use super::{Source, shapes::Moves};
use crate::dataplane::{
    Error,
    batch::Raw,
    fault,
    record::Record,
    tables::{Tables, failed},
};

/// Raises each counter of this record's services and backends, and of reasons, to that of a source. Doing it again changes
/// nothing.
///
/// # Errors
/// When a map cannot be written. What cannot be read is left: a counter that begins anew is no harm.
pub fn counters(source: &Source, record: &Record, tables: &mut Tables) -> Result<(), Error> {
    let services = record.plan.services.values().map(|service| service.id);
    let backends = record.plan.backends.keys().copied();
    let stats = &mut tables.service_stats;
    raise(source, maps::SERVICE_STATS.0, stats, services, traffic)?;
    let stats = &mut tables.backend_stats;
    raise(source, maps::BACKEND_STATS.0, stats, backends, traffic)?;
    let stats = &mut tables.reason_stats;
    raise(
        source,
        maps::REASON_STATS.0,
        stats,
        1..maps::REASON_STATS.1,
        count,
    )
}

fn traffic(one: &mut Traffic, other: &Traffic) {
    one.flows = one.flows.max(other.flows);
    one.in_packets = one.in_packets.max(other.in_packets);
    one.in_bytes = one.in_bytes.max(other.in_bytes);
    one.out_packets = one.out_packets.max(other.out_packets);
    one.out_bytes = one.out_bytes.max(other.out_bytes);
    one.refused = one.refused.max(other.refused);
}

fn count(one: &mut Count, other: &Count) {
    one.packets = one.packets.max(other.packets);
    one.bytes = one.bytes.max(other.bytes);
}

fn raise<V: Pod + Shaped + Copy>(
    source: &Source,
    name: &'static str,
    stats: &mut PerCpuArray<MapData, V>,
    ids: impl Iterator<Item = u32>,
    larger: impl Fn(&mut V, &V),
) -> Result<(), Error> {
    let Some(shape) = source.shapes.0.get(name) else {
        return Ok(());
    };
    let Ok(map) = Raw::open(&source.pins.map(name), &[MapType::PerCpuArray]) else {
        return Ok(());
    };
    let Ok(moves) = Moves::value(&shape.value, &V::SHAPE, &[]) else {
        return Ok(());
    };
    let mut aside = Vec::new();
    fault::point();
    for id in ids {
        let Ok(cpus) = map.of_cpus(id) else { continue };
        if cpus.iter().flatten().all(|byte| *byte == 0) {
            continue;
        }
        let ours = stats.get(&id, 0).map_err(failed(name))?;
        let mut ours: Vec<V> = ours.iter().copied().collect();
        for (one, other) in ours.iter_mut().zip(cpus) {
            larger(one, &moves.make(&other, &mut aside));
        }
        let ours = PerCpuValues::try_from(ours).map_err(failed(name))?;
        stats.set(id, ours, 0).map_err(failed(name))?;
    }
    Ok(())
}
