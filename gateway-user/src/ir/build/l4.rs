//! Listeners of protocol TCP and UDP: what an Ingress attaches there, and who steers them.
//!
//! Nobody reads what their connections carry, so an Ingress has one thing to say: the Service of `spec.defaultBackend`.
//! Whatever else it says of requests is refused there, and nothing is served in its place.

use std::sync::Arc;

use super::{
    gateway::Key,
    ingress::Draft,
    notes::{Notes, STEERING, alb, annotation},
    ports::Ports,
};
use crate::{
    ir::model::{
        Conditions, Direction, Forward, GroupName, ListenerName, Rule, Steering, SteeringMode,
        SteeringWish, Target, Transport, WeightedGroup,
    },
    manifest::{AlbListener, Ingress},
};

/// What an Ingress attaches to its listeners of one transport.
#[derive(Clone, Debug)]
pub(super) struct Attachment {
    pub(super) transport: Transport,
    pub(super) rule: Arc<Rule>,
}

/// What restricts or changes requests, by field, and what to do.
struct Need {
    field: String,
    what: String,
    remedy: &'static str,
}

/// One attachment for each transport that `listen-ports` names; none where it names neither.
pub(super) fn attach(
    ingress: &Ingress,
    ports: &Ports,
    canary: bool,
    ssl_redirect: bool,
    default: Option<&Draft>,
    notes: &mut Notes,
) -> Vec<Attachment> {
    let Some(kind) = kind(ports) else {
        return Vec::new();
    };
    if !ingress.spec.tls.is_empty() {
        notes.warning(
            "spec.tls",
            format!("is not for listeners of protocol {kind}: their bytes pass as they are"),
            "let the pods end TLS, or take spec.tls out",
        );
    }
    let Some(default) = default else {
        // One with a mistake is told already.
        if ingress.spec.default_backend.is_none() {
            let (field, what) = match ingress.spec.rules.is_empty() {
                true => ("spec.defaultBackend", "is missing".to_owned()),
                false => (
                    "spec.rules",
                    format!("read hosts and paths, which listeners of protocol {kind} do not"),
                ),
            };
            tell(
                vec![Need {
                    field: field.to_owned(),
                    what,
                    remedy: OWN,
                }],
                kind,
                notes,
            );
        }
        return Vec::new();
    };
    if default.rule.steering == Some(SteeringWish::Request) {
        notes.warning(
            annotation(STEERING),
            format!("request is not possible on listeners of protocol {kind}: the kernel steers"),
            "wish for auto, or take the annotation out",
        );
    }
    let needs = needs(ingress, kind, canary, ssl_redirect, default);
    let refused = match (&default.rule.refused, needs.is_empty()) {
        (Some(refused), _) => Some(refused.clone()),
        (None, false) => {
            let whats: Vec<&str> = needs.iter().map(|need| need.field.as_str()).collect();
            Some(format!("not on {kind}: {}", whats.join(", ")))
        }
        (None, true) => None,
    };
    tell(needs, kind, notes);
    let transports = [
        (Transport::Tcp, !ports.tcp.is_empty()),
        (Transport::Udp, !ports.udp.is_empty()),
    ];
    let attachment = |(transport, _)| Attachment {
        transport,
        rule: Arc::new(rule(&default.rule, transport, refused.clone())),
    };
    let named = transports.into_iter().filter(|(_, named)| *named);
    named.map(attachment).collect()
}

const OWN: &str = "write the Service as spec.defaultBackend of an Ingress of its own, whose listen-ports name TCP or UDP only";

fn kind(ports: &Ports) -> Option<&'static str> {
    match (ports.tcp.is_empty(), ports.udp.is_empty()) {
        (true, true) => None,
        (false, true) => Some("TCP"),
        (true, false) => Some("UDP"),
        (false, false) => Some("TCP and UDP"),
    }
}

