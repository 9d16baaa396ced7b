//! One AlbConfig -> its clusters, addresses and listeners (contract section 2).

mod access;
mod cloud;
mod forwarding;
mod limits;
mod listeners;
mod proxy_protocol;
mod tls;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{
    annotations,
    notes::{ADDRESSES, ALB, Notes, alb, annotation},
};
use crate::{
    ir::model::{
        AccessList, ForwardedFor, ForwardedHeaders, IdentityHeaders, Limits, ListenerProtocol,
        ListenerSettings, Network, SteeringWish, Tls, Transport,
    },
    manifest::{AlbConfig, ClusterId},
    problem::shown,
};

/// Addresses of one AlbConfig.
const MOST_ADDRESSES: usize = 100;

/// Port and protocol: what a listener is known by inside its AlbConfig.
pub(super) type Key = (u16, ListenerProtocol);

/// An AlbConfig that is understood.
#[derive(Clone, Debug)]
pub(super) struct Gateway {
    /// Member clusters whose pods serve.
    pub(super) clusters: BTreeSet<ClusterId>,
    pub(super) steering: Option<SteeringWish>,
    /// Ports that the AlbConfig lists, served or not.
    pub(super) written: BTreeSet<(u16, Transport)>,
    /// Field of each listener in [`Kept::listeners`], e.g. `spec.listeners[1]`.
    pub(super) places: BTreeMap<Key, String>,
    /// Fields that are set, fit a cloud and mean nothing here: worth a word, never a problem.
    pub(super) ignored: Vec<String>,
    /// Why some of [`Kept::listeners`] cannot be served; decided by the caller.
    pub(super) refused: BTreeMap<Key, String>,
    pub(super) kept: Kept,
}

/// What of an AlbConfig outlives a later mistake in it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Kept {
    /// `None` until there was a good list; empty means every VIP.
    pub(super) addresses: Option<Vec<IpAddr>>,
    pub(super) listeners: BTreeMap<Key, Settings>,
}

/// One listener as it is written; what cannot be carried out yet is for others to refuse.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Settings {
    pub(super) idle_timeout: Duration,
    pub(super) request_timeout: Duration,
    /// Compress responses of usual types.
    pub(super) gzip: bool,
    pub(super) forwarded_for: ForwardedFor,
    pub(super) forwarded: ForwardedHeaders,
    pub(super) identity: IdentityHeaders,
    /// Proxies whose `X-Forwarded-For` is believed; `None`: the peer is the client.
    pub(super) trusted: Option<Vec<Network>>,
    /// Load balancers whose connections begin with a PROXY header.
    pub(super) proxy_protocol: Option<Vec<Network>>,
    /// A header the listener is explicitly told to write.
    pub(super) writes: Option<&'static str>,
    /// HTTPS and QUIC; the certificates of Ingresses' Secrets come later.
    pub(super) tls: Option<Tls>,
    /// `None`: everyone may connect.
    pub(super) access: Option<AccessList>,
    /// How many new flows it takes.
    pub(super) limits: Limits,
    /// HTTPS: clients are told that QUIC is there, too.
    pub(super) quic_upgrade: bool,
    /// HTTP: clients may begin with HTTP/2.
    pub(super) h2c: bool,
}

impl Settings {
    /// What of it the routing model carries.
    pub(super) fn serving(&self) -> ListenerSettings {
        let Self {
            idle_timeout,
            request_timeout,
            gzip,
            forwarded_for,
            forwarded,
            identity,
            trusted,
            proxy_protocol,
            writes: _,
            tls,
            access,
            limits,
            quic_upgrade,
            h2c,
        } = self.clone();
        ListenerSettings {
            idle_timeout,
            request_timeout,
            forwarded_for,
            forwarded,
            identity,
            trusted,
            proxy_protocol,
            gzip,
            tls,
            quic_upgrade,
            h2c,
            access,
            limits,
        }
    }
}

/// `associated` are the clusters that exist. What is wrong is taken from `before`, or left out.
pub(super) fn understand(
    config: &AlbConfig,
    associated: &BTreeSet<ClusterId>,
    before: Option<&Kept>,
    notes: &mut Notes,
) -> Gateway {
    let annotations = &config.metadata.annotations;
    annotations::review_gateway(annotations, notes);
    let addresses = match annotations.get(ADDRESSES) {
        None => Some(Vec::new()),
        Some(text) => {
            addresses(text, notes).or_else(|| before.and_then(|kept| kept.addresses.clone()))
        }
    };
    let mut listed = listeners::read(&config.spec.listeners, before, notes);
    limits::read(annotations, &mut listed.settings, before, notes);
    proxy_protocol::read(annotations, &mut listed.settings, before, notes);
    Gateway {
        clusters: clusters(annotations, associated, notes),
        steering: annotations::steering(annotations, notes),
        written: listeners::ports(&config.spec.listeners),
        places: listed.places,
        ignored: cloud::ignored(&config.spec, notes),
        refused: BTreeMap::new(),
        kept: Kept {
            addresses,
            listeners: listed.settings,
        },
    }
}

/// Without `remote-clusters` every associated cluster serves: a directory that holds one gateway needs no list of its own.
fn clusters(
    annotations: &BTreeMap<String, String>,
    associated: &BTreeSet<ClusterId>,
    notes: &mut Notes,
) -> BTreeSet<ClusterId> {
    let Some(text) = annotations.get(&format!("{ALB}remote-clusters")) else {
        return associated.clone();
    };
    let field = alb("remote-clusters");
    let named: BTreeSet<ClusterId> = text
        .split(',')
        .map(str::trim)
        .filter(|id| !id.is_empty())
        .map(|id| ClusterId(id.into()))
        .collect();
    if named.is_empty() {
        notes.warning(
            field.clone(),
            "names no cluster, so no pod serves",
            "write the IDs of member clusters, or remove the annotation to use all of them",
        );
    }
    for id in named.difference(associated) {
        let known: Vec<_> = associated.iter().take(8).map(ToString::to_string).collect();
        let remedy = match known.as_slice() {
            [] => format!(
                "create `clusters/{}/`, or correct the ID",
                id.0.escape_debug()
            ),
            known => format!(
                "correct the ID (associated: {}), or associate the cluster",
                known.join(", ")
            ),
        };
        notes.warning(
            field.clone(),
            format!("cluster {} is not associated and is skipped", shown(&id.0)),
            remedy,
        );
    }
    named.intersection(associated).cloned().collect()
}

fn addresses(text: &str, notes: &mut Notes) -> Option<Vec<IpAddr>> {
    if text.split(',').count() > MOST_ADDRESSES {
        notes.error(
            annotation(ADDRESSES),
            format!("lists more than {MOST_ADDRESSES} addresses"),
            "write the addresses of this gateway only",
        );
        return None;
    }
    let mut found = BTreeSet::new();
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        match item.parse::<IpAddr>().map(|it| it.to_canonical()) {
            Ok(address) if !address.is_unspecified() && !address.is_multicast() => {
                found.insert(address);
            }
            _ => {
                notes.error(
                    annotation(ADDRESSES),
                    format!("{} is not an address clients can connect to", shown(item)),
                    "write IP addresses of this gateway, separated by commas",
                );
                return None;
            }
        }
    }
    if found.is_empty() {
        notes.error(
            annotation(ADDRESSES),
            "names no address",
            "write IP addresses of this gateway, or remove the annotation to listen on all of them",
        );
        return None;
    }
    Some(found.into_iter().collect())
}

#[cfg(test)]
mod tests;
