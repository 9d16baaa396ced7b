//! The routing model as text that a person reviews: golden files are written in it.

use std::fmt::Write;

use gateway_user::{
    check::Report,
    ir::{Affinity, Direction, Group, Ir, Listener, PathPattern, Policy, Rule, Split, Target},
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
    let settings = &listener.settings;
    let idle = settings.idle_timeout.as_secs();
    let request = settings.request_timeout.as_secs();
    let mut text = format!(
        "listener {} on {addresses}\n  idle {idle} s, request {request} s, X-Forwarded-For {:?}",
        listener.name, settings.forwarded_for
    );
    let forwarded = &settings.forwarded;
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
    if let Some(refused) = &listener.refused {
        text.push_str(&format!("  refused: {refused}\n"));
    }
    // Groups of two Ingresses that serve the same pods in the same way are shown once.
    let mut shown: Vec<(String, u32)> = Vec::new();
    for (it, priority) in listener.rules.iter().zip(1..) {
        text.push_str(&rule(it, priority));
        for weighted in it.groups() {
            let Some(it) = ir.groups.get(&weighted.group) else {
                text.push_str(&format!("    to {weighted}, which is nowhere\n"));
                continue;
            };
            let content = group(it);
            match shown.iter().find(|(before, _)| *before == content) {
                Some((_, before)) => {
                    text.push_str(&format!("    to {weighted}, as rule {before}\n"));
                }
                None => {
                    text.push_str(&content);
                    shown.push((content, priority));
                }
            }
        }
    }
    text.push('\n');
    text
}

fn rule(rule: &Rule, priority: u32) -> String {
    let mut text = format!("  rule {priority} {} {}\n", rule.ingress, rule.place);
    let mut line = |what: &str, alternatives: &[String]| {
        if !alternatives.is_empty() {
            writeln!(text, "    {what} {}", alternatives.join(" | "))
                .expect("writing to a string cannot fail");
        }
    };
    let path = |path: &PathPattern| match path {
        PathPattern::Prefix(path) => format!("prefix {path}/"),
        other => format!("{} {other}", other.kind()),
    };
    if rule.direction == Direction::Response {
        line("of", &["responses".to_owned()]);
    }
    for (what, alternatives) in rule.conditions.parts() {
        match what.as_str() {
            "path" => {
                let paths: Vec<_> = rule.conditions.paths.iter().map(path).collect();
                line("path", &paths);
            }
            header if header.starts_with("header ") => line(&format!("{what} ="), &alternatives),
            _ => line(&what, &alternatives),
        }
    }
    for filter in &rule.filters {
        line("do", &[filter.to_string()]);
    }
    match &rule.target {
        Target::Forward(forward) if forward.groups.len() == 1 && forward.sticky.is_none() => {}
        other => line("end", &[other.to_string()]),
    }
    if let Some(refused) = &rule.refused {
        line("refused:", std::slice::from_ref(refused));
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
    if *group.policy != Policy::default() {
        text.push_str(&format!("      treated {:?}\n", group.policy));
    }
    for backend in &group.backends {
        text.push_str(&format!(
            "      {} {} {} weight {}\n",
            backend.cluster, backend.address, backend.pod, backend.weight
        ));
    }
    text
}
