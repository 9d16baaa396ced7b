//! Carries a plan's steps out on the maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind::NotFound,
    net::IpAddr,
    thread,
    time::Duration,
};

use aya::maps::{MapError, lpm_trie::Key};
use gateway_common::{
    addr::Port,
    affinity::members,
    backend::{self, Backend, NextHop, Snat},
    config::{Admission, Config},
    flow::state,
    limits::{AclKey, AclNet},
    maps,
    service::{self, Service},
    stats::Traffic,
};

use super::{
    Error, batch, fault,
    hops::HopChanges,
    tables::{Tables, failed, service_key, set},
    vips,
};
use crate::plan::{self, BackendState, Mode, Plan, Step};

/// Longer than any packet is inside a program, with room for a descheduled virtual CPU.
const GRACE: Duration = Duration::from_millis(20);

/// Seconds of silence after which a flow is over, by flow state. RFC 5382 section 5 asks for at
/// least 2 h 4 min for established TCP; RFC 4787 section 4.3 for at least 2 min of UDP.
pub const TIMEOUTS: [u32; state::COUNT] = [0, 30, 7440, 120, 10, 30, 180, 0];

/// The same while the flow table is nearly full: what was never answered, or was closed, makes room sooner; what is open
/// is left alone. A SYN that is not answered comes again after 1, 3 and 7 s (RFC 6298 section 2), four seconds apart at most.
pub const PRESSED: [u32; state::COUNT] = [0, 5, 7440, 30, 2, 5, 180, 0];

/// What steps are carried out with.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The plan the steps lead to.
    pub want: &'a Plan,
    /// Of the kernel's clock.
    pub ticks_per_second: u32,
    /// Seed of the rings.
    pub ring_seed: u64,
    /// Next hop of each backend address; 0 where it is not resolved.
    pub hops: &'a BTreeMap<IpAddr, u16>,
}

/// Carries steps out in order; the first failure leaves the rest undone and a working gateway.
pub fn apply(tables: &mut Tables, steps: &[Step], context: Context<'_>) -> Result<(), Error> {
    // Addresses whose last listener may be gone after these steps.
    let mut left = BTreeSet::new();
    for step in steps {
        fault::point();
        match step {
            Step::Source(at, source) => {
                let snat = Snat {
                    addr: source.address.into(),
                    port_first: source.port_first,
                    port_count: source.port_count,
                };
                set(&mut tables.snats, maps::SNATS.0, u32::from(*at), snat)?;
            }
            Step::Backend { id, backend, fresh } => {
                if *fresh {
                    clear(&mut tables.backend_stats, maps::BACKEND_STATS.0, *id)?;
                }
                let hop = context
                    .hops
                    .get(&backend.key.address.ip())
                    .copied()
                    .unwrap_or(0);
                set(
                    &mut tables.backends,
                    maps::BACKENDS.0,
                    *id,
                    entry(backend, hop),
                )?;
            }
            Step::Ring(ring) => {
                let mut slots = context.want.slots(ring, context.ring_seed);
                // Behind the slots, so that a flip brings both: see `affinity::members`.
                let ids = ring.members.iter().map(|it| it.backend);
                slots.extend(members::build(ids, ring.region.len));
                batch::update(tables.ring_slab.fd(), ring.region.offset, &slots)
                    .map_err(failed(maps::RINGS.0))?;
            }
            Step::Service {
                address,
                service,
                fresh,
            } => {
                if *fresh {
                    clear(&mut tables.service_stats, maps::SERVICE_STATS.0, service.id)?;
                }
                vips::add(tables, address.address.ip())?;
                fault::point();
                tables
                    .services
                    .insert(
                        service_key(address),
                        service_entry(service, context.ticks_per_second),
                        0,
                    )
                    .map_err(failed(maps::SERVICES.0))?;
            }
            Step::RemoveService(address) => {
                // Already gone after a crash between this step and the record.
                let _ = tables.services.remove(&service_key(address));
                left.insert(address.address.ip());
            }
            Step::List(access) => {
                for (key, value) in plan::entries(access.id, &access.list) {
                    fault::point();
                    tables
                        .acls
                        .insert(&trie_key(&key), value, 0)
                        .map_err(failed(maps::ACLS.0))?;
                }
            }
            Step::RemoveList(access) => {
                for key in plan::entries(access.id, &access.list).into_keys() {
                    fault::point();
                    // Already gone after a crash between this step and the record.
                    let _ = tables.acls.remove(&trie_key(&key));
                }
            }
            Step::Grace => thread::sleep(GRACE),
            Step::RemoveBackend(id) => {
                set(
                    &mut tables.backends,
                    maps::BACKENDS.0,
                    *id,
                    Backend::default(),
                )?;
            }
        }
    }
    vips::remove_unused(tables, context.want, &left)
}

/// Removes service entries that no plan knows, left by a crash. Returns how many.
pub fn remove_unknown_services(tables: &mut Tables, plan: &Plan) -> usize {
    let known: Vec<_> = plan.services.keys().map(service_key).collect();
    let unknown: Vec<_> = tables
        .services
        .keys()
        .flatten()
        .filter(|key| !known.contains(key))
        .collect();
    let removed = unknown
        .iter()
        .filter(|key| {
            fault::point();
            tables.services.remove(key).is_ok()
        })
        .count();
    vips::remove_unknown(tables, plan);
    removed
}

