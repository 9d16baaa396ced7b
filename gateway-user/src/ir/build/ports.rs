//! On which listeners an Ingress lands (contract section 4).

use std::collections::BTreeSet;

use serde_json::Value;

use super::notes::{ALB, Notes, alb};
use crate::{manifest::Ingress, problem::shown};

/// HTTP ports of an Ingress.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Ports {
    pub(super) http: BTreeSet<u16>,
    /// `listen-ports` is present: every rule goes to every port, whatever `spec.tls` says.
    pub(super) explicit: bool,
}

/// HTTP ports of one Ingress: each of its rules stands once on each of them.
const MOST_PORTS: usize = 50;
const EXAMPLE: &str = r#"write a JSON array such as `[{"HTTP": 8001}]`, in single quotes"#;

pub(super) fn parse(ingress: &Ingress, notes: &mut Notes) -> Ports {
    match ingress
        .metadata
        .annotations
        .get(&format!("{ALB}listen-ports"))
    {
        Some(text) => Ports {
            http: explicit(text, notes),
            explicit: true,
        },
        None => Ports {
            http: derived(ingress, notes),
            explicit: false,
        },
    }
}

fn explicit(text: &str, notes: &mut Notes) -> BTreeSet<u16> {
    let annotation = alb("listen-ports");
    let field = annotation.clone();
    let mut http = BTreeSet::new();
    let entries = match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(entries)) if !entries.is_empty() => entries,
        Ok(Value::Array(_)) => {
            notes.error(field, "names no port", EXAMPLE);
            return http;
        }
        Ok(_) => {
            notes.error(
                field,
                format!("{} is not a JSON array", shown(text)),
                EXAMPLE,
            );
            return http;
        }
        Err(error) => {
            notes.error(
                field,
                format!("{} is not valid JSON ({error})", shown(text)),
                EXAMPLE,
            );
            return http;
        }
    };
    let mut refused = BTreeSet::new();
    let errors = notes.errors();
    for (index, entry) in entries.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let Some(entry) = entry.as_object().filter(|entry| !entry.is_empty()) else {
            notes.error(field, "is not an object of protocol and port", EXAMPLE);
            continue;
        };
        for (protocol, port) in entry {
            let Some(port) = port
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0)
            else {
                notes.error(
                    format!("{field}.{}", protocol.chars().take(20).collect::<String>()),
                    format!("{} is not a port", shown(&port.to_string())),
                    "write an integer from 1 to 65535, without quotes",
                );
                continue;
            };
            match protocol.as_str() {
                "HTTP" if http.len() == MOST_PORTS && !http.contains(&port) => {
                    notes.error(
                        annotation,
                        format!("lists more than {MOST_PORTS} HTTP ports"),
                        "spread the rules over several Ingresses",
                    );
                    return http;
                }
                "HTTP" => {
                    http.insert(port);
                }
                "HTTPS" | "QUIC" => {
                    if refused.insert((protocol.as_str(), port)) {
                        notes.warning(
                            field.clone(),
                            format!("{protocol} {port} is not served yet"),
                            "nothing serves this port until then; remove the entry to silence this",
                        );
                    }
                }
                other => notes.error(
                    field.clone(),
                    format!("unknown protocol {}", shown(other)),
                    "write HTTP, HTTPS or QUIC in capitals",
                ),
            }
        }
    }
    if http.is_empty() && notes.errors() == errors {
        // HTTPS only: what served in plain before must not serve on.
        notes.restriction(
            field,
            "lists no HTTP port, so there is nothing to serve this Ingress on",
            r#"add an entry such as `{"HTTP": 80}` to serve it over plain HTTP"#,
        );
    }
    http
}

/// "`spec.tls[].hosts` has any non-empty host -> HTTPS 443; additionally HTTP 80 if some rule host is not in tls hosts;
/// no tls hosts -> HTTP 80 only."
fn derived(ingress: &Ingress, notes: &mut Notes) -> BTreeSet<u16> {
    let tls = tls_hosts(ingress);
    if tls.is_empty() {
        return BTreeSet::from([80]);
    }
    let plain = ingress
        .spec
        .rules
        .iter()
        .any(|rule| !tls.contains(rule.host.as_str()));
    let remedy = r#"set `listen-ports: '[{"HTTP": 80}]'` to serve all its hosts over plain HTTP"#;
    if plain {
        notes.warning(
            "spec.tls",
            "asks for HTTPS 443, which is not served yet; hosts without TLS are served",
            remedy,
        );
        return BTreeSet::from([80]);
    }
    notes.restriction(
        "spec.tls",
        "asks for HTTPS 443 only, which is not served yet",
        remedy,
    );
    BTreeSet::new()
}

/// Hosts that `spec.tls` names, as written.
pub(super) fn tls_hosts(ingress: &Ingress) -> BTreeSet<&str> {
    ingress
        .spec
        .tls
        .iter()
        .flat_map(|tls| &tls.hosts)
        .map(String::as_str)
        .filter(|host| !host.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(listen: &str) -> (Vec<u16>, usize, usize) {
        let mut ingress = Ingress::default();
        ingress
            .metadata
            .annotations
            .insert(format!("{ALB}listen-ports"), listen.to_owned());
        let mut notes = Notes::on("Ingress", "demo", "a");
        let ports = parse(&ingress, &mut notes);
        (
            ports.http.into_iter().collect(),
            notes.errors(),
            notes.problems.len(),
        )
    }

    #[test]
    fn ports_are_read_once_and_other_protocols_only_warn() {
        assert_eq!(
            read(r#"[{"HTTP": 8001}, {"HTTP": 80, "HTTPS": 443}, {"HTTP": 80}]"#),
            (vec![80, 8001], 0, 1)
        );
    }

    #[test]
    fn bad_listen_ports_are_errors() {
        for bad in [
            "",
            "80",
            "[]",
            "[80]",
            "[{}]",
            r#"[{"http": 80}]"#,
            r#"[{"HTTP": "80"}]"#,
            r#"[{"HTTP": 0}]"#,
            r#"[{"HTTP": 65536}]"#,
            r#"[{"HTTPS": 443}]"#,
            r#"[{"HTTP": 1.5}]"#,
        ] {
            let (_, errors, _) = read(bad);
            assert_eq!(errors, 1, "{bad}");
        }
    }
}
