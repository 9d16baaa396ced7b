//! `fleetgate routes`: listeners, who steers them and why, and their rules.

use std::{
    iter,
    net::{IpAddr, SocketAddr},
};

mod text;

use serde::Serialize;

use crate::{
    cli::units,
    ir::{
        Affinity, Backend, Failing, Group, HeaderMatch, Ir, Listener, ListenerProtocol,
        PathPattern, Rule, Split, SteeringMode, Target,
    },
    plan::{Mode, Plan, ServiceAddr},
};

/// One element for each listener and address.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct RoutesView(pub Vec<RouteView>);

/// One listener on one address.
#[derive(Clone, Debug, Serialize)]
pub struct RouteView {
    /// Address and port.
    pub listener: SocketAddr,
    /// AlbConfig.
    pub gateway: String,
    /// Name of the listener: `gateway:port/protocol`.
    pub name: String,
    /// What is spoken there.
    pub protocol: ListenerProtocol,
    /// Who steers.
    pub steering: SteeringMode,
    /// Why.
    pub reason: String,
    /// The plan holds it; false when it did not fit or is yet to come.
    pub programmed: bool,
    /// Why it takes no connections: it needs what is not executed yet.
    pub refused: Option<String>,
    /// Tried in this order; none matching is a 404.
    pub rules: Vec<RuleView>,
}

/// One rule.
#[derive(Clone, Debug, Serialize)]
pub struct RuleView {
    /// 1, 2, 3 ... in order of evaluation; 0 of rules that pass TLS on as it is.
    pub priority: u32,
    /// Ingress it came from.
    pub ingress: String,
    /// Where in it.
    pub place: String,
    /// Any of these; empty is any host.
    pub hosts: Vec<String>,
    /// Any of these; empty is any path.
    pub paths: Vec<PathView>,
    /// All of these.
    pub headers: Vec<HeaderMatch>,
    /// Further conditions, each as what is read and its alternatives; all of these.
    pub further: Vec<(String, Vec<String>)>,
    /// What is done on the way, in order.
    pub actions: Vec<String>,
    /// Where it ends, in words.
    pub target: String,
    /// Why it is answered 503: it needs what is not executed yet.
    pub refused: Option<String>,
    /// The Service behind it; of several the first.
    #[serde(flatten)]
    pub group: Option<GroupView>,
    /// Further Services that share its traffic.
    pub others: Vec<GroupView>,
}

/// Pods behind a rule.
#[derive(Clone, Debug, Serialize)]
pub struct GroupView {
    /// Service.
    pub service: String,
    /// Weight among the Services of the rule.
    pub service_weight: u32,
    /// How clusters share.
    pub split: Split,
    /// Affinity of clients.
    pub affinity: Affinity,
    /// Pods that get traffic; none: 503.
    pub backends: Vec<ServerView>,
    /// Pods that get nothing new.
    pub idle: Vec<ServerView>,
    /// Pods that fail their health checks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<FailingView>,
}

/// A path pattern.
#[derive(Clone, Debug, Serialize)]
pub struct PathView {
    /// `Prefix` or `Exact`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// As in the Ingress; `/` covers everything as a prefix.
    pub path: String,
}

/// A pod that fails its health checks.
#[derive(Clone, Debug, Serialize)]
pub struct FailingView {
    /// Member cluster.
    pub cluster: String,
    /// Pod.
    pub pod: String,
    /// Pod address and port.
    pub address: SocketAddr,
    /// What the probe met.
    pub why: String,
}

/// One pod of a group.
#[derive(Clone, Debug, Serialize)]
pub struct ServerView {
    /// Member cluster.
    pub cluster: String,
    /// Pod.
    pub pod: String,
    /// Pod address and port.
    pub address: SocketAddr,
    /// Relative weight.
    pub weight: u32,
    /// Fraction of the group, 0 to 1.
    pub share: f64,
}

/// Every listener of the model on each of its addresses. `plan` has the last word on who steers.
pub fn routes(ir: &Ir, vips: &[IpAddr], plan: &Plan) -> RoutesView {
    let mut routes = Vec::new();
    for listener in ir.listeners.values() {
        let addresses = if listener.addresses.is_empty() {
            vips
        } else {
            &listener.addresses
        };
        for ip in addresses {
            let address = SocketAddr::new(*ip, listener.name.port);
            routes.push(route(ir, listener, address, plan));
        }
    }
    RoutesView(routes)
}

