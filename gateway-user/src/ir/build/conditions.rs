//! `alb.ingress.kubernetes.io/conditions.<svc>`: a JSON array of conditions (contract section 6).

use serde_json::{Map, Value};

use super::notes::{Notes, alb};
use crate::{ir::model::HeaderMatch, problem::shown};

/// "more than 10 conditions in the rule": condition entries count values.
const MOST_VALUES: usize = 10;
const EXAMPLE: &str = r#"write `[{"type": "Header", "headerConfig": {"key": "stage", "values": ["gray"]}}]`, in single quotes"#;

/// Header conditions of one Service; all must hold. Whatever is not understood becomes an error, never "any request".
pub(super) fn parse(service: &str, text: &str, notes: &mut Notes) -> Vec<HeaderMatch> {
    let field = alb(&format!("conditions.{service}"));
    // "annotation value empty string: ignored"
    if text.is_empty() {
        return Vec::new();
    }
    let blocks = match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(blocks)) => blocks,
        Ok(_) => {
            notes.error(
                field,
                format!("{} is not a JSON array", shown(text)),
                EXAMPLE,
            );
            return Vec::new();
        }
        Err(error) => {
            notes.error(
                field,
                format!("{} is not valid JSON ({error})", shown(text)),
                EXAMPLE,
            );
            return Vec::new();
        }
    };
    let headers: Vec<_> = blocks
        .iter()
        .enumerate()
        .filter_map(|(index, block)| one(block, &format!("{field}[{index}]"), notes))
        .collect();
    let values: usize = headers.iter().map(|header| header.values.len()).sum();
    if values > MOST_VALUES {
        notes.error(
            field,
            format!("has {values} condition values, more than the {MOST_VALUES} of one rule"),
            "use wildcards, or spread the values over several Ingresses",
        );
    }
    headers
}

fn one(block: &Value, field: &str, notes: &mut Notes) -> Option<HeaderMatch> {
    let Value::Object(block) = block else {
        notes.error(field, "is not a JSON object", EXAMPLE);
        return None;
    };
    let Some(Value::String(kind)) = lookup(block, "type") else {
        notes.error(
            format!("{field}.type"),
            "is missing or not a string",
            EXAMPLE,
        );
        return None;
    };
    match kind.to_ascii_lowercase().as_str() {
        "header" => header(block, field, notes),
        "host" | "path" | "method" | "querystring" | "cookie" | "sourceip" | "responseheader"
        | "responsestatuscode" => {
            notes.restriction(
                format!("{field}.type"),
                format!("condition {} is not supported yet", shown(kind)),
                "use a Header condition, or the host and path of spec.rules",
            );
            None
        }
        // A slip of the pen, or a condition newer than this program: both were meant to restrict.
        _ => {
            notes.restriction(
                format!("{field}.type"),
                format!("unknown condition type {}", shown(kind)),
                "correct the spelling; known are Header, Host, Path, Method, QueryString, Cookie and SourceIp",
            );
            None
        }
    }
}

fn header(block: &Map<String, Value>, field: &str, notes: &mut Notes) -> Option<HeaderMatch> {
    let Some(Value::Object(config)) = lookup(block, "headerConfig") else {
        notes.error(
            format!("{field}.headerConfig"),
            "is missing or not an object",
            EXAMPLE,
        );
        return None;
    };
    let key = match lookup(config, "key") {
        Some(Value::String(key)) if valid_key(key) => key.to_ascii_lowercase(),
        Some(Value::String(key)) => {
            notes.error(
                format!("{field}.headerConfig.key"),
                format!("{} cannot be the name of a header condition", shown(key)),
                "use 1 to 40 letters, digits, `-` and `_`; Cookie and Host have conditions of their own",
            );
            return None;
        }
        _ => {
            notes.error(
                format!("{field}.headerConfig.key"),
                "is missing or not a string",
                EXAMPLE,
            );
            return None;
        }
    };
    let values = match lookup(config, "values") {
        Some(Value::Array(values)) if !values.is_empty() => values,
        _ => {
            notes.error(
                format!("{field}.headerConfig.values"),
                "is missing, empty or not an array",
                EXAMPLE,
            );
            return None;
        }
    };
    let mut found = Vec::with_capacity(values.len().min(MOST_VALUES + 1));
    for (index, value) in values.iter().enumerate() {
        match value {
            Value::String(value) if valid_value(value) => found.push(value.clone()),
            other => {
                notes.error(
                    format!("{field}.headerConfig.values[{index}]"),
                    format!("{} cannot be the value of a header condition", shown(&other.to_string())),
                    "use a string of 1 to 128 printable ASCII characters without blanks at its ends",
                );
                return None;
            }
        }
    }
    Some(HeaderMatch {
        name: key,
        values: found,
    })
}

/// JSON keys are compared without regard to case; of several that differ only in case the first in byte order counts.
fn lookup<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(key))
        .map(|(_, value)| value)
}

fn valid_key(key: &str) -> bool {
    (1..=40).contains(&key.len())
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && !key.eq_ignore_ascii_case("cookie")
        && !key.eq_ignore_ascii_case("host")
}

fn valid_value(value: &str) -> bool {
    (1..=128).contains(&value.len())
        && value.bytes().all(|byte| (32..=126).contains(&byte))
        && !value.starts_with(' ')
        && !value.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<HeaderMatch>, Vec<String>) {
        let mut notes = Notes::on("Ingress", "demo", "a");
        let headers = parse("svc", text, &mut notes);
        (
            headers,
            notes.problems.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn keys_and_types_are_read_without_regard_to_case() {
        let (headers, problems) =
            read(r#"[{"TYPE":"hEADER","HeaderCONFIG":{"Key":"Stage","VALUES":["gray","g*"]}}]"#);
        assert_eq!(problems, [""; 0]);
        assert_eq!(
            headers,
            [HeaderMatch {
                name: "stage".into(),
                values: vec!["gray".into(), "g*".into()]
            }]
        );
    }

    #[test]
    fn what_is_not_understood_is_an_error_and_never_any_request() {
        for text in [
            "{}",
            "[1]",
            "[{}]",
            "nonsense",
            r#"[{"type":"Moon"}]"#,
            r#"[{"type":"Method","methodConfig":{"values":["GET"]}}]"#,
            r#"[{"type":"Header"}]"#,
            r#"[{"type":"Header","headerConfig":{"key":"Cookie","values":["a"]}}]"#,
            r#"[{"type":"Header","headerConfig":{"key":"a b","values":["a"]}}]"#,
            r#"[{"type":"Header","headerConfig":{"key":"a","values":[]}}]"#,
            r#"[{"type":"Header","headerConfig":{"key":"a","values":[" a"]}}]"#,
            r#"[{"type":"Header","headerConfig":{"key":"a","values":["1","2","3","4","5","6","7","8","9","10","11"]}}]"#,
        ] {
            let (_, problems) = read(text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems[0].starts_with(
                "Ingress demo/a: metadata.annotations[alb.ingress.kubernetes.io/conditions.svc]"
            ));
        }
    }

    #[test]
    fn an_empty_annotation_is_no_condition() {
        assert_eq!(read(""), (vec![], vec![]));
    }
}
