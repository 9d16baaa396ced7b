//! How the pods of an Ingress are treated (contract section 11).
//!
//! What only tunes (times, counts, probes) falls back to its default with a warning; what changes which pod gets a request,
//! or how it is spoken to, is an error.

mod health;

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use super::{
    annotations::{get, on},
    notes::{BACKEND_PROXY, Notes, alb, annotation},
    ports::Ports,
};
use crate::{
    ir::model::{BackendProtocol, Policy, Scheduler, Sticky},
    problem::shown,
};

type Annotations = BTreeMap<String, String>;

/// Longest name of a query parameter, in characters (contract section 6).
const PARAMETER_CHARS: usize = 100;
/// Longest name of a cookie, in characters.
const COOKIE_CHARS: usize = 200;

/// `has_tls`: `spec.tls` is not empty.
pub(super) fn parse(
    annotations: &Annotations,
    ports: &Ports,
    has_tls: bool,
    notes: &mut Notes,
) -> Policy {
    let duration = |enabled: &str, key: &str, range, default, notes: &mut Notes| {
        on(annotations, enabled)
            .then(|| number(annotations, key, range, default, notes))
            .map(|seconds| Duration::from_secs(u64::from(seconds)))
    };
    let protocol = protocol(annotations, ports, has_tls, notes);
    Policy {
        protocol,
        proxy_header: proxy_header(annotations, protocol, notes),
        scheduler: scheduler(annotations, notes),
        keepalive: match get(annotations, "backend-keepalive") {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        },
        sticky: sticky(annotations, notes),
        slow_start: duration(
            "slow-start-enabled",
            "slow-start-duration",
            30..=900,
            30,
            notes,
        ),
        drain: duration(
            "connection-drain-enabled",
            "connection-drain-timeout",
            0..=900,
            300,
            notes,
        ),
        health: health::parse(annotations, notes),
    }
}

fn protocol(
    annotations: &Annotations,
    ports: &Ports,
    has_tls: bool,
    notes: &mut Notes,
) -> BackendProtocol {
    let key = "backend-protocol";
    let protocol = match get(annotations, key) {
        None | Some("http") => return BackendProtocol::Http,
        Some("https") => BackendProtocol::Https,
        Some("grpc") => BackendProtocol::Grpc,
        Some(other) => {
            // The cloud takes it for http without a word.
            notes.warning(
                alb(key),
                format!(
                    "unknown protocol {}, so pods are spoken to in http",
                    shown(other)
                ),
                "write http, https or grpc, in lower case",
            );
            return BackendProtocol::Http;
        }
    };
    // "QUIC -> http."
    if !ports.quic.is_empty() {
        notes.error(
            alb(key),
            "is not http, and requests that come by QUIC go to pods in http only",
            "remove QUIC from listen-ports, or write http",
        );
    }
    // "`grpc` without `spec.tls` -> error." Whether listeners of HTTP speak HTTP/2 shows where rules are placed on them.
    let encrypted = ports.http.is_empty() || !ports.https.is_empty();
    if protocol == BackendProtocol::Grpc && encrypted && !has_tls {
        notes.error(
            alb(key),
            "grpc needs HTTP/2, and so an HTTPS listener, but spec.tls is empty",
            "name the hosts and their Secret in spec.tls",
        );
    }
    protocol
}

/// `fleetgate.io/backend-proxy-protocol`.
fn proxy_header(annotations: &Annotations, protocol: BackendProtocol, notes: &mut Notes) -> bool {
    let Some(written) = annotations.get(BACKEND_PROXY) else {
        return false;
    };
    let field = annotation(BACKEND_PROXY);
    if written != "v2" {
        let message = format!("unknown version {}", shown(written));
        notes.error(field, message, "write v2, or remove the annotation");
    } else if protocol == BackendProtocol::Grpc {
        notes.error(
            field,
            "names one client of each connection, and those of gRPC carry requests of many",
            "remove it, or the annotation backend-protocol",
        );
    } else if on(annotations, "backend-keepalive") {
        notes.warning(
            alb("backend-keepalive"),
            "has no effect with backend-proxy-protocol: a connection serves one request of the client that it names",
            "remove one of them",
        );
    }
    true
}

