//! One JSON value -> one typed object, with a field path in what goes wrong.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::problem::{ObjectRef, Problem, shown};

/// Name and namespace as Kubernetes allows them; otherwise the field and what is wrong with it.
pub(super) fn names(
    name: &str,
    namespace: &str,
    namespaced: bool,
) -> Result<(), (&'static str, String)> {
    if name.is_empty() {
        return Err(("metadata.name", "has no name".to_owned()));
    }
    if !valid_name(name) {
        return Err((
            "metadata.name",
            format!("name {} is not valid", shown(name)),
        ));
    }
    if namespaced && !valid_name(namespace) {
        return Err((
            "metadata.namespace",
            format!("namespace {} is not valid", shown(namespace)),
        ));
    }
    Ok(())
}

/// Most that one object of an API server may weigh: a slice of 1000 endpoints with 100 addresses each, all it may hold,
/// weighs 160 thousand.
pub const MOST_WEIGHT: usize = 200_000;

/// Whether an object holds so many values that its copies take more memory than one object may: a value counts one, and
/// a map, which takes some 700 bytes, eight.
pub(super) fn too_heavy(value: &Value) -> bool {
    fn room_after(value: &Value, room: usize) -> Option<usize> {
        match value {
            Value::Array(items) => items
                .iter()
                .try_fold(room.checked_sub(1)?, |room, it| room_after(it, room)),
            Value::Object(map) => map
                .values()
                .try_fold(room.checked_sub(8)?, |room, it| room_after(it, room)),
            _ => room.checked_sub(1),
        }
    }
    room_after(value, MOST_WEIGHT).is_none()
}

/// The same of an object's JSON text, before it is read; never less than what the object will weigh.
pub fn too_heavy_text(json: &str) -> bool {
    let (mut weight, mut quoted, mut escaped) = (1, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            // With the first value inside; a comma stands for each further one.
            b'{' => weight += 9,
            b'[' => weight += 2,
            b',' => weight += 1,
            _ => {}
        }
    }
    weight > MOST_WEIGHT
}

/// RFC 1123 subdomain, loosely: what cannot break a log line, a label or a path.
fn valid_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
        })
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.ends_with(|last: char| last.is_ascii_alphanumeric())
}

/// Decodes leniently: unknown fields are ignored.
pub(super) fn decode<T: DeserializeOwned>(
    value: Value,
    object: &ObjectRef,
) -> Result<T, Box<Problem>> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = field(error.path());
        let remedy =
            if field.starts_with("metadata.annotations") || field.starts_with("metadata.labels") {
                "annotation and label values are strings: put the value in quotes"
            } else {
                "correct the type of this field, as `kubectl apply --dry-run=server` would demand"
            };
        Box::new(Problem::error(
            object,
            field,
            cut(&error.inner().to_string()),
            remedy,
        ))
    })
}

/// `metadata.annotations[alb.ingress.kubernetes.io/order]`: keys that hold dots stand in brackets.
fn field(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut field = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => field.push_str(&format!("[{index}]")),
            Segment::Map { key } if key.contains(['.', '/']) => {
                field.push_str(&format!("[{}]", cut(key)))
            }
            Segment::Map { key } | Segment::Enum { variant: key } => {
                if !field.is_empty() {
                    field.push('.');
                }
                field.push_str(key);
            }
            Segment::Unknown => field.push('?'),
        }
    }
    field
}

/// Longest sentence taken over from a parser, in characters.
const CUT_CHARS: usize = 200;

/// A parser's sentence on one line of bounded length.
pub(super) fn cut(text: &str) -> String {
    let mut short: String = text
        .chars()
        .take(CUT_CHARS)
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    if text.chars().nth(CUT_CHARS).is_some() {
        short.push_str("...");
    }
    short
}
