//! JSON in annotations: keys and types without regard to case, unknown keys ignored, everything else strictly.

use serde_json::{Map, Value};

use super::notes::Notes;
use crate::problem::shown;

/// Longest annotation that is read, in bytes.
pub(super) const MOST_BYTES: usize = 64 * 1024;

/// Objects of an array; an empty text is an empty array. `None` after an error, which shows `example`.
pub(super) fn objects(
    field: &str,
    text: &str,
    most: usize,
    example: &str,
    notes: &mut Notes,
) -> Option<Vec<Map<String, Value>>> {
    let wrong = if text.is_empty() {
        return Some(Vec::new());
    } else if text.len() > MOST_BYTES {
        format!("has {} bytes, more than {MOST_BYTES}", text.len())
    } else {
        match serde_json::from_str(text) {
            Ok(Value::Array(items)) if items.len() > most => {
                format!(
                    "has {} entries, more than the {most} of one rule",
                    items.len()
                )
            }
            Ok(Value::Array(items)) => return all_objects(field, items, example, notes),
            Ok(_) => format!("{} is not a JSON array", shown(text)),
            Err(error) => format!("{} is not valid JSON ({error})", shown(text)),
        }
    };
    notes.error(field, wrong, example);
    None
}

fn all_objects(
    field: &str,
    items: Vec<Value>,
    example: &str,
    notes: &mut Notes,
) -> Option<Vec<Map<String, Value>>> {
    let mut objects = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let Value::Object(object) = item else {
            notes.error(format!("{field}[{index}]"), "is not a JSON object", example);
            return None;
        };
        objects.push(object);
    }
    Some(objects)
}

/// An object and where it stands; whatever is asked of it and is not there becomes an error that shows `example`.
#[derive(Clone)]
pub(super) struct Node<'a> {
    map: &'a Map<String, Value>,
    /// Such as `metadata.annotations[...][1].headerConfig`.
    pub(super) field: String,
    pub(super) example: &'static str,
}

impl<'a> Node<'a> {
    pub(super) fn new(map: &'a Map<String, Value>, field: String, example: &'static str) -> Self {
        Self {
            map,
            field,
            example,
        }
    }

    /// The same with another example.
    pub(super) fn explained(&self, example: &'static str) -> Self {
        Self {
            example,
            ..self.clone()
        }
    }

    /// Field of a key.
    pub(super) fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.field)
    }

    /// Of several keys that differ only in case the first in byte order counts; `null` is as if it were not there.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| value)
            .filter(|value| !value.is_null())
    }

    /// An object that must be there.
    pub(super) fn object(&self, key: &str, notes: &mut Notes) -> Option<Node<'a>> {
        match self.value(key) {
            Some(Value::Object(map)) => Some(Node::new(map, self.at(key), self.example)),
            _ => self.missing(key, "is missing or not an object", notes),
        }
    }

    /// A string that must be there.
    pub(super) fn string(&self, key: &str, notes: &mut Notes) -> Option<&'a str> {
        match self.value(key) {
            Some(Value::String(text)) => Some(text),
            _ => self.missing(key, "is missing or not a string", notes),
        }
    }

    /// A string, empty when it is not there; `None` only after an error.
    pub(super) fn optional(&self, key: &str, notes: &mut Notes) -> Option<&'a str> {
        match self.value(key) {
            None => Some(""),
            Some(Value::String(text)) => Some(text),
            Some(_) => self.missing(key, "is not a string", notes),
        }
    }

    /// `true` or `false`, the latter when it is not there.
    pub(super) fn flag(&self, key: &str, notes: &mut Notes) -> Option<bool> {
        match self.value(key) {
            None => Some(false),
            Some(Value::Bool(flag)) => Some(*flag),
            Some(_) => self.missing(key, "is neither true nor false", notes),
        }
    }

    /// An integer of this range; `Some(None)` when it is not there.
    pub(super) fn number(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<u32>,
        notes: &mut Notes,
    ) -> Option<Option<u32>> {
        let Some(value) = self.value(key) else {
            return Some(None);
        };
        let number = value.as_u64().and_then(|it| u32::try_from(it).ok());
        match number.filter(|it| range.contains(it)) {
            Some(number) => Some(Some(number)),
            None => {
                let (least, most) = range.into_inner();
                self.wrong(
                    key,
                    &value.to_string(),
                    "is not a number of the right size",
                    &format!("write an integer from {least} to {most}, without quotation marks"),
                    notes,
                );
                None
            }
        }
    }

    /// An array that must be there, with 1 to `most` values.
    pub(super) fn array(&self, key: &str, most: usize, notes: &mut Notes) -> Option<&'a [Value]> {
        match self.value(key) {
            Some(Value::Array(values)) if values.len() > most => {
                notes.error(
                    self.at(key),
                    format!("has {} values, more than the {most} allowed", values.len()),
                    "use wildcards, or spread the values over several Ingresses",
                );
                None
            }
            Some(Value::Array(values)) if !values.is_empty() => Some(values),
            _ => self.missing(key, "is missing, empty or not an array", notes),
        }
    }

    /// Notes a value that is of the right type and says the wrong thing.
    pub(super) fn wrong(&self, key: &str, text: &str, what: &str, remedy: &str, notes: &mut Notes) {
        notes.error(self.at(key), format!("{} {what}", shown(text)), remedy);
    }

    fn missing<T>(&self, key: &str, what: &str, notes: &mut Notes) -> Option<T> {
        notes.error(self.at(key), what, self.example);
        None
    }
}
