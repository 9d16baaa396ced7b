//! One look at the maps: what metrics and command line both show.

use std::{collections::BTreeMap, net::IpAddr};

use gateway_common::{
    backend::{Backend, NextHop, Snat},
    maps,
    service::Service,
    stats::{Count, Traffic},
    verdict::Reason,
};

use crate::{
    dataplane::{
        Error,
        record::Record,
        tables::{Tables, service_addr},
    },
    plan::ServiceAddr,
};

/// Entries and counters, read one by one while packets pass: sums may differ by a few packets.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// Entries of the service map and their traffic.
    pub services: BTreeMap<ServiceAddr, (Service, Traffic)>,
    /// Backends that the record names, by id, and their traffic.
    pub backends: BTreeMap<u32, (Backend, Traffic)>,
    /// Next hops of these backends by id.
    pub hops: BTreeMap<u16, NextHop>,
    /// Source addresses of these backends by id.
    pub sources: BTreeMap<u16, Snat>,
    /// Every reason in numeric order.
    pub reasons: Vec<(Reason, Count)>,
    /// Most entries the flow table holds; 0 if the kernel does not tell.
    pub flow_table_size: u64,
}

impl Readings {
    /// Reads the maps of one gateway. The record says which backends exist.
    pub fn take(tables: &Tables, record: &Record) -> Result<Self, Error> {
        let mut readings = Self {
            flow_table_size: u64::from(tables.flow_table_size),
            ..Self::default()
        };
        // A key that is removed meanwhile restarts the walk, hence the bound.
        for entry in tables.services.iter().take(2 * maps::SERVICES.1 as usize) {
            let Ok((key, service)) = entry else { continue };
            let Some(address) = service_addr(&key) else {
                continue;
            };
            let traffic = tables.service_traffic(service.id)?;
            readings.services.insert(address, (service, traffic));
        }
        let coming = record.applying.iter().flat_map(|it| it.backends.keys());
        for id in record.plan.backends.keys().chain(coming) {
            readings.backend(tables, *id)?;
        }
        for reason in Reason::ALL {
            let count = tables.reason_count(reason as u32)?;
            readings.reasons.push((reason, count));
        }
        Ok(readings)
    }

    /// Reads one backend with its next hop and its sources, unless that is done.
    pub fn backend(&mut self, tables: &Tables, id: u32) -> Result<(), Error> {
        if self.backends.contains_key(&id) || id >= maps::BACKENDS.1 {
            return Ok(());
        }
        let backend = tables
            .backends
            .get(&id, 0)
            .map_err(|e| Error::Map(maps::BACKENDS.0, e.to_string()))?;
        self.neighbourhood(tables, &backend);
        let traffic = tables.backend_traffic(id)?;
        self.backends.insert(id, (backend, traffic));
        Ok(())
    }

    fn neighbourhood(&mut self, tables: &Tables, backend: &Backend) {
        if let Ok(hop) = tables.hops.get(&u32::from(backend.hop), 0)
            && backend.hop != 0
        {
            self.hops.insert(backend.hop, hop);
        }
        for at in 0..backend.snat_count {
            let id = backend.snat_first.saturating_add(at);
            if self.sources.contains_key(&id) {
                continue;
            }
            match tables.snats.get(&u32::from(id), 0) {
                Ok(snat) => self.sources.insert(id, snat),
                Err(_) => break,
            };
        }
    }

    /// Packets and bytes of all reasons that drop.
    pub fn dropped(&self) -> Count {
        let mut sum = Count::default();
        for (reason, count) in &self.reasons {
            if reason.dropped() {
                sum += *count;
            }
        }
        sum
    }

    /// Source ports of one protocol that a backend can be reached from.
    pub fn source_ports(&self, backend: &Backend) -> u64 {
        (0..backend.snat_count)
            .filter_map(|at| self.sources.get(&backend.snat_first.saturating_add(at)))
            .map(|snat| u64::from(snat.port_count))
            .sum()
    }

    /// Source addresses of a backend, in order.
    pub fn source_addresses(&self, backend: &Backend) -> Vec<IpAddr> {
        (0..backend.snat_count)
            .filter_map(|at| self.sources.get(&backend.snat_first.saturating_add(at)))
            .map(|snat| IpAddr::from(snat.addr))
            .collect()
    }
}
