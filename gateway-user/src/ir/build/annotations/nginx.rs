//! Annotations of the NGINX controller that would change what is served, and what to write here instead.

use std::collections::BTreeMap;

use super::super::notes::{Notes, annotation};

pub(super) const NGINX: &str = "nginx.ingress.kubernetes.io/";

const CONDITIONS: &str = "a SourceIp condition in `conditions.<svc>`, or aclConfig of the listener";
const LOGIN: &str = "nothing here: let the application, or a proxy before it, ask who is there";
const CLIENT_CA: &str = "caEnabled and caCertificates of the HTTPS listener";
const REDIRECT: &str = "a Redirect action in `actions.<svc>`";
const LIMIT: &str = "`traffic-limit-qps` or `traffic-limit-ip-qps`";
const SNIPPET: &str = "conditions and actions; configuration text is not read";
const SCHEDULER: &str = "`backend-scheduler`";
const TIMEOUT: &str = "requestTimeout of the listener";
const SAME: &str = "the annotation of the same name with `alb.ingress.kubernetes.io/`";

/// Key without its prefix (a prefix ends with `-`), and what does the same here.
const CHANGES: &[(&str, &str)] = &[
    ("whitelist-source-range", CONDITIONS),
    ("allowlist-source-range", CONDITIONS),
    (
        "denylist-source-range",
        "aclConfig of the listener, of type Black",
    ),
    ("auth-tls-", CLIENT_CA),
    ("auth-", LOGIN),
    ("satisfy", LOGIN),
    ("enable-global-auth", LOGIN),
    (
        "enable-modsecurity",
        "nothing here: filter before this gateway",
    ),
    ("modsecurity-", "nothing here: filter before this gateway"),
    ("ssl-passthrough", "`fleetgate.io/tls-passthrough`"),
    ("force-ssl-redirect", "`ssl-redirect`"),
    ("permanent-redirect", REDIRECT),
    ("permanent-redirect-code", REDIRECT),
    ("temporal-redirect", REDIRECT),
    ("from-to-www-redirect", REDIRECT),
    ("app-root", REDIRECT),
    (
        "rewrite-target",
        "`rewrite-target` of the ALB, with `${1}` for `$1`",
    ),
    ("use-regex", SAME),
    ("limit-rps", LIMIT),
    ("limit-rpm", LIMIT),
    ("limit-connections", LIMIT),
    (
        "limit-whitelist",
        "nothing here: limits hold for every client",
    ),
    ("server-snippet", SNIPPET),
    ("configuration-snippet", SNIPPET),
    ("stream-snippet", SNIPPET),
    ("server-alias", "one more entry of spec.rules"),
    ("default-backend", "spec.defaultBackend"),
    (
        "custom-http-errors",
        "a FixedResponse action in `actions.<svc>`",
    ),
    ("custom-headers", "InsertHeader actions in `actions.<svc>`"),
    (
        "x-forwarded-prefix",
        "an InsertHeader action in `actions.<svc>`",
    ),
    ("upstream-vhost", "a Rewrite action in `actions.<svc>`"),
    ("mirror-", "a TrafficMirror action in `actions.<svc>`"),
    ("canary-by-header-pattern", "`canary-by-header-value`"),
    ("canary-weight-total", "`canary-weight` out of 100"),
    (
        "backend-protocol",
        "`backend-protocol` of the ALB, in lower case",
    ),
    ("grpc-backend", "`backend-protocol` of the ALB"),
    ("secure-backends", "`backend-protocol` of the ALB"),
    ("proxy-ssl-", "`backend-protocol` of the ALB"),
    ("enable-cors", SAME),
    ("cors-", SAME),
    ("affinity", "`sticky-session`"),
    ("session-cookie-", "`sticky-session`"),
    ("upstream-hash-by", SCHEDULER),
    ("load-balance", SCHEDULER),
    ("proxy-read-timeout", TIMEOUT),
    ("proxy-send-timeout", TIMEOUT),
    ("proxy-body-size", "nothing here: bodies of any size pass"),
];

/// One warning for each that would change what is served, unless it says `false` or nothing.
pub(super) fn review(key: &str, value: &str, notes: &mut Notes) {
    let Some(short) = key.strip_prefix(NGINX) else {
        return;
    };
    let known = |(name, _): &&(&str, &str)| match name.ends_with('-') {
        true => short.starts_with(name),
        false => short == *name,
    };
    if let Some((_, instead)) = CHANGES.iter().find(known)
        && !matches!(value, "" | "false")
    {
        notes.warning(
            annotation(key),
            "is of the NGINX controller and is not carried out",
            format!("write {instead}"),
        );
    }
}

/// Aliases that say something other than the annotation they stand for.
pub(super) fn disagreeing(
    annotations: &BTreeMap<String, String>,
    aliases: &[&str],
    notes: &mut Notes,
) {
    for short in aliases {
        let alias = format!("{NGINX}{short}");
        let own = annotations.get(&format!("{}{short}", super::ALB));
        if let (Some(theirs), Some(own)) = (annotations.get(&alias), own)
            && theirs != own
        {
            notes.warning(
                annotation(&alias),
                format!("beats `{}{short}`, which says something else", super::ALB),
                "delete one of the two",
            );
        }
    }
}
