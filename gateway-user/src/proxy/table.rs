//! What the proxy routes by: one immutable value, replaced whole.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::ir::{Group, Ir, Listener};

/// The listeners the proxy serves, by address, with their groups.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    listeners: HashMap<SocketAddr, Arc<Routes>>,
    pub(super) groups: Vec<Arc<Group>>,
    /// Nothing is known yet, which is not the same as nothing to serve.
    pub(super) starting: bool,
}

/// One listener, and for each of its rules the index of the group in [`RouteTable::groups`].
#[derive(Clone, Debug)]
pub(super) struct Routes {
    pub(super) listener: Listener,
    pub(super) groups: Vec<usize>,
}

impl RouteTable {
    /// What a proxy has before it was told anything.
    pub(super) fn unknown() -> Self {
        Self {
            starting: true,
            ..Self::default()
        }
    }

    /// Takes every listener: the kernel decides which of them get here, and connections that are open when it takes
    /// one over, or that it cannot steer (no ready backend), stay served. One without addresses of its own is on every VIP;
    /// where two claim the same address and port, the first by name has it.
    pub fn build(ir: &Ir, vips: &[IpAddr]) -> Self {
        let mut table = Self::default();
        let mut known: HashMap<*const Group, usize> = HashMap::new();
        for listener in &ir.listeners {
            let mut index = |group: &Arc<Group>| {
                *known.entry(Arc::as_ptr(group)).or_insert_with(|| {
                    table.groups.push(Arc::clone(group));
                    table.groups.len() - 1
                })
            };
            let groups = listener
                .rules
                .iter()
                .map(|rule| index(&rule.group))
                .collect();
            let routes = Arc::new(Routes {
                listener: listener.clone(),
                groups,
            });
            let addresses = if listener.addresses.is_empty() {
                vips
            } else {
                &listener.addresses
            };
            for address in addresses {
                let address = SocketAddr::new(address.to_canonical(), listener.name.port);
                table
                    .listeners
                    .entry(address)
                    .or_insert_with(|| Arc::clone(&routes));
            }
        }
        table
    }

    /// The listener at the address a client connected to.
    pub(super) fn routes(&self, local: SocketAddr) -> Option<&Arc<Routes>> {
        self.listeners
            .get(&SocketAddr::new(local.ip().to_canonical(), local.port()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ir::{
        ForwardedFor, ForwardedHeaders, ListenerName, ListenerProtocol, Steering, SteeringMode,
    };

    fn listener(gateway: &str, addresses: &[&str], mode: SteeringMode) -> Listener {
        Listener {
            name: ListenerName {
                gateway: gateway.into(),
                port: 80,
                protocol: ListenerProtocol::Http,
            },
            addresses: addresses
                .iter()
                .map(|address| address.parse().expect("an address"))
                .collect(),
            idle_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(60),
            forwarded_for: ForwardedFor::Append,
            forwarded: ForwardedHeaders::default(),
            rules: Vec::new(),
            steering: Steering {
                mode,
                reason: String::new(),
            },
        }
    }

    #[test]
    fn every_listener_is_served_whoever_steers_it_and_on_its_own_addresses() {
        let ir = Ir {
            listeners: vec![
                listener("a", &["10.0.0.1"], SteeringMode::Request),
                listener("b", &["10.0.0.2"], SteeringMode::Connection),
                listener("c", &[], SteeringMode::Request),
            ],
        };
        let vips = ["10.0.0.1", "10.0.0.3"].map(|vip| vip.parse().expect("an address"));
        let table = RouteTable::build(&ir, &vips);
        let served = |local: &str| {
            let routes = table.routes(local.parse().expect("an address"))?;
            Some(routes.listener.name.gateway.clone())
        };
        assert_eq!(
            served("10.0.0.1:80").as_deref(),
            Some("a"),
            "the first by name has it"
        );
        assert_eq!(served("10.0.0.2:80").as_deref(), Some("b"));
        assert_eq!(served("10.0.0.3:80").as_deref(), Some("c"));
        assert_eq!(served("[::ffff:10.0.0.3]:80").as_deref(), Some("c"));
        assert_eq!(served("10.0.0.3:81"), None);
    }
}
