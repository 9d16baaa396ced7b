//! What is told to the fleet's API: status and Events of its objects.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use gateway_common::hash;
use tokio::sync::watch;
use tracing::warn;

use super::{Error, Gateway, options::Fleet};
use crate::{
    ir::{Listener, ListenerProtocol},
    manifest::ObjectMeta,
    status::{self, CertificateView, GatewayView, IngressView, ListenerView, View, Wanted},
};

/// Prefix of the IDs of gateways.
const INSTANCE: &str = "fleetgate";
/// A write under way when the agent stops gets this long.
const PATIENCE: Duration = Duration::from_secs(2);

/// The way to the fleet's API.
pub(super) struct Publishing {
    dns_suffix: Option<String>,
    wanted: watch::Sender<Arc<Wanted>>,
    handle: status::Handle,
}

impl Publishing {
    /// Starts the thread that writes. A fleet that cannot be reached yet is tried again by that thread.
    pub(super) fn start(fleet: &Fleet) -> Result<Option<Self>, Error> {
        let config = match fleet.servers.fleet.config() {
            Ok(config) => config,
            Err(error) => {
                warn!(%error, "no status is written: the fleet cannot be reached with this configuration");
                return Ok(None);
            }
        };
        let (wanted, told) = watch::channel(Arc::new(Wanted::default()));
        let options = status::Options {
            namespace: status::pod_namespace(),
            identity: status::identity(&fleet.node),
            leader_elect: fleet.leader_elect,
            timing: status::Timing::default(),
        };
        let handle = status::start(options, config, told)
            .map_err(|error| Error::Status(error.to_string()))?;
        Ok(Some(Self {
            dns_suffix: fleet.dns_suffix.clone(),
            wanted,
            handle,
        }))
    }

    /// What was written, for metrics.
    pub(super) fn counters(&self) -> Arc<status::Counters> {
        self.handle.counters()
    }

    /// Gives the Lease back.
    pub(super) fn stop(self) {
        if !self.handle.shutdown(PATIENCE) {
            warn!("the fleet's API did not answer in time; the Lease runs out by itself");
        }
    }
}

impl Gateway {
    /// Tells the fleet what its objects came to.
    pub(super) fn publish(&self) {
        let Some(publishing) = &self.publishing else {
            return;
        };
        let gateways = self.gateway_views();
        let ingresses = self.ingress_views();
        let view = View {
            whole: self.snapshot.whole,
            instance: INSTANCE,
            dns_suffix: publishing.dns_suffix.as_deref(),
            gateways: &gateways,
            ingresses: &ingresses,
            problems: &self.record.problems,
        };
        let wanted = status::wanted(&view);
        publishing.wanted.send_if_modified(|had| {
            let differs = **had != wanted;
            if differs {
                *had = Arc::new(wanted);
            }
            differs
        });
    }

    fn gateway_views(&self) -> Vec<GatewayView> {
        let listeners = |name: &str| {
            let theirs = self.record.ir.listeners.values();
            let theirs = theirs.filter(|listener| listener.name.gateway == name);
            theirs.map(|listener| listener_view(listener)).collect()
        };
        let clusters = |name: &str| {
            let theirs = self.compiler.clusters(name);
            let clusters = &self.record.clusters;
            let known = theirs.filter(|id| {
                let mut clusters = clusters.iter();
                clusters.any(|it| *it.id == *id.0 && it.is_known())
            });
            known.map(ToString::to_string).collect()
        };
        let gateways = self.snapshot.gateways.iter();
        gateways
            .map(|(name, config)| {
                let theirs = self.record.ir.listeners.values();
                let own = theirs.filter(|it| it.name.gateway == *name);
                let own: BTreeSet<_> = own.flat_map(|it| it.addresses.iter().copied()).collect();
                GatewayView {
                    name: name.clone(),
                    uid: config.metadata.uid.clone(),
                    revision: revision(&config.metadata),
                    listeners: listeners(name),
                    clusters: clusters(name),
                    addresses: if own.is_empty() {
                        self.record.vips.clone()
                    } else {
                        own.into_iter().collect()
                    },
                }
            })
            .collect()
    }

    fn ingress_views(&self) -> Vec<IngressView> {
        let served = self.record.ir.served();
        let rules = served.flat_map(|it| it.rules.iter().chain(&it.passthrough));
        let served: BTreeSet<&str> = rules.map(|rule| &*rule.ingress).collect();
        let ours = self.compiler.members().filter_map(|(key, gateway)| {
            let ingress = self.snapshot.ingresses.get(key)?;
            Some(IngressView {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                uid: ingress.metadata.uid.clone(),
                revision: revision(&ingress.metadata),
                gateway: gateway.to_owned(),
                served: served.contains(key.to_string().as_str()),
            })
        });
        ours.collect()
    }
}

fn listener_view(listener: &Listener) -> ListenerView {
    let certificates = listener.settings.tls.iter().flat_map(|it| &it.certificates);
    ListenerView {
        port: listener.name.port,
        protocol: listener.name.protocol.to_string(),
        served: listener.refused.is_none(),
        certificates: certificates
            .filter(|_| listener.name.protocol != ListenerProtocol::Http)
            .map(|it| CertificateView {
                secret: it.id.clone(),
                is_default: it.default,
            })
            .collect(),
    }
}

/// Differs when specification or annotations do: `metadata.generation` counts only the first.
fn revision(meta: &ObjectMeta) -> u64 {
    meta.annotations
        .iter()
        .fold(meta.generation.unsigned_abs(), |seed, (key, value)| {
            hash::name(hash::name(seed, key.as_bytes()), value.as_bytes())
        })
}
