//! Routes for people.

use super::{GroupView, PathView, RouteView, RoutesView, RuleView};
use crate::{
    cli::{
        output::View,
        table::{Cell, Paint, Table, Tone},
        units,
    },
    ir::{ListenerProtocol, Split, SteeringMode},
};

/// Conditions of one rule in one cell.
fn conditions(rule: &RuleView, any: &str) -> String {
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
        any.to_owned()
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

/// How a listener's clients learn that they get nothing.
struct Words {
    any: &'static str,
    nothing: &'static str,
    refused: &'static str,
    empty: &'static str,
}

const fn words(protocol: ListenerProtocol) -> Words {
    match protocol {
        ListenerProtocol::Http | ListenerProtocol::Https | ListenerProtocol::Quic => Words {
            any: "any request",
            nothing: "no rules: every request is answered 404",
            refused: "503",
            empty: "503",
        },
        ListenerProtocol::Tcp => Words {
            any: "any connection",
            nothing: "no Ingress: every connection is refused",
            refused: "and so is every connection",
            empty: "connections are refused",
        },
        ListenerProtocol::Udp => Words {
            any: "any datagram",
            nothing: "no Ingress: every datagram is dropped",
            refused: "every datagram is dropped",
            empty: "datagrams are dropped",
        },
    }
}

fn block(route: &RouteView, paint: Paint) -> String {
    let words = words(route.protocol);
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
            match rule.priority {
                0 => "TLS".into(),
                priority => priority.to_string().into(),
            },
            conditions(rule, words.any).into(),
            rule.target.as_str().into(),
            by.unwrap_or_default().into(),
            "".into(),
            Cell::toned(Tone::Faint, format!("{} {}", rule.ingress, rule.place)),
        ]);
        for action in &rule.actions {
            table.row(["".into(), "".into(), action.as_str().into()]);
        }
        if let Some(refused) = &rule.refused {
            let why = format!("refused, {}: {refused}", words.refused);
            table.row(["".into(), "".into(), Cell::toned(Tone::Bad, why)]);
        }
        for group in rule.group.iter().chain(&rule.others) {
            pods(group, !rule.others.is_empty(), words.empty, &mut table);
        }
    }
    let rules = if route.rules.is_empty() {
        format!("  {}\n", words.nothing)
    } else {
        table.render(paint)
    };
    head.render(paint) + &rules
}

fn pods(group: &GroupView, named: bool, empty: &str, table: &mut Table) {
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
        let none = Cell::toned(Tone::Bad, format!("no ready pod: {empty}"));
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
