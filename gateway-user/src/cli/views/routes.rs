//! `fleetgate routes`: listeners, who steers them and why, and their rules.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::{
    cli::{
        output::View,
        table::{Cell, Paint, Table, Tone},
        units,
    },
    ir::{
        Affinity, Backend, Failing, Group, HeaderMatch, Ir, Listener, PathPattern, Rule, Split,
        SteeringMode, Target,
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
    /// 1, 2, 3 ... in order of evaluation.
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
    RouteView {
        listener: address,
        gateway: listener.name.gateway.clone(),
        name,
        steering,
        reason,
        programmed: service.is_some(),
        refused: listener.refused.clone(),
        rules: listener
            .rules
            .iter()
            .zip(1..)
            .map(|(it, priority)| rule(ir, it, priority))
            .collect(),
    }
}

fn rule(ir: &Ir, rule: &Rule, priority: u32) -> RuleView {
    let conditions = &rule.conditions;
    let shown = ["host", "path"];
    let further =
        |(what, _): &(String, _)| !shown.contains(&what.as_str()) && !what.starts_with("header ");
    let mut groups = match &rule.target {
        Target::Forward(forward) => forward.groups.as_slice(),
        _ => &[],
    }
    .iter()
    .filter_map(|it| Some(group(ir.groups.get(&it.group)?, it.weight)));
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

fn group(group: &Group, weight: u32) -> GroupView {
    GroupView {
        service: group.service.to_string(),
        service_weight: weight,
        split: group.split.clone(),
        affinity: group.affinity,
        backends: servers(group),
        idle: group.idle.iter().map(|b| server(b, 0)).collect(),
        failing: group.failing.iter().map(failing).collect(),
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

/// Pods of a group that get traffic, with their shares.
pub fn servers(group: &Group) -> Vec<ServerView> {
    let total = group.backends.iter().map(|b| u64::from(b.weight)).sum();
    group.backends.iter().map(|b| server(b, total)).collect()
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

/// Conditions of one rule in one cell.
fn conditions(rule: &RuleView) -> String {
    let mut parts = Vec::new();
    if !rule.hosts.is_empty() {
        parts.push(format!("host {}", rule.hosts.join(" or ")));
    }
    let everything = |p: &PathView| p.kind == "Prefix" && p.path == "/";
    let paths: Vec<String> = rule
        .paths
        .iter()
        .filter(|_| !rule.paths.iter().any(everything))
        .map(|p| match p.kind {
            "Exact" => format!("={}", p.path),
            "Wildcard" | "Regex" => p.path.clone(),
            _ => format!("{}/*", p.path.trim_end_matches('/')),
        })
        .collect();
    if !paths.is_empty() {
        parts.push(format!("path {}", paths.join(" or ")));
    }
    for header in &rule.headers {
        parts.push(format!("{}: {}", header.name, header.values.join(" or ")));
    }
    for (what, alternatives) in &rule.further {
        parts.push(format!("{what} {}", alternatives.join(" or ")));
    }
    if parts.is_empty() {
        "any request".to_owned()
    } else {
        parts.join(", ")
    }
}

fn split(split: &Split) -> String {
    match split {
        Split::Replicas => "by replicas".to_owned(),
        Split::Clusters(weights) => weights
            .iter()
            .map(|(cluster, weight)| format!("{cluster} {weight}"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

impl View for RoutesView {
    fn text(&self, paint: Paint) -> String {
        if self.0.is_empty() {
            return "no listeners\n".to_owned();
        }
        let blocks: Vec<String> = self.0.iter().map(|r| block(r, paint)).collect();
        blocks.join("\n")
    }
}

fn block(route: &RouteView, paint: Paint) -> String {
    let mode = match route.steering {
        SteeringMode::Connection => "connection",
        SteeringMode::Request => "request",
    };
    let mut head = Table::new(&["", ""]);
    let mut title = route.listener.to_string();
    if let Some(refused) = &route.refused {
        title.push_str(&format!(" (refused: {refused})"));
    } else if !route.programmed {
        title.push_str(" (not programmed)");
    }
    head.row([
        Cell::toned(Tone::Strong, title),
        format!("{}: {mode}, {}", route.name, route.reason).into(),
    ]);
    let mut table = Table::new(&["RULE>", "MATCHES", "TO", "SPLIT", "SHARE>", "FROM"]).indented(2);
    for rule in &route.rules {
        let by = rule.group.as_ref().map(|group| split(&group.split));
        table.row([
            rule.priority.to_string().into(),
            conditions(rule).into(),
            rule.target.as_str().into(),
            by.unwrap_or_default().into(),
            "".into(),
            Cell::toned(Tone::Faint, format!("{} {}", rule.ingress, rule.place)),
        ]);
        for action in &rule.actions {
            table.row(["".into(), "".into(), action.as_str().into()]);
        }
        if let Some(refused) = &rule.refused {
            let why = format!("refused, 503: {refused}");
            table.row(["".into(), "".into(), Cell::toned(Tone::Bad, why)]);
        }
        for group in rule.group.iter().chain(&rule.others) {
            pods(group, !rule.others.is_empty(), &mut table);
        }
    }
    let rules = if route.rules.is_empty() {
        "  no rules: every request is answered 404\n".to_owned()
    } else {
        table.render(paint)
    };
    head.render(paint) + &rules
}

fn pods(group: &GroupView, named: bool, table: &mut Table) {
    if named {
        let service = format!("{} {}", group.service, group.service_weight);
        table.row([
            "".into(),
            "".into(),
            service.into(),
            split(&group.split).into(),
        ]);
    }
    if group.backends.is_empty() {
        let none = Cell::toned(Tone::Bad, "no ready pod: 503");
        table.row(["".into(), "".into(), none]);
    }
    for server in group.backends.iter().chain(&group.idle) {
        table.row([
            "".into(),
            "".into(),
            format!("{}/{}", server.cluster, server.pod).into(),
            server.address.to_string().into(),
            units::percent(server.share).into(),
        ]);
    }
    for failing in &group.failing {
        table.row([
            "".into(),
            "".into(),
            format!("{}/{}", failing.cluster, failing.pod).into(),
            failing.address.to_string().into(),
            Cell::toned(Tone::Bad, failing.why.as_str()),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::views::sample;

    fn view() -> RoutesView {
        let record = sample::record();
        routes(&record.ir, &record.vips, &record.plan)
    }

    #[test]
    fn rules_are_shown_in_order_with_the_share_of_every_pod() {
        let expected = "\
10.0.0.1:80  demo:80/HTTP: connection, one rule covers every request
  RULE  MATCHES      TO           SPLIT          SHARE  FROM
     1  any request  demo/web:80  c1 60, c2 40          demo/web spec.rules[0].http.paths[0]
                     c1/web-a     10.1.0.1:80   30.0 %
                     c1/web-b     10.1.0.2:80   30.0 %
                     c2/web-c     10.2.0.1:80   40.0 %

10.0.0.1:8080  demo:8080/HTTP: request, rule 1 (demo/gray) reads header \"stage\"
  RULE  MATCHES                                                 TO                 SPLIT          SHARE  FROM
     1  host a.example or *.b.example, path =/x, stage: g or h  demo/gray:80       by replicas           demo/gray spec.rules[0].http.paths[0]
                                                                c2/gray-a          10.2.0.9:80  100.0 %
     2  path /shop/*                                            demo/none:80       by replicas           demo/gray spec.rules[0].http.paths[1]
                                                                no ready pod: 503
";
        assert_eq!(view().text(Paint::Plain), expected);
    }

    #[test]
    fn json_names_the_fields_that_scripts_read() {
        let json = serde_json::to_value(view()).unwrap();
        let first = &json[0];
        assert_eq!(first["listener"], "10.0.0.1:80");
        assert_eq!(first["steering"], "connection");
        assert_eq!(first["programmed"], true);
        assert_eq!(first["rules"][0]["split"]["clusters"]["c1"], 60);
        assert_eq!(first["rules"][0]["backends"][2]["share"], 0.4);
        assert_eq!(json[1]["rules"][0]["paths"][0]["type"], "Exact");
        assert_eq!(json[1]["rules"][0]["headers"][0]["name"], "stage");
    }

    #[test]
    fn a_listener_whose_plan_differs_shows_what_the_plan_says() {
        let mut record = sample::record();
        for service in record.plan.services.values_mut() {
            service.mode = Mode::Request;
        }
        let changed = routes(&record.ir, &record.vips, &record.plan);
        assert_eq!(changed.0[0].steering, SteeringMode::Request);
        assert!(changed.0[0].reason.contains("no room"));
        let none = routes(&record.ir, &record.vips, &Plan::default());
        assert!(!none.0[0].programmed);
    }
}
