//! Bytes of one file -> objects and problems.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    decode::{decode, names, too_heavy},
    documents::{self, Document},
    object::{
        AlbConfig, ClusterId, EndpointSlice, Ingress, IngressClass, ObjectMeta, Secret, Service,
    },
    yaml,
};
use crate::problem::{ObjectRef, Problem, shown};

/// What a file may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest file, in bytes.
    pub file_bytes: usize,
    /// Nested mappings and sequences of one document.
    pub depth: usize,
    /// Scalars, mappings and sequences of one document, aliases expanded.
    pub nodes: usize,
    /// Problems reported for one file; the rest are counted.
    pub problems: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 1 << 20,
            depth: 48,
            nodes: 75_000,
            problems: 100,
        }
    }
}

/// Where a file lies.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Path relative to the manifest directory, with `/`.
    pub file: Arc<str>,
    /// Member cluster; `None` for the fleet.
    pub cluster: Option<ClusterId>,
}

impl Origin {
    fn object(&self, kind: &str, namespace: &str, name: &str) -> ObjectRef {
        ObjectRef {
            cluster: self.cluster.as_ref().map(ToString::to_string),
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The file itself, for what could not be read as objects.
    pub fn as_object(&self) -> ObjectRef {
        ObjectRef {
            kind: "File".to_owned(),
            name: self.file.to_string(),
            ..ObjectRef::default()
        }
    }
}

/// One decoded object of a kind we use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Object {
    /// `alibabacloud.com/v1`
    AlbConfig(Arc<AlbConfig>),
    /// `networking.k8s.io/v1`
    IngressClass(Arc<IngressClass>),
    /// `networking.k8s.io/v1`
    Ingress(Arc<Ingress>),
    /// `v1`
    Secret(Arc<Secret>),
    /// `v1`
    Service(Arc<Service>),
    /// `discovery.k8s.io/v1`
    EndpointSlice(Arc<EndpointSlice>),
}

/// Something that exists but could not be decoded; a source keeps the last good version of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Broken {
    /// The file it stands in; or a folder, ending in `/` (empty: the whole directory), that could not be read.
    pub file: Arc<str>,
    /// The object, where its kind and name could be read; otherwise anything of the file.
    pub object: Option<ObjectRef>,
}

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// In the order of the file.
    pub objects: Vec<Object>,
    /// Undecodable.
    pub broken: Vec<Broken>,
    /// Why.
    pub problems: Vec<Problem>,
}

/// Kinds we use: kind, API group and version, and whether it has a namespace.
const KINDS: [(&str, &str, bool); 6] = [
    ("AlbConfig", "alibabacloud.com/v1", false),
    ("IngressClass", "networking.k8s.io/v1", false),
    ("Ingress", "networking.k8s.io/v1", true),
    ("Secret", "v1", true),
    ("Service", "v1", true),
    ("EndpointSlice", "discovery.k8s.io/v1", true),
];

/// `kind: List` inside `kind: List` and so on is followed this deep.
const LIST_DEPTH: usize = 4;

/// Reads every document of a YAML or JSON file. Never fails: what cannot be read is a problem, the rest is kept.
pub fn parse(origin: &Origin, bytes: &[u8], limits: Limits) -> Parsed {
    read(origin, bytes, limits, false)
}

/// As [`parse`], of a file that may hold other things than objects: what has neither `kind` nor `metadata` is skipped.
pub(super) fn parse_mixed(origin: &Origin, bytes: &[u8], limits: Limits) -> Parsed {
    read(origin, bytes, limits, true)
}

fn read(origin: &Origin, bytes: &[u8], limits: Limits, mixed: bool) -> Parsed {
    let mut reading = Reading {
        origin,
        limits,
        mixed,
        parsed: Parsed::default(),
    };
    match yaml::text(bytes, limits) {
        Ok(text) => {
            for document in documents::split(text) {
                reading.document(document);
            }
        }
        Err((message, remedy)) => reading.broken_file("content", message, remedy),
    }
    let mut parsed = reading.parsed;
    let found = parsed.problems.len();
    if found > limits.problems {
        parsed.problems.truncate(limits.problems);
        parsed.problems.push(Problem::error(
            &origin.as_object(),
            "content",
            format!(
                "{} more problems in this file are not shown",
                found - limits.problems
            ),
            "mend the ones above first",
        ));
    }
    parsed
}

