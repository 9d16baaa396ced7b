//! `xForwardedForConfig`: what backends are told (contract section 2.4).

use crate::{
    ir::{
        build::notes::Notes,
        model::{ForwardedFor, ForwardedHeaders, IdentityHeaders, ListenerProtocol, Network},
    },
    manifest::XForwardedForConfig,
    problem::shown,
};

/// Most networks of trusted proxies.
const MOST_TRUSTED: usize = 500;

/// Names that an alias must not take: they frame or route the request, or are the gateway's own.
const RESERVED: [&str; 14] = [
    "authority",
    "connection",
    "content-length",
    "cookie",
    "host",
    "keep-alive",
    "slb-id",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
];

/// What a listener does to headers.
pub(super) struct Forwarding {
    pub(super) forwarded_for: ForwardedFor,
    pub(super) forwarded: ForwardedHeaders,
    pub(super) identity: IdentityHeaders,
    pub(super) trusted: Option<Vec<Network>>,
    /// A header it is explicitly told to write.
    pub(super) writes: Option<&'static str>,
}

/// `field` is that of the config.
pub(super) fn read(
    config: &XForwardedForConfig,
    protocol: ListenerProtocol,
    field: &str,
    notes: &mut Notes,
) -> Forwarding {
    let on = |switch: Option<bool>| switch == Some(true);
    let forwarded_for = forwarded_for(config, field, notes);
    let forwarded = ForwardedHeaders {
        proto: on(config.x_forwarded_for_proto_enabled),
        port: on(config.x_forwarded_for_slb_port_enabled),
        host: on(config.x_forwarded_for_host_enabled),
        client_port: on(config.x_forwarded_for_client_src_port_enabled),
    };
    let identity = identity(config, protocol, field, notes);
    let trusted = on(config.x_forwarded_for_client_source_ips_enabled)
        .then(|| trusted(config, field, notes))
        .flatten();
    let explicit = on(config.x_forwarded_for_enabled) || forwarded_for == ForwardedFor::Remove;
    let writes = [
        (explicit, "X-Forwarded-For"),
        (forwarded.proto, "X-Forwarded-Proto"),
        (forwarded.port, "X-Forwarded-Port"),
        (forwarded.host, "X-Forwarded-Host"),
        (forwarded.client_port, "X-Forwarded-Client-srcport"),
        (identity.gateway_id, "SLB-ID"),
        (
            identity.cert_subject.is_some(),
            "X-Forwarded-Clientcert-subjectdn",
        ),
        (
            identity.cert_issuer.is_some(),
            "X-Forwarded-Clientcert-issuerdn",
        ),
        (
            identity.cert_fingerprint.is_some(),
            "X-Forwarded-Clientcert-fingerprint",
        ),
        (
            identity.cert_verify.is_some(),
            "X-Forwarded-Clientcert-clientverify",
        ),
    ]
    .into_iter()
    .find_map(|(wanted, header)| wanted.then_some(header));
    Forwarding {
        forwarded_for,
        forwarded,
        identity,
        trusted,
        writes,
    }
}

fn forwarded_for(config: &XForwardedForConfig, field: &str, notes: &mut Notes) -> ForwardedFor {
    let mode = config.x_forwarded_for_processing_mode.as_deref();
    match (config.x_forwarded_for_enabled, mode) {
        (Some(false), _) => ForwardedFor::Keep,
        (_, Some("remove")) => ForwardedFor::Remove,
        (_, None | Some("" | "append")) => ForwardedFor::Append,
        (_, Some(other)) => {
            notes.error(
                format!("{field}.XForwardedForProcessingMode"),
                format!("unknown mode {}", shown(other)),
                "write append or remove",
            );
            ForwardedFor::Append
        }
    }
}

fn identity(
    config: &XForwardedForConfig,
    protocol: ListenerProtocol,
    field: &str,
    notes: &mut Notes,
) -> IdentityHeaders {
    let mut header = |what: &str, enabled: Option<bool>, alias: Option<&String>, default: &str| {
        if enabled != Some(true) {
            return None;
        }
        if protocol != ListenerProtocol::Https {
            notes.warning(
                format!("{field}.XForwardedForClientCert{what}Enabled"),
                format!("has no effect on a listener of protocol {protocol}"),
                "write protocol HTTPS, or remove it",
            );
            return None;
        }
        let alias = alias.map(String::as_str).filter(|alias| !alias.is_empty());
        match alias {
            Some(alias) if !valid_alias(alias) => {
                notes.error(
                    format!("{field}.XForwardedForClientCert{what}Alias"),
                    format!("{} cannot be the name of this header", shown(alias)),
                    "write 1 to 40 lower-case letters, digits, `-` and `_` that no other header of the gateway has",
                );
                None
            }
            alias => Some(alias.unwrap_or(default).to_owned()),
        }
    };
    IdentityHeaders {
        cert_subject: header(
            "SubjectDN",
            config.x_forwarded_for_client_cert_subject_dn_enabled,
            config.x_forwarded_for_client_cert_subject_dn_alias.as_ref(),
            "x-forwarded-clientcert-subjectdn",
        ),
        cert_issuer: header(
            "IssuerDN",
            config.x_forwarded_for_client_cert_issuer_dn_enabled,
            config.x_forwarded_for_client_cert_issuer_dn_alias.as_ref(),
            "x-forwarded-clientcert-issuerdn",
        ),
        cert_fingerprint: header(
            "Fingerprint",
            config.x_forwarded_for_client_cert_fingerprint_enabled,
            config
                .x_forwarded_for_client_cert_fingerprint_alias
                .as_ref(),
            "x-forwarded-clientcert-fingerprint",
        ),
        cert_verify: header(
            "ClientVerify",
            config.x_forwarded_for_client_cert_client_verify_enabled,
            config
                .x_forwarded_for_client_cert_client_verify_alias
                .as_ref(),
            "x-forwarded-clientcert-clientverify",
        ),
        gateway_id: config.x_forwarded_for_slb_id_enabled == Some(true),
    }
}

/// "Alias: 1-40 chars of lower-case letters, digits, `-`, `_`."
fn valid_alias(alias: &str) -> bool {
    (1..=40).contains(&alias.len())
        && !RESERVED.contains(&alias)
        && alias.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
        })
}

/// Networks of proxies that are believed; without any the peer is the client.
fn trusted(config: &XForwardedForConfig, field: &str, notes: &mut Notes) -> Option<Vec<Network>> {
    let field = format!("{field}.XForwardedForClientSourceIpsTrusted");
    let text = config.x_forwarded_for_client_source_ips_trusted.as_deref();
    let items = text.unwrap_or_default().split([',', ';']).map(str::trim);
    let mut networks = Vec::new();
    for item in items.filter(|item| !item.is_empty()) {
        let Ok(network) = item.parse::<Network>() else {
            notes.error(
                field,
                format!("{} is neither an address nor a network", shown(item)),
                "write networks of your proxies such as 10.0.0.0/8, separated by commas",
            );
            return None;
        };
        if networks.len() == MOST_TRUSTED {
            notes.error(
                field,
                format!("lists more than {MOST_TRUSTED} networks"),
                "join neighbouring networks",
            );
            return None;
        }
        networks.push(network);
    }
    if networks.is_empty() {
        notes.warning(
            field,
            "names no proxy, so the peer of a connection counts as the client",
            "write networks of your proxies such as 10.0.0.0/8, separated by commas",
        );
        return None;
    }
    networks.sort();
    networks.dedup();
    Some(networks)
}
