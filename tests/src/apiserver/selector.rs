//! Label and field selectors.

use serde_json::Value;

use super::{query::Query, refusal::Refusal, resource::Resource, store::Stored};

/// Which objects of a resource a request is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    labels: Vec<(String, Test)>,
    fields: Vec<(String, Test)>,
}

#[derive(Clone, Debug)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let among =
            |values: &[String]| value.is_some_and(|value| values.iter().any(|v| v == value));
        match self {
            Self::In(values) => among(values),
            Self::NotIn(values) => !among(values),
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
        }
    }
}

impl Selector {
    /// The selectors of a request; 400 for one that the server does not understand or index.
    pub(super) fn parse(resource: Resource, query: &Query) -> Result<Self, Refusal> {
        let labels = match query.text("labelSelector") {
            Some(text) => parse_labels(text)?,
            None => Vec::new(),
        };
        let mut fields = Vec::new();
        for term in query.text("fieldSelector").unwrap_or_default().split(',') {
            if term.is_empty() {
                continue;
            }
            let (name, test) = equality(term).ok_or_else(|| {
                Refusal::bad_request(format!(
                    "invalid selector: '{term}'; can't understand '{term}'"
                ))
            })?;
            let known = match name.as_str() {
                "metadata.name" => true,
                "metadata.namespace" => resource.traits().namespaced,
                "type" => matches!(resource, Resource::Secrets | Resource::Events),
                "reason"
                | "reportingController"
                | "regarding.kind"
                | "regarding.namespace"
                | "regarding.name"
                | "regarding.uid"
                | "regarding.apiVersion" => resource == Resource::Events,
                "spec.clusterIP" | "spec.type" => resource == Resource::Services,
                _ => false,
            };
            if !known {
                return Err(Refusal::bad_request(format!(
                    "field label not supported: {name}"
                )));
            }
            fields.push((name, test));
        }
        Ok(Self { labels, fields })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn matches(&self, object: &Stored) -> bool {
        self.is_everything() || self.matches_value(&object.value())
    }

    fn matches_value(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        let label = |name: &str| {
            labels
                .and_then(|labels| labels.get(name))
                .and_then(Value::as_str)
        };
        let field = |path: &str| {
            let found = path
                .split('.')
                .try_fold(object, |value, step| value.get(step));
            // A field that is not there selects as the empty string.
            Some(found.and_then(Value::as_str).unwrap_or_default())
        };
        self.labels
            .iter()
            .all(|(name, test)| test.holds(label(name)))
            && self
                .fields
                .iter()
                .all(|(path, test)| test.holds(field(path)))
    }
}

/// `a=b`, `a==b` or `a!=b`.
fn equality(term: &str) -> Option<(String, Test)> {
    if let Some((name, value)) = term.split_once("!=") {
        return Some((
            name.trim().to_owned(),
            Test::NotIn(vec![value.trim().to_owned()]),
        ));
    }
    let (name, value) = term.split_once("==").or_else(|| term.split_once('='))?;
    Some((
        name.trim().to_owned(),
        Test::In(vec![value.trim().to_owned()]),
    ))
}

fn parse_labels(text: &str) -> Result<Vec<(String, Test)>, Refusal> {
    let mut tests = Vec::new();
    for term in split_outside_parentheses(text) {
        let term = term.trim();
        let test = match (term.split_once('('), equality(term)) {
            (Some((head, values)), _) => set_based(head, values),
            (None, Some(test)) => Some(test),
            (None, None) => match term.strip_prefix('!') {
                Some(name) => Some((name.trim().to_owned(), Test::Absent)),
                None => Some((term.to_owned(), Test::Exists)),
            },
        };
        let named =
            test.filter(|(name, _)| !name.is_empty() && !name.contains(char::is_whitespace));
        tests.push(named.ok_or_else(|| {
            Refusal::bad_request(format!("unable to parse requirement: found '{term}'"))
        })?);
    }
    Ok(tests)
}

/// `name in (a, b)` and `name notin (a, b)`; `values` is what follows the parenthesis.
fn set_based(head: &str, values: &str) -> Option<(String, Test)> {
    let values = values.strip_suffix(')')?;
    let values: Vec<String> = values
        .split(',')
        .map(|value| value.trim().to_owned())
        .collect();
    let mut words = head.split_whitespace();
    let (name, operator) = (words.next()?.to_owned(), words.next()?);
    match operator {
        "in" => Some((name, Test::In(values))),
        "notin" => Some((name, Test::NotIn(values))),
        _ => None,
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_u32);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}
