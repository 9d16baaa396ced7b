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
}

/// One listener, and for each of its rules the index of the group in [`RouteTable::groups`].
#[derive(Clone, Debug)]
pub(super) struct Routes {
    pub(super) listener: Listener,
    pub(super) groups: Vec<usize>,
}

impl RouteTable {
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
