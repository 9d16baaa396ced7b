//! `enable-cors` and `cors-*`.

use std::collections::BTreeMap;

use crate::{
    ir::{
        build::{
            annotations::{get, on},
            notes::{Notes, alb},
        },
        model::Cors,
    },
    problem::shown,
};

type Annotations = BTreeMap<String, String>;

/// Most entries of one list.
const MOST: usize = 50;
/// Longest entry of a list, in bytes: a host with scheme and port.
const ENTRY_BYTES: usize = 270;
/// "-1...172800 s"; the default is the most.
const AGE_SECONDS: i32 = 172_800;

const METHODS: [&str; 7] = ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "HEAD"];
const DEFAULT_METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const DEFAULT_HEADERS: &str = "DNT,X-CustomHeader,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,\
                               Cache-Control,Content-Type,Authorization";
const HEADERS: &str = "write header names separated by commas, or `*` alone";

/// `None` where CORS is not enabled, or after an error.
pub(in crate::ir::build) fn cors(annotations: &Annotations, notes: &mut Notes) -> Option<Cors> {
    if !on(annotations, "enable-cors") {
        return None;
    }
    let origins = list(
        annotations,
        ("cors-allow-origin", "*"),
        |origin| origin == "*" || valid_origin(origin),
        "write `*`, or origins such as `https://*.example.com:8443`, separated by commas",
        notes,
    );
    let methods = list(
        annotations,
        ("cors-allow-methods", DEFAULT_METHODS),
        |method| {
            METHODS
                .iter()
                .any(|known| known.eq_ignore_ascii_case(method))
        },
        "write some of GET, PUT, POST, DELETE, PATCH, OPTIONS, HEAD, separated by commas",
        notes,
    );
    let headers = ("cors-allow-headers", DEFAULT_HEADERS);
    let headers = list(annotations, headers, valid_header, HEADERS, notes);
    let expose = match get(annotations, "cors-expose-headers") {
        None | Some("") => Some(Vec::new()),
        Some(_) => {
            let key = ("cors-expose-headers", "");
            list(annotations, key, valid_header, HEADERS, notes)
        }
    };
    let (credentials, max_age_seconds) = (credentials(annotations, notes), age(annotations, notes));
    Some(Cors {
        origins: origins?,
        methods: methods?.iter().map(|it| it.to_ascii_uppercase()).collect(),
        headers: headers?,
        expose: expose?,
        credentials,
        max_age_seconds,
    })
}

/// Entries between commas; `None` after an error. A `*` stands alone.
fn list(
    annotations: &Annotations,
    (key, default): (&str, &str),
    valid: impl Fn(&str) -> bool,
    remedy: &str,
    notes: &mut Notes,
) -> Option<Vec<String>> {
    let text = get(annotations, key).unwrap_or(default);
    let mut entries: Vec<String> = Vec::new();
    for entry in text.split(',').map(str::trim) {
        if entry.len() > ENTRY_BYTES || !valid(entry) {
            notes.error(
                alb(key),
                format!("{} cannot be allowed", shown(entry)),
                remedy,
            );
            return None;
        }
        if entries.len() == MOST {
            notes.error(
                alb(key),
                format!("lists more than {MOST} entries"),
                format!("keep at most {MOST}"),
            );
            return None;
        }
        if !entries.iter().any(|known| known == entry) {
            entries.push(entry.to_owned());
        }
    }
    if entries.len() > 1 && entries.iter().any(|entry| entry == "*") {
        notes.error(alb(key), "has `*` beside other entries", remedy);
        return None;
    }
    Some(entries)
}

