//! What of an AlbConfig means nothing here: "accepted and ignored (optionally reported), never rejected" (contract
//! section 2.2), but a misspelt field is worth a warning.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    ir::build::{annotations::nearest, notes::Notes},
    manifest::{AlbConfigSpec, AlbListener},
};

/// Most fields that are named; one more says that there are others.
const MOST: usize = 64;

const LISTENER: [&str; 17] = [
    "port",
    "protocol",
    "idleTimeout",
    "requestTimeout",
    "gzipEnabled",
    "http2Enabled",
    "securityPolicyId",
    "certificates",
    "caEnabled",
    "caCertificates",
    "xForwardedForConfig",
    "aclConfig",
    "quicConfig",
    "logConfig",
    "description",
    "defaultActions",
    "loadBalancerId",
];
const ACCESS: [&str; 4] = ["aclName", "aclType", "aclEntries", "aclIds"];
const FORWARDING: [&str; 17] = [
    "XForwardedForEnabled",
    "XForwardedForProcessingMode",
    "XForwardedForProtoEnabled",
    "XForwardedForSLBPortEnabled",
    "XForwardedForHostEnabled",
    "XForwardedForClientSrcPortEnabled",
    "XForwardedForSLBIdEnabled",
    "XForwardedForClientCertSubjectDNEnabled",
    "XForwardedForClientCertSubjectDNAlias",
    "XForwardedForClientCertIssuerDNEnabled",
    "XForwardedForClientCertIssuerDNAlias",
    "XForwardedForClientCertFingerprintEnabled",
    "XForwardedForClientCertFingerprintAlias",
    "XForwardedForClientCertClientVerifyEnabled",
    "XForwardedForClientCertClientVerifyAlias",
    "XForwardedForClientSourceIpsEnabled",
    "XForwardedForClientSourceIpsTrusted",
];

/// Fields that are set and ignored, in order, at most [`MOST`] and a last word.
pub(super) fn ignored(spec: &AlbConfigSpec, notes: &mut Notes) -> Vec<String> {
    let mut fields = Vec::new();
    config(spec.config.as_ref(), &mut fields, notes);
    for (index, it) in spec.listeners.iter().enumerate() {
        listener(it, &format!("spec.listeners[{index}]"), &mut fields, notes);
    }
    let more = fields.len().saturating_sub(MOST);
    fields.truncate(MOST);
    if more > 0 {
        fields.push(format!("and {more} more"));
    }
    fields
}

fn config(config: Option<&Value>, fields: &mut Vec<String>, notes: &mut Notes) {
    let Some(config) = config else {
        return notes.warning(
            "spec.config",
            "is missing: nothing here needs it, but the cloud refuses such an AlbConfig",
            "write `config: {}` to say that this is meant",
        );
    };
    let Some(config) = config.as_object() else {
        return fields.push("spec.config".to_owned());
    };
    for (key, value) in config {
        if !value.is_null() {
            fields.push(format!("spec.config.{}", short(key)));
        }
    }
    // The one edition that restricts requests.
    if config
        .get("edition")
        .is_some_and(|edition| edition == "StandardWithWaf")
    {
        notes.warning(
            "spec.config.edition",
            "StandardWithWaf asks for a web application firewall, and this gateway has none",
            "filter requests elsewhere, and write Standard",
        );
    }
}

fn listener(it: &AlbListener, field: &str, fields: &mut Vec<String>, notes: &mut Notes) {
    let inside = |value: &Option<Value>, key: &str| {
        let value = value.as_ref().and_then(|value| value.get(key));
        value.is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)))
    };
    for (key, set) in [
        ("description", it.description.is_some()),
        ("defaultActions", it.default_actions.is_some()),
        ("loadBalancerId", it.load_balancer_id.is_some()),
        (
            "quicConfig.quicListenerId",
            inside(&it.quic_config, "quicListenerId"),
        ),
        (
            "logConfig.accessLogRecordCustomizedHeadersEnabled",
            inside(&it.log_config, "accessLogRecordCustomizedHeadersEnabled"),
        ),
    ] {
        if set {
            fields.push(format!("{field}.{key}"));
        }
    }
    let tracing = "accessLogTracingConfig";
    let traced = it
        .log_config
        .as_ref()
        .and_then(|config| config.get(tracing));
    if traced.is_some_and(|it| it.get("tracingEnabled").is_some_and(|on| *on == true)) {
        notes.warning(
            format!("{field}.logConfig.{tracing}.tracingEnabled"),
            "requests are traced as the gateway node is told (--otlp-endpoint), whatever a listener says",
            "nothing needs to be done, or set it to false to silence this",
        );
    }
    unknown(&it.unknown, &LISTENER, field, fields, notes);
    if let Some(acl) = &it.acl_config {
        let field = format!("{field}.aclConfig");
        if acl.acl_name.is_some() {
            fields.push(format!("{field}.aclName"));
        }
        unknown(&acl.unknown, &ACCESS, &field, fields, notes);
    }
    if let Some(config) = &it.x_forwarded_for_config {
        let field = format!("{field}.xForwardedForConfig");
        unknown(&config.unknown, &FORWARDING, &field, fields, notes);
    }
}

/// A field that is almost a known one was meant to do something; others are of clouds to come.
fn unknown(
    unknown: &BTreeMap<String, Value>,
    known: &[&str],
    field: &str,
    fields: &mut Vec<String>,
    notes: &mut Notes,
) {
    for (index, key) in unknown.keys().enumerate() {
        let field = format!("{field}.{}", short(key));
        // Nobody misspells so many, and to find out what was meant costs something.
        let meant = (index < MOST).then(|| nearest(key, known.iter().copied()));
        match meant.flatten() {
            Some(meant) => notes.warning(
                field,
                "is not a known field and is ignored",
                format!("write `{meant}`"),
            ),
            None => fields.push(field),
        }
    }
}

/// Somebody's key, bounded and on one line.
fn short(key: &str) -> String {
    let short: String = key.chars().take(60).collect();
    short.escape_debug().to_string()
}
