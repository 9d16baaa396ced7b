//! `alb.ingress.kubernetes.io/actions.<svc>` and `rule-direction.<svc>` (contract sections 7 and 8).

mod fixed;
mod forward;
mod headers;
mod templates;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use super::{
    json::{self, Node},
    notes::{ALB, Notes, alb},
};
use crate::{
    ir::model::{Direction, Filter, FixedResponse, Redirect, TrafficLimit},
    problem::shown,
};

/// "actions per rule 5".
const MOST: usize = 5;
const EXAMPLE: &str = r#"write `[{"type": "Redirect", "RedirectConfig": {"host": "www.example.com"}}]`, in single quotes"#;

/// What an annotation says, before backends are looked up.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Actions {
    /// In the order of execution: the traffic limit first, then as written.
    pub(super) filters: Vec<Filter>,
    /// The final action; `None` leaves it to the backend of the rule.
    pub(super) target: Option<DraftTarget>,
}

/// A final action.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum DraftTarget {
    Forward {
        /// Service, its port (number or name) and weight, 0 to 100.
        groups: Vec<(String, String, u32)>,
        /// A client stays with its group for this long.
        sticky: Option<Duration>,
    },
    Redirect(Redirect),
    Respond(FixedResponse),
}

/// One entry of the array.
enum Action {
    Filter(Filter),
    Target(DraftTarget),
}

/// Actions of one Service's rules; `notes` must be those of the Ingress, whose name and namespace groups carry. After an
/// error the result is incomplete.
///
/// Left to the caller, who knows rule and listener: a final action beside a backend with a port (two finals), none beside
/// `use-annotation`, redirects to HTTP on an HTTPS listener, and limits given by `traffic-limit-*` too.
pub(super) fn parse(service: &str, text: &str, direction: Direction, notes: &mut Notes) -> Actions {
    let field = alb(&format!("actions.{service}"));
    let mut actions = Actions::default();
    let mut targets = 0;
    let entries = json::objects(&field, text, MOST, EXAMPLE, notes).unwrap_or_default();
    for (index, entry) in entries.iter().enumerate() {
        let entry = Node::new(entry, format!("{field}[{index}]"), EXAMPLE);
        match one(&entry, direction, notes) {
            Some(Action::Filter(filter)) => actions.filters.push(filter),
            Some(Action::Target(target)) => {
                targets += 1;
                actions.target = Some(target);
            }
            None => {}
        }
    }
    if targets > 1 {
        notes.error(
            field.as_str(),
            format!("has {targets} of ForwardGroup, Redirect and FixedResponse"),
            "keep one of them: it ends the rule",
        );
    }
    together(&field, &actions, notes);
    // "TrafficLimit first; then [the others] in order of appearance"; the sort is stable.
    let later = |filter: &Filter| !matches!(filter, Filter::TrafficLimit(_));
    actions.filters.sort_by_key(later);
    actions
}

fn one(entry: &Node<'_>, direction: Direction, notes: &mut Notes) -> Option<Action> {
    let kind = entry.string("type", notes)?;
    let lower = kind.to_ascii_lowercase();
    let request_only = matches!(
        lower.as_str(),
        "forwardgroup" | "redirect" | "rewrite" | "trafficlimit" | "trafficmirror"
    );
    if request_only && direction == Direction::Response {
        entry.wrong(
            "type",
            kind,
            "cannot act on responses",
            "use InsertHeader, RemoveHeader or FixedResponse, or the rule-direction Request",
            notes,
        );
        return None;
    }
    match lower.as_str() {
        "forwardgroup" => forward::forward(entry, notes).map(Action::Target),
        "redirect" => {
            templates::redirect(entry, notes).map(|it| Action::Target(DraftTarget::Redirect(it)))
        }
        "fixedresponse" => {
            fixed::read(entry, notes).map(|it| Action::Target(DraftTarget::Respond(it)))
        }
        "insertheader" => headers::insert(entry, direction, notes)
            .map(|it| Action::Filter(Filter::InsertHeader(it))),
        "removeheader" => headers::remove(entry, direction, notes)
            .map(|it| Action::Filter(Filter::RemoveHeader(it))),
        "rewrite" => templates::rewrite(entry, notes).map(|it| Action::Filter(Filter::Rewrite(it))),
        "trafficlimit" => limit(entry, notes).map(|it| Action::Filter(Filter::TrafficLimit(it))),
        "trafficmirror" => {
            forward::mirror(entry, notes).map(|it| Action::Filter(Filter::Mirror(it)))
        }
        "cors" => {
            entry.wrong(
                "type",
                kind,
                "is not accepted in this annotation",
                "use the annotations `alb.ingress.kubernetes.io/enable-cors` and `cors-*`",
                notes,
            );
            None
        }
        // A slip of the pen, or an action newer than this program: both were meant to change requests.
        _ => {
            notes.restriction(
                entry.at("type"),
                format!("unknown action type {}", shown(kind)),
                "correct the spelling; known are ForwardGroup, Redirect, FixedResponse, InsertHeader, RemoveHeader, \
                 Rewrite, TrafficLimit and TrafficMirror",
            );
            None
        }
    }
}

