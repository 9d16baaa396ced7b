//! On which listeners an Ingress lands (contract section 4).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    annotations,
    notes::{Notes, alb},
    passthrough,
};
use crate::{ir::model::ListenerProtocol, manifest::Ingress, problem::shown};

/// Listeners of an Ingress.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Ports {
    pub(super) http: BTreeSet<u16>,
    pub(super) https: BTreeSet<u16>,
    pub(super) quic: BTreeSet<u16>,
    pub(super) tcp: BTreeSet<u16>,
    pub(super) udp: BTreeSet<u16>,
    /// `listen-ports` is present: every rule goes to every port, whatever `spec.tls` says.
    pub(super) explicit: bool,
}

impl Ports {
    /// Every port with its protocol.
    pub(super) fn all(&self) -> impl Iterator<Item = (u16, ListenerProtocol)> {
        [
            (&self.http, ListenerProtocol::Http),
            (&self.https, ListenerProtocol::Https),
            (&self.quic, ListenerProtocol::Quic),
            (&self.tcp, ListenerProtocol::Tcp),
            (&self.udp, ListenerProtocol::Udp),
        ]
        .into_iter()
        .flat_map(|(ports, protocol)| ports.iter().map(move |port| (*port, protocol)))
    }

    fn len(&self) -> usize {
        self.all().count()
    }

    /// Listeners that read requests.
    pub(super) fn read_requests(&self) -> bool {
        self.all().any(|(_, protocol)| !protocol.is_l4())
    }
}

/// Listeners of one Ingress: each of its rules stands once on each of them.
const MOST_PORTS: usize = 50;
const EXAMPLE: &str = r#"write a JSON array such as `[{"HTTP": 8001}]`, in single quotes"#;

/// After an error the ports are those understood so far.
pub(super) fn parse(ingress: &Ingress, notes: &mut Notes) -> Ports {
    let annotations = &ingress.metadata.annotations;
    let mut ports = match annotations::get(annotations, "listen-ports") {
        Some(text) => explicit(text, notes),
        // Nobody needs a certificate for them, so spec.tls need not name them.
        None if passthrough::asked(annotations) => Ports {
            https: [443].into(),
            ..Ports::default()
        },
        None => derived(ingress),
    };
    // "Adds HTTP 80 to the Ingress's listener set automatically."
    if ssl_redirect(annotations) {
        ports.http.insert(80);
    }
    ports
}

/// `ssl-redirect` or its NGINX alias: "value exactly `true`; default off".
pub(super) fn ssl_redirect(annotations: &BTreeMap<String, String>) -> bool {
    annotations::aliased(annotations, "ssl-redirect").is_some_and(|(_, value)| value == "true")
}

fn explicit(text: &str, notes: &mut Notes) -> Ports {
    let field = alb("listen-ports");
    let mut ports = Ports {
        explicit: true,
        ..Ports::default()
    };
    let wrong = match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(entries)) if entries.is_empty() => "names no port".to_owned(),
        Ok(Value::Array(entries)) => {
            for (index, entry) in entries.iter().enumerate() {
                if !listed(entry, &format!("{field}[{index}]"), &mut ports, notes) {
                    break;
                }
            }
            return ports;
        }
        Ok(_) => format!("{} is not a JSON array", shown(text)),
        Err(error) => format!("{} is not valid JSON ({error})", shown(text)),
    };
    notes.error(field, wrong, EXAMPLE);
    ports
}

/// One entry of the array; false when there is no room for more.
fn listed(entry: &Value, field: &str, ports: &mut Ports, notes: &mut Notes) -> bool {
    let Some(entry) = entry.as_object().filter(|entry| !entry.is_empty()) else {
        notes.error(field, "is not an object of protocol and port", EXAMPLE);
        return true;
    };
    for (protocol, port) in entry {
        let full = ports.len() >= MOST_PORTS;
        let set = match protocol.as_str() {
            "HTTP" => &mut ports.http,
            "HTTPS" => &mut ports.https,
            "QUIC" => &mut ports.quic,
            "TCP" => &mut ports.tcp,
            "UDP" => &mut ports.udp,
            other => {
                notes.error(
                    field,
                    format!("unknown protocol {}", shown(other)),
                    "write HTTP, HTTPS, QUIC, TCP or UDP in capitals",
                );
                continue;
            }
        };
        let number = port.as_u64().and_then(|port| u16::try_from(port).ok());
        match number.filter(|port| *port != 0) {
            Some(port) if full && !set.contains(&port) => {
                notes.error(
                    alb("listen-ports"),
                    format!("lists more than {MOST_PORTS} ports"),
                    "spread the rules over several Ingresses",
                );
                return false;
            }
            Some(port) => {
                set.insert(port);
            }
            None => notes.error(
                format!("{field}.{protocol}"),
                format!("{} is not a port", shown(&port.to_string())),
                "write an integer from 1 to 65535, without quotes",
            ),
        }
    }
    true
}

