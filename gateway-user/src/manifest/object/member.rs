//! Objects of member clusters: Service, EndpointSlice.

use serde::Deserialize;

use super::{ObjectMeta, or_default};

/// A Service of a member cluster.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct Service {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Specification.
    #[serde(deserialize_with = "or_default")]
    pub spec: ServiceSpec,
}

/// `Service.spec`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `ExternalName` has no endpoints.
    #[serde(rename = "type")]
    pub service_type: Option<String>,
    /// `ClientIP` or `None`.
    pub session_affinity: Option<String>,
    /// How long a client stays.
    #[serde(deserialize_with = "or_default")]
    pub session_affinity_config: SessionAffinityConfig,
    /// Ports.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<ServicePort>,
}

/// `Service.spec.sessionAffinityConfig`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct SessionAffinityConfig {
    /// Of `ClientIP`.
    #[serde(rename = "clientIP", deserialize_with = "or_default")]
    pub client_ip: ClientIpConfig,
}

/// `Service.spec.sessionAffinityConfig.clientIP`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientIpConfig {
    /// 1 to 86400; 10800 (3 h) where left out.
    pub timeout_seconds: Option<i64>,
}

/// `Service.spec.ports[]`. `targetPort` is not read: the slices hold what it resolved to.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct ServicePort {
    /// Empty where the Service has a single port.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Port number.
    pub port: i64,
    /// `TCP` where left out.
    pub protocol: Option<String>,
}

/// Endpoints of a Service.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Metadata; label `kubernetes.io/service-name` names the Service.
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(deserialize_with = "or_default")]
    pub address_type: String,
    /// Endpoints.
    #[serde(deserialize_with = "or_default")]
    pub endpoints: Vec<Endpoint>,
    /// Ports that every endpoint of this slice serves.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<EndpointPort>,
}

/// `EndpointSlice.endpoints[]`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint {
    /// Addresses of one pod.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// Readiness.
    #[serde(deserialize_with = "or_default")]
    pub conditions: EndpointConditions,
    /// The pod.
    pub target_ref: Option<TargetRef>,
}

/// `EndpointSlice.endpoints[].conditions`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct EndpointConditions {
    /// Absent means ready (`discovery.k8s.io/v1`: "nil should be interpreted as true").
    pub ready: Option<bool>,
    /// As `ready`, also while the pod shuts down. Absent: as `ready` ("nil should be interpreted as" that).
    pub serving: Option<bool>,
    /// Set while the pod shuts down.
    pub terminating: Option<bool>,
}

/// `EndpointSlice.endpoints[].targetRef`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct TargetRef {
    /// `Pod`; empty in slices written by hand.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// Pod name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
}

/// `EndpointSlice.ports[]`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct EndpointPort {
    /// Name of the Service port.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Port on the pod.
    pub port: Option<i64>,
    /// `TCP` where left out.
    pub protocol: Option<String>,
}
