//! Objects of the fleet: AlbConfig, IngressClass, Ingress.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{IntOrString, ObjectMeta, or_default};

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
#[serde(default, rename_all = "camelCase")]
pub struct IngressTls {
    /// Hosts.
    #[serde(deserialize_with = "or_default")]
    pub hosts: Vec<String>,
    /// Secret with certificate and key, in the Ingress's namespace.
    pub secret_name: Option<String>,
}

/// A Secret of type `kubernetes.io/tls`, without what it keeps secret: only whether each part is there.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct Secret {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// `kubernetes.io/tls` for certificates.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub secret_type: String,
    /// Keys that hold something; `data` and `stringData` together.
    #[serde(flatten)]
    pub keys: SecretKeys,
}

/// Which keys of a Secret are filled.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(from = "SecretData")]
pub struct SecretKeys {
    /// `tls.crt`.
    pub certificate: bool,
    /// `tls.key`.
    pub key: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SecretData {
    #[serde(deserialize_with = "or_default")]
    data: BTreeMap<String, Option<String>>,
    #[serde(deserialize_with = "or_default")]
    string_data: BTreeMap<String, Option<String>>,
}

impl From<SecretData> for SecretKeys {
    fn from(from: SecretData) -> Self {
        let filled = |key: &str| {
            let both = [&from.data, &from.string_data];
            both.iter()
                .filter_map(|map| map.get(key))
                .any(|value| value.as_deref().is_some_and(|text| !text.is_empty()))
        };
        Self {
            certificate: filled("tls.crt"),
            key: filled("tls.key"),
        }
    }
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