fn scheduler(annotations: &Annotations, notes: &mut Notes) -> Scheduler {
    let (key, parameter) = ("backend-scheduler", "backend-scheduler-uch-value");
    let written = get(annotations, key);
    if written != Some("uch") && get(annotations, parameter).is_some() {
        notes.warning(
            alb(parameter),
            "has no effect without `backend-scheduler: uch`",
            "add that, or remove the annotation",
        );
    }
    match written {
        None | Some("wrr") => Scheduler::RoundRobin,
        Some("wlc") => Scheduler::LeastConnections,
        Some("sch") => Scheduler::SourceHash,
        Some("uch") => match get(annotations, parameter) {
            Some(name)
                if (1..=PARAMETER_CHARS).contains(&name.len())
                    && name.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                Scheduler::QueryHash(name.to_owned())
            }
            name => {
                notes.error(
                    alb(parameter),
                    match name {
                        Some(name) => format!("{} is no name of a query parameter", shown(name)),
                        None => "is missing, so uch has nothing to hash".to_owned(),
                    },
                    format!("write the name of a query parameter, 1 to {PARAMETER_CHARS} characters without blanks"),
                );
                Scheduler::RoundRobin
            }
        },
        Some(other) => {
            notes.error(
                alb(key),
                format!("unknown scheduler {}", shown(other)),
                "write wrr, wlc, sch or uch",
            );
            Scheduler::RoundRobin
        }
    }
}

fn sticky(annotations: &Annotations, notes: &mut Notes) -> Option<Sticky> {
    if !on(annotations, "sticky-session") {
        return None;
    }
    match get(annotations, "sticky-session-type") {
        None | Some("Insert") => {
            let seconds = number(annotations, "cookie-timeout", 1..=86_400, 1000, notes);
            Some(Sticky::Insert(Duration::from_secs(u64::from(seconds))))
        }
        Some("Server") => match get(annotations, "cookie") {
            Some(name) if cookie(name) => Some(Sticky::Server(name.to_owned())),
            name => {
                notes.error(
                    alb("cookie"),
                    match name {
                        Some(name) => format!("{} is no name of a cookie", shown(name)),
                        None => "is missing, so no cookie of the application can be followed".to_owned(),
                    },
                    format!("write the cookie's name: 1 to {COOKIE_CHARS} ASCII characters without `=`, `,`, `;` and blanks, not starting with `$`"),
                );
                None
            }
        },
        Some(other) => {
            notes.error(
                alb("sticky-session-type"),
                format!("unknown type {}", shown(other)),
                "write Insert or Server",
            );
            None
        }
    }
}

/// "1-200 ASCII chars, no `, ;` blank, not starting with `$`"; a `=` would end the name.
fn cookie(name: &str) -> bool {
    (1..=COOKIE_CHARS).contains(&name.len())
        && !name.starts_with('$')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b",;=".contains(&byte))
}

/// A number that only tunes: "non-numeric number -> default kept", and so out of range.
fn number(
    annotations: &Annotations,
    key: &str,
    range: RangeInclusive<u32>,
    default: u32,
    notes: &mut Notes,
) -> u32 {
    let Some(text) = get(annotations, key) else {
        return default;
    };
    match text.parse::<u32>() {
        Ok(number) if range.contains(&number) => number,
        _ => {
            let (least, most) = range.into_inner();
            notes.warning(
                alb(key),
                format!(
                    "{} is no number from {least} to {most}; {default} counts",
                    shown(text)
                ),
                format!("write an integer from {least} to {most}, or remove the annotation"),
            );
            default
        }
    }
}

#[cfg(test)]
mod tests;
