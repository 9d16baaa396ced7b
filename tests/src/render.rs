//! The routing model and the kernel's plan as text that a person reviews: golden files are written in it.

mod listener;
mod plan;
mod policy;

use std::fmt::Write;

use gateway_user::{
    check::Report,
    ir::{Affinity, Direction, Filter, Group, Ir, Listener, PathPattern, Rule, Split, Target},
};

/// A whole report: listeners with their rules and pods, the plan of the kernel, then the problems.
pub fn report(report: &Report) -> String {
    let mut text = ir(&report.ir);
    text.push_str(&report.to_string());
    text
}

/// Listeners with their rules and pods, and what the kernel would be given for them.
pub fn ir(ir: &Ir) -> String {
    let mut text: String = ir.listeners.values().map(|it| listener(ir, it)).collect();
    let plan = plan::text(ir);
    if !plan.is_empty() {
        text.push_str(&plan);
        text.push('\n');
    }
    text
}

/// Adds a line.
fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string cannot fail");
}

fn listener(ir: &Ir, listener: &Listener) -> String {
    let mut text = listener::head(listener);
    // Groups of two Ingresses that serve the same pods in the same way are shown once.
    let mut shown: Vec<(String, u32)> = Vec::new();
    for (it, priority) in listener.rules.iter().zip(1..) {
        text.push_str(&rule(it, priority));
        for weighted in it.groups() {
            let Some(it) = ir.groups.get(&weighted.group) else {
                line(
                    &mut text,
                    format_args!("    to {weighted}, which is nowhere"),
                );
                continue;
            };
            let content = group(it);
            match shown.iter().find(|(before, _)| *before == content) {
                Some((_, before)) => line(
                    &mut text,
                    format_args!("    to {weighted}, as rule {before}"),
                ),
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
    let mut say = |what: &str, alternatives: &[String]| {
        if !alternatives.is_empty() {
            line(
                &mut text,
                format_args!("    {what} {}", alternatives.join(" | ")),
            );
        }
    };
    let path = |path: &PathPattern| match path {
        PathPattern::Prefix(path) => format!("prefix {path}/"),
        other => format!("{} {other}", other.kind()),
    };
    if rule.direction == Direction::Response {
        say("of", &["responses".to_owned()]);
    }
    for (what, alternatives) in rule.conditions.parts() {
        match what.as_str() {
            "path" => {
                let paths: Vec<_> = rule.conditions.paths.iter().map(path).collect();
                say("path", &paths);
            }
            header if header.contains("header ") => say(&format!("{what} ="), &alternatives),
            _ => say(&what, &alternatives),
        }
    }
    for filter in &rule.filters {
        say("do", &[filter.to_string()]);
        if let Filter::Cors(cors) = filter {
            say("  cors request headers", &[cors.headers.join(" ")]);
            if !cors.expose.is_empty() {
                say("  cors exposed headers", &[cors.expose.join(" ")]);
            }
        }
    }
    match &rule.target {
        Target::Forward(forward) if forward.groups.len() == 1 && forward.sticky.is_none() => {}
        Target::Respond(fixed) => {
            say("end", &[rule.target.to_string()]);
            say("  content", &[format!("{:?}", fixed.content)]);
        }
        other => say("end", &[other.to_string()]),
    }
    if let Some(wish) = rule.steering {
        say("wishes steering", &[format!("{wish:?}")]);
    }
    if let Some(refused) = &rule.refused {
        say("refused:", std::slice::from_ref(refused));
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
    for treatment in policy::text(&group.policy) {
        line(&mut text, format_args!("      treated: {treatment}"));
    }
    if group.backends.is_empty() {
        line(&mut text, format_args!("      no ready pod"));
    }
    let same = |one: &&gateway_user::ir::Backend, other: &&gateway_user::ir::Backend| {
        (&one.cluster, one.weight) == (&other.cluster, other.weight)
    };
    let pods = |chunk: &[&gateway_user::ir::Backend]| -> String {
        let pod = |it: &&gateway_user::ir::Backend| format!("{}={}", it.pod, it.address);
        chunk.iter().map(pod).collect::<Vec<_>>().join(" ")
    };
    let serving: Vec<_> = group.backends.iter().collect();
    for chunk in serving.chunk_by(same) {
        let (cluster, weight) = (&chunk[0].cluster, chunk[0].weight);
        line(
            &mut text,
            format_args!("      {cluster} at {weight}: {}", pods(chunk)),
        );
    }
    let idle: Vec<_> = group.idle.iter().collect();
    for chunk in idle.chunk_by(same) {
        line(
            &mut text,
            format_args!("      {} idle: {}", chunk[0].cluster, pods(chunk)),
        );
    }
    text
}
