//! A Service port over all clusters -> weighted pods (contract sections 10 and 14).

mod affinity;
mod choosing;

use choosing::{Choice, Clustered, choose};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use super::{
    groups::Want,
    judging::Verdicts,
    notes::{Notes, alb},
};
use crate::{
    ir::model::{Affinity, Backend, Group, GroupName, Ir, Probe, ServiceName, Split, Transport},
    manifest::{
        ClusterId, ClusterObjects, EndpointSlice, NamespacedName, Reach, SERVICE_NAME, Service,
        ServicePort, Snapshot,
    },
    problem::{ObjectRef, shown},
};

/// Services and slices of every cluster.
pub(super) struct Members<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) remembered: &'a Remembered,
    pub(super) verdicts: &'a Verdicts,
}

/// Pods that served before this agent started, for clusters that were not heard of since.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    pods: BTreeMap<ServiceName, BTreeMap<ClusterId, Pods>>,
    affinity: BTreeMap<ServiceName, u32>,
}

impl Remembered {
    /// The pods of a routing model.
    pub fn of(ir: &Ir) -> Self {
        let mut remembered = Self::default();
        for group in ir.groups.values() {
            if group.affinity == Affinity::ClientIp {
                let service = group.service.clone();
                remembered.affinity.insert(service, group.affinity_seconds);
            }
            let pods = remembered.pods.entry(group.service.clone()).or_default();
            let failing = group.failing.iter().map(|it| &it.backend);
            for backend in group.backends.iter().chain(failing) {
                let pods = pods.entry(backend.cluster.clone()).or_default();
                pods.ready.insert(backend.address, backend.pod.clone());
            }
            for backend in &group.idle {
                let pods = pods.entry(backend.cluster.clone()).or_default();
                pods.idle.insert(backend.address, backend.pod.clone());
            }
        }
        remembered
    }

    fn pods(&self, service: &ServiceName, id: &ClusterId) -> Option<Pods> {
        let mut pods = self.pods.get(service)?.get(id)?.clone();
        pods.settle();
        Some(pods)
    }
}

/// Pods of one Service port in one cluster, by address.
#[derive(Clone, Debug, Default)]
struct Pods {
    ready: BTreeMap<SocketAddr, Arc<str>>,
    /// Terminating, and still serving.
    leaving: BTreeMap<SocketAddr, Arc<str>>,
    /// Neither.
    idle: BTreeMap<SocketAddr, Arc<str>>,
}

impl Pods {
    /// An address that several endpoints have is what the best of them is.
    fn settle(&mut self) {
        let Self {
            ready,
            leaving,
            idle,
        } = self;
        leaving.retain(|address, _| !ready.contains_key(address));
        idle.retain(|address, _| !ready.contains_key(address) && !leaving.contains_key(address));
    }
}

