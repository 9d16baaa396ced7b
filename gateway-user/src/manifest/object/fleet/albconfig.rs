//! AlbConfig. What only a cloud reads is kept as it is written: a wrong type there must not cost the listeners.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::Value;

use super::super::{IntOrString, ObjectMeta, or_default};

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

/// `AlbConfig.spec`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct AlbConfigSpec {
    /// The cloud's load balancer: name, zones, edition, billing ... An object wherever a cloud accepted it.
    pub config: Option<Value>,
    /// Listeners; what follows after [`MOST_LISTENERS`] is not kept.
    #[serde(deserialize_with = "first_listeners")]
    pub listeners: Vec<AlbListener>,
}

/// Listeners that are kept of one AlbConfig: one takes more than a hundred times as much memory as it has bytes of text.
pub const MOST_LISTENERS: usize = 250;

fn first_listeners<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<AlbListener>, D::Error> {
    struct First;
    impl<'de> Visitor<'de> for First {
        type Value = Vec<AlbListener>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a sequence")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut listeners = Vec::new();
            while listeners.len() < MOST_LISTENERS {
                match items.next_element()? {
                    Some(listener) => listeners.push(listener),
                    None => return Ok(listeners),
                }
            }
            while items.next_element::<IgnoredAny>()?.is_some() {}
            Ok(listeners)
        }
    }
    deserializer.deserialize_any(First)
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
    pub idle_timeout: Option<IntOrString>,
    /// Seconds.
    pub request_timeout: Option<IntOrString>,
    /// Compress responses; on where left out.
    pub gzip_enabled: Option<bool>,
    /// HTTPS: offer HTTP/2; on where left out.
    pub http2_enabled: Option<bool>,
    /// HTTPS: TLS versions and ciphers.
    pub security_policy_id: Option<String>,
    /// Certificates, the default one first.
    #[serde(deserialize_with = "or_default")]
    pub certificates: Vec<AlbCertificate>,
    /// Clients must show a certificate.
    pub ca_enabled: Option<bool>,
    /// Who signs the certificates of clients; one.
    #[serde(deserialize_with = "or_default")]
    pub ca_certificates: Vec<AlbCertificate>,
    /// Forwarding headers.
    pub x_forwarded_for_config: Option<XForwardedForConfig>,
    /// Who may connect.
    pub acl_config: Option<AclConfig>,
    /// `{quicUpgradeEnabled, quicListenerId}`.
    pub quic_config: Option<Value>,
    /// `{accessLogRecordCustomizedHeadersEnabled, accessLogTracingConfig}`.
    pub log_config: Option<Value>,
    /// For people.
    pub description: Option<Value>,
    /// Reserved by the cloud.
    pub default_actions: Option<Value>,
    /// Reserved by the cloud.
    pub load_balancer_id: Option<Value>,
    /// Fields that nobody knows.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// An entry of `certificates` or `caCertificates`, with the capitals of the CRD.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, rename_all = "PascalCase")]
