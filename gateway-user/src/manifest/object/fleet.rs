//! Objects of the fleet: AlbConfig, IngressClass, Ingress, Secret.

mod albconfig;
mod secret;

use serde::Deserialize;

pub use self::{albconfig::*, secret::*};
use super::{ObjectMeta, or_default};

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
