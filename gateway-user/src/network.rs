//! The node's links, routes and neighbours, by rtnetlink.
//!
//! Invariant: reads the network and asks it to resolve neighbours; changes neither routes nor
//! addresses.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use futures_util::{StreamExt, TryStreamExt, stream};
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection,
    packet_core::NetlinkMessage,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::AddressAttribute,
        link::{LinkAttribute, LinkFlags, LinkInfo},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourState},
        route::{RouteAddress, RouteAttribute},
    },
    sys::SocketAddr,
};

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
    /// Outgoing interface.
    pub ifindex: u32,
    /// Gateway, or the address itself where it is on the link.
    pub neighbour: IpAddr,
    /// Source address the kernel would use.
    pub source: IpAddr,
}

/// rtnetlink did not answer as expected.
#[derive(Debug)]
pub struct Error {
    what: String,
    cause: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}: {}", self.what, self.cause)
    }
}

impl std::error::Error for Error {}

fn failed<E: fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> Error {
    let what = what.into();
    move |cause| Error {
        what,
        cause: cause.to_string(),
    }
}

/// Notices of change: each message means "look again".
pub type Changes =
    futures_channel::mpsc::UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// A connection to rtnetlink; its task runs on the current tokio runtime.
#[derive(Clone)]
pub struct Network {
    handle: Handle,
}

/// Requests under way at once.
const AT_ONCE: usize = 16;

impl Network {
    /// Connects, and subscribes to changes of links, routes and neighbours.
    pub fn connect() -> Result<(Self, Changes), Error> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Ifaddr,
        ];
        let (connection, handle, changes) =
            new_multicast_connection(&groups).map_err(failed("the network (rtnetlink)"))?;
        tokio::spawn(connection);
        Ok((Self { handle }, changes))
    }

    /// All links with their IPv4 addresses.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, Error> {
        let mut addresses: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
        let mut dump = self.handle.address().get().execute();
        while let Some(message) = dump.try_next().await.map_err(failed("addresses"))? {
            for attribute in &message.attributes {
                if let AddressAttribute::Local(ip @ IpAddr::V4(_)) = attribute {
                    addresses.entry(message.header.index).or_default().push(*ip);
                }
            }
        }
        let mut interfaces = Vec::new();
        let mut dump = self.handle.link().get().execute();
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

    /// All IPv4 neighbours whose MAC address is known.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, Error> {
        let mut neighbours = Vec::new();
        let mut dump = self
            .handle
            .neighbours()
            .get()
            .set_address_family(AddressFamily::Inet)
            .execute();
        while let Some(message) = dump.try_next().await.map_err(failed("neighbours"))? {
            let useful = !matches!(
                message.header.state,
                NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::Noarp
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

    /// The ways to many addresses; an address without a route is missing in the answer.
    pub async fn paths(&self, addresses: impl Iterator<Item = IpAddr>) -> BTreeMap<IpAddr, Path> {
        stream::iter(addresses)
            .map(async |address| Some((address, self.path(address).await?)))
            .buffer_unordered(AT_ONCE)
            .filter_map(async |found| found)
            .collect()
            .await
    }

    async fn path(&self, address: IpAddr) -> Option<Path> {
        let IpAddr::V4(v4) = address else { return None };
        let request = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(v4, 32)
            .build();
        let mut answer = Box::pin(self.handle.route().get(request).execute());
        let route = answer.try_next().await.ok()??;
        let (mut ifindex, mut neighbour, mut source) = (None, address, None);
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => ifindex = Some(index),
                RouteAttribute::Gateway(RouteAddress::Inet(ip)) => neighbour = ip.into(),
                RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => source = Some(ip.into()),
                _ => {}
            }
        }
        Some(Path {
            ifindex: ifindex?,
            neighbour,
            source: source?,
        })
    }

    /// Asks the kernel to resolve a neighbour, or to make sure of it, without sending a packet.
    pub async fn probe(&self, ifindex: u32, address: IpAddr) {
        let request = self
            .handle
            .neighbours()
            .add(ifindex, address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        // A probe that cannot be sent is repeated with the next look at the network.
        let _ = request.execute().await;
    }
}
