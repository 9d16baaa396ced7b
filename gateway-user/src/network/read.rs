//! What rtnetlink's messages say.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressFlags, AddressMessage},
        link::{LinkAttribute, LinkFlags, LinkInfo},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState},
        route::{RouteAddress, RouteAttribute},
    },
};

use super::{Error, Interface, Neighbour, Path};

/// All links with their addresses.
pub(super) async fn links(handle: &Handle) -> Result<Vec<Interface>, Error> {
    let mut addresses: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    let mut dump = handle.address().get().execute();
    while let Some(message) = dump.try_next().await.map_err(failed("addresses"))? {
        if let Some(address) = address(&message) {
            let theirs = addresses.entry(message.header.index).or_default();
            theirs.push(address);
        }
    }
    let mut interfaces = Vec::new();
    let mut dump = handle.link().get().execute();
    while let Some(message) = dump.try_next().await.map_err(failed("links"))? {
        let mut interface = Interface {
            index: message.header.index,
            name: String::new(),
            mac: [0; 6],
            mtu: 0,
            kind: None,
            addresses: addresses.remove(&message.header.index).unwrap_or_default(),
            up: message.header.flags.contains(LinkFlags::Up),
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name = name,
                LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
                LinkAttribute::Address(mac) => {
                    interface.mac = mac.as_slice().try_into().unwrap_or_default();
                }
                LinkAttribute::LinkInfo(infos) => {
                    interface.kind = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        interfaces.push(interface);
    }
    Ok(interfaces)
}

/// IPv4 has its own address in `IFA_LOCAL`; IPv6, but on point-to-point links, in `IFA_ADDRESS` alone.
fn address(message: &AddressMessage) -> Option<IpAddr> {
    let attributes = message.attributes.iter();
    let local = attributes.clone().find_map(|it| match it {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let own = local.or_else(|| {
        attributes.clone().find_map(|it| match it {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })?;
    let v6 = match own {
        IpAddr::V4(_) => return Some(own),
        IpAddr::V6(v6) => v6,
    };
    let unfit = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
    let mut flags = AddressFlags::empty();
    for attribute in attributes {
        if let AddressAttribute::Flags(these) = attribute {
            flags |= *these;
        }
    }
    (!v6.is_unicast_link_local() && !flags.intersects(unfit)).then_some(own)
}

/// All neighbours whose MAC address is known.
pub(super) async fn neighbours(handle: &Handle) -> Result<Vec<Neighbour>, Error> {
    let mut neighbours = Vec::new();
    let mut dump = handle.neighbours().get().execute();
    while let Some(message) = dump.try_next().await.map_err(failed("neighbours"))? {
        let useful = !matches!(
            message.header.state,
            NeighbourState::None
                | NeighbourState::Incomplete
                | NeighbourState::Failed
                | NeighbourState::Noarp
        );
        let (mut address, mut mac) = (None, None);
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                    address = Some(IpAddr::V4(ip));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                    address = Some(IpAddr::V6(ip));
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = <[u8; 6]>::try_from(bytes.as_slice()).ok();
                }
                _ => {}
            }
        }
        if let (true, Some(address), Some(mac)) = (useful, address, mac) {
            neighbours.push(Neighbour {
                ifindex: message.header.ifindex,
                address,
                mac,
            });
        }
    }
    neighbours.sort();
    Ok(neighbours)
}

/// `None`: the kernel has no route there.
pub(super) async fn path(handle: &Handle, address: IpAddr) -> Result<Option<Path>, Error> {
    let request = match address {
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(v4, 32)
            .build(),
        IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(v6, 128)
            .build(),
    };
    let mut answer = Box::pin(handle.route().get(request).execute());
    let route = match answer.try_next().await {
        Ok(Some(route)) => route,
        Ok(None) => return Err(Error::new("routes", "the connection ended")),
        Err(rtnetlink::Error::NetlinkError(error)) if no_route(error.raw_code()) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::new("routes", error)),
    };
    let (mut ifindex, mut neighbour, mut source) = (None, address, None);
    for attribute in route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(index),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => neighbour = ip.into(),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => neighbour = ip.into(),
            RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => source = Some(ip.into()),
            RouteAttribute::PrefSource(RouteAddress::Inet6(ip)) => source = Some(ip.into()),
            _ => {}
        }
    }
    Ok(ifindex.zip(source).map(|(ifindex, source)| Path {
        ifindex,
        neighbour,
        source,
    }))
}

/// Whether an error number of the kernel says that there is no way: none at all (`ENETUNREACH`),
/// or one of type unreachable (`EHOSTUNREACH`), prohibit (`EACCES`) or blackhole (`EINVAL`).
/// Source: Linux, net/ipv4/fib_semantics.c, `fib_props`.
fn no_route(code: i32) -> bool {
    const EACCES: i32 = 13;
    const EINVAL: i32 = 22;
    const ENETUNREACH: i32 = 101;
    const EHOSTUNREACH: i32 = 113;
    matches!(-code, EACCES | EINVAL | ENETUNREACH | EHOSTUNREACH)
}

fn failed<E: fmt::Display>(what: &str) -> impl FnOnce(E) -> Error {
    move |cause| Error::new(what, cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_short_of_memory_does_not_mean_that_there_is_no_route() {
        assert!([-101, -113, -22, -13].into_iter().all(no_route));
        assert!(
            [-12, -105, -16, -1, 0]
                .into_iter()
                .all(|code| !no_route(code))
        );
    }
}