impl Members<'_> {
    /// The pods that `want` asks for in `clusters`; `notes` are on the Ingress.
    pub(super) fn group(
        &self,
        group: &GroupName,
        want: &Want,
        clusters: &BTreeSet<ClusterId>,
        notes: &mut Notes,
    ) -> Group {
        let Want {
            service,
            weights,
            place,
            ..
        } = want;
        let split = split(clusters, weights, notes);
        let name = NamespacedName {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
        };
        let mut affinity_seconds = 0;
        let mut found = false;
        let mut clustered = Vec::new();
        for id in clusters {
            let Some(objects) = self.snapshot.clusters.get(id) else {
                continue;
            };
            let pods = if objects.reach == Reach::Unknown {
                // Not heard of yet: nobody knows whether the Service is there.
                found = true;
                let remembered = self.remembered.affinity.get(service).copied();
                affinity_seconds = affinity_seconds.max(remembered.unwrap_or_default());
                let Some(pods) = self.remembered.pods(service, id) else {
                    continue;
                };
                pods
            } else {
                let Some(it) = objects.services.get(&name) else {
                    continue;
                };
                found = true;
                let Some(port) = port(it, service.port(), id, place, notes) else {
                    continue;
                };
                affinity_seconds = affinity_seconds.max(affinity::seconds(it, id, notes));
                let port = (port, service.port().1);
                self.pods(objects, id, &name, port, notes)
            };
            let share = match &split {
                Split::Replicas => None,
                Split::Clusters(weights) => Some(weights.get(id).copied().unwrap_or_default()),
            };
            clustered.push(Clustered { id, share, pods });
        }
        if !found {
            let list: Vec<_> = clusters.iter().take(8).map(ToString::to_string).collect();
            let list = if list.is_empty() {
                "none".to_owned()
            } else {
                list.join(", ")
            };
            notes.warning(
                format!("{place}.service.name"),
                format!("Service {name} is in no cluster of the gateway ({list}), so the rule answers 503"),
                "create the Service in a member cluster, or correct the name",
            );
        }
        let health = want.policy.health.as_ref().filter(|it| it.executed());
        let Choice {
            backends,
            idle,
            failing,
        } = choose(clustered, |pod| self.verdicts.get(&Probe::of(pod, health?)));
        overlaps(&backends, place, notes);
        Group {
            name: group.clone(),
            service: service.clone(),
            policy: want.policy.clone(),
            split,
            affinity: if affinity_seconds == 0 {
                Affinity::None
            } else {
                Affinity::ClientIp
            },
            affinity_seconds,
            backends,
            idle,
            failing,
        }
    }

    fn pods(
        &self,
        objects: &ClusterObjects,
        id: &ClusterId,
        service: &NamespacedName,
        (port, transport): (&ServicePort, Transport),
        notes: &mut Notes,
    ) -> Pods {
        let mut pods = Pods::default();
        let slices: Vec<&EndpointSlice> = objects.slices_of(service).map(|it| &**it).collect();
        if slices.is_empty() {
            let mut told = Notes::of(member("Service", id, &service.namespace, &service.name));
            told.warning(
                "metadata.name",
                "no EndpointSlice belongs to it, so it has no pods",
                format!(
                    "give its EndpointSlice the label `{SERVICE_NAME}: {}`, or check its selector",
                    service.name
                ),
            );
            notes.elsewhere(told);
            return pods;
        }
        if slices.iter().all(|slice| slice.address_type != "IPv4")
            && let Some(slice) = slices.first()
        {
            let mut told = Notes::of(slice_ref(slice, id));
            told.warning(
                "addressType",
                format!(
                    "only IPv4 is served, this is {}, and Service {service} has no other slice, so it has no pods",
                    shown(&slice.address_type)
                ),
                "give the Service an IPv4 address family",
            );
            notes.elsewhere(told);
        }
        let mut numbered = false;
        let mut endpoints = false;
        for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
            endpoints |= !slice.endpoints.is_empty();
            // Kubernetes joins the two by the *name* of the Service port; `targetPort` is already resolved here.
            let numbers = slice
                .ports
                .iter()
                .filter(|it| it.name == port.name && speaks(it.protocol.as_deref(), transport))
                .filter_map(|it| {
                    it.port
                        .and_then(|number| u16::try_from(number).ok())
                        .filter(|number| *number != 0)
                });
            if let Some(number) = numbers.min() {
                numbered = true;
                collect(slice, number, id, &mut pods, notes);
            }
        }
        if endpoints && !numbered {
            let mut told = Notes::of(member("Service", id, &service.namespace, &service.name));
            told.warning(
                "spec.ports",
                format!(
                    "no EndpointSlice of it has a {transport} port named {}, so it has no pods",
                    shown(&port.name)
                ),
                "give the port of the EndpointSlice the name of the Service port",
            );
            notes.elsewhere(told);
        }
        pods.settle();
        pods
    }
}

/// Pods of one slice. `ready`: "nil should be interpreted as true"; `serving`: "consumers should defer to the ready
/// condition". A terminating pod takes new traffic only while no other does.
///
/// An endpoint without `targetRef` is served, as in slices written by hand; one that refers to anything but a Pod is not:
/// nothing says that it lives in the pod network.
fn collect(slice: &EndpointSlice, port: u16, id: &ClusterId, pods: &mut Pods, notes: &mut Notes) {
    let mut told = Notes::of(slice_ref(slice, id));
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        let target = endpoint.target_ref.as_ref();
        if let Some(target) = target.filter(|it| !matches!(it.kind.as_str(), "" | "Pod")) {
            told.warning(
                format!("endpoints[{index}].targetRef.kind"),
                format!(
                    "{} is not Pod, so the endpoint is skipped",
                    shown(&target.kind)
                ),
                "let the slice refer to pods, or leave targetRef out",
            );
            continue;
        }
        let conditions = &endpoint.conditions;
        let ready = conditions.ready.unwrap_or(true);
        let pods = match conditions.terminating {
            Some(true) if conditions.serving.unwrap_or(ready) => &mut pods.leaving,
            Some(true) => &mut pods.idle,
            _ if ready => &mut pods.ready,
            _ => &mut pods.idle,
        };
        for text in &endpoint.addresses {
            match text.parse::<Ipv4Addr>() {
                Ok(ip) if usable(ip) => {
                    let pod = target.map(|it| it.name.as_str()).unwrap_or_default();
                    let pod = if pod.is_empty() { text.as_str() } else { pod };
                    pods.entry(SocketAddr::from((ip, port)))
                        .or_insert_with(|| pod.into());
                }
                _ => told.warning(
                    format!("endpoints[{index}].addresses"),
                    format!(
                        "{} is not an IPv4 address of a pod and is skipped",
                        shown(text)
                    ),
                    "write the address of the pod",
                ),
            }
        }
    }
    notes.elsewhere(told);
}

