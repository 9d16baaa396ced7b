//! What an HTTPS or QUIC listener needs beyond an HTTP one, and who may connect.

use serde::{Deserialize, Serialize};

use super::Network;

/// `securityPolicyId`, the default first.
pub const TLS_POLICIES: [&str; 5] = [
    "tls_cipher_policy_1_0",
    "tls_cipher_policy_1_1",
    "tls_cipher_policy_1_2",
    "tls_cipher_policy_1_2_strict",
    "tls_cipher_policy_1_2_strict_with_1_3",
];

/// TLS of a listener. Names only: keys stay in their Secrets.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Tls {
    /// The first is the default one. Contract section 13: those of the AlbConfig, then those of Ingresses' Secrets.
    pub certificates: Vec<Certificate>,
    /// `securityPolicyId`.
    pub policy: String,
    /// HTTP/2 is offered.
    pub http2: bool,
    /// Clients must show a certificate signed by this one (`caCertificates`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<String>,
}

/// A certificate by name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Certificate {
    /// `namespace/name` of a Secret, or the `CertificateId` of the AlbConfig.
    pub id: String,
    /// Hosts it is used for, beside those it names itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Shown where no other fits the host.
    pub default: bool,
}

/// Who may connect (`aclConfig`).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct AccessList {
    /// Whether the networks are those let in or those kept out.
    pub allow: bool,
    /// At least one.
    pub networks: Vec<Network>,
}

/// New flows that each address of a listener takes, per second; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Of all clients together.
    pub flows: u32,
    /// Of each client address.
    pub flows_per_source: u32,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a listener tells backends beyond [`ForwardedHeaders`](super::ForwardedHeaders). All off by default.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdentityHeaders {
    /// `SLB-ID`: the gateway's id.
    pub gateway_id: bool,
    /// Lower-case name of the header for the subject of the client's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_subject: Option<String>,
    /// The same for its issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_issuer: Option<String>,
    /// The same for its fingerprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_fingerprint: Option<String>,
    /// The same for whether it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_verify: Option<String>,
}
