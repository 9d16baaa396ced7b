//! What the manifests say at the moment, and which pods may answer for it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use xtask::{
    lab::topology::{self, HTTP_PORT},
    member::Endpoint,
};

use crate::e2e::{
    Gateway,
    manifests::{self, Ingress},
};

/// Listeners by Service; no pod is in both.
pub(super) const SERVICES: [(&str, u16, &[&str]); 2] = [
    ("web", 8001, &["c1-p1", "c2-p1", "c2-p2"]),
    ("shop", 8002, &["c1-p2", "c2-p3"]),
];
/// Pods that may leave and die: others of their Service stay in both clusters.
pub(super) const RESTLESS: [&str; 2] = ["c2-p1", "c2-p2"];

/// How a pod is listed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Listed {
    /// Among the ready ones.
    Ready,
    /// As not ready.
    Unready,
    /// Not at all.
    Gone,
}

/// The wanted configuration.
#[derive(Clone, Debug)]
pub(super) struct World {
    /// Member clusters.
    pub(super) clusters: BTreeSet<&'static str>,
    /// Percent for `c1` by Service; the rest is for `c2`. None: by number of pods.
    pub(super) weights: BTreeMap<&'static str, u8>,
    /// Pods that are not listed as ready.
    pub(super) away: BTreeMap<&'static str, Listed>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            clusters: BTreeSet::from(["c1", "c2"]),
            weights: BTreeMap::new(),
            away: BTreeMap::new(),
        }
    }
}

impl World {
    /// Pods, as `cluster/pod`, that new connections may reach, by listener.
    pub(super) fn allowed(&self) -> BTreeMap<u16, BTreeSet<String>> {
        let of = |(service, port, pods): (&str, u16, &[&str])| {
            let share = self.weights.get(service).copied();
            let serves = |pod: &&&str| {
                let cluster = &pod[..2];
                let weight = match (cluster, share) {
                    (_, None) => 1,
                    ("c1", Some(first)) => first,
                    (_, Some(first)) => 100 - first,
                };
                self.clusters.contains(cluster) && !self.away.contains_key(**pod) && weight > 0
            };
            let names = pods.iter().filter(serves);
            (
                port,
                names.map(|pod| format!("{}/{pod}", &pod[..2])).collect(),
            )
        };
        SERVICES.into_iter().map(of).collect()
    }

    /// Writes all manifests.
    pub(super) fn write(&self, gateway: &Gateway) -> Result<()> {
        let clusters: Vec<&str> = self.clusters.iter().copied().collect();
        let ports = SERVICES.map(|(_, port, _)| port);
        let text = manifests::gateway_of(&clusters.join(","), &ports, "");
        gateway.write("fleet/gateway.yaml", &text)?;
        for (service, port, pods) in SERVICES {
            let mut ingress = Ingress::new(service, port).service(service);
            // Weights name every member, so with one of them there are none.
            if let (Some(first), 2) = (self.weights.get(service), clusters.len()) {
                ingress = ingress.weights(&[("c1", *first), ("c2", 100 - first)]);
            }
            gateway.write(&format!("fleet/{service}.yaml"), &ingress.yaml())?;
            for cluster in ["c1", "c2"] {
                let pods = self.listed(cluster, pods);
                let text = manifests::service(service, HTTP_PORT, "None", &pods);
                gateway.write(&format!("clusters/{cluster}/{service}.yaml"), &text)?;
            }
        }
        Ok(())
    }

    /// Those of these pods that a cluster lists.
    fn listed(&self, cluster: &str, names: &[&str]) -> Vec<Endpoint> {
        let ours = topology::pods()
            .into_iter()
            .filter(|pod| pod.cluster == cluster && names.contains(&pod.name.as_str()));
        ours.filter_map(|pod| {
            match self
                .away
                .get(pod.name.as_str())
                .copied()
                .unwrap_or(Listed::Ready)
            {
                Listed::Ready => Some(pod.endpoint(true)),
                Listed::Unready => Some(pod.endpoint(false)),
                Listed::Gone => None,
            }
        })
        .collect()
    }
}