fn slice_ref(slice: &EndpointSlice, id: &ClusterId) -> ObjectRef {
    let meta = &slice.metadata;
    member("EndpointSlice", id, &meta.namespace, &meta.name)
}

fn usable(ip: Ipv4Addr) -> bool {
    !(ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast())
}

/// Weights of known clusters. All unknown: as if none were written (contract section 10.3).
fn split(
    clusters: &BTreeSet<ClusterId>,
    weights: &BTreeMap<ClusterId, u8>,
    notes: &mut Notes,
) -> Split {
    if weights.is_empty() {
        return Split::Replicas;
    }
    let mut known = BTreeMap::new();
    for (id, weight) in weights {
        if clusters.contains(id) {
            known.insert(id.clone(), *weight);
            continue;
        }
        let list: Vec<_> = clusters.iter().take(8).map(ToString::to_string).collect();
        notes.warning(
            alb(&format!("cluster-weight.{id}")),
            format!(
                "cluster {} does not belong to the gateway and is skipped",
                shown(&id.0)
            ),
            format!(
                "correct the ID (clusters of the gateway: {}), or add it to remote-clusters",
                list.join(", ")
            ),
        );
    }
    if known.is_empty() {
        notes.warning(
            alb("cluster-weight.*"),
            "names no cluster of the gateway, so pods of all its clusters share equally",
            "name at least one cluster of the gateway",
        );
        return Split::Replicas;
    }
    if known.values().all(|weight| *weight == 0) {
        notes.warning(
            alb("cluster-weight.*"),
            "no cluster of the gateway has a weight above 0, so the rules answer 503",
            "give a cluster of the gateway a weight above 0",
        );
    }
    Split::Clusters(known)
}

/// "The IP protocol for this port. Supports TCP, UDP, and SCTP. Default is TCP."
fn speaks(protocol: Option<&str>, transport: Transport) -> bool {
    protocol.unwrap_or("TCP") == transport.to_string()
}

fn port<'a>(
    service: &'a Service,
    (wanted, transport): (&str, Transport),
    id: &ClusterId,
    place: &str,
    notes: &mut Notes,
) -> Option<&'a ServicePort> {
    let Service { metadata, spec } = service;
    let field = format!("{place}.service.port");
    let name = format!("{}/{}", metadata.namespace, metadata.name);
    if spec.service_type.as_deref() == Some("ExternalName") {
        notes.warning(
            format!("{place}.service.name"),
            format!("Service {name} in cluster {id} is an ExternalName, which has no pods"),
            "use a Service with a selector",
        );
        return None;
    }
    let is = |it: &&ServicePort| match wanted.parse::<i64>() {
        Ok(number) => it.port == number,
        Err(_) => it.name == wanted,
    };
    let speaks = |it: &&ServicePort| speaks(it.protocol.as_deref(), transport);
    let found = spec.ports.iter().filter(is).find(speaks);
    if found.is_none() {
        let list: Vec<_> = spec
            .ports
            .iter()
            .take(8)
            .map(|it| {
                format!(
                    "{} {:?} {}",
                    it.port,
                    it.name,
                    it.protocol.as_deref().unwrap_or("TCP")
                )
            })
            .collect();
        notes.warning(
            field,
            format!("Service {name} in cluster {id} has no {transport} port {wanted}, so its pods there get nothing"),
            format!("use a port of the Service (it has {}), or add it", list.join(", ")),
        );
    }
    found
}

/// One address in two clusters cannot be routed to both.
fn overlaps(backends: &[Backend], place: &str, notes: &mut Notes) {
    let mut seen: BTreeMap<SocketAddr, &ClusterId> = BTreeMap::new();
    for backend in backends {
        if let Some(first) = seen.insert(backend.address, &backend.cluster) {
            notes.warning(
                format!("{place}.service.name"),
                format!("pod address {} is in cluster {first} and in cluster {}", backend.address, backend.cluster),
                "pod networks of member clusters must not overlap: traffic reaches whichever the route leads to",
            );
            return;
        }
    }
}

fn member(kind: &str, id: &ClusterId, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef {
        cluster: Some(id.to_string()),
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}
