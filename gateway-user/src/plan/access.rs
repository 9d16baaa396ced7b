//! Access lists as the kernel's trie holds them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use gateway_common::{
    addr::Addr,
    limits::{ACL_BITS, ALLOW, AclKey, DENY, MAPPED_BITS},
};
use serde::{Deserialize, Serialize};

use crate::ir::{AccessList, Network};

/// Entries of all lists that have room in the trie. A changed list is there twice for a moment.
pub(super) const ROOM: usize = gateway_common::maps::ACLS.1 as usize;

/// The access list of one service.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Access {
    /// Its id, from 1; another content gets another id.
    pub id: u16,
    /// Its content.
    pub list: Arc<AccessList>,
}

impl Access {
    /// Most entries that it takes.
    pub(super) fn size(list: &AccessList) -> usize {
        list.networks.len() + 2
    }
}

/// Entries of a list under an id. The longest prefix decides, so what no network says is an entry too:
/// one for the whole list, one for all of IPv4, so that an IPv6 network that happens to hold the mapped
/// addresses says nothing about IPv4 clients.
pub fn entries(id: u16, list: &AccessList) -> BTreeMap<AclKey, u32> {
    let (listed, others) = if list.allow {
        (ALLOW, DENY)
    } else {
        (DENY, ALLOW)
    };
    let any = Addr::default();
    let mapped = Addr::v4(0);
    let mut entries = BTreeMap::from([
        (AclKey::network(id, &any, ACL_BITS), others),
        (AclKey::network(id, &mapped, ACL_BITS + MAPPED_BITS), others),
    ]);
    let networks = list
        .networks
        .iter()
        .map(|network| (key(id, network), listed));
    entries.extend(networks);
    entries
}

fn key(id: u16, network: &Network) -> AclKey {
    let before = match network.address() {
        IpAddr::V4(_) => ACL_BITS + MAPPED_BITS,
        IpAddr::V6(_) => ACL_BITS,
    };
    let prefix = before + u32::from(network.prefix());
    AclKey::network(id, &network.address().into(), prefix)
}

#[cfg(test)]
mod tests {
    use gateway_common::datapath::{Tables, tables::Memory};
    use proptest::prelude::*;

    use super::*;

    fn network() -> impl Strategy<Value = Network> {
        // Few addresses and all prefixes, so that networks nest.
        let v4 = (any::<[bool; 4]>(), 0_u8..=32).prop_map(|(bits, prefix)| {
            let octets = bits.map(|bit| if bit { 255 } else { 10 });
            Network::new(IpAddr::from(octets), prefix)
        });
        let v6 = (any::<[bool; 8]>(), 0_u8..=128).prop_map(|(bits, prefix)| {
            let mut octets = [0_u8; 16];
            for (octet, bit) in octets.iter_mut().skip(8).zip(bits) {
                *octet = if bit { 255 } else { 0 };
            }
            Network::new(IpAddr::from(octets), prefix)
        });
        prop_oneof![v4, v6].prop_map(|network| network.expect("prefixes that fit"))
    }

    fn client() -> impl Strategy<Value = IpAddr> {
        let v4 = any::<[bool; 4]>()
            .prop_map(|bits| IpAddr::from(bits.map(|bit| if bit { 255 } else { 10 })));
        prop_oneof![v4, network().prop_map(|network| network.address())]
    }

    proptest! {
        #[test]
        fn the_longest_prefix_says_what_looking_through_the_list_says(
            allow: bool,
            networks in prop::collection::vec(network(), 1..12),
            clients in prop::collection::vec(client(), 1..12),
        ) {
            let list = AccessList { allow, networks };
            let mut memory = Memory::default();
            memory.acls = entries(7, &list);
            for client in clients {
                let listed = list.networks.iter().any(|network| network.contains(client));
                prop_assert_eq!(memory.allowed(7, &client.into()), listed == allow, "{}", client);
            }
        }
    }

    #[test]
    fn a_list_that_is_not_there_lets_nobody_in() {
        let list = AccessList {
            allow: false,
            networks: Vec::new(),
        };
        let mut memory = Memory::default();
        memory.acls = entries(7, &list);
        let client = IpAddr::from([192, 0, 2, 1]).into();
        assert!(memory.allowed(7, &client));
        assert!(!memory.allowed(8, &client));
    }
}
