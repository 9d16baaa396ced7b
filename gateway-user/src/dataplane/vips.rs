//! Addresses of listeners, derived from the services: written before the first service of an address, removed after
//! the last.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind::NotFound,
    net::IpAddr,
};

use aya::maps::MapError;
use gateway_common::{maps, vip::VipKey};

use super::{
    Error, fault,
    tables::{Tables, failed},
};
use crate::plan::Plan;

/// Makes an address known. One that is known already stays as it is.
pub(super) fn add(tables: &mut Tables, address: IpAddr) -> Result<(), Error> {
    tables
        .vips
        .insert(key(address), 1, 0)
        .map_err(failed(maps::VIPS.0))
}

/// Makes every address of a service entry known: those that an agent wrote which knew no such table.
///
/// # Errors
/// When the map cannot be written.
pub fn adopt(tables: &mut Tables) -> Result<(), Error> {
    let addresses: BTreeSet<IpAddr> = tables
        .services
        .keys()
        .flatten()
        .map(|service| service.addr.into())
        .collect();
    addresses
        .into_iter()
        .try_for_each(|address| add(tables, address))
}

/// Forgets those of the addresses that no wanted service has.
pub(super) fn remove_unused(
    tables: &mut Tables,
    want: &Plan,
    left: &BTreeSet<IpAddr>,
) -> Result<(), Error> {
    if left.is_empty() {
        return Ok(());
    }
    let wanted = addresses(want);
    for address in left.difference(&wanted) {
        fault::point();
        match tables.vips.remove(&key(*address)) {
            Err(MapError::SyscallError(error)) if error.io_error.kind() == NotFound => {}
            removed => removed.map_err(failed(maps::VIPS.0))?,
        }
    }
    Ok(())
}

/// Forgets addresses that no plan knows, left by a crash.
pub(super) fn remove_unknown(tables: &mut Tables, plan: &Plan) {
    let wanted = addresses(plan);
    let unknown: BTreeMap<IpAddr, VipKey> = tables
        .vips
        .keys()
        .flatten()
        .map(|key| (IpAddr::from(key.addr), key))
        .filter(|(address, _)| !wanted.contains(address))
        .collect();
    for key in unknown.values() {
        fault::point();
        // Gone already, or gone at the next start.
        let _ = tables.vips.remove(key);
    }
}

fn addresses(plan: &Plan) -> BTreeSet<IpAddr> {
    plan.services.keys().map(|key| key.address.ip()).collect()
}

fn key(address: IpAddr) -> VipKey {
    VipKey {
        addr: address.into(),
    }
}
