//! The routing model as text that a person reviews: golden files are written in it.

use std::fmt::Write;

use gateway_user::{
    check::Report,
    ir::{Affinity, Group, Ir, Listener, PathPattern, Rule, Split},
};

/// A whole report: listeners with their rules and pods, then the problems.
pub fn report(report: &Report) -> String {
    let mut text = ir(&report.ir);
    text.push_str(&report.to_string());
    text
}

/// Listeners with their rules and pods.
pub fn ir(ir: &Ir) -> String {
    ir.listeners.values().map(|it| listener(ir, it)).collect()
}

fn listener(ir: &Ir, listener: &Listener) -> String {
    let addresses: Vec<_> = listener.addresses.iter().map(ToString::to_string).collect();
    let addresses = if addresses.is_empty() {
        "every VIP".to_owned()
    } else {
        addresses.join(", ")
    };
    let idle = listener.settings.idle_timeout.as_secs();
    let request = listener.settings.request_timeout.as_secs();
    let mut text = format!(
        "listener {} on {addresses}\n  idle {idle} s, request {request} s, X-Forwarded-For {:?}",
        listener.name, listener.settings.forwarded_for
    );
    let forwarded = &listener.settings.forwarded;
    for (on, name) in [
        (forwarded.proto, "proto"),
        (forwarded.port, "port"),
        (forwarded.host, "host"),
        (forwarded.client_port, "client port"),
    ] {
        if on {
            text.push_str(&format!(", {name}"));
        }
    }
    let steering = &listener.steering;
    text.push_str(&format!(
        "\n  steering {:?}: {}\n",
        steering.mode, steering.reason
    ));
    for (it, number) in listener.rules.iter().zip(1..) {
        text.push_str(&rule(it, number));
        for weighted in it.groups() {
            let same = |before: &&std::sync::Arc<Rule>| before.groups().any(|it| it.group == weighted.group);
            match listener.rules[..number - 1].iter().position(|before| same(&before)) {
                Some(before) => text.push_str(&format!("    to {weighted}, as rule {}\n", before + 1)),
                None => text.push_str(&ir.groups.get(&weighted.group).map(|it| group(it)).unwrap_or_default()),
            }
        }
    }
    text.push('\n');
    text
}

fn rule(rule: &Rule, number: usize) -> String {
    let mut text = format!("  rule {number} {} {}\n", rule.ingress, rule.place);
    let mut line = |what: &str, alternatives: Vec<String>| {
        if !alternatives.is_empty() {
            writeln!(text, "    {what} {}", alternatives.join(" | "))
                .expect("writing to a string cannot fail");
        }
    };
    let rule = &rule.conditions;
    let path = |path: &PathPattern| match path {
        PathPattern::Prefix(path) => format!("prefix {path}/"),
        other => format!("{} {other}", other.kind()),
    };
    line("host", rule.hosts.iter().map(ToString::to_string).collect());
    line("path", rule.paths.iter().map(path).collect());
    for header in &rule.headers {
        line(&format!("header {} =", header.name), header.values.clone());
    }
    text
}

fn group(group: &Group) -> String {
    let split = match &group.split {
        Split::Replicas => "replicas".to_owned(),
        Split::Clusters(weights) => {
            let weights: Vec<_> = weights
                .iter()
                .map(|(id, weight)| format!("{id}={weight}"))
                .collect();
            format!("clusters {}", weights.join(" "))
        }
    };
    let affinity = match group.affinity {
        Affinity::None => "",
        Affinity::ClientIp => ", by client address",
    };
    let mut text = format!("    to {} by {split}{affinity}\n", group.service);
    for backend in &group.backends {
        text.push_str(&format!(
            "      {} {} {} weight {}\n",
            backend.cluster, backend.address, backend.pod, backend.weight
        ));
    }
    text
}