struct Reading<'a> {
    origin: &'a Origin,
    limits: Limits,
    /// Documents that are no objects are none of ours.
    mixed: bool,
    parsed: Parsed,
}

impl Reading<'_> {
    fn broken_file(&mut self, field: impl Into<String>, message: impl Into<String>, remedy: &str) {
        self.parsed.broken.push(Broken {
            file: self.origin.file.clone(),
            object: None,
        });
        self.parsed.problems.push(Problem::error(
            &self.origin.as_object(),
            field,
            message,
            remedy,
        ));
    }

    fn broken_object(&mut self, problem: Problem) {
        self.parsed.broken.push(Broken {
            file: self.origin.file.clone(),
            object: Some(problem.object.clone()),
        });
        self.parsed.problems.push(problem);
    }

    fn document(&mut self, document: Document<'_>) {
        match yaml::value(document.text, self.limits) {
            Ok(value) => self.value(
                value,
                None,
                &format!("document at line {}", document.line),
                LIST_DEPTH,
            ),
            Err((at, why)) => {
                let line = document.line + at.saturating_sub(1);
                self.broken_file(
                    format!("line {line}"),
                    format!("not valid YAML or JSON: {why}"),
                    "correct this document; objects it held before keep serving until then",
                );
            }
        }
    }

    /// `item_of` is (kind, apiVersion) that items of a typed list may leave out.
    fn value(&mut self, value: Value, item_of: Option<(&str, &str)>, place: &str, depth: usize) {
        let Value::Object(map) = &value else {
            if !value.is_null() && !self.mixed {
                let message = format!("holds {} where an object with `kind` belongs", what(&value));
                self.broken_file(
                    place,
                    message,
                    "write `apiVersion`, `kind` and `metadata.name`, or delete it",
                );
            }
            return;
        };
        let text = |key: &str| map.get(key).and_then(Value::as_str);
        let kind = text("kind")
            .or(item_of.map(|(kind, _)| kind))
            .unwrap_or_default()
            .to_owned();
        let version = text("apiVersion")
            .or(item_of.map(|(_, version)| version))
            .unwrap_or_default()
            .to_owned();
        if kind.is_empty() && self.mixed && !map.contains_key("metadata") {
            return;
        }
        if kind.is_empty() {
            self.broken_file(
                place,
                "has no `kind`",
                "write the kind of the object, for example `kind: Ingress`, or delete the document",
            );
            return;
        }
        if let (Some(item), Some(Value::Array(_))) = (kind.strip_suffix("List"), map.get("items")) {
            self.list(value, item, &version, place, depth);
            return;
        }
        let Some(&(_, wanted, namespaced)) = KINDS.iter().find(|(known, ..)| *known == kind) else {
            return;
        };
        if foreign(&kind, &version, wanted) {
            return;
        }
        let meta = map.get("metadata").cloned().unwrap_or_default();
        let name = meta.get("name").and_then(Value::as_str).unwrap_or_default();
        let namespace = match meta.get("namespace").and_then(Value::as_str) {
            _ if !namespaced => "",
            None | Some("") => "default",
            Some(namespace) => namespace,
        };
        let object = self.origin.object(&kind, namespace, name);
        if let Err((field, message)) = names(name, namespace, namespaced) {
            let message = format!("{kind} {message}");
            let remedy = "use 1 to 253 lower-case letters, digits, `-` and `.`, as Kubernetes does";
            self.broken_file(format!("{place}: {field}"), message, remedy);
            return;
        }
        if version != wanted {
            let message = format!("version {} is not read", shown(&version));
            let remedy = format!("write the object as `apiVersion: {wanted}`");
            self.broken_object(Problem::error(&object, "apiVersion", message, remedy));
            return;
        }
        let namespace = namespace.to_owned();
        let decoded = typed(&kind, value, &object, &namespace, &self.origin.file);
        match decoded {
            Ok(object) => self.parsed.objects.push(object),
            Err(problem) => self.broken_object(*problem),
        }
    }

    fn list(&mut self, mut list: Value, item: &str, version: &str, place: &str, depth: usize) {
        let Some(Value::Array(items)) = list.get_mut("items").map(Value::take) else {
            return;
        };
        if depth == 0 {
            let message = format!("lists are nested more than {LIST_DEPTH} deep");
            self.broken_file(
                place,
                message,
                "put the objects into one list, or into documents of their own",
            );
            return;
        }
        let item_of = (!item.is_empty()).then_some((item, version));
        for (index, value) in items.into_iter().enumerate() {
            self.value(
                value,
                item_of,
                &format!("{place}, items[{index}]"),
                depth - 1,
            );
        }
    }
}

