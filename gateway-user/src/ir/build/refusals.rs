//! What is understood but cannot be executed yet: refused with a problem, never dropped.
//!
//! A refused rule stays in its place and answers 503, so that no later rule serves what it would have decided. A refused
//! listener takes no connections. What merely tunes is ignored with a warning.

use std::collections::BTreeMap;

use super::{
    annotations::{get, on},
    gateway::{Gateway, Key},
    notes::{Notes, alb},
};
use crate::{
    ir::model::{BackendProtocol, Direction, Filter, ListenerProtocol, Policy, Rule, Target},
    problem::shown,
};

/// Tune; serving without them gives nobody more than the Ingress says.
const TUNING: [&str; 3] = [
    "backend-keepalive",
    "slow-start-enabled",
    "connection-drain-enabled",
];

/// Annotations of an Ingress that only tune and that nothing carries out yet.
pub(super) fn tuning(annotations: &BTreeMap<String, String>, notes: &mut Notes) {
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

/// What a rule needs beyond what is executed, with the annotation that asks for it (`<svc>` stands for its Service).
pub(super) fn actions(
    written: &[Filter],
    rule: &Rule,
    policy: &Policy,
    needs: &mut Vec<(String, String)>,
) {
    let service = "actions.<svc>";
    for filter in written {
        needs.push((alb(service), format!("the action {}", named(filter))));
    }
    if rule.direction == Direction::Response {
        needs.push((
            alb("rule-direction.<svc>"),
            "rules for responses".to_owned(),
        ));
        return;
    }
    let Target::Forward(forward) = &rule.target else {
        let what = named_target(&rule.target);
        needs.extend(what.map(|it| (alb(service), it.to_owned())));
        return;
    };
    if forward.sticky.is_some() {
        needs.push((alb(service), "ServerGroupStickySession".to_owned()));
    }
    let protocol = match policy.protocol {
        BackendProtocol::Http => None,
        BackendProtocol::Https => Some("HTTPS towards pods"),
        BackendProtocol::Grpc => Some("gRPC towards pods"),
    };
    needs.extend(protocol.map(|it| (alb("backend-protocol"), it.to_owned())));
    if policy.sticky.is_some() {
        needs.push((alb("sticky-session"), "sticky sessions".to_owned()));
    }
}

/// Why a rule with these filters and this target is refused; `None` where all of it is executed.
pub(super) fn executed(filters: &[Filter], target: &Target) -> Option<String> {
    let names: Vec<&str> = filters
        .iter()
        .map(named)
        .chain(named_target(target))
        .collect();
    (!names.is_empty()).then(|| format!("{} not executed yet", names.join(", ")))
}

/// The proxy forwards, and does nothing else yet.
fn named_target(target: &Target) -> Option<&'static str> {
    match target {
        Target::Redirect(_) => Some("redirects"),
        Target::Respond(_) => Some("fixed responses"),
        Target::Forward(_) | Target::Pass => None,
    }
}

fn named(filter: &Filter) -> &'static str {
    match filter {
        Filter::TrafficLimit(_) => "TrafficLimit",
        Filter::InsertHeader(_) => "InsertHeader",
        Filter::RemoveHeader(_) => "RemoveHeader",
        Filter::Rewrite(_) => "Rewrite",
        Filter::Cors(_) => "Cors",
        Filter::Mirror(_) => "TrafficMirror",
    }
}

/// Listeners that cannot be served as written, each told, and why.
pub(super) fn listeners(gateway: &Gateway, notes: &mut Notes) -> BTreeMap<Key, String> {
    let mut refused = BTreeMap::new();
    for (key, settings) in &gateway.kept.listeners {
        let place = gateway
            .places
            .get(key)
            .map_or("spec.listeners", String::as_str);
        let (port, protocol) = key;
        if *protocol == ListenerProtocol::Quic {
            notes.error(
                format!("{place}.protocol"),
                format!("listener {protocol} {port} is not served yet and is left out"),
                "serve HTTPS on this port, or keep QUIC on a gateway that speaks it",
            );
            refused.insert(*key, format!("{protocol} is not served yet"));
            continue;
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