/// Rules on actions beside each other.
fn together(field: &str, actions: &Actions, notes: &mut Notes) {
    let count = |is: fn(&Filter) -> bool| actions.filters.iter().filter(|it| is(it)).count();
    let rewrites = count(|it| matches!(it, Filter::Rewrite(_)));
    let singles = [
        ("Rewrite", rewrites),
        (
            "TrafficLimit",
            count(|it| matches!(it, Filter::TrafficLimit(_))),
        ),
    ];
    for (name, _) in singles.into_iter().filter(|(_, count)| *count > 1) {
        notes.error(
            field,
            format!("has more than one {name}"),
            format!("keep one {name}: a rule has one"),
        );
    }
    if rewrites > 0 && !matches!(actions.target, None | Some(DraftTarget::Forward { .. })) {
        notes.error(
            field,
            "has a Rewrite whose request is not forwarded",
            "remove the Rewrite, or end the rule with a ForwardGroup",
        );
    }
    let mut inserted: Vec<&str> = Vec::new();
    for filter in &actions.filters {
        let Filter::InsertHeader(header) = filter else {
            continue;
        };
        if inserted.contains(&header.name.as_str()) {
            notes.error(
                field,
                format!("inserts header {} twice", shown(&header.name)),
                "keep one InsertHeader for each header",
            );
        }
        inserted.push(&header.name);
    }
}

/// `TrafficLimitConfig: {QPS: "n", QPSPerIp: "n"}`; "if both are given, per-IP must be strictly less than total".
fn limit(entry: &Node<'_>, notes: &mut Notes) -> Option<TrafficLimit> {
    let config = entry.object("TrafficLimitConfig", notes)?;
    let rate = |key: &str, notes: &mut Notes| {
        let text = config.optional(key, notes)?;
        if text.is_empty() {
            return Some(None);
        }
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let rate = text
            .parse()
            .ok()
            .filter(|rate| digits && (1..=1_000_000).contains(rate));
        if rate.is_none() {
            let remedy = "write an integer from 1 to 1000000, in quotation marks";
            config.wrong(
                key,
                text,
                "is not a number of requests per second",
                remedy,
                notes,
            );
        }
        rate.map(Some)
    };
    let (per_second, per_client) = (rate("QPS", notes), rate("QPSPerIp", notes));
    let limit = TrafficLimit {
        per_second: per_second?,
        per_client: per_client?,
    };
    match (limit.per_second, limit.per_client) {
        (None, None) => {
            notes.error(
                config.field.as_str(),
                "limits nothing",
                "add `QPS`, `QPSPerIp` or both",
            );
            None
        }
        (Some(all), Some(one)) if one >= all => {
            config.wrong(
                "QPSPerIp",
                &one.to_string(),
                &format!("is not less than the QPS of {all}"),
                "write a smaller QPSPerIp, or leave it out",
                notes,
            );
            None
        }
        _ => Some(limit),
    }
}

/// `rule-direction.<svc>`: "`Request` (default) or `Response`, exact spelling; else error".
pub(super) fn direction(
    service: &str,
    annotations: &BTreeMap<String, String>,
    notes: &mut Notes,
) -> Direction {
    let key = format!("rule-direction.{service}");
    match annotations.get(&format!("{ALB}{key}")).map(String::as_str) {
        None | Some("Request") => Direction::Request,
        Some("Response") => Direction::Response,
        Some(other) => {
            notes.error(
                alb(&key),
                format!("{} is not a direction", shown(other)),
                "write `Request` or `Response`, with a capital letter",
            );
            Direction::Request
        }
    }
}
