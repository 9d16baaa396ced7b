//! Reads: one object, and lists with pages, selectors and versions.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use super::{
    query::Query,
    refusal::Refusal,
    resource::{Resource, Target},
    selector::Selector,
    store::{Key, Page, Scope, Store, Stored},
};

/// The shape in which a client wants objects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shape {
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
}

impl Shape {
    pub(super) fn of_accept(accept: &str) -> Self {
        if accept.contains("as=PartialObjectMetadata") {
            Self::Metadata
        } else {
            Self::Whole
        }
    }

    /// One object by itself, or in a watch.
    pub(super) fn text(self, object: &Stored) -> Bytes {
        match self {
            Self::Whole => object.text(),
            Self::Metadata => partial(&object.value()).to_string().into(),
        }
    }
}

fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

/// GET of one object, or of its status subresource, which is the whole object too.
pub(super) fn get(
    store: &Store,
    target: &Target,
    query: &Query,
    shape: Shape,
) -> Result<Bytes, Refusal> {
    let name = target.name.as_deref().unwrap_or_default();
    if let Some(version) = query.number("resourceVersion")?
        && version > store.revision()
    {
        return Err(Refusal::too_large(version, store.revision()));
    }
    let key = Key::new(target.namespace.as_deref(), name);
    let object = store.find(target.resource, &key);
    object
        .map(|object| shape.text(object))
        .ok_or_else(|| Refusal::not_found(target.resource, name))
}

/// What a LIST reads: put together under the lock, written out after it.
pub(super) struct Listing {
    resource: Resource,
    revision: u64,
    page: Page,
    /// No selector: what remains is known.
    counted: bool,
}

/// GET of a collection. `stale`: the revision that a lagging replica would answer from where it may.
///
/// Source: "Semantics for get and list" in <https://kubernetes.io/docs/reference/using-api/api-concepts/>.
pub(super) fn list(
    store: &Store,
    target: &Target,
    query: &Query,
    stale: Option<u64>,
) -> Result<Listing, Refusal> {
    let resource = target.resource;
    let selector = Selector::parse(resource, query)?;
    let version = query.number("resourceVersion")?;
    let rule = query.text("resourceVersionMatch");
    let token = query.text("continue");
    let mut limit = query.number("limit")?.filter(|limit| *limit > 0);
    let now = store.revision();

    if rule.is_some() && version.is_none() {
        return Err(forbidden_rule(
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ));
    }
    if token.is_some() && version.is_some_and(|version| version != 0) {
        return Err(Refusal::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    let mut after = None;
    let at = match (token, rule, version) {
        (Some(token), ..) => {
            let (at, key) = parse_token(token)?;
            after = Some(key);
            at
        }
        (None, Some("Exact"), Some(0)) => {
            return Err(forbidden_rule(
                "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
        (None, Some("Exact"), Some(version)) => version,
        // A limit without a rule has always meant this version exactly.
        (None, None, Some(version)) if version != 0 && limit.is_some() => version,
        (None, None | Some("NotOlderThan"), Some(version)) => {
            if version > now {
                return Err(Refusal::too_large(version, now));
            }
            if version == 0 {
                // Answered from the watch cache, which does not page.
                limit = None;
            }
            stale.filter(|stale| *stale >= version).unwrap_or(now)
        }
        (None, None, None) => now,
        (None, Some(other), _) => {
            return Err(forbidden_rule(&format!(
                "Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\""
            )));
        }
    };
    let compacted = at < store.oldest(resource) && at != now && stale != Some(at);
    if compacted && token.is_some() {
        let mut refusal = Refusal::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        );
        refusal.resume = after.map(|key| make_token(now, &key));
        return Err(refusal);
    }
    if compacted {
        return Err(Refusal::expired(
            "The resourceVersion for the provided list is too old.",
        ));
    }
    let scope = Scope {
        namespace: target.namespace.as_deref(),
        after: after.as_ref(),
        limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
    };
    Ok(Listing {
        resource,
        revision: at,
        page: store.page(resource, &scope, at, |object| selector.matches(object))?,
        counted: selector.is_everything(),
    })
}

impl Listing {
    /// The list object.
    pub(super) fn text(&self, shape: Shape) -> Bytes {
        let built_in = self.resource.traits().built_in;
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if let Some(key) = &self.page.last {
            metadata["continue"] = json!(make_token(self.revision, key));
            if self.counted {
                metadata["remainingItemCount"] = json!(self.page.remaining);
            }
        }
        let (kind, api_version) = match shape {
            Shape::Whole => (
                format!("{}List", self.resource.kind()),
                self.resource.api_version(),
            ),
            Shape::Metadata => (
                "PartialObjectMetadataList".to_owned(),
                "meta.k8s.io/v1".to_owned(),
            ),
        };
        let head =
            json!({"kind": kind, "apiVersion": api_version, "metadata": metadata}).to_string();
        let mut out = BytesMut::new();
        out.put_slice(head.strip_suffix('}').unwrap_or(&head).as_bytes());
        out.put_slice(b",\"items\":[");
        for (index, object) in self.page.items.iter().enumerate() {
            if index > 0 {
                out.put_u8(b',');
            }
            match shape {
                Shape::Whole if built_in => out.put_slice(object.bare()),
                shape => out.put_slice(&shape.text(object)),
            }
        }
        out.put_slice(b"]}\n");
        out.freeze()
    }
}

/// The objects that a request's selectors hold for, now.
pub(super) fn matching(
    store: &Store,
    target: &Target,
    selector: &Selector,
    at: u64,
) -> Result<Vec<Arc<Stored>>, Refusal> {
    let scope = Scope {
        namespace: target.namespace.as_deref(),
        ..Scope::default()
    };
    Ok(store
        .page(target.resource, &scope, at, |object| {
            selector.matches(object)
        })?
        .items)
}

fn forbidden_rule(why: &str) -> Refusal {
    let cause = (
        "resourceVersionMatch".to_owned(),
        format!("Forbidden: {why}"),
    );
    Refusal::invalid("ListOptions.meta.k8s.io", "", &[cause])
}

/// Revision, namespace and name: clients must not look inside, and need not escape it.
fn make_token(revision: u64, last: &Key) -> String {
    format!("{revision}:{}:{}", last.namespace, last.name)
}

fn parse_token(token: &str) -> Result<(u64, Key), Refusal> {
    let mut parts = token.splitn(3, ':');
    let mut next = || parts.next();
    let parsed = match (next().map(str::parse), next(), next()) {
        (Some(Ok(revision)), Some(namespace), Some(name)) => {
            Some((revision, Key::new(Some(namespace), name)))
        }
        _ => None,
    };
    parsed.ok_or_else(|| Refusal::bad_request("continue key is not valid"))
}
