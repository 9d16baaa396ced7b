//! `fleetgate.io/tls-passthrough`: an Ingress whose hosts' TLS ends in the pods.
//!
//! Of their connections nothing is read but the name that the ClientHello asks for, so each rule has a host and a
//! Service to say, and nothing else. What more it says is a restriction that cannot be carried out: the Ingress serves
//! nothing then, not even what it said before, which may have ended TLS here.

use std::collections::BTreeMap;

use super::{
    annotations::get,
    ingress::{Draft, Understood},
    notes::{Notes, PASSTHROUGH, alb},
    ports,
};
use crate::{
    ir::model::{Conditions, HostPattern, PathPattern, Scheduler},
    manifest::Ingress,
};

/// The annotation says exactly `true`.
pub(super) fn asked(annotations: &BTreeMap<String, String>) -> bool {
    annotations.get(PASSTHROUGH).is_some_and(|it| it == "true")
}

/// Notes what an Ingress says that needs more of a connection than its host.
pub(super) fn check(
    ingress: &Ingress,
    understood: &Understood,
    drafts: &[Draft],
    notes: &mut Notes,
) {
    let annotations = &ingress.metadata.annotations;
    let without = "or take the annotation tls-passthrough out";
    let redirects = ports::ssl_redirect(annotations);
    let ports = &understood.ports;
    let plain = |port: &u16| !redirects || *port == 443;
    let policy = &understood.policy;
    let query = matches!(policy.scheduler, Scheduler::QueryHash(_));
    let hasty = !ports.quic.is_empty() || ports.http.iter().any(plain) || ports.https.is_empty();
    let asks = [
        (
            hasty,
            alb("listen-ports"),
            "names listeners other than HTTPS, where no TLS is passed on",
            "name HTTPS only, with `ssl-redirect: \"true\"` also HTTP",
        ),
        (
            understood.canary.is_some(),
            alb("canary"),
            "chooses by request, and requests are not read",
            "share between clusters by cluster-weight",
        ),
        (
            policy.sticky.is_some(),
            alb("sticky-session"),
            "needs cookies, and requests are not read",
            "write `backend-scheduler: sch`",
        ),
        (
            query,
            alb("backend-scheduler"),
            "hashes a query parameter, and requests are not read",
            "write wrr, wlc or sch",
        ),
        (
            ingress.spec.default_backend.is_some(),
            "spec.defaultBackend".to_owned(),
            "has no host, and connections are told apart by host only",
            "write a rule with a host",
        ),
    ];
    for (found, field, what, remedy) in asks {
        if found {
            notes.restriction(field, what, format!("{remedy}, {without}"));
        }
    }
    // Those of a canary are told already.
    let drafts = drafts.iter().filter(|_| understood.canary.is_none());
    for draft in drafts {
        if let Some((what, remedy)) = beyond_host(draft) {
            let remedy = format!("{remedy}, {without}");
            notes.restriction(draft.rule.place.clone(), what, remedy);
        }
    }
    if get(annotations, "backend-protocol").is_some_and(|it| it != "http") {
        notes.warning(
            alb("backend-protocol"),
            "has no effect with tls-passthrough: pods get what clients send",
            "remove it",
        );
    }
    if ingress.spec.tls.iter().any(|it| it.secret_name.is_some()) {
        notes.warning(
            "spec.tls",
            "names a Secret, but TLS of this Ingress ends in its pods",
            "remove it here, where no other Ingress needs it",
        );
    }
}

/// What a rule asks for beside its host and its Service, and what to do.
fn beyond_host(draft: &Draft) -> Option<(&'static str, &'static str)> {
    let rule = &draft.rule;
    match rule.conditions.hosts.as_slice() {
        [HostPattern::Exact(_) | HostPattern::OneLabel(_)] => {}
        [] => return Some(("has no host to know its connections by", "write one")),
        _ => return Some(("asks for more hosts than its own", "write a rule for each")),
    }
    let host_only = Conditions {
        hosts: rule.conditions.hosts.clone(),
        paths: vec![PathPattern::Prefix(String::new())],
        ..Conditions::default()
    };
    if rule.conditions != host_only {
        let what =
            "reads requests (a path other than `/`, or conditions), and TLS is passed on as it is";
        return Some((what, "write path `/` of type Prefix and no conditions"));
    }
    // Filters, redirects, fixed responses and shares; also rules for responses, whose target is none.
    if rule.only_group().is_none() {
        let what = "changes, limits or answers requests or shares them between Services, and TLS is passed on as it is";
        return Some((
            what,
            "name one Service with its port and no actions, limits or CORS",
        ));
    }
    None
}
