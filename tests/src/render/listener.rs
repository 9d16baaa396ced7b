//! The head of a listener: everything but its rules.

use std::fmt::Display;

use gateway_user::ir::{AccessList, Listener, ListenerSettings, Tls};

use super::line;

pub(super) fn head(listener: &Listener) -> String {
    let addresses = match listener.addresses.as_slice() {
        [] => "every VIP".to_owned(),
        some => list(some),
    };
    let mut text = format!("listener {} on {addresses}\n", listener.name);
    line(
        &mut text,
        format_args!("  {}", settings(&listener.settings)),
    );
    if let Some(tls) = &listener.settings.tls {
        line(&mut text, format_args!("  {}", secured(tls)));
    }
    if let Some(access) = &listener.settings.access {
        line(&mut text, format_args!("  {}", restricted(access)));
    }
    let limits = listener.settings.limits;
    if !limits.is_none() {
        line(
            &mut text,
            format_args!(
                "  new flows per second: {}, of one client {} (0 is no limit)",
                limits.flows, limits.flows_per_source
            ),
        );
    }
    let steering = &listener.steering;
    line(
        &mut text,
        format_args!("  steering {:?}: {}", steering.mode, steering.reason),
    );
    if let Some(refused) = &listener.refused {
        line(&mut text, format_args!("  refused: {refused}"));
    }
    text
}

fn settings(settings: &ListenerSettings) -> String {
    let mut parts = vec![
        format!("idle {} s", settings.idle_timeout.as_secs()),
        format!("request {} s", settings.request_timeout.as_secs()),
        format!("X-Forwarded-For {:?}", settings.forwarded_for),
    ];
    let (forwarded, identity) = (&settings.forwarded, &settings.identity);
    for (on, name) in [
        (forwarded.proto, "proto"),
        (forwarded.port, "port"),
        (forwarded.host, "host"),
        (forwarded.client_port, "client port"),
        (identity.gateway_id, "gateway id"),
    ] {
        if on {
            parts.push(name.to_owned());
        }
    }
    for (name, header) in [
        ("subject", &identity.cert_subject),
        ("issuer", &identity.cert_issuer),
        ("fingerprint", &identity.cert_fingerprint),
        ("verified", &identity.cert_verify),
    ] {
        if let Some(header) = header {
            parts.push(format!("{name} as {header}"));
        }
    }
    if let Some(trusted) = &settings.trusted {
        parts.push(format!("trusts {}", list(trusted)));
    }
    if !settings.gzip {
        parts.push("no gzip".to_owned());
    }
    if settings.quic_upgrade {
        parts.push("tells of QUIC".to_owned());
    }
    if settings.h2c {
        parts.push("HTTP/2 without TLS".to_owned());
    }
    parts.join(", ")
}

fn secured(tls: &Tls) -> String {
    let mut text = format!("TLS {}", tls.policy);
    text.push_str(if tls.http2 { ", HTTP/2" } else { ", no HTTP/2" });
    for certificate in &tls.certificates {
        text.push_str(&format!(", certificate {}", certificate.id));
        if certificate.default {
            text.push_str(" (default)");
        }
        if !certificate.hosts.is_empty() {
            text.push_str(&format!(" of {}", certificate.hosts.join(" ")));
        }
    }
    if tls.certificates.is_empty() {
        text.push_str(", no certificate");
    }
    if let Some(ca) = &tls.client_ca {
        text.push_str(&format!(", clients signed by {ca}"));
    }
    text
}

fn restricted(access: &AccessList) -> String {
    let who = if access.allow { "only" } else { "all but" };
    format!("access: {who} {}", list(&access.networks))
}

fn list<T: Display>(values: &[T]) -> String {
    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
    values.join(", ")
}
