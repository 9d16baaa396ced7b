//! Probes of pods (contract section 11.4). A mistake never costs more than the default: with a warning.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{Annotations, number};
use crate::{
    ir::{
        build::{
            annotations::{get, on},
            notes::{Notes, alb},
        },
        model::{HealthCheck, HealthProtocol},
    },
    problem::shown,
};

/// Longest path of a probe, in characters.
const PATH_CHARS: usize = 80;
/// "gRPC: 0-99, ranges, <= 20": most codes and ranges.
const MOST_CODES: usize = 20;

pub(super) fn parse(annotations: &Annotations, notes: &mut Notes) -> Option<Arc<HealthCheck>> {
    if !on(annotations, "healthcheck-enabled") {
        return None;
    }
    let protocol = one_of(
        annotations,
        "healthcheck-protocol",
        &[
            ("HTTP", HealthProtocol::Http),
            ("HTTPS", HealthProtocol::Https),
            ("TCP", HealthProtocol::Tcp),
            ("GRPC", HealthProtocol::Grpc),
        ],
        notes,
    );
    let versions = [("HTTP1.1", false), ("HTTP1.0", true)];
    let http10 = one_of(annotations, "healthcheck-httpversion", &versions, notes);
    // "GRPC needs POST or GET."
    let methods: &[(&str, &str)] = match protocol {
        HealthProtocol::Grpc => &[("POST", "POST"), ("GET", "GET")],
        _ => &[("HEAD", "HEAD"), ("GET", "GET"), ("POST", "POST")],
    };
    let method = one_of(annotations, "healthcheck-method", methods, notes);
    let mut tuned = |key, range, default| number(annotations, key, range, default, notes);
    let seconds = |number: u32| Duration::from_secs(u64::from(number));
    let count = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
    let timeout = seconds(tuned("healthcheck-timeout-seconds", 1..=300, 5));
    let interval = seconds(tuned("healthcheck-interval-seconds", 1..=50, 2));
    let rise = count(tuned("healthy-threshold-count", 2..=10, 3));
    let fall = count(tuned("unhealthy-threshold-count", 2..=10, 3));
    let port = tuned("healthcheck-connect-port", 0..=65_535, 0);
    Some(Arc::new(HealthCheck {
        protocol,
        port: u16::try_from(port).ok().filter(|port| *port != 0),
        path: path(annotations, protocol, notes),
        method: method.to_owned(),
        http10,
        codes: codes(annotations, protocol, notes),
        timeout,
        interval,
        rise,
        fall,
    }))
}

/// The first word is the default.
fn one_of<T: Copy>(
    annotations: &Annotations,
    key: &str,
    words: &[(&str, T)],
    notes: &mut Notes,
) -> T {
    let (default, value) = words[0];
    let Some(text) = get(annotations, key) else {
        return value;
    };
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return *value;
    }
    let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    notes.warning(
        alb(key),
        format!("{} is not known here; {default} counts", shown(text)),
        format!("write {}", known.join(", ")),
    );
    value
}

fn path(annotations: &Annotations, protocol: HealthProtocol, notes: &mut Notes) -> String {
    let key = "healthcheck-path";
    let grpc = protocol == HealthProtocol::Grpc;
    match get(annotations, key) {
        None => "/".to_owned(),
        // It stands in the first line of the probe: blanks and control characters would end it.
        Some(path)
            if path.starts_with('/')
                && path.len() <= PATH_CHARS
                && path
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b'#')
                && (!grpc || path.bytes().all(in_uri)) =>
        {
            path.to_owned()
        }
        Some(other) => {
            notes.warning(
                alb(key),
                format!("{} is no path of a probe; `/` counts", shown(other)),
                if grpc {
                    format!("write `/`, or a method such as `/package.Service/Method` of at most {PATH_CHARS} characters")
                } else {
                    format!(
                        "start with `/` and use at most {PATH_CHARS} characters without blanks"
                    )
                },
            );
            "/".to_owned()
        }
    }
}

/// Of a path or query by RFC 3986 section 3.3: a `:path` of HTTP/2 has nothing else.
fn in_uri(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/?".contains(&byte)
}

/// "`healthcheck-code` overrides `-httpcode` when both are set."
fn codes(annotations: &Annotations, protocol: HealthProtocol, notes: &mut Notes) -> Vec<u16> {
    let code = get(annotations, "healthcheck-code").map(|text| ("healthcheck-code", text));
    let httpcode =
        || get(annotations, "healthcheck-httpcode").map(|text| ("healthcheck-httpcode", text));
    let (written, default, default_text, example) = match protocol {
        HealthProtocol::Tcp => return Vec::new(),
        HealthProtocol::Grpc => (
            code,
            0,
            "0",
            "codes and ranges from 0 to 99 such as `0,12-14`, at most 20",
        ),
        HealthProtocol::Http | HealthProtocol::Https => (
            code.or_else(httpcode),
            2,
            "http_2xx",
            "a list of http_2xx, http_3xx, http_4xx and http_5xx",
        ),
    };
    let Some((key, text)) = written else {
        return vec![default];
    };
    let read = match protocol {
        HealthProtocol::Grpc => grpc_codes(text),
        _ => classes(text),
    };
    read.unwrap_or_else(|| {
        notes.warning(
            alb(key),
            format!(
                "{} lists no good answers; {default_text} counts",
                shown(text)
            ),
            format!("write {example}"),
        );
        vec![default]
    })
}

/// `http_2xx,http_3xx` as 2 and 3.
fn classes(text: &str) -> Option<Vec<u16>> {
    let class = |word: &str| match word.trim() {
        "http_2xx" => Some(2),
        "http_3xx" => Some(3),
        "http_4xx" => Some(4),
        "http_5xx" => Some(5),
        _ => None,
    };
    let classes: Option<BTreeSet<u16>> = text.split(',').map(class).collect();
    Some(classes?.into_iter().collect())
}

/// `0,12-14` as 0, 12, 13 and 14.
fn grpc_codes(text: &str) -> Option<Vec<u16>> {
    let number = |text: &str| {
        let digits = (1..=2).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let mut codes = BTreeSet::new();
    for (index, item) in text.split(',').enumerate() {
        let item = item.trim();
        let (from, to) = item.split_once('-').unwrap_or((item, item));
        let (from, to) = (number(from)?, number(to)?);
        if index >= MOST_CODES || from > to {
            return None;
        }
        codes.extend(from..=to);
    }
    Some(codes.into_iter().collect())
}
