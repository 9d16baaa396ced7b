//! Evaluates the rules of a listener for one request, and says which condition failed where.

use std::net::SocketAddr;

use serde::Serialize;

use crate::{
    cli::{
        values::RequestLine,
        views::{self, ServerView},
    },
    ir::{HeaderMatch, Ir, Listener, PathPattern, Rule, Target, matching::without_port},
};

/// What the proxy would do with a request.
#[derive(Clone, Debug, Serialize)]
pub struct RequestView {
    /// Method.
    pub method: String,
    /// Host that the rules see.
    pub host: String,
    /// Path that the rules see.
    pub path: String,
    /// Priority of the rule that matched; null is a 404.
    pub rule: Option<u32>,
    /// Service behind it.
    pub service: Option<String>,
    /// What the proxy answers by itself: 404 without a rule, 503 without a pod.
    pub status: Option<u16>,
    /// Every rule that was tried, in order.
    pub tried: Vec<TriedView>,
    /// Pods of the rule, with the share of its requests.
    pub backends: Vec<ServerView>,
}

/// One rule that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct TriedView {
    /// Place in the order.
    pub priority: u32,
    /// Ingress it came from.
    pub ingress: String,
    /// Where in it.
    pub place: String,
    /// All conditions hold.
    pub matched: bool,
    /// Which condition failed, or that all hold.
    pub why: String,
}

/// Tries the rules in order, as the proxy does.
pub fn evaluate(
    ir: &Ir,
    listener: &Listener,
    to: SocketAddr,
    line: &RequestLine,
    headers: &[(String, String)],
) -> RequestView {
    let given = headers.iter().find(|(name, _)| name == "host");
    let host = line
        .authority
        .clone()
        .or_else(|| given.map(|(_, value)| value.clone()))
        .unwrap_or_else(|| to.to_string());
    let mut view = RequestView {
        method: line.method.clone(),
        path: line.path.clone(),
        rule: None,
        service: None,
        status: Some(404),
        tried: Vec::new(),
        backends: Vec::new(),
        host,
    };
    for (rule, priority) in listener.rules.iter().zip(1..) {
        let failed = failed(rule, &view.host, &line.path, headers);
        view.tried.push(TriedView {
            priority,
            ingress: rule.ingress.to_string(),
            place: rule.place.clone(),
            matched: failed.is_none(),
            why: match &failed {
                Some(why) => why.clone(),
                None if rule.conditions.covers_everything() => "matches every request".to_owned(),
                None => "all conditions hold".to_owned(),
            },
        });
        if failed.is_none() {
            view.rule = Some(priority);
            view.service = Some(rule.target.to_string());
            if let Target::Forward(forward) = &rule.target {
                let groups = forward.groups.iter().filter(|it| it.weight > 0);
                let groups = groups.filter_map(|it| ir.groups.get(&it.group));
                view.backends = groups.flat_map(|group| views::servers(group)).collect();
            }
            let nobody = view.backends.is_empty() || rule.refused.is_some();
            view.status = nobody.then_some(503);
            break;
        }
    }
    view
}

/// The first condition that does not hold, in the order host, path, headers.
fn failed(rule: &Rule, host: &str, path: &str, headers: &[(String, String)]) -> Option<String> {
    let bare = without_port(host);
    if !rule.conditions.hosts.is_empty()
        && !rule
            .conditions
            .hosts
            .iter()
            .any(|pattern| pattern.matches(bare))
    {
        let wanted: Vec<String> = rule
            .conditions
            .hosts
            .iter()
            .map(ToString::to_string)
            .collect();
        return Some(format!("host {bare:?} is not {}", wanted.join(" or ")));
    }
    if !rule.conditions.paths.is_empty()
        && !rule
            .conditions
            .paths
            .iter()
            .any(|pattern| pattern.matches(path))
    {
        let wanted: Vec<String> = rule
            .conditions
            .paths
            .iter()
            .map(|pattern| match pattern {
                PathPattern::Prefix(prefix) => format!("below {prefix}"),
                other => other.to_string(),
            })
            .collect();
        return Some(format!("path {path:?} is not {}", wanted.join(" or ")));
    }
    rule.conditions
        .headers
        .iter()
        .find_map(|wanted| header_failed(wanted, headers))
}

fn header_failed(wanted: &HeaderMatch, headers: &[(String, String)]) -> Option<String> {
    let lines: Vec<&str> = headers
        .iter()
        .filter(|(name, _)| *name == wanted.name)
        .map(|(_, value)| value.as_str())
        .collect();
    if lines.iter().any(|line| wanted.accepts(line.as_bytes())) {
        return None;
    }
    let values = wanted.values.join(" or ");
    Some(match lines.first() {
        None => format!("there is no header {:?} (wanted: {values})", wanted.name),
        Some(line) => format!("header {}: {line:?} is not {values}", wanted.name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::views::sample;

    fn run(line: &str, headers: &[(&str, &str)]) -> RequestView {
        let record = sample::record();
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        evaluate(
            &record.ir,
            &record.ir.listeners[&sample::name(8080)],
            sample::address("10.0.0.1:8080"),
            &line.parse().unwrap(),
            &headers,
        )
    }

    #[test]
    fn the_first_rule_whose_conditions_all_hold_decides() {
        let view = run("GET /x", &[("host", "q.b.example:8080"), ("stage", "h")]);
        assert_eq!((view.rule, view.status), (Some(1), None));
        assert_eq!(view.backends[0].pod, "gray-a");
        assert_eq!(view.backends[0].share, 1.0);
    }

    #[test]
    fn each_rule_tells_the_first_condition_that_failed() {
        let why = |headers: &[(&str, &str)], path: &str| run(path, headers).tried[0].why.clone();
        let host = ("host", "a.example");
        assert_eq!(
            why(&[], "/x"),
            "host \"10.0.0.1\" is not a.example or *.b.example"
        );
        assert_eq!(why(&[host], "/y"), "path \"/y\" is not /x");
        assert_eq!(
            why(&[host], "/x"),
            "there is no header \"stage\" (wanted: g or h)"
        );
        assert_eq!(
            why(&[host, ("stage", "i")], "/x"),
            "header stage: \"i\" is not g or h"
        );
    }

    #[test]
    fn no_rule_is_a_404_and_no_pod_a_503() {
        let none = run("/other", &[]);
        assert_eq!(
            (none.rule, none.status, none.tried.len()),
            (None, Some(404), 2)
        );
        let empty = run("/shop/cart", &[]);
        assert_eq!((empty.rule, empty.status), (Some(2), Some(503)));
    }

    #[test]
    fn the_explanation_agrees_with_the_matcher_of_the_proxy() {
        let record = sample::record();
        let listener = &record.ir.listeners[&sample::name(8080)];
        for path in ["/", "/x", "/shop", "/shopping", "/shop/1"] {
            for host in ["a.example", "z.b.example", "b.example", "other"] {
                for stage in ["g", "h", "i"] {
                    let ours = run(path, &[("host", host), ("stage", stage)]);
                    let theirs = listener.first_match_index(Some(host), path, |name| {
                        (name == "stage").then_some(stage.as_bytes())
                    });
                    assert_eq!(ours.rule, theirs.map(|index| index as u32 + 1));
                }
            }
        }
    }
}
