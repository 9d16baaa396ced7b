//! The node's links, routes and neighbours, by rtnetlink.
//!
//! Invariant: reads the network and asks it to resolve neighbours; changes neither routes nor
//! addresses.

mod changes;
mod connection;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::AddressAttribute,
        link::{LinkAttribute, LinkFlags, LinkInfo},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourState},
        route::{RouteAddress, RouteAttribute},
    },
};

pub use changes::{Change, Changes};
pub use connection::Error;
use connection::Requests;

/// A link of the node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// MAC address.
    pub mac: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Kind of a virtual link (`veth`, `bridge` ...); `None` for a network card.
    pub kind: Option<String>,
    /// IPv4 addresses, in the kernel's order.
    pub addresses: Vec<IpAddr>,
    /// Administratively up.
    pub up: bool,
}

/// Who answers to which address.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Neighbour {
    /// Interface it is on.
    pub ifindex: u32,
    /// IP address.
    pub address: IpAddr,
    /// MAC address.
    pub mac: [u8; 6],
}

/// The way to an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Path {
    /// Outgoing interface; 0 where it is not known yet.
    pub ifindex: u32,
    /// Gateway, or the address itself where it is on the link.
    pub neighbour: IpAddr,
    /// Source address the kernel would use.
    pub source: IpAddr,
}

/// What was learnt about the ways to some addresses. An address in neither has no route.
#[derive(Debug, Default)]
pub struct Paths {
    /// The ways there.
    pub found: BTreeMap<IpAddr, Path>,
    /// Addresses the kernel gave no answer about: what was known of them may still hold.
    pub unknown: BTreeSet<IpAddr>,
    /// Why some are unknown: the first reason.
    pub error: Option<Error>,
}

impl Paths {
    /// Addresses without an answer keep the way they had.
    pub fn or_before(self, before: &BTreeMap<IpAddr, Path>) -> BTreeMap<IpAddr, Path> {
        let kept = self
            .unknown
            .iter()
            .filter_map(|address| Some((*address, before.get(address)?.clone())));
        let mut paths = self.found;
        paths.extend(kept);
        paths
    }
}

/// Reads the network; requests have a connection of their own.
#[derive(Debug)]
pub struct Network {
    requests: Requests,
}

/// Requests under way at once.
const AT_ONCE: usize = 16;

fn failed<E: fmt::Display>(what: &str) -> impl FnOnce(E) -> Error {
    move |cause| Error::new(what, cause)
}

impl Network {
    /// Connects for requests, and subscribes to changes of links, addresses, routes and
    /// neighbours.
    pub fn connect() -> Result<(Self, Changes), Error> {
        let requests = Requests::default();
        requests.handle()?;
        Ok((Self { requests }, Changes::connect()?))
    }

    /// All links with their IPv4 addresses.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, Error> {
        let handle = self.requests.handle()?;
        self.requests.answer("links", links(&handle)).await
    }

    /// All IPv4 neighbours whose MAC address is known.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, Error> {
        let handle = self.requests.handle()?;
        self.requests
            .answer("neighbours", neighbours(&handle))
            .await
    }

    /// The ways to many addresses. After the first answer that did not come nothing more is asked,
    /// so a look is late by no more than one answer's time.
    pub async fn paths(&self, addresses: impl Iterator<Item = IpAddr>) -> Paths {
        let mut paths = Paths::default();
        let handle = match self.requests.handle() {
            Ok(handle) => handle,
            Err(error) => {
                paths.unknown = addresses.collect();
                paths.error = Some(error);
                return paths;
            }
        };
        let silent = Cell::new(false);
        let mut answers = stream::iter(addresses)
            .map(async |address| {
                if silent.get() {
                    return (address, None);
                }
                let answer = self
                    .requests
                    .answer("routes", async { Ok(path(&handle, address).await) })
                    .await;
                silent.set(silent.get() || answer.is_err());
                (address, Some(answer.and_then(|path| path)))
            })
            .buffer_unordered(AT_ONCE);
        while let Some((address, answer)) = answers.next().await {
            match answer {
                Some(Ok(Some(path))) => {
                    paths.found.insert(address, path);
                }
                Some(Ok(None)) => {}
                Some(Err(error)) => {
                    paths.unknown.insert(address);
                    paths.error.get_or_insert(error);
                }
                None => {
                    paths.unknown.insert(address);
                }
            }
        }
        drop(answers);
        paths
    }

    /// Asks the kernel to resolve neighbours, or to make sure of them, without sending packets. A
    /// probe that cannot be sent is left to the next look at the network.
    pub async fn probe(&self, neighbours: impl IntoIterator<Item = (u32, IpAddr)>) {
        let Ok(handle) = self.requests.handle() else {
            return;
        };
        let all = stream::iter(neighbours).for_each_concurrent(AT_ONCE, async |(ifindex, ip)| {
            let request = handle
                .neighbours()
                .add(ifindex, ip)
                .state(NeighbourState::None)
                .flags(NeighbourFlags::Use)
                .replace();
            let _ = request.execute().await;
        });
        let _ = self.requests.answer("neighbours", all.map(Ok)).await;
    }
}

async fn links(handle: &Handle) -> Result<Vec<Interface>, Error> {
    let mut addresses: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    let mut dump = handle.address().get().execute();
    while let Some(message) = dump.try_next().await.map_err(failed("addresses"))? {
        for attribute in &message.attributes {
            if let AddressAttribute::Local(ip @ IpAddr::V4(_)) = attribute {
                addresses.entry(message.header.index).or_default().push(*ip);
            }
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

async fn neighbours(handle: &Handle) -> Result<Vec<Neighbour>, Error> {
    let mut neighbours = Vec::new();
    let mut dump = handle
        .neighbours()
        .get()
        .set_address_family(AddressFamily::Inet)
        .execute();
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
async fn path(handle: &Handle, address: IpAddr) -> Result<Option<Path>, Error> {
    let IpAddr::V4(v4) = address else {
        return Ok(None);
    };
    let request = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
        .destination_prefix(v4, 32)
        .build();
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
            RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => source = Some(ip.into()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_without_an_answer_keeps_its_old_way() {
        let [asked, lost, unreachable] = [1, 2, 3].map(|last| IpAddr::from([10, 0, 0, last]));
        let path = |ifindex| Path {
            ifindex,
            neighbour: asked,
            source: asked,
        };
        let before = BTreeMap::from([(asked, path(1)), (lost, path(1)), (unreachable, path(1))]);
        let now = Paths {
            found: BTreeMap::from([(asked, path(2))]),
            unknown: BTreeSet::from([lost]),
            error: None,
        };
        assert_eq!(
            now.or_before(&before),
            BTreeMap::from([(asked, path(2)), (lost, path(1))])
        );
    }

    #[test]
    fn a_kernel_short_of_memory_does_not_mean_that_there_is_no_route() {
        assert!([-101, -113, -22, -13].into_iter().all(no_route));
        assert!(
            [-12, -105, -16, -1, 0]
                .into_iter()
                .all(|code| !no_route(code))
        );
    }

    #[tokio::test]
    async fn the_kernel_knows_the_way_to_itself() {
        let (network, _changes) = Network::connect().expect("rtnetlink needs no privilege");
        let own = IpAddr::from([127, 0, 0, 1]);
        let paths = network.paths([own].into_iter()).await;
        assert!(paths.error.is_none() && paths.unknown.is_empty());
        assert_eq!(paths.found[&own].source, own);
        assert!(!network.interfaces().await.expect("links").is_empty());
    }
}
