//! What is compiled but cannot be carried out yet: refused, so that no rule serves more than it says.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    annotations::{aliased, get, on},
    gateway::{Gateway, Key},
    notes::{ALB, Notes, alb, annotation},
    ports::Ports,
};
use crate::{ir::model::ListenerProtocol, problem::shown};

/// Change what is served whatever their value.
const ALWAYS: [&str; 3] = [
    "rewrite-target",
    "traffic-limit-qps",
    "traffic-limit-ip-qps",
];

/// Change what is served when they say exactly `true`.
const WHEN_TRUE: [&str; 3] = ["use-regex", "sticky-session", "enable-cors"];

/// Tune; serving without them gives nobody more than the Ingress says.
const TUNING: [&str; 4] = [
    "healthcheck-enabled",
    "backend-keepalive",
    "slow-start-enabled",
    "connection-drain-enabled",
];

const NOT_YET: &str = "changes how requests are served and is not supported yet";
const KEEP_AWAY: &str = "remove the annotation";

/// Annotations of an Ingress that nothing carries out yet.
pub(super) fn annotations(annotations: &BTreeMap<String, String>, notes: &mut Notes) {
    for key in ALWAYS {
        if get(annotations, key).is_some() {
            notes.restriction(alb(key), NOT_YET, KEEP_AWAY);
        }
    }
    for key in WHEN_TRUE {
        if on(annotations, key) {
            notes.restriction(alb(key), NOT_YET, KEEP_AWAY);
        }
    }
    for key in ["canary", "ssl-redirect"] {
        if let Some((field, "true")) = aliased(annotations, key) {
            notes.restriction(field, NOT_YET, KEEP_AWAY);
        }
    }
    for (key, value) in annotations {
        match key.strip_prefix(ALB) {
            Some(short) if short.starts_with("actions.") => {
                notes.restriction(annotation(key), NOT_YET, KEEP_AWAY);
            }
            Some(short) if short.starts_with("rule-direction.") => match value.as_str() {
                "Request" => {}
                "Response" => notes.restriction(annotation(key), NOT_YET, KEEP_AWAY),
                other => notes.error(
                    annotation(key),
                    format!("{} is no direction", shown(other)),
                    "write Request or Response",
                ),
            },
            _ => {}
        }
    }
    if let Some(protocol @ ("https" | "grpc")) = get(annotations, "backend-protocol") {
        notes.restriction(
            alb("backend-protocol"),
            format!("backend protocol {} is not supported yet", shown(protocol)),
            "write http, or remove the annotation",
        );
    }
    let tuned = TUNING.into_iter().filter(|key| on(annotations, key));
    let scheduler = get(annotations, "backend-scheduler");
    let scheduled = scheduler.filter(|it| matches!(*it, "wlc" | "sch" | "uch"));
    for key in tuned.chain(scheduled.map(|_| "backend-scheduler")) {
        notes.warning(
            alb(key),
            format!(
                "{} is ignored for now; the rules serve without it",
                shown(get(annotations, key).unwrap_or_default())
            ),
            "nothing needs to be done, or remove the annotation to silence this",
        );
    }
}

/// Ports of an Ingress on which nothing is served yet.
pub(super) fn ports(ports: &Ports, notes: &mut Notes) {
    let field = match ports.explicit {
        true => alb("listen-ports"),
        false => "spec.tls".to_owned(),
    };
    let refused = || {
        ports
            .all()
            .filter(|(_, protocol)| *protocol != ListenerProtocol::Http)
    };
    if ports.http.is_empty() && refused().next().is_some() {
        // HTTPS only: what served in plain before must not serve on.
        notes.restriction(
            field,
            "asks for HTTPS or QUIC only, which is not served yet",
            r#"set `listen-ports: '[{"HTTP": 80}]'` to serve all its hosts over plain HTTP"#,
        );
        return;
    }
    for (port, protocol) in refused() {
        notes.warning(
            field.clone(),
            format!("{protocol} {port} is not served yet"),
            "nothing serves this port until then; remove it to silence this",
        );
    }
}

/// Listeners that cannot be served as written, told one by one.
pub(super) fn listeners(gateway: &Gateway, notes: &mut Notes) -> BTreeSet<Key> {
    let mut refused = BTreeSet::new();
    for (key, settings) in &gateway.kept.listeners {
        let place = gateway
            .places
            .get(key)
            .map_or("spec.listeners", String::as_str);
        let (port, protocol) = key;
        if *protocol != ListenerProtocol::Http {
            notes.restriction(
                format!("{place}.protocol"),
                format!("listener {protocol} {port} is not served yet and is left out"),
                "serve this port as HTTP, or keep it on a gateway that ends TLS",
            );
            refused.insert(*key);
            continue;
        }
        if settings.access.is_some() {
            notes.restriction(
                format!("{place}.aclConfig"),
                "access lists are not supported yet, so this listener is left out rather than open to everyone",
                "remove aclConfig if everyone may connect, or filter before this gateway",
            );
            refused.insert(*key);
        }
        for (set, name) in [
            (settings.identity.gateway_id, "XForwardedForSLBIdEnabled"),
            (
                settings.trusted.is_some(),
                "XForwardedForClientSourceIpsEnabled",
            ),
        ] {
            if set {
                notes.warning(
                    format!("{place}.xForwardedForConfig.{name}"),
                    "is not supported yet and is ignored",
                    "nothing needs to be done, or set it to false to silence this",
                );
            }
        }
    }
    refused
}