/// "Starts with http:// or https://, optional wildcard sub-domain and port."
fn valid_origin(origin: &str) -> bool {
    let rest = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    let Some(rest) = rest else {
        return false;
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    let port_fits = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    let host = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    port_fits && host.len() <= 253 && host.split('.').all(label)
}

/// A token of RFC 9110 section 5.6.2, so also `*`.
fn valid_header(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// "`true`/`false`; other -> warning, default."
fn credentials(annotations: &Annotations, notes: &mut Notes) -> bool {
    let key = "cors-allow-credentials";
    match get(annotations, key) {
        None | Some("true") => true,
        Some("false") => false,
        Some(other) => {
            notes.warning(
                alb(key),
                format!("{} is neither true nor false; true counts", shown(other)),
                "write `\"true\"` or `\"false\"`",
            );
            true
        }
    }
}

fn age(annotations: &Annotations, notes: &mut Notes) -> i32 {
    let key = "cors-max-age";
    let Some(text) = get(annotations, key) else {
        return AGE_SECONDS;
    };
    match text.parse::<i32>() {
        Ok(age) if (-1..=AGE_SECONDS).contains(&age) => age,
        _ => {
            notes.warning(
                alb(key),
                format!(
                    "{} is no number from -1 to {AGE_SECONDS}; {AGE_SECONDS} counts",
                    shown(text)
                ),
                format!("write seconds from -1 to {AGE_SECONDS}"),
            );
            AGE_SECONDS
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ir::build::notes::ALB;

    fn read(pairs: &[(&str, &str)]) -> (Option<Cors>, usize, usize) {
        let pairs = [&[("enable-cors", "true")], pairs].concat();
        let annotations = pairs
            .iter()
            .map(|(key, value)| (format!("{ALB}{key}"), (*value).to_owned()))
            .collect();
        let mut notes = Notes::on("Ingress", "demo", "a");
        let cors = cors(&annotations, &mut notes);
        (cors, notes.errors(), notes.problems.len() - notes.errors())
    }

    #[test]
    fn nothing_is_allowed_unless_enabled() {
        let annotations = [(format!("{ALB}cors-allow-origin"), "*".to_owned())].into();
        let mut notes = Notes::on("Ingress", "demo", "a");
        assert_eq!(cors(&annotations, &mut notes), None);
        assert_eq!(notes.problems, []);
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let (cors, errors, warnings) = read(&[]);
        assert_eq!((errors, warnings), (0, 0));
        let cors = cors.unwrap();
        assert_eq!(cors.origins, ["*"]);
        assert_eq!(cors.methods.join(", "), DEFAULT_METHODS);
        assert_eq!(cors.headers.join(","), DEFAULT_HEADERS);
        assert_eq!(cors.expose, Vec::<String>::new());
        assert!(cors.credentials);
        assert_eq!(cors.max_age_seconds, 172_800);
    }

    #[test]
    fn every_value_is_read() {
        let (cors, errors, warnings) = read(&[
            (
                "cors-allow-origin",
                "https://*.example.com:8443, http://a.example",
            ),
            ("cors-allow-methods", "get,HEAD"),
            ("cors-allow-headers", "*"),
            ("cors-expose-headers", "X-One, X-Two"),
            ("cors-allow-credentials", "false"),
            ("cors-max-age", "-1"),
        ]);
        assert_eq!((errors, warnings), (0, 0));
        let written = Cors {
            origins: vec![
                "https://*.example.com:8443".into(),
                "http://a.example".into(),
            ],
            methods: vec!["GET".into(), "HEAD".into()],
            headers: vec!["*".into()],
            expose: vec!["X-One".into(), "X-Two".into()],
            credentials: false,
            max_age_seconds: -1,
        };
        assert_eq!(cors, Some(written));
    }

    #[test]
    fn what_cannot_be_allowed_is_an_error() {
        let many = vec!["https://a.com"; 51];
        let many: Vec<_> = many
            .iter()
            .zip(0..)
            .map(|(it, at)| format!("{it}:{}", at + 1))
            .collect();
        for (key, bad) in [
            ("cors-allow-origin", ""),
            ("cors-allow-origin", "example.com"),
            ("cors-allow-origin", "ftp://example.com"),
            ("cors-allow-origin", "https://"),
            ("cors-allow-origin", "https://a.com/path"),
            ("cors-allow-origin", "https://a.*.com"),
            ("cors-allow-origin", "https://a.com:0"),
            ("cors-allow-origin", "https://a.com:+1"),
            ("cors-allow-origin", "*, https://a.com"),
            ("cors-allow-origin", "https://a.com,"),
            ("cors-allow-origin", &many.join(",")),
            ("cors-allow-methods", "*"),
            ("cors-allow-methods", "GET POST"),
            ("cors-allow-headers", "X Y"),
            ("cors-allow-headers", "X\r\nY"),
            ("cors-expose-headers", ","),
        ] {
            let (cors, errors, _) = read(&[(key, bad)]);
            assert_eq!((cors, errors), (None, 1), "{key} {bad}");
        }
    }

    #[test]
    fn odd_credentials_and_ages_are_warnings() {
        for (key, bad) in [
            ("cors-allow-credentials", "yes"),
            ("cors-max-age", "172801"),
            ("cors-max-age", "-2"),
            ("cors-max-age", "day"),
        ] {
            let (cors, errors, warnings) = read(&[(key, bad)]);
            assert_eq!((errors, warnings), (0, 1), "{key} {bad}");
            assert_eq!(cors, read(&[]).0);
        }
    }

    proptest! {
        #[test]
        fn no_list_makes_it_panic(text in "(https?://)?[a-z*.:0-9, -]{0,60}|.{0,60}") {
            for key in ["cors-allow-origin", "cors-allow-methods", "cors-allow-headers", "cors-max-age"] {
                let (cors, errors, _) = read(&[(key, &text)]);
                prop_assert_eq!(cors.is_none(), errors > 0);
            }
        }
    }
}
