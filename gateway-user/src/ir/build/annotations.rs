//! Which annotations we know, and what happens to those we do not serve yet.
//!
//! Law: no rule may ever serve more traffic than its Ingress says. So whatever restricts or changes requests is an
//! error until it is supported, and no earlier version serves instead; whatever merely tunes is a warning.

use std::collections::BTreeMap;

use super::notes::{ADDRESSES, ALB, Notes, STEERING, alb, annotation};
use crate::{ir::model::SteeringWish, problem::shown};

const NGINX: &str = "nginx.ingress.kubernetes.io/";

/// Read elsewhere in this room.
const READ: [&str; 4] = ["order", "albconfig.order", "albconfig.name", "listen-ports"];
const READ_PREFIXES: [&str; 2] = ["conditions.", "cluster-weight."];

/// Change what is served whatever their value.
const ALWAYS: [&str; 3] = [
    "rewrite-target",
    "traffic-limit-qps",
    "traffic-limit-ip-qps",
];

/// Change what is served when they say exactly `true`.
const WHEN_TRUE: [&str; 5] = [
    "ssl-redirect",
    "canary",
    "use-regex",
    "sticky-session",
    "enable-cors",
];

/// Tune; serving without them gives nobody more than the Ingress says. Value that asks for nothing.
const TUNING: [(&str, &str); 5] = [
    ("healthcheck-enabled", "false"),
    ("backend-keepalive", "false"),
    ("slow-start-enabled", "false"),
    ("connection-drain-enabled", "false"),
    ("cross-zone-enabled", "true"),
];

/// Without effect unless an annotation above is set; that one carries the problem.
const DETAILS: [&str; 8] = [
    "sticky-session-type",
    "cookie-timeout",
    "cookie",
    "backend-scheduler-uch-value",
    "slow-start-duration",
    "connection-drain-timeout",
    "healthy-threshold-count",
    "unhealthy-threshold-count",
];
const DETAIL_PREFIXES: [&str; 3] = ["healthcheck-", "cors-", "canary-"];

/// Cloud resources of older versions; accepted and ignored.
const LEGACY: [&str; 11] = [
    "address-type",
    "vswitch-ids",
    "charge-type",
    "id",
    "name",
    "edition",
    "address-allocated-mode",
    "access-log",
    "force-override-listeners",
    "backend-label",
    "remove-unscheduled-backend",
];

const NOT_YET: &str = "changes how requests are served and is not supported yet";
const KEEP_AWAY: &str = "remove the annotation";

/// Notes every annotation of an Ingress that is not served as written, other than those read elsewhere.
pub(super) fn review_ingress(annotations: &BTreeMap<String, String>, notes: &mut Notes) {
    for (key, value) in annotations {
        if let Some(short) = key.strip_prefix(ALB) {
            review_alb(short, value, notes);
        } else if let Some(short) = key.strip_prefix(NGINX) {
            // "NGINX aliases honoured": those that would change what is served.
            if matches!(short, "canary" | "ssl-redirect") && value == "true" {
                notes.restriction(annotation(key), NOT_YET, KEEP_AWAY);
            }
        } else {
            review_own(key, &[STEERING], notes);
        }
    }
}

/// Notes every annotation of an AlbConfig that we do not know.
pub(super) fn review_gateway(annotations: &BTreeMap<String, String>, notes: &mut Notes) {
    for key in annotations.keys() {
        match key.strip_prefix(ALB) {
            Some("remote-clusters") => {}
            Some(_) => unknown(key, "an AlbConfig knows only remote-clusters", notes),
            None => review_own(key, &[STEERING, ADDRESSES], notes),
        }
    }
}

fn review_alb(short: &str, value: &str, notes: &mut Notes) {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| short.starts_with(prefix));
    if READ.contains(&short) || starts(&READ_PREFIXES) || LEGACY.contains(&short) {
        return;
    }
    if let Some((_, idle)) = TUNING.iter().find(|(known, _)| *known == short) {
        if value != *idle {
            ignored(short, value, notes);
        }
        return;
    }
    match short {
        _ if ALWAYS.contains(&short) || short.starts_with("actions.") => {
            notes.restriction(alb(short), NOT_YET, KEEP_AWAY);
        }
        _ if WHEN_TRUE.contains(&short) => {
            if value == "true" {
                notes.restriction(alb(short), NOT_YET, KEEP_AWAY);
            }
        }
        _ if short.starts_with("rule-direction.") => match value {
            "Request" => {}
            "Response" => notes.restriction(alb(short), NOT_YET, KEEP_AWAY),
            other => notes.error(
                alb(short),
                format!("{} is no direction", shown(other)),
                "write Request",
            ),
        },
        "backend-protocol" if value != "http" => notes.restriction(
            alb(short),
            format!("backend protocol {} is not supported yet", shown(value)),
            "write http, or remove the annotation",
        ),
        "backend-protocol" => {}
        "backend-scheduler" => match value {
            "wrr" => {}
            "wlc" | "sch" | "uch" => ignored(short, value, notes),
            other => {
                notes.error(
                    alb(short),
                    format!("unknown scheduler {}", shown(other)),
                    "write wrr, wlc, sch or uch",
                );
            }
        },
        _ if DETAILS.contains(&short) || starts(&DETAIL_PREFIXES) => {}
        "remote-clusters" => unknown(
            &format!("{ALB}{short}"),
            "it belongs on the AlbConfig",
            notes,
        ),
        _ => unknown(&format!("{ALB}{short}"), "check its spelling", notes),
    }
}