/// Removes entries of access lists that no plan knows, left by a crash.
pub fn remove_unknown_lists(tables: &mut Tables, plan: &Plan) {
    let known: BTreeSet<u32> = plan
        .services
        .values()
        .filter_map(|service| service.access.as_ref())
        .map(|access| u32::from(access.id))
        .collect();
    // A key that is removed meanwhile restarts the walk, hence the bound and the list.
    let unknown: Vec<Key<AclNet>> = tables
        .acls
        .keys()
        .take(2 * maps::ACLS.1 as usize)
        .flatten()
        .filter(|key| {
            let net = key.data();
            !known.contains(&net.acl)
        })
        .collect();
    for key in &unknown {
        fault::point();
        let _ = tables.acls.remove(key);
    }
}

fn trie_key(key: &AclKey) -> Key<AclNet> {
    Key::new(key.prefix, key.net)
}

/// Removes neighbours that are gone, so that there is room; then writes changed next hops, then
/// the neighbours and backends that now use another one. After a failure start from
/// `Hops::from_record`: it is not known what was written.
pub fn apply_hops(
    tables: &mut Tables,
    changes: &HopChanges,
    plan: &Plan,
    hops: &BTreeMap<IpAddr, u16>,
) -> Result<(), Error> {
    for key in &changes.gone {
        fault::point();
        match tables.neighbours.remove(key) {
            Err(MapError::SyscallError(error)) if error.io_error.kind() == NotFound => {}
            removed => removed.map_err(failed(maps::NEIGHBOURS.0))?,
        }
    }
    for (id, hop) in &changes.hops {
        fault::point();
        set::<_, NextHop>(&mut tables.hops, maps::HOPS.0, u32::from(*id), *hop)?;
    }
    for (key, id) in &changes.neighbours {
        fault::point();
        tables
            .neighbours
            .insert(key, u32::from(*id), 0)
            .map_err(failed(maps::NEIGHBOURS.0))?;
    }
    for (id, backend) in &plan.backends {
        let address = backend.key.address.ip();
        if !changes.addresses.contains(&address) {
            continue;
        }
        let hop = hops.get(&address).copied().unwrap_or(0);
        let there = tables
            .backends
            .get(id, 0)
            .map_err(failed(maps::BACKENDS.0))?;
        // Only the hop: after an interrupted change the plan is ahead of the maps, and a ring that the kernel still uses
        // may point at a backend that by the plan takes nothing any more. Another backend's entry, or none, is written
        // by the plan's steps, hop and all.
        if there.addr == address.into() && there.hop != hop {
            fault::point();
            set(
                &mut tables.backends,
                maps::BACKENDS.0,
                *id,
                Backend { hop, ..there },
            )?;
        }
    }
    Ok(())
}

/// Writes the configuration, with these timeouts in seconds, and the high water of the flow table.
pub fn configure(
    tables: &mut Tables,
    flow_seed: u32,
    ticks_per_second: u32,
    sample_every: u32,
    timeouts: &[u32; state::COUNT],
) -> Result<(), Error> {
    let timeout_ticks = timeouts.map(|seconds| seconds.saturating_mul(ticks_per_second));
    let config = Config {
        seed: flow_seed,
        sample_every,
        timeout_ticks,
    };
    let admission = Admission::of(tables.flow_table_size);
    set(&mut tables.admission, maps::ADMISSION.0, 0, admission)?;
    set(&mut tables.config, maps::CONFIG.0, 0, config)
}

fn entry(backend: &plan::Backend, hop: u16) -> Backend {
    Backend {
        addr: backend.key.address.ip().into(),
        port: Port::from_host(backend.key.address.port()),
        state: match backend.state {
            BackendState::Active => backend::state::ACTIVE,
            BackendState::Draining => backend::state::DRAINING,
            BackendState::Quarantined => backend::state::QUARANTINED,
            BackendState::Down => backend::state::DOWN,
        },
        zero: 0,
        spare: 0,
        hop,
        generation: backend.generation,
        snat_first: backend.source_first,
        snat_count: backend.source_count,
    }
}

fn service_entry(service: &plan::Service, ticks_per_second: u32) -> Service {
    let steered = if service.l4 {
        service::mode::L4
    } else {
        service::mode::NAT
    };
    let (mode, ring_off, ring_len) = match &service.mode {
        Mode::Connection(ring) => (steered, ring.region.offset, ring.region.len),
        Mode::Request => (service::mode::L7, 0, 0),
        Mode::Empty => (steered, 0, 0),
    };
    Service {
        id: service.id,
        ring_off,
        ring_len,
        epoch: service.epoch,
        mode,
        affinity: u8::from(service.client_affinity),
        affinity_ticks: service.affinity_seconds.saturating_mul(ticks_per_second),
        acl: service.access.as_ref().map_or(0, |access| access.id),
        flow_rate: service.limits.flows,
        source_rate: service.limits.flows_per_source,
    }
}

fn clear(
    stats: &mut aya::maps::PerCpuArray<aya::maps::MapData, Traffic>,
    name: &'static str,
    id: u32,
) -> Result<(), Error> {
    let cpus =
        aya::util::nr_cpus().map_err(|(path, e)| Error::Map(name, format!("{path}: {e}")))?;
    let zero =
        aya::maps::PerCpuValues::try_from(vec![Traffic::default(); cpus]).map_err(failed(name))?;
    stats.set(id, zero, 0).map_err(failed(name))
}
