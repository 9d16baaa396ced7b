//! A Service port over all clusters -> weighted pods (contract sections 10 and 14).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use super::notes::{Notes, alb};
use crate::{
    ir::model::{Affinity, Backend, Group, ServiceName, Split, WEIGHT_UNIT},
    manifest::{ClusterId, EndpointSlice, NamespacedName, Service, ServicePort, Snapshot},
    problem::{ObjectRef, shown},
};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Services and slices of every cluster, found by Service.
pub(super) struct Members<'a> {
    snapshot: &'a Snapshot,
    slices: BTreeMap<(&'a ClusterId, &'a str, &'a str), Vec<&'a EndpointSlice>>,
}

/// Pods of one Service port in one cluster, by address.
#[derive(Default)]
struct Pods {
    ready: BTreeMap<SocketAddr, Arc<str>>,
    /// Not ready or terminating.
    idle: BTreeMap<SocketAddr, Arc<str>>,
}

impl<'a> Members<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let mut slices: BTreeMap<_, Vec<&EndpointSlice>> = BTreeMap::new();
        for (id, objects) in &snapshot.clusters {
            for slice in objects.slices.values() {
                if let Some(service) = slice.metadata.labels.get(SERVICE_NAME) {
                    slices
                        .entry((id, slice.metadata.namespace.as_str(), service.as_str()))
                        .or_default()
                        .push(slice);
                }
            }
        }
        Self { snapshot, slices }
    }

    /// The pods of `service` in `clusters`, shared as `weights` say; `notes` are on the Ingress, `place` is its field.
    pub(super) fn group(
        &self,
        service: ServiceName,
        clusters: &BTreeSet<ClusterId>,
        weights: &BTreeMap<ClusterId, u8>,
        place: &str,
        notes: &mut Notes,
    ) -> Group {
        let split = split(clusters, weights, notes);
        let name = NamespacedName {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
        };
        let mut affinity = Affinity::None;
        let mut found = false;
        let mut backends: Vec<Backend> = Vec::new();
        let mut idle: Vec<Backend> = Vec::new();
        for id in clusters {
            let Some(it) = self
                .snapshot
                .clusters
                .get(id)
                .and_then(|objects| objects.services.get(&name))
            else {
                continue;
            };
            found = true;
            let Some(port) = port(it, &service.port, id, place, notes) else {
                continue;
            };
            if it.spec.session_affinity.as_deref() == Some("ClientIP") {
                affinity = Affinity::ClientIp;
            }
            let share = match &split {
                Split::Replicas => None,
                Split::Clusters(weights) => match weights.get(id) {
                    None | Some(0) => Some(0),
                    Some(weight) => Some(u32::from(*weight)),
                },
            };
            let pods = self.pods(id, &name, port, notes);
            let ready = u32::try_from(pods.ready.len()).unwrap_or(u32::MAX).max(1);
            let weight = match share {
                None => WEIGHT_UNIT,
                Some(0) => 0,
                Some(share) => (share * WEIGHT_UNIT / ready).max(1),
            };
            let backend = |weight| {
                move |(address, pod)| Backend {
                    cluster: id.clone(),
                    address,
                    pod,
                    weight,
                }
            };
            let busy = if weight == 0 {
                &mut idle
            } else {
                &mut backends
            };
            busy.extend(pods.ready.into_iter().map(backend(weight)));
            idle.extend(pods.idle.into_iter().map(backend(0)));
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
        overlaps(&backends, place, notes);
        Group {
            service,
            split,
            affinity,
            backends,
            idle,
        }
    }

    fn pods(
        &self,
        id: &ClusterId,
        service: &NamespacedName,
        port: &ServicePort,
        notes: &mut Notes,
    ) -> Pods {
        let mut pods = Pods::default();
        let Some(slices) =
            self.slices
                .get(&(id, service.namespace.as_str(), service.name.as_str()))
        else {
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
        };
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
                .filter(|it| {
                    it.name == port.name && it.protocol.as_deref().unwrap_or("TCP") == "TCP"
                })
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
                    "no EndpointSlice of it has a TCP port named {}, so it has no pods",
                    shown(&port.name)
                ),
                "give the port of the EndpointSlice the name of the Service port",
            );
            notes.elsewhere(told);
        }
        pods.idle
            .retain(|address, _| !pods.ready.contains_key(address));
        pods
    }
}

/// Pods of one slice. "nil should be interpreted as true"; a terminating pod takes no new traffic.
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
        let idle = conditions.ready == Some(false) || conditions.terminating == Some(true);
        let pods = if idle {
            &mut pods.idle
        } else {
            &mut pods.ready
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

fn port<'a>(
    service: &'a Service,
    wanted: &str,
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
    let tcp = |it: &&ServicePort| it.protocol.as_deref().unwrap_or("TCP") == "TCP";
    let found = spec.ports.iter().filter(is).find(tcp);
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
            format!("Service {name} in cluster {id} has no TCP port {wanted}, so its pods there get nothing"),
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
