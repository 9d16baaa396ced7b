//! Notices of change, on a connection of their own: what floods it never delays an answer.

use std::time::Duration;

use futures_channel::mpsc::UnboundedReceiver;
use futures_util::StreamExt;
use rtnetlink::{
    MulticastGroup, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    sys::SocketAddr,
};
use tokio::time::{Instant, sleep_until};

use super::Error;

/// What a notice was about; the greater one includes the lesser.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Change {
    /// Only who answers to which address.
    Neighbours,
    /// Links, addresses or routes, or unknown: notices were lost.
    Paths,
}

type Notices = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// Notices of change: each means "look again".
#[derive(Debug)]
pub struct Changes {
    notices: Option<Notices>,
    connect_at: Instant,
}

/// Pause after a connection was lost.
const PAUSE: Duration = Duration::from_secs(1);

impl Changes {
    /// Subscribes to changes of links, addresses, routes and neighbours. The connection's task
    /// runs on the current tokio runtime.
    pub(super) fn connect() -> Result<Self, Error> {
        Ok(Self {
            notices: Some(subscribe()?),
            connect_at: Instant::now(),
        })
    }

    /// The next change, together with all that have come by now. Never ends: a lost connection is
    /// made anew, and counts as [`Change::Paths`]. May be dropped and called again at any time.
    pub async fn next(&mut self) -> Change {
        loop {
            let Some(notices) = &mut self.notices else {
                sleep_until(self.connect_at).await;
                self.connect_at = Instant::now() + PAUSE;
                self.notices = subscribe().ok();
                if self.notices.is_some() {
                    return Change::Paths;
                }
                continue;
            };
            if let Some((message, _)) = notices.next().await {
                let mut change = kind(&message);
                while let Ok((message, _)) = notices.try_recv() {
                    change = change.max(kind(&message));
                }
                return change;
            }
            self.notices = None;
            self.connect_at = Instant::now() + PAUSE;
        }
    }
}

fn subscribe() -> Result<Notices, Error> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let (connection, _, notices) =
        new_multicast_connection(&groups).map_err(|e| Error::new("changes of the network", e))?;
    tokio::spawn(connection);
    Ok(notices)
}

fn kind(message: &NetlinkMessage<RouteNetlinkMessage>) -> Change {
    match &message.payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewNeighbour(_) | RouteNetlinkMessage::DelNeighbour(_),
        ) => Change::Neighbours,
        _ => Change::Paths,
    }
}

#[cfg(test)]
mod tests {
    use futures_channel::mpsc::unbounded;
    use rtnetlink::{
        packet_core::NetlinkHeader,
        packet_route::{neighbour::NeighbourMessage, route::RouteMessage},
    };

    use super::*;

    fn notice(
        payload: impl Into<NetlinkPayload<RouteNetlinkMessage>>,
    ) -> (NetlinkMessage<RouteNetlinkMessage>, SocketAddr) {
        let message = NetlinkMessage::new(NetlinkHeader::default(), payload.into());
        (message, SocketAddr::new(0, 0))
    }

    fn neighbour() -> RouteNetlinkMessage {
        RouteNetlinkMessage::NewNeighbour(NeighbourMessage::default())
    }

    #[tokio::test]
    async fn a_route_among_neighbours_is_not_lost() {
        let (sender, notices) = unbounded();
        let mut changes = Changes {
            notices: Some(notices),
            connect_at: Instant::now(),
        };
        sender.unbounded_send(notice(neighbour())).expect("open");
        assert_eq!(changes.next().await, Change::Neighbours);
        let route = RouteNetlinkMessage::NewRoute(RouteMessage::default());
        for message in [neighbour(), route, neighbour()] {
            sender.unbounded_send(notice(message)).expect("open");
        }
        assert_eq!(changes.next().await, Change::Paths);
    }

    #[tokio::test]
    async fn lost_notices_count_as_a_change_of_paths() {
        let (sender, notices) = unbounded();
        let mut changes = Changes {
            notices: Some(notices),
            connect_at: Instant::now(),
        };
        let overrun = NetlinkPayload::Overrun(Vec::new());
        sender.unbounded_send(notice(overrun)).expect("open");
        assert_eq!(changes.next().await, Change::Paths);
        drop(sender);
        // The connection ended; the next one has no memory of what was missed.
        assert_eq!(changes.next().await, Change::Paths);
    }
}