/// "`spec.tls[].hosts` has any non-empty host -> HTTPS 443; additionally HTTP 80 if some rule host is not in tls hosts;
/// no tls hosts -> HTTP 80 only."
fn derived(ingress: &Ingress) -> Ports {
    let tls = tls_hosts(ingress);
    let mut rules = ingress.spec.rules.iter();
    let plain = tls.is_empty() || rules.any(|rule| !tls.contains(rule.host.as_str()));
    Ports {
        http: plain.then_some(80).into_iter().collect(),
        https: (!tls.is_empty()).then_some(443).into_iter().collect(),
        ..Ports::default()
    }
}

/// Whether a rule for this host (as written) goes to the Ingress's listeners of this protocol (contract section 4.3).
///
/// `explicit` and `ssl_redirect`: "only when neither `listen-ports` nor `ssl-redirect: true` is present".
pub(super) fn serves(
    rule_host: &str,
    ingress: &Ingress,
    protocol: ListenerProtocol,
    explicit: bool,
    ssl_redirect: bool,
) -> bool {
    // "Host-less rules go on all listeners of the Ingress."
    if explicit || ssl_redirect || rule_host.is_empty() {
        return true;
    }
    let secured = tls_hosts(ingress).contains(rule_host);
    match protocol {
        ListenerProtocol::Http => !secured,
        // "On an HTTPS listener an Ingress with an empty `spec.tls` counts as HTTPS rule."
        ListenerProtocol::Https | ListenerProtocol::Quic => secured || ingress.spec.tls.is_empty(),
        // They have no rules.
        ListenerProtocol::Tcp | ListenerProtocol::Udp => false,
    }
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
    use ListenerProtocol::{Http, Https, Quic, Tcp, Udp};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ir::build::notes::ALB,
        manifest::{IngressRule, IngressTls},
    };

    fn read(listen: &str) -> (Ports, usize) {
        let mut ingress = Ingress::default();
        let annotations = &mut ingress.metadata.annotations;
        annotations.insert(format!("{ALB}listen-ports"), listen.to_owned());
        let mut notes = Notes::on("Ingress", "demo", "a");
        let ports = parse(&ingress, &mut notes);
        (ports, notes.errors())
    }

    fn ingress(tls: &[&str], hosts: &[&str]) -> Ingress {
        let mut ingress = Ingress::default();
        for host in tls {
            ingress.spec.tls.push(IngressTls {
                hosts: vec![(*host).to_owned()],
                secret_name: None,
            });
        }
        for host in hosts {
            ingress.spec.rules.push(IngressRule {
                host: (*host).to_owned(),
                ..IngressRule::default()
            });
        }
        ingress
    }

    fn of(ingress: &Ingress) -> Vec<(u16, ListenerProtocol)> {
        let mut notes = Notes::on("Ingress", "demo", "a");
        let ports = parse(ingress, &mut notes);
        assert_eq!(notes.problems, []);
        assert_eq!(
            ports.explicit,
            annotations::get(&ingress.metadata.annotations, "listen-ports").is_some()
        );
        ports.all().collect()
    }

    #[test]
    fn ports_are_read_once_for_each_protocol() {
        let (ports, errors) =
            read(r#"[{"HTTP": 8001}, {"HTTP": 80, "HTTPS": 443}, {"HTTP": 80}, {"QUIC": 443}]"#);
        assert_eq!(errors, 0);
        assert!(ports.explicit);
        let all: Vec<_> = ports.all().collect();
        assert_eq!(all, [(80, Http), (8001, Http), (443, Https), (443, Quic)]);
        let (ports, errors) = read(r#"[{"TCP": 5432}, {"UDP": 53}, {"TCP": 53}]"#);
        assert_eq!(errors, 0);
        assert!(!ports.read_requests());
        let all: Vec<_> = ports.all().collect();
        assert_eq!(all, [(53, Tcp), (5432, Tcp), (53, Udp)]);
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
            r#"[{"HTTP": -1}]"#,
            r#"[{"HTTP": 1.5}]"#,
            r#"[{"HTTP": null}]"#,
        ] {
            assert_eq!(read(bad).1, 1, "{bad}");
        }
    }

    #[test]
    fn without_listen_ports_the_hosts_of_tls_decide() {
        assert_eq!(of(&ingress(&[], &["a.com"])), [(80, Http)]);
        assert_eq!(of(&ingress(&[""], &["a.com"])), [(80, Http)]);
        assert_eq!(of(&ingress(&["a.com"], &["a.com"])), [(443, Https)]);
        let both = [(80, Http), (443, Https)];
        assert_eq!(of(&ingress(&["a.com"], &["a.com", "b.com"])), both);
        assert_eq!(of(&ingress(&["a.com"], &[""])), both);
    }

    #[test]
    fn ssl_redirect_adds_http_80_and_only_true_counts() {
        for (prefix, value, added) in [
            (ALB, "true", true),
            (ALB, "True", false),
            ("nginx.ingress.kubernetes.io/", "true", true),
            ("nginx.ingress.kubernetes.io/", "1", false),
        ] {
            let mut ingress = ingress(&["a.com"], &["a.com"]);
            let annotations = &mut ingress.metadata.annotations;
            annotations.insert(format!("{prefix}ssl-redirect"), value.to_owned());
            assert_eq!(of(&ingress).contains(&(80, Http)), added, "{prefix}{value}");
            let annotations = &mut ingress.metadata.annotations;
            annotations.insert(
                format!("{ALB}listen-ports"),
                r#"[{"HTTPS": 8443}]"#.to_owned(),
            );
            assert_eq!(of(&ingress).contains(&(80, Http)), added, "{prefix}{value}");
        }
    }

    #[test]
    fn a_rule_of_a_tls_host_goes_to_https_only_and_others_to_http_only() {
        let it = ingress(&["a.com"], &["a.com", "b.com", ""]);
        let on = |host, protocol| serves(host, &it, protocol, false, false);
        assert!(on("a.com", Https) && !on("a.com", Http));
        assert!(!on("b.com", Https) && on("b.com", Http));
        assert!(on("", Https) && on("", Http));
        // "exact string".
        assert!(on("A.com", Http) && !on("A.com", Https));
        assert!(serves("a.com", &it, Http, true, false));
        assert!(serves("a.com", &it, Http, false, true));
        assert!(serves(
            "a.com",
            &ingress(&[], &["a.com"]),
            Https,
            false,
            false
        ));
    }

    proptest! {
        #[test]
        fn listen_ports_are_bounded_whatever_is_written(text in ".{0,80}") {
            let (ports, errors) = read(&text);
            prop_assert!(ports.len() <= MOST_PORTS);
            prop_assert!(ports.len() > 0 || errors > 0);
        }

        #[test]
        fn a_list_of_ports_is_read_as_written(written in prop::collection::vec((0u8..5, 0u32..70_000), 1..80)) {
            let names = ["HTTP", "HTTPS", "QUIC", "TCP", "UDP"];
            let entries: Vec<_> = written
                .iter()
                .map(|(protocol, port)| format!(r#"{{"{}": {port}}}"#, names[usize::from(*protocol)]))
                .collect();
            let (ports, errors) = read(&format!("[{}]", entries.join(",")));
            let valid = written.iter().all(|(_, port)| (1..=65_535).contains(port));
            let distinct: BTreeSet<_> = written.iter().collect();
            if valid && distinct.len() <= MOST_PORTS {
                prop_assert_eq!((errors, ports.len()), (0, distinct.len()));
            } else {
                prop_assert!(errors > 0 && ports.len() <= MOST_PORTS);
            }
        }
    }
}