fn review_own(key: &str, known: &[&str], notes: &mut Notes) {
    if key.starts_with("fleetgate.io/") && !known.contains(&key) {
        unknown(key, &format!("known here: {}", known.join(", ")), notes);
    }
}

fn ignored(short: &str, value: &str, notes: &mut Notes) {
    notes.warning(
        alb(short),
        format!(
            "{} is ignored for now; the rules serve without it",
            shown(value)
        ),
        "nothing needs to be done, or remove the annotation to silence this",
    );
}

fn unknown(key: &str, remedy: &str, notes: &mut Notes) {
    notes.warning(
        annotation(key),
        "is not a known annotation and is ignored",
        remedy,
    );
}

/// `fleetgate.io/steering`; a bad value counts as absent.
pub(super) fn steering(
    annotations: &BTreeMap<String, String>,
    notes: &mut Notes,
) -> Option<SteeringWish> {
    match annotations.get(STEERING)?.as_str() {
        "auto" => Some(SteeringWish::Auto),
        "connection" => Some(SteeringWish::Connection),
        "request" => Some(SteeringWish::Request),
        other => {
            notes.warning(
                annotation(STEERING),
                format!("unknown steering {} is ignored", shown(other)),
                "write auto, connection or request",
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Severity;

    fn review(key: &str, value: &str) -> Option<Severity> {
        let mut notes = Notes::on("Ingress", "demo", "a");
        review_ingress(&[(key.to_owned(), value.to_owned())].into(), &mut notes);
        assert!(notes.problems.len() <= 1, "{:?}", notes.problems);
        notes.problems.first().map(|problem| problem.severity)
    }

    #[test]
    fn what_restricts_or_changes_requests_is_an_error() {
        for (key, value) in [
            ("actions.svc", "[]"),
            ("rewrite-target", "/"),
            ("traffic-limit-qps", "1"),
            ("traffic-limit-ip-qps", "1"),
            ("ssl-redirect", "true"),
            ("canary", "true"),
            ("use-regex", "true"),
            ("sticky-session", "true"),
            ("enable-cors", "true"),
            ("backend-protocol", "grpc"),
            ("rule-direction.svc", "Response"),
            ("rule-direction.svc", "request"),
            ("backend-scheduler", "nonsense"),
        ] {
            assert_eq!(
                review(&format!("{ALB}{key}"), value),
                Some(Severity::Error),
                "{key}"
            );
        }
        assert_eq!(
            review("nginx.ingress.kubernetes.io/canary", "true"),
            Some(Severity::Error)
        );
        assert_eq!(
            review("nginx.ingress.kubernetes.io/ssl-redirect", "true"),
            Some(Severity::Error)
        );
    }

    #[test]
    fn what_tunes_or_is_unknown_is_a_warning() {
        for (key, value) in [
            ("healthcheck-enabled", "true"),
            ("backend-keepalive", "true"),
            ("backend-scheduler", "wlc"),
            ("slow-start-enabled", "true"),
            ("connection-drain-enabled", "true"),
            ("cross-zone-enabled", "false"),
            ("ordre", "1"),
            ("remote-clusters", "c1"),
        ] {
            assert_eq!(
                review(&format!("{ALB}{key}"), value),
                Some(Severity::Warning),
                "{key}"
            );
        }
        assert_eq!(
            review("fleetgate.io/stering", "auto"),
            Some(Severity::Warning)
        );
    }

    #[test]
    fn what_asks_for_nothing_is_no_problem() {
        for (key, value) in [
            ("ssl-redirect", "false"),
            ("canary", "false"),
            ("canary-weight", "10"),
            ("cors-max-age", "10"),
            ("healthcheck-path", "/up"),
            ("healthcheck-enabled", "false"),
            ("backend-protocol", "http"),
            ("backend-scheduler", "wrr"),
            ("rule-direction.svc", "Request"),
            ("cookie-timeout", "10"),
            ("charge-type", "x"),
        ] {
            assert_eq!(review(&format!("{ALB}{key}"), value), None, "{key}");
        }
        assert_eq!(
            review("nginx.ingress.kubernetes.io/rewrite-target", "/"),
            None
        );
        assert_eq!(review("cert-manager.io/issuer", "x"), None);
    }
}
