//! The node's links, routes and neighbours, by rtnetlink.
//!
//! Invariant: reads the network and asks it to resolve neighbours; changes neither routes nor
//! addresses.

mod changes;
mod connection;
mod read;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use futures_util::{FutureExt, StreamExt, stream};
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};

pub use changes::{Change, Changes};
pub use connection::Error;
use connection::Requests;
use read::{links, neighbours, path};

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
    /// Addresses in the kernel's order, without IPv6 ones that are only for the link, or not (or no longer) for new use.
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

impl Network {
    /// Connects for requests, and subscribes to changes of links, addresses, routes and
    /// neighbours.
    pub fn connect() -> Result<(Self, Changes), Error> {
        let requests = Requests::default();
        requests.handle()?;
        Ok((Self { requests }, Changes::connect()?))
    }

    /// All links with their addresses.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, Error> {
        let handle = self.requests.handle()?;
        self.requests.answer("links", links(&handle)).await
    }

    /// All neighbours whose MAC address is known.
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

    #[tokio::test]
    async fn the_kernel_knows_the_way_to_itself() {
        let (network, _changes) = Network::connect().expect("rtnetlink needs no privilege");
        let own = IpAddr::from([127, 0, 0, 1]);
        let paths = network.paths([own].into_iter()).await;
        assert!(paths.error.is_none() && paths.unknown.is_empty());
        assert_eq!(paths.found[&own].source, own);
        let interfaces = network.interfaces().await.expect("links");
        assert!(!interfaces.is_empty());
        // Where the node has IPv6 at all.
        let own = IpAddr::from(std::net::Ipv6Addr::LOCALHOST);
        if interfaces.iter().any(|it| it.addresses.contains(&own)) {
            let paths = network.paths([own].into_iter()).await;
            assert_eq!(paths.found[&own].source, own);
        }
        let of_the_link = |ip: &&IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let mut all = interfaces.iter().flat_map(|it| &it.addresses);
        assert_eq!(all.find(of_the_link), None);
    }
}