fn route(ir: &Ir, listener: &Listener, address: SocketAddr, plan: &Plan) -> RouteView {
    let name = listener.name.to_string();
    let service = plan
        .services
        .get(&ServiceAddr {
            transport: listener.name.protocol.transport(),
            address,
        })
        .filter(|service| service.listener == name);
    let wished = listener.steering.mode;
    let (steering, reason) = match service.map(|s| &s.mode) {
        Some(Mode::Request) if wished == SteeringMode::Connection => {
            let group = ir.kernel_group(listener);
            let empty = group.is_none_or(|group| group.backends.is_empty());
            let why = if empty {
                "no pod is ready, so the proxy answers 503"
            } else {
                "no room for its ring, so the proxy steers"
            };
            (SteeringMode::Request, why.to_owned())
        }
        Some(Mode::Empty)
            if ir
                .kernel_group(listener)
                .is_some_and(|it| !it.backends.is_empty()) =>
        {
            let why = "no room for its ring, so it takes no connections";
            (SteeringMode::Connection, why.to_owned())
        }
        _ => (wished, listener.steering.reason.clone()),
    };
    // Asked before all others, by the name in the ClientHello.
    let passed = listener.passthrough.iter().zip(iter::repeat(0));
    RouteView {
        listener: address,
        gateway: listener.name.gateway.clone(),
        name,
        protocol: listener.name.protocol,
        steering,
        reason,
        programmed: service.is_some(),
        refused: listener.refused.clone(),
        rules: passed
            .chain(listener.rules.iter().zip(1..))
            .map(|(it, priority)| rule(ir, it, priority, address.ip()))
            .collect(),
    }
}

fn rule(ir: &Ir, rule: &Rule, priority: u32, address: IpAddr) -> RuleView {
    let conditions = &rule.conditions;
    let shown = ["host", "path"];
    let further =
        |(what, _): &(String, _)| !shown.contains(&what.as_str()) && !what.starts_with("header ");
    let mut groups = match &rule.target {
        Target::Forward(forward) => forward.groups.as_slice(),
        _ => &[],
    }
    .iter()
    .filter_map(|it| Some(group(ir.groups.get(&it.group)?, it.weight, address)));
    RuleView {
        priority,
        ingress: rule.ingress.to_string(),
        place: rule.place.clone(),
        hosts: conditions.hosts.iter().map(ToString::to_string).collect(),
        paths: conditions.paths.iter().map(path).collect(),
        headers: conditions.headers.clone(),
        further: conditions.parts().into_iter().filter(further).collect(),
        actions: rule.filters.iter().map(ToString::to_string).collect(),
        target: rule.target.to_string(),
        refused: rule.refused.clone(),
        group: groups.next(),
        others: groups.collect(),
    }
}

fn group(group: &Group, weight: u32, address: IpAddr) -> GroupView {
    let ours = |it: &&Backend| it.address.is_ipv6() == address.is_ipv6();
    GroupView {
        service: group.service.to_string(),
        service_weight: weight,
        split: group.split.clone(),
        affinity: group.affinity,
        backends: servers(group, address),
        idle: group
            .idle
            .iter()
            .filter(ours)
            .map(|b| server(b, 0))
            .collect(),
        failing: group
            .failing
            .iter()
            .filter(|it| ours(&&it.backend))
            .map(failing)
            .collect(),
    }
}

fn failing(failing: &Failing) -> FailingView {
    let Failing { backend, why } = failing;
    FailingView {
        cluster: backend.cluster.to_string(),
        pod: backend.pod.to_string(),
        address: backend.address,
        why: why.to_string(),
    }
}

fn path(pattern: &PathPattern) -> PathView {
    PathView {
        kind: match pattern {
            PathPattern::Exact(_) => "Exact",
            PathPattern::Prefix(_) => "Prefix",
            PathPattern::Glob(_) => "Wildcard",
            PathPattern::Regex(_) => "Regex",
        },
        path: pattern.to_string(),
    }
}

/// Pods of a group that get traffic from clients of an address of a listener, with their shares.
pub fn servers(group: &Group, address: IpAddr) -> Vec<ServerView> {
    let backends = group.backends.iter();
    let ours = backends.filter(|it| it.address.is_ipv6() == address.is_ipv6());
    let total = ours.clone().map(|b| u64::from(b.weight)).sum();
    ours.map(|b| server(b, total)).collect()
}

fn server(backend: &Backend, total: u64) -> ServerView {
    ServerView {
        cluster: backend.cluster.to_string(),
        pod: backend.pod.to_string(),
        address: backend.address,
        weight: backend.weight,
        share: units::fraction(u64::from(backend.weight), total),
    }
}

#[cfg(test)]
mod tests;