pub struct AlbCertificate {
    /// The certificate's name.
    #[serde(deserialize_with = "or_default")]
    pub certificate_id: String,
    /// Shown where no other fits the host.
    pub is_default: Option<bool>,
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
    /// Send the subject of the client's certificate.
    #[serde(rename = "XForwardedForClientCertSubjectDNEnabled")]
    pub x_forwarded_for_client_cert_subject_dn_enabled: Option<bool>,
    /// Header for it.
    #[serde(rename = "XForwardedForClientCertSubjectDNAlias")]
    pub x_forwarded_for_client_cert_subject_dn_alias: Option<String>,
    /// Send the issuer of the client's certificate.
    #[serde(rename = "XForwardedForClientCertIssuerDNEnabled")]
    pub x_forwarded_for_client_cert_issuer_dn_enabled: Option<bool>,
    /// Header for it.
    #[serde(rename = "XForwardedForClientCertIssuerDNAlias")]
    pub x_forwarded_for_client_cert_issuer_dn_alias: Option<String>,
    /// Send the fingerprint of the client's certificate.
    pub x_forwarded_for_client_cert_fingerprint_enabled: Option<bool>,
    /// Header for it.
    pub x_forwarded_for_client_cert_fingerprint_alias: Option<String>,
    /// Send whether the client's certificate is good.
    pub x_forwarded_for_client_cert_client_verify_enabled: Option<bool>,
    /// Header for it.
    pub x_forwarded_for_client_cert_client_verify_alias: Option<String>,
    /// Find the client behind trusted proxies.
    pub x_forwarded_for_client_source_ips_enabled: Option<bool>,
    /// Networks of these proxies, separated by commas or semicolons.
    pub x_forwarded_for_client_source_ips_trusted: Option<String>,
    /// Fields that nobody knows.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// `aclConfig`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct AclConfig {
    /// The list's name in the cloud.
    pub acl_name: Option<Value>,
    /// `White` or `Black`; anything else means no list.
    #[serde(deserialize_with = "or_default")]
    pub acl_type: String,
    /// CIDRs.
    #[serde(deserialize_with = "or_default")]
    pub acl_entries: Vec<String>,
    /// IDs of lists held by the cloud.
    #[serde(deserialize_with = "or_default")]
    pub acl_ids: Vec<String>,
    /// Fields that nobody knows.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_type_in_a_field_of_the_cloud_costs_nothing() {
        let spec: AlbConfigSpec = serde_json::from_str(
            r#"{"config": 7, "listeners": [{"port": "443", "protocol": "HTTPS", "idleTimeout": "20", "description": 5,
                "loadBalancerId": [], "defaultActions": "x", "logConfig": true, "quicConfig": "no", "later": {},
                "certificates": [{"CertificateId": "demo/tls", "IsDefault": true}], "caCertificates": null,
                "aclConfig": {"aclName": 3, "aclType": "White", "aclEntries": ["10.0.0.0/8"]}}]}"#,
        )
        .unwrap();
        let listener = &spec.listeners[0];
        assert_eq!(spec.config, Some(Value::from(7)));
        assert_eq!(listener.idle_timeout, Some(IntOrString::Text("20".into())));
        assert_eq!(listener.certificates[0].certificate_id, "demo/tls");
        assert_eq!(listener.certificates[0].is_default, Some(true));
        assert!(listener.unknown.contains_key("later"));
        let acl = listener.acl_config.as_ref().unwrap();
        assert_eq!(acl.acl_entries, ["10.0.0.0/8"]);
    }

    #[test]
    fn every_forwarding_field_is_read_with_its_capitals() {
        let all: XForwardedForConfig = serde_json::from_str(
            r#"{"XForwardedForEnabled": true, "XForwardedForProtoEnabled": true, "XForwardedForSLBIdEnabled": true,
                "XForwardedForSLBPortEnabled": true, "XForwardedForClientSrcPortEnabled": true,
                "XForwardedForHostEnabled": true, "XForwardedForProcessingMode": "append",
                "XForwardedForClientCertSubjectDNEnabled": true, "XForwardedForClientCertSubjectDNAlias": "a",
                "XForwardedForClientCertIssuerDNEnabled": true, "XForwardedForClientCertIssuerDNAlias": "b",
                "XForwardedForClientCertFingerprintEnabled": true, "XForwardedForClientCertFingerprintAlias": "c",
                "XForwardedForClientCertClientVerifyEnabled": true, "XForwardedForClientCertClientVerifyAlias": "d",
                "XForwardedForClientSourceIpsEnabled": true, "XForwardedForClientSourceIpsTrusted": "10.0.0.0/8"}"#,
        )
        .unwrap();
        assert!(all.unknown.is_empty(), "{:?}", all.unknown);
        assert_eq!(all.x_forwarded_for_slb_id_enabled, Some(true));
        assert_eq!(
            all.x_forwarded_for_client_cert_client_verify_alias
                .as_deref(),
            Some("d")
        );
    }
}
