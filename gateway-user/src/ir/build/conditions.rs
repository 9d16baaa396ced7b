//! `alb.ingress.kubernetes.io/conditions.<svc>`: a JSON array of conditions (contract section 6).

mod blocks;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::{
    json::{self, Node},
    notes::{Notes, alb},
};
use crate::{
    ir::model::{Conditions, Direction, HostPattern, PathPattern},
    problem::shown,
};

/// "more than 10 conditions in the rule": condition entries count values. Entries with wildcards, of which there may be
/// 10 too, are among them. Host and path of `spec.rules` are not counted.
const MOST_VALUES: usize = 10;
/// "SourceIp values per rule 5".
const MOST_SOURCES: usize = 5;
const EXAMPLE: &str = r#"write `[{"type": "Header", "headerConfig": {"key": "stage", "values": ["gray"]}}]`, in single quotes"#;

/// Conditions of one Service's rules. Whatever is not understood becomes an error, never "any request".
pub(super) fn parse(service: &str, text: &str, notes: &mut Notes) -> Conditions {
    let field = alb(&format!("conditions.{service}"));
    let mut conditions = Conditions::default();
    let blocks = json::objects(&field, text, MOST_VALUES, EXAMPLE, notes).unwrap_or_default();
    for (index, block) in blocks.iter().enumerate() {
        let block = Node::new(block, format!("{field}[{index}]"), EXAMPLE);
        one(&block, &mut conditions, notes);
    }
    let values = values(&conditions);
    if values > MOST_VALUES {
        notes.error(
            field.as_str(),
            format!("has {values} condition values, more than the {MOST_VALUES} of one rule"),
            "use wildcards, or spread the values over several Ingresses",
        );
    }
    let sources = conditions.sources.len();
    if sources > MOST_SOURCES {
        notes.error(
            field,
            format!("has {sources} SourceIp values, more than the {MOST_SOURCES} of one rule"),
            "use larger networks, or spread the values over several Ingresses",
        );
    }
    conditions
}

/// Adds one block. "Host, Path, Method, SourceIp, ResponseStatusCode blocks of the same type are merged into one block";
/// the others stay separate.
fn one(block: &Node<'_>, into: &mut Conditions, notes: &mut Notes) -> Option<()> {
    let kind = block.string("type", notes)?;
    match kind.to_ascii_lowercase().as_str() {
        "host" => into.hosts.extend(blocks::hosts(block, notes)?),
        "path" => into.paths.extend(blocks::paths(block, notes)?),
        "method" => into.methods.extend(blocks::methods(block, notes)?),
        "sourceip" => into.sources.extend(blocks::sources(block, notes)?),
        "header" => into.headers.push(blocks::header(block, notes)?),
        "querystring" => into.queries.push(blocks::queries(block, notes)?),
        "cookie" => into.cookies.push(blocks::cookies(block, notes)?),
        "responseheader" => into
            .response_headers
            .push(blocks::response_header(block, notes)?),
        "responsestatuscode" => into
            .response_statuses
            .extend(blocks::statuses(block, notes)?),
        // A slip of the pen, or a condition newer than this program: both were meant to restrict.
        _ => notes.restriction(
            block.at("type"),
            format!("unknown condition type {}", shown(kind)),
            "correct the spelling; known are Host, Path, Header, QueryString, Method, Cookie, SourceIp, ResponseHeader \
             and ResponseStatusCode",
        ),
    }
    Some(())
}

fn values(conditions: &Conditions) -> usize {
    let Conditions {
        hosts,
        paths,
        methods,
        sources,
        headers,
        queries,
        cookies,
        response_headers,
        response_statuses,
    } = conditions;
    let headers = headers.iter().chain(response_headers);
    let pairs = queries.iter().chain(cookies);
    hosts.len()
        + paths.len()
        + methods.len()
        + sources.len()
        + response_statuses.len()
        + headers.map(|it| it.values.len()).sum::<usize>()
        + pairs.map(Vec::len).sum::<usize>()
}

/// Adds host and path of the rule itself: "annotation Host/Path values widen the rule".
///
/// A rule for any host adds none to a Host block, so that the block alone restricts.
pub(super) fn widen(conditions: &mut Conditions, host: Option<HostPattern>, path: PathPattern) {
    if let Some(host) = host.filter(|host| !conditions.hosts.contains(host)) {
        conditions.hosts.insert(0, host);
    }
    if !conditions.paths.contains(&path) {
        conditions.paths.insert(0, path);
    }
}

/// "ResponseHeader, ResponseStatusCode: response direction only".
pub(super) fn check_direction(
    service: &str,
    conditions: &Conditions,
    direction: Direction,
    notes: &mut Notes,
) {
    let asks = !conditions.response_headers.is_empty() || !conditions.response_statuses.is_empty();
    if asks && direction == Direction::Request {
        let key = alb(&format!("rule-direction.{service}"));
        notes.error(
            alb(&format!("conditions.{service}")),
            "has ResponseHeader or ResponseStatusCode conditions, but its rules act on requests",
            format!("add `Response` as {key}, or remove these conditions"),
        );
    }
}

/// Strings of `<config>.values`, each turned into what it means; `None` after an error.
fn each<T>(
    config: &Node<'_>,
    notes: &mut Notes,
    read: impl Fn(&str, &str, &mut Notes) -> Option<T>,
) -> Option<Vec<T>> {
    let mut found = Vec::new();
    let values = config.array("values", MOST_VALUES, notes)?;
    for (index, value) in values.iter().enumerate() {
        let field = format!("{}.values[{index}]", config.field);
        match value {
            Value::String(value) => found.push(read(value, &field, notes)?),
            other => {
                let other = shown(&other.to_string());
                notes.error(field, format!("{other} is not a string"), config.example);
                return None;
            }
        }
    }
    Some(found)
}