/// One object from an API server: `kind` is one of ours, `value` as the server sent it.
///
/// `Err` names the object, as far as its name could be read, and why it cannot be used.
pub fn object(
    kind: &str,
    cluster: Option<&ClusterId>,
    value: Value,
) -> Result<Object, Box<Problem>> {
    let origin = Origin {
        file: Arc::default(),
        cluster: cluster.cloned(),
    };
    let text = |field: &str| {
        let field = value.get("metadata").and_then(|meta| meta.get(field));
        field.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let namespaced = KINDS
        .iter()
        .any(|(known, _, spaced)| *known == kind && *spaced);
    let (name, namespace) = (
        text("name"),
        if namespaced {
            text("namespace")
        } else {
            String::new()
        },
    );
    let reference = origin.object(kind, &namespace, &name);
    if let Err((field, message)) = names(&name, &namespace, namespaced) {
        let remedy = "an API server does not store such an object";
        return Err(Box::new(Problem::error(&reference, field, message, remedy)));
    }
    if too_heavy(&value) {
        let message = "holds more values than are read of one object";
        let remedy = "spread it over several objects; what it said before keeps serving until then";
        return Err(Box::new(Problem::error(
            &reference, "content", message, remedy,
        )));
    }
    typed(kind, value, &reference, &namespace, &origin.file)
}

/// Decodes a value whose kind is one of [`KINDS`].
fn typed(
    kind: &str,
    value: Value,
    object: &ObjectRef,
    namespace: &str,
    file: &Arc<str>,
) -> Result<Object, Box<Problem>> {
    fn read<T: DeserializeOwned>(
        value: Value,
        object: &ObjectRef,
        fill: impl FnOnce(&mut T),
    ) -> Result<Arc<T>, Box<Problem>> {
        let mut it: T = decode(value, object)?;
        fill(&mut it);
        Ok(Arc::new(it))
    }
    let fill = |meta: &mut ObjectMeta| {
        meta.namespace = namespace.to_owned();
        meta.file = file.clone();
    };
    Ok(match kind {
        "AlbConfig" => Object::AlbConfig(read(value, object, |it: &mut AlbConfig| {
            fill(&mut it.metadata)
        })?),
        "IngressClass" => Object::IngressClass(read(value, object, |it: &mut IngressClass| {
            fill(&mut it.metadata)
        })?),
        "Ingress" => Object::Ingress(read(value, object, |it: &mut Ingress| {
            fill(&mut it.metadata)
        })?),
        "Secret" => Object::Secret(read(value, object, |it: &mut Secret| {
            fill(&mut it.metadata);
            // `kubectl.kubernetes.io/last-applied-configuration` holds the keys once more.
            it.metadata.annotations.clear();
        })?),
        "Service" => Object::Service(read(value, object, |it: &mut Service| {
            fill(&mut it.metadata)
        })?),
        _ => Object::EndpointSlice(read(value, object, |it: &mut EndpointSlice| {
            fill(&mut it.metadata)
        })?),
    })
}

/// Other API groups have kinds of the same name (Knative's Service, OpenShift's Ingress): those are not ours. Ingress
/// once was in `extensions`; whoever still writes that means ours.
fn foreign(kind: &str, version: &str, wanted: &str) -> bool {
    let group = |version: &str| version.rsplit_once('/').map(|(group, _)| group.to_owned());
    match group(version) {
        None => false,
        Some(old) if kind == "Ingress" && old == "extensions" => false,
        written => written != group(wanted),
    }
}

fn what(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
#[cfg(test)]
mod tests;
