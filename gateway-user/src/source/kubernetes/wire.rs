//! What an API server writes: pages of a list, lines of a watch, refusals.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json, value::RawValue};

use super::access::sentence;
use crate::manifest::{self, NamespacedName};

/// One page of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Page {
    pub(super) metadata: PageMeta,
    /// As they are: one that cannot be decoded breaks no list.
    items: Option<Vec<Light>>,
}

impl Page {
    pub(super) fn into_items(self) -> impl Iterator<Item = Value> {
        self.items.into_iter().flatten().map(|Light(value)| value)
    }
}

/// An object that is not held in memory if its many small values would take more than one object may: then only what
/// names it is, with a weight that has it refused by name.
#[derive(Debug)]
struct Light(Value);

impl<'de> Deserialize<'de> for Light {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        if !manifest::too_heavy_text(raw.get()) {
            let value = serde_json::from_str(raw.get()).map_err(Error::custom)?;
            return Ok(Self(value));
        }
        let Named { metadata } = serde_json::from_str(raw.get()).unwrap_or_default();
        let weight = vec![Value::Null; manifest::MOST_WEIGHT + 1];
        Ok(Self(json!({
            "metadata": {
                "name": metadata.name,
                "namespace": metadata.namespace,
                "resourceVersion": metadata.resource_version,
            },
            "weight": weight,
        })))
    }
}

#[derive(Default, Deserialize)]
struct Named {
    metadata: NamedMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NamedMeta {
    name: String,
    namespace: String,
    resource_version: String,
}

fn light<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Light::deserialize(deserializer).map(|Light(value)| value)
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PageMeta {
    pub(super) resource_version: Option<String>,
    #[serde(rename = "continue")]
    pub(super) next: Option<String>,
}

/// One line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(deserialize_with = "light")]
    pub(super) object: Value,
}

/// Name and version of an object.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Meta {
    pub(super) name: NamespacedName,
    pub(super) version: String,
}

impl Meta {
    pub(super) fn of(object: &Value) -> Self {
        let text = |field: &str| {
            let field = object.get("metadata").and_then(|meta| meta.get(field));
            field.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        Self {
            name: NamespacedName {
                namespace: text("namespace"),
                name: text("name"),
            },
            version: text("resourceVersion"),
        }
    }
}

/// `meta.k8s.io/v1 Status`, as far as we use it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) code: u16,
    pub(super) message: String,
    details: Option<Details>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    retry_after_seconds: u32,
}

impl Status {
    /// A refusal: the body of a response with this HTTP status.
    pub(super) fn of(code: u16, body: &[u8]) -> Self {
        let mut status: Self = serde_json::from_slice(body).unwrap_or_else(|_| Self {
            message: String::from_utf8_lossy(body).into_owned(),
            ..Self::default()
        });
        status.code = code;
        status.message = sentence(&status.message);
        status
    }

    /// What the server asks for in the body.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }
}

/// Cuts a stream of bytes into lines of bounded length.
#[derive(Debug)]
pub(super) struct Lines {
    rest: Vec<u8>,
    longest: usize,
}

/// A line is longer than is read.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct TooLong;

impl Lines {
    pub(super) fn new(longest: usize) -> Self {
        Self {
            rest: Vec::new(),
            longest,
        }
    }

    /// The lines that `bytes` complete.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        mut line: impl FnMut(&[u8]),
    ) -> Result<(), TooLong> {
        let mut bytes = bytes;
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = (&bytes[..end], &bytes[end + 1..]);
            if self.rest.len() + head.len() > self.longest {
                return Err(TooLong);
            }
            if self.rest.is_empty() {
                line(head);
            } else {
                self.rest.extend_from_slice(head);
                line(&self.rest);
                // A large object once is no reason to hold its size for every watch.
                self.rest = Vec::new();
            }
            bytes = tail;
        }
        if self.rest.len() + bytes.len() > self.longest {
            return Err(TooLong);
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_were_cut() {
        let text = b"one\n\ntwo\nthree";
        for size in 1..=text.len() {
            let (mut lines, mut got) = (Lines::new(8), Vec::new());
            for chunk in text.chunks(size) {
                lines.push(chunk, |line| got.push(line.to_vec())).unwrap();
            }
            assert_eq!(got, [b"one".to_vec(), b"".to_vec(), b"two".to_vec()]);
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::new(8);
        assert_eq!(lines.push(b"12345678", |_| ()), Ok(()));
        assert_eq!(lines.push(b"9", |_| ()), Err(TooLong));
    }

    #[test]
    fn a_refusal_is_understood_with_and_without_a_status() {
        let status = Status::of(
            429,
            br#"{"kind":"Status","message":"slow\ndown","details":{"retryAfterSeconds":2}}"#,
        );
        assert_eq!((status.code, &*status.message), (429, "slow down"));
        assert_eq!(status.retry_after(), Some(Duration::from_secs(2)));
        let plain = Status::of(502, b"bad gateway");
        assert_eq!(
            (plain.code, &*plain.message, plain.retry_after()),
            (502, "bad gateway", None)
        );
    }

    #[test]
    fn a_list_with_an_item_of_any_shape_is_read() {
        let page: Page = serde_json::from_str(
            r#"{"metadata":{"resourceVersion":"7","continue":""},"items":[1,{"metadata":5}]}"#,
        )
        .unwrap();
        assert_eq!(page.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(
            page.into_items()
                .map(|it| Meta::of(&it))
                .collect::<Vec<_>>(),
            [Meta::default(), Meta::default()]
        );
        let empty: Page = serde_json::from_str(r#"{"metadata":{},"items":null}"#).unwrap();
        assert_eq!(empty.into_items().count(), 0);
    }

    #[test]
    fn an_object_of_too_many_values_is_refused_by_name_and_breaks_no_list() {
        let heavy = format!(
            r#"{{"metadata":{{"name":"a","namespace":"b","resourceVersion":"7"}},"spec":[{}{{}}]}}"#,
            r#"{"a":0},"#.repeat(150_000)
        );
        let page =
            format!(r#"{{"metadata":{{}},"items":[{heavy},{{"metadata":{{"name":"c"}}}}]}}"#);
        let page: Page = serde_json::from_str(&page).unwrap();
        let items: Vec<Value> = page.into_items().collect();
        let meta = Meta::of(&items[0]);
        assert_eq!((meta.name.name.as_str(), meta.version.as_str()), ("a", "7"));
        let refused = manifest::object_of("Service", None, items[0].clone()).unwrap_err();
        assert_eq!(refused.object.name, "a");
        assert_eq!(Meta::of(&items[1]).name.name, "c");
    }
}
