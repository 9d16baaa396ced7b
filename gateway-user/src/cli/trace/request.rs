//! Evaluates the rules of a listener for one request, and says which condition failed where.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::{
    cli::{
        values::RequestLine,
        views::{self, ServerView},
    },
    ir::{
        Direction, HeaderMatch, Ir, Listener, PathPattern, Rule, Target,
        matching::{PlainRequest, told_client, without_port},
    },
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
    client: IpAddr,
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
        host: host.clone(),
    };
    let forwarded = headers.iter().filter(|(name, _)| name == "x-forwarded-for");
    let forwarded: Vec<&[u8]> = forwarded.map(|(_, value)| value.as_bytes()).collect();
    let trusted = listener.settings.trusted.as_deref();
    let told = trusted.and_then(|it| told_client(it, client, &forwarded));
    let request = PlainRequest {
        host: Some(&host),
        method: &line.method,
        path: &line.path,
        query: line.query.as_deref(),
        source: told.or(Some(client)),
        headers,
    };
    for (rule, priority) in listener.rules.iter().zip(1..) {
        if rule.direction == Direction::Response {
            continue;
        }
        let failed = (!rule.conditions.matches(&request)).then(|| failed(rule, &request));
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
                let address = to.ip();
                let servers = groups.flat_map(|group| views::servers(group, address));
                view.backends = servers.collect();
            }
            let nobody = view.backends.is_empty() || rule.refused.is_some();
            view.status = nobody.then_some(503);
            break;
        }
    }
    view
}

/// The first condition that does not hold, in the order host, path, headers, others.
fn failed(rule: &Rule, request: &PlainRequest<'_>) -> String {
    let conditions = &rule.conditions;
    let words = |patterns: Vec<String>| patterns.join(" or ");
    let bare = without_port(request.host.unwrap_or_default());
    let hosts = &conditions.hosts;
    if !hosts.is_empty() && !hosts.iter().any(|pattern| pattern.matches(bare)) {
        let wanted = hosts.iter().map(ToString::to_string).collect();
        return format!("host {bare:?} is not {}", words(wanted));
    }
    let path = request.path;
    if !conditions.paths.is_empty() && !conditions.paths.iter().any(|it| it.matches(path)) {
        let wanted = conditions.paths.iter().map(|pattern| match pattern {
            PathPattern::Prefix(prefix) => format!("below {prefix}"),
            other => other.to_string(),
        });
        return format!("path {path:?} is not {}", words(wanted.collect()));
    }
    let headers = &conditions.headers;
    if let Some(why) = headers
        .iter()
        .find_map(|wanted| header_failed(wanted, request.headers))
    {
        return why;
    }
    let shown = |what: &str| matches!(what, "host" | "path") || what.starts_with("header ");
    let others = conditions.parts().into_iter();
    let others: Vec<String> = others
        .filter(|(what, _)| !shown(what))
        .map(|(what, wanted)| format!("{what} {}", words(wanted)))
        .collect();
    format!("not all of these hold: {}", others.join(", "))
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
            IpAddr::from([198, 51, 100, 7]),
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
    fn the_source_is_whom_a_trusted_proxy_tells_of() {
        let record = sample::record();
        let mut listener = Listener::clone(&record.ir.listeners[&sample::name(8080)]);
        let mut office = Rule::clone(&listener.rules[1]);
        office.conditions.sources = vec!["192.0.2.0/24".parse().unwrap()];
        listener.rules = vec![office.into()];
        let rule = |listener: &Listener| {
            let told = [("x-forwarded-for".to_owned(), "192.0.2.1".to_owned())];
            let client = IpAddr::from([198, 51, 100, 7]);
            let to = sample::address("10.0.0.1:8080");
            let line = "GET /shop".parse().unwrap();
            evaluate(&record.ir, listener, client, to, &line, &told).rule
        };
        assert_eq!(rule(&listener), None);
        let settings = std::sync::Arc::make_mut(&mut listener.settings);
        settings.trusted = Some(vec!["198.51.100.7".parse().unwrap()]);
        assert_eq!(rule(&listener), Some(1));
    }

    #[test]
    fn the_explanation_agrees_with_the_matcher_of_the_proxy() {
        let record = sample::record();
        let listener = &record.ir.listeners[&sample::name(8080)];
        for path in ["/", "/x", "/shop", "/shopping", "/shop/1"] {
            for host in ["a.example", "z.b.example", "b.example", "other"] {
                for stage in ["g", "h", "i"] {
                    let ours = run(path, &[("host", host), ("stage", stage)]);
                    let headers = [("stage".to_owned(), stage.to_owned())];
                    let theirs = listener.first_match(&PlainRequest {
                        host: Some(host),
                        method: "GET",
                        path,
                        headers: &headers,
                        ..PlainRequest::default()
                    });
                    assert_eq!(ours.rule, theirs.map(|index| index as u32 + 1));
                }
            }
        }
    }
}