fn needs(
    ingress: &Ingress,
    kind: &str,
    canary: bool,
    ssl_redirect: bool,
    default: &Draft,
) -> Vec<Need> {
    let service = ingress.spec.default_backend.as_ref();
    let service = service.and_then(|it| Some(it.service.as_ref()?.name.as_str()));
    let of_service = |key: &str| alb(&format!("{key}.{}", service.unwrap_or_default()));
    let rule = &default.rule;
    let one = matches!(&rule.target, Target::Forward(it) if it.groups.len() == 1);
    let acts = !rule.filters.is_empty() || !one || rule.direction == Direction::Response;
    let read = |what: &str| format!("{what}, which listeners of protocol {kind} do not");
    [
        (
            !ingress.spec.rules.is_empty(),
            "spec.rules".to_owned(),
            read("read hosts and paths"),
            OWN,
        ),
        (
            !canary && !rule.conditions.covers_everything(),
            of_service("conditions"),
            read("reads requests"),
            OWN,
        ),
        (
            acts && rule.refused.is_none(),
            of_service("actions"),
            read("chooses or changes by request"),
            "name one Service with its port in spec.defaultBackend, and share between clusters by cluster-weight",
        ),
        (
            canary,
            alb("canary"),
            read("chooses by request"),
            "share between clusters by cluster-weight",
        ),
        (
            ssl_redirect,
            alb("ssl-redirect"),
            read("answers requests"),
            OWN,
        ),
    ]
    .into_iter()
    .filter(|(needed, ..)| *needed)
    .map(|(_, field, what, remedy)| Need { field, what, remedy })
    .collect()
}

fn tell(needs: Vec<Need>, kind: &str, notes: &mut Notes) {
    for Need {
        field,
        what,
        remedy,
    } in needs
    {
        notes.refusal_on(kind, field, what, remedy);
    }
}

fn rule(default: &Rule, transport: Transport, refused: Option<String>) -> Rule {
    let group = |it: &WeightedGroup| WeightedGroup {
        group: it.group.over(transport),
        weight: it.weight,
    };
    Rule {
        direction: Direction::Request,
        conditions: Conditions::default(),
        filters: Vec::new(),
        target: match (&default.target, &refused) {
            (Target::Forward(it), _) => Target::Forward(Forward {
                groups: it.groups.iter().take(1).map(group).collect(),
                sticky: None,
            }),
            (other, _) => other.clone(),
        },
        refused,
        ..default.clone()
    }
}

/// The first Ingress by order has the listener; the other one is told.
pub(super) fn occupied((port, protocol): Key, by: &Rule, notes: &mut Notes) {
    notes.error(
        alb("listen-ports"),
        format!(
            "{protocol} {port} is also that of Ingress {}, which is tried first: a listener of protocol {protocol} leads to one Service",
            by.ingress
        ),
        "use another port, or give this Ingress a smaller order; until then it gets nothing there",
    );
}

/// The kernel, whatever was asked for: nobody else can.
pub(super) fn steering(name: &ListenerName, rules: &[Arc<Rule>], empty: bool) -> Steering {
    let refusing = match name.protocol.transport() {
        Transport::Tcp => "connections are refused",
        Transport::Udp => "datagrams are dropped",
    };
    let reason = match rules.first() {
        None => format!("no Ingress attaches a Service: {refusing}"),
        Some(rule) => match (rule.only_group(), &rule.refused) {
            (Some(group), _) if empty => {
                let service = service(group);
                format!("no ready backend of {service}: {refusing} until there is one")
            }
            (Some(group), _) => format!(
                "protocol {}: {} attaches {}",
                name.protocol,
                rule.ingress,
                service(group)
            ),
            (None, refused) => format!(
                "{} is refused ({}): {refusing}",
                rule.ingress,
                refused.as_deref().unwrap_or("it names no Service")
            ),
        },
    };
    Steering {
        mode: SteeringMode::Connection,
        reason,
    }
}

fn service(group: &GroupName) -> String {
    format!("{}/{}:{}", group.namespace, group.service, group.port)
}

/// A listener that reads no requests, without what its AlbConfig says of them.
pub(super) fn bare(
    listener: &AlbListener,
    (_, protocol): Key,
    field: &str,
    notes: &mut Notes,
) -> AlbListener {
    for (key, written) in [
        ("idleTimeout", listener.idle_timeout.is_some()),
        ("requestTimeout", listener.request_timeout.is_some()),
        ("gzipEnabled", listener.gzip_enabled == Some(true)),
        (
            "xForwardedForConfig",
            listener.x_forwarded_for_config.is_some(),
        ),
    ] {
        if written {
            notes.warning(
                format!("{field}.{key}"),
                format!("has no effect on a listener of protocol {protocol}"),
                "remove it",
            );
        }
    }
    AlbListener {
        idle_timeout: None,
        request_timeout: None,
        gzip_enabled: None,
        x_forwarded_for_config: None,
        ..listener.clone()
    }
}
