//! The Kubernetes objects we read, with the fields we use; unknown fields are accepted and ignored.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de};

/// ID of a member cluster, as in `remote-clusters`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct ClusterId(pub Arc<str>);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identity of a namespaced object inside one cluster.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct NamespacedName {
    /// `metadata.namespace`, `default` where it was left out.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What every object carries.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct ObjectMeta {
    /// Name, never empty in a [`Snapshot`](super::Snapshot).
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Namespace; empty for cluster-scoped kinds.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// Annotations, all strings as the API demands.
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    /// Labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// File it was read from, relative to the manifest directory; empty for other sources.
    #[serde(skip)]
    pub file: Arc<str>,
}

/// One gateway: its listeners and, by annotation, its member clusters.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct AlbConfig {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Specification.
    #[serde(deserialize_with = "or_default")]
    pub spec: AlbConfigSpec,
}

/// `AlbConfig.spec`; `config` describes cloud resources and is accepted and ignored.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct AlbConfigSpec {
    /// Listeners.
    #[serde(deserialize_with = "or_default")]
    pub listeners: Vec<AlbListener>,
}

/// `AlbConfig.spec.listeners[]`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct AlbListener {
    /// Port; 80 where left out.
    pub port: Option<IntOrString>,
    /// `HTTP`, `HTTPS` or `QUIC`; `HTTP` where left out.
    pub protocol: Option<String>,
    /// Seconds.
    pub idle_timeout: Option<i64>,
    /// Seconds.
    pub request_timeout: Option<i64>,
    /// Forwarding headers.
    pub x_forwarded_for_config: Option<XForwardedForConfig>,
    /// Who may connect.
    pub acl_config: Option<AclConfig>,
}

/// `xForwardedForConfig`, with the capitals of the CRD.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, rename_all = "PascalCase")]
pub struct XForwardedForConfig {
    /// Treat `X-Forwarded-For` at all; on where left out.
    pub x_forwarded_for_enabled: Option<bool>,
    /// `append` or `remove`.
    pub x_forwarded_for_processing_mode: Option<String>,
    /// Send `X-Forwarded-Proto`.
    pub x_forwarded_for_proto_enabled: Option<bool>,
    /// Send `X-Forwarded-Port`.
    #[serde(rename = "XForwardedForSLBPortEnabled")]
    pub x_forwarded_for_slb_port_enabled: Option<bool>,
    /// Send `X-Forwarded-Host`.
    pub x_forwarded_for_host_enabled: Option<bool>,
    /// Send `X-Forwarded-Client-srcport`.
    pub x_forwarded_for_client_src_port_enabled: Option<bool>,
    /// Send `SLB-ID`.
    #[serde(rename = "XForwardedForSLBIdEnabled")]
    pub x_forwarded_for_slb_id_enabled: Option<bool>,
    /// Find the client behind trusted proxies.
    pub x_forwarded_for_client_source_ips_enabled: Option<bool>,
}

/// `aclConfig`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct AclConfig {
    /// `White` or `Black`; anything else means no list.
    #[serde(deserialize_with = "or_default")]
    pub acl_type: String,
    /// CIDRs.
    #[serde(deserialize_with = "or_default")]
    pub acl_entries: Vec<String>,
    /// IDs of lists held by the cloud.
    #[serde(deserialize_with = "or_default")]
    pub acl_ids: Vec<String>,
}

/// An integer that some clients write as a string.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum IntOrString {
    /// As a number.
    Int(i64),
    /// As text.
    Text(String),
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = IntOrString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer, or a string that holds one")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<IntOrString, E> {
                Ok(IntOrString::Int(number))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<IntOrString, E> {
                Ok(IntOrString::Int(i64::try_from(number).unwrap_or(i64::MAX)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Links Ingresses to an AlbConfig.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct IngressClass {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Specification.
    #[serde(deserialize_with = "or_default")]
    pub spec: IngressClassSpec,
}

/// `IngressClass.spec`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct IngressClassSpec {
    /// `ingress.k8s.alibabacloud/alb` makes the class ours.
    #[serde(deserialize_with = "or_default")]
    pub controller: String,
    /// The AlbConfig.
    pub parameters: Option<ClassParameters>,
}

/// `IngressClass.spec.parameters`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct ClassParameters {
    /// `AlbConfig`.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// Name of the AlbConfig.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
}

/// Rules, and by annotation their conditions and cluster weights.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct Ingress {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Specification.
    #[serde(deserialize_with = "or_default")]
    pub spec: IngressSpec,
}

/// `Ingress.spec`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct IngressSpec {
    /// Class.
    pub ingress_class_name: Option<String>,
    /// Hosts served over TLS.
    #[serde(deserialize_with = "or_default")]
    pub tls: Vec<IngressTls>,
    /// Where requests go that no rule takes.
    pub default_backend: Option<IngressBackend>,
    /// Rules in order.
    #[serde(deserialize_with = "or_default")]
    pub rules: Vec<IngressRule>,
}

/// `Ingress.spec.tls[]`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct IngressTls {
    /// Hosts.
    #[serde(deserialize_with = "or_default")]
    pub hosts: Vec<String>,
}

/// `Ingress.spec.rules[]`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct IngressRule {
    /// Any host where empty or left out.
    #[serde(deserialize_with = "or_default")]
    pub host: String,
    /// Paths.
    #[serde(deserialize_with = "or_default")]
    pub http: HttpRule,
}

/// `Ingress.spec.rules[].http`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct HttpRule {
    /// Paths in order.
    #[serde(deserialize_with = "or_default")]
    pub paths: Vec<HttpPath>,
}

/// `Ingress.spec.rules[].http.paths[]`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpPath {
    /// `/` where empty or left out.
    #[serde(deserialize_with = "or_default")]
    pub path: String,
    /// `Exact`, `Prefix` or `ImplementationSpecific`; `Prefix` where left out.
    pub path_type: Option<String>,
    /// Where matching requests go.
    #[serde(deserialize_with = "or_default")]
    pub backend: IngressBackend,
}

/// A Service, or something we do not know.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct IngressBackend {
    /// The Service.
    pub service: Option<BackendService>,
}

/// `backend.service`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct BackendService {
    /// Name, in the Ingress's namespace.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Port by number or name.
    #[serde(deserialize_with = "or_default")]
    pub port: BackendPort,
}

/// `backend.service.port`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct BackendPort {
    /// By name.
    pub name: Option<String>,
    /// By number.
    pub number: Option<i64>,
}

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
    /// Ports.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<ServicePort>,
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
    /// Set while the pod shuts down.
    pub terminating: Option<bool>,
}

/// `EndpointSlice.endpoints[].targetRef`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct TargetRef {
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

/// `null` where the API has a list, map or struct means that it is empty.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
