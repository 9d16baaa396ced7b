//! TLS of HTTPS and QUIC listeners as the AlbConfig writes it (contract sections 2.3 and 13).

use super::listeners::Unclear;
use crate::{
    ir::{
        build::notes::Notes,
        model::{Certificate, ListenerProtocol, TLS_POLICIES, Tls},
    },
    manifest::{AlbCertificate, AlbListener},
    problem::shown,
};

/// Most certificates of one listener.
const MOST_CERTIFICATES: usize = 300;
/// Longest name of a certificate, in bytes: namespace, slash and name of a Secret.
const ID_BYTES: usize = 507;

/// `Ok(None)` for a listener without TLS.
pub(super) fn read(
    listener: &AlbListener,
    protocol: ListenerProtocol,
    field: &str,
    notes: &mut Notes,
) -> Result<Option<Tls>, Unclear> {
    let plain = protocol == ListenerProtocol::Http || protocol.is_l4();
    no_effect(listener, protocol, field, notes);
    let asks = listener.ca_enabled == Some(true);
    if plain {
        if asks {
            notes.restriction(
                format!("{field}.caEnabled"),
                format!("asks for certificates of clients, which plain {protocol} cannot; this listener is left out"),
                "write protocol HTTPS, or remove caEnabled",
            );
            return Err(Unclear::Unknown);
        }
        return Ok(None);
    }
    let errors = notes.errors();
    let tls = Tls {
        certificates: certificates(&listener.certificates, field, notes),
        policy: policy(listener, field, notes),
        http2: protocol == ListenerProtocol::Https && listener.http2_enabled != Some(false),
        client_ca: asks.then(|| client_ca(listener, field, notes)).flatten(),
    };
    match notes.errors() == errors {
        true => Ok(Some(tls)),
        false => Err(Unclear::Mistake),
    }
}

/// What is written on a listener that has no use for it.
fn no_effect(listener: &AlbListener, protocol: ListenerProtocol, field: &str, notes: &mut Notes) {
    let plain = protocol == ListenerProtocol::Http || protocol.is_l4();
    let only_https = protocol != ListenerProtocol::Https;
    for (key, idle) in [
        ("certificates", plain && !listener.certificates.is_empty()),
        (
            "securityPolicyId",
            only_https && listener.security_policy_id.is_some(),
        ),
        // Clouds write `false` themselves.
        (
            "http2Enabled",
            // On an HTTP listener it allows HTTP/2 without TLS.
            only_https
                && protocol != ListenerProtocol::Http
                && listener.http2_enabled == Some(true),
        ),
    ] {
        if idle {
            notes.warning(
                format!("{field}.{key}"),
                format!("has no effect on a listener of protocol {protocol}"),
                "write protocol HTTPS, or remove it",
            );
        }
    }
    if listener.ca_enabled != Some(true) && !listener.ca_certificates.is_empty() {
        notes.warning(
            format!("{field}.caCertificates"),
            "has no effect without caEnabled, so no client needs a certificate",
            "add `caEnabled: true`, or remove it",
        );
    }
}

/// "List order; first in the list is the default certificate": the one with `IsDefault` is moved there.
fn certificates(written: &[AlbCertificate], field: &str, notes: &mut Notes) -> Vec<Certificate> {
    let field = format!("{field}.certificates");
    if written.len() > MOST_CERTIFICATES {
        notes.error(
            field,
            format!("has more than {MOST_CERTIFICATES} entries"),
            "spread the hosts over several listeners",
        );
        return Vec::new();
    }
    let mut certificates: Vec<Certificate> = Vec::new();
    let mut default = None;
    for (index, entry) in written.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let Some(id) = id(entry, &field, notes) else {
            continue;
        };
        let known = certificates.iter().position(|it| it.id == id);
        let at = known.unwrap_or(certificates.len());
        if entry.is_default == Some(true) && default.replace(at).is_some_and(|other| other != at) {
            notes.error(
                format!("{field}.IsDefault"),
                "a second certificate of this listener is the default one",
                "keep one IsDefault",
            );
        }
        if known.is_none() {
            certificates.push(Certificate {
                id,
                hosts: Vec::new(),
                default: false,
            });
        }
    }
    if let Some(at) = default {
        certificates[..=at].rotate_right(1);
    }
    if let Some(first) = certificates.first_mut() {
        first.default = true;
    }
    certificates
}

fn id(entry: &AlbCertificate, field: &str, notes: &mut Notes) -> Option<String> {
    let id = entry.certificate_id.as_str();
    if (1..=ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(id.to_owned());
    }
    notes.error(
        format!("{field}.CertificateId"),
        match id {
            "" => "is missing".to_owned(),
            id => format!("{} is no name of a certificate", shown(id)),
        },
        "write `CertificateId:`, with a capital C and I, and `namespace/name` of a Secret",
    );
    None
}

fn policy(listener: &AlbListener, field: &str, notes: &mut Notes) -> String {
    match listener.security_policy_id.as_deref() {
        None | Some("") => {}
        Some(known) if TLS_POLICIES.contains(&known) => return known.to_owned(),
        Some(other) => notes.error(
            format!("{field}.securityPolicyId"),
            format!("unknown policy {}", shown(other)),
            format!("write one of {}", TLS_POLICIES.join(", ")),
        ),
    }
    TLS_POLICIES[0].to_owned()
}

/// "Mutual TLS; then one entry in `caCertificates[]` is required (max one)."
fn client_ca(listener: &AlbListener, field: &str, notes: &mut Notes) -> Option<String> {
    let field = format!("{field}.caCertificates");
    match listener.ca_certificates.as_slice() {
        [one] => id(one, &format!("{field}[0]"), notes),
        others => {
            notes.error(
                field,
                format!(
                    "has {} entries, but caEnabled needs exactly one",
                    others.len()
                ),
                "name the one certificate that signs those of clients",
            );
            None
        }
    }
}
