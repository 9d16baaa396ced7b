//! Who owns which field: `metadata.managedFields`, and server-side apply.
//!
//! Every list is one value, as for a list without `x-kubernetes-list-type`; maps are merged key by key. A set of
//! fields holds the paths of the leaves: scalars, lists and empty maps.
//! Source: <https://kubernetes.io/docs/reference/using-api/server-side-apply/>.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

type Path = Vec<String>;
type FieldSet = BTreeSet<Path>;

/// Who writes, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer<'a> {
    pub(super) manager: &'a str,
    /// Through the status subresource.
    pub(super) status: bool,
    /// RFC 3339.
    pub(super) now: &'a str,
}

/// A field that someone else owns with another value.
#[derive(Clone, Debug)]
pub(super) struct Clash {
    pub(super) manager: String,
    /// `.spec.rules`
    pub(super) field: String,
}

#[derive(Clone, Debug)]
struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    time: String,
    status: bool,
    set: FieldSet,
}

impl Entry {
    fn is_of(&self, writer: Writer<'_>, operation: &str) -> bool {
        self.manager == writer.manager
            && self.operation == operation
            && self.status == writer.status
    }
}

/// Notes in `new` who owns what after a write that is not an apply. `old` is null for a new object.
pub(super) fn track(old: &Value, new: &mut Value, writer: Writer<'_>) {
    let mut entries = read(old);
    let is = owned_leaves(new);
    let changed: FieldSet = is
        .iter()
        .filter(|path| at(old, path) != at(new, path))
        .cloned()
        .collect();
    for entry in &mut entries {
        entry
            .set
            .retain(|path| is.contains(path) && !changed.contains(path));
    }
    let mine = entries
        .iter_mut()
        .find(|entry| entry.is_of(writer, "Update"));
    match mine {
        Some(entry) if !changed.is_empty() => {
            entry.set.extend(changed);
            entry.time = writer.now.to_owned();
        }
        None if !changed.is_empty() => entries.push(entry(writer, "Update", new, changed)),
        _ => {}
    }
    write(new, &entries);
}

/// The object that comes of applying `config` over `live` (null if there is none yet), or who objects.
///
/// A kind with a status subresource has no `status` in the `config` of its main resource: the caller takes it out.
/// The result has the managed fields already. Applying the same again gives `live` back, byte for byte.
pub(super) fn apply(
    live: &Value,
    config: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, Vec<Clash>> {
    let mut wanted = owned_leaves(config);
    wanted.retain(|path| !writer.status || path[0] == "status");
    let mut entries = read(live);
    let own = entries
        .iter()
        .position(|entry| entry.is_of(writer, "Apply"));

    let mut clashes = Vec::new();
    for (index, entry) in entries.iter_mut().enumerate() {
        if Some(index) == own {
            continue;
        }
        for path in wanted.iter().filter(|path| differs(live, config, path)) {
            if related(&entry.set, path) {
                clashes.push(Clash {
                    manager: entry.manager.clone(),
                    field: format!(".{}", path.join(".")),
                });
                if force {
                    entry
                        .set
                        .retain(|have| !have.starts_with(path) && !path.starts_with(have));
                }
            }
        }
    }
    if !clashes.is_empty() && !force {
        return Err(clashes);
    }

    let mut new = match live {
        Value::Null => json!({}),
        live => live.clone(),
    };
    for path in &wanted {
        if let Some(value) = at(config, path)
            && differs(live, config, path)
        {
            set(&mut new, path, value.clone());
        }
    }
    let before = own
        .map(|index| entries[index].set.clone())
        .unwrap_or_default();
    for path in before.difference(&wanted) {
        let others = entries
            .iter()
            .enumerate()
            .filter(|(index, _)| Some(*index) != own);
        let kept = others
            .into_iter()
            .any(|(_, entry)| related(&entry.set, path));
        if !kept && !related(&wanted, path) {
            remove(&mut new, path);
        }
    }

    let same = without_managed_fields(&new) == without_managed_fields(live);
    match own {
        Some(index) if !(same && before == wanted) => {
            entries[index].set = wanted;
            entries[index].time = writer.now.to_owned();
        }
        None => entries.push(entry(writer, "Apply", config, wanted)),
        Some(_) => {}
    }
    for entry in &mut entries {
        entry.set.retain(|path| at(&new, path).is_some());
    }
    write(&mut new, &entries);
    Ok(new)
}

fn entry(writer: Writer<'_>, operation: &str, object: &Value, set: FieldSet) -> Entry {
    Entry {
        manager: writer.manager.to_owned(),
        operation: operation.to_owned(),
        api_version: object["apiVersion"].as_str().unwrap_or_default().to_owned(),
        time: writer.now.to_owned(),
        status: writer.status,
        set,
    }
}

/// Whether applying would change what is there. An empty map merges into any map.
fn differs(live: &Value, config: &Value, path: &[String]) -> bool {
    match (at(live, path), at(config, path)) {
        (Some(Value::Object(_)), Some(Value::Object(fields))) if fields.is_empty() => false,
        (have, want) => have != want,
    }
}

/// Whether the set holds this path, one above it, or one below it.
fn related(set: &FieldSet, path: &[String]) -> bool {
    let above = (1..=path.len()).any(|len| set.contains(&path[..len]));
    above
        || set
            .range(path.to_vec()..)
            .next()
            .is_some_and(|next| next.starts_with(path))
}

fn at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| value.get(step))
}

fn set(object: &mut Value, path: &[String], value: Value) {
    let mut place = object;
    for step in path {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[step];
    }
    *place = value;
}

/// Removes a leaf, and the maps that are empty without it.
fn remove(object: &mut Value, path: &[String]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    if rest.is_empty() {
        fields.remove(first);
    } else if let Some(inner) = fields.get_mut(first) {
        remove(inner, rest);
        if inner.as_object().is_some_and(Map::is_empty) {
            fields.remove(first);
        }
    }
}

/// The leaves that can be owned: not what names an object, nor what the server itself writes.
fn owned_leaves(object: &Value) -> FieldSet {
    let mut set = FieldSet::new();
    leaves(object, &mut Path::new(), &mut set);
    set.retain(|path| match path[0].as_str() {
        "apiVersion" | "kind" => false,
        "metadata" => path.get(1).is_some_and(|field| {
            matches!(
                field.as_str(),
                "annotations" | "finalizers" | "labels" | "ownerReferences"
            )
        }),
        _ => true,
    });
    set
}

fn leaves(value: &Value, path: &mut Path, out: &mut FieldSet) {
    match value.as_object() {
        Some(fields) if !fields.is_empty() || path.is_empty() => {
            for (name, value) in fields {
                path.push(name.clone());
                leaves(value, path, out);
                path.pop();
            }
        }
        _ if path.is_empty() => {}
        _ => {
            out.insert(path.clone());
        }
    }
}

fn without_managed_fields(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

fn read(object: &Value) -> Vec<Entry> {
    let list = object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    list.into_iter()
        .flatten()
        .map(|entry| {
            let mut set = FieldSet::new();
            from_fields_v1(&entry["fieldsV1"], &mut Path::new(), &mut set);
            Entry {
                manager: text(entry, "manager"),
                operation: text(entry, "operation"),
                api_version: text(entry, "apiVersion"),
                time: text(entry, "time"),
                status: entry["subresource"] == "status",
                set,
            }
        })
        .collect()
}

fn write(object: &mut Value, entries: &[Entry]) {
    let owning = entries.iter().filter(|entry| !entry.set.is_empty());
    let list: Vec<Value> = owning
        .map(|entry| {
            let mut out = json!({
                "manager": entry.manager,
                "operation": entry.operation,
                "apiVersion": entry.api_version,
                "time": entry.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": to_fields_v1(&entry.set),
            });
            if entry.status {
                out["subresource"] = json!("status");
            }
            out
        })
        .collect();
    if list.is_empty() {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    } else {
        object["metadata"]["managedFields"] = Value::Array(list);
    }
}

fn to_fields_v1(set: &FieldSet) -> Value {
    let mut out = json!({});
    for path in set {
        let mut place = &mut out;
        for step in path {
            place = &mut place[format!("f:{step}")];
            if place.is_null() {
                *place = json!({});
            }
        }
    }
    out
}

fn from_fields_v1(fields: &Value, path: &mut Path, out: &mut FieldSet) {
    let inner = fields.as_object().into_iter().flatten();
    let mut leaf = true;
    for (name, fields) in inner {
        if let Some(name) = name.strip_prefix("f:") {
            leaf = false;
            path.push(name.to_owned());
            from_fields_v1(fields, path, out);
            path.pop();
        }
    }
    if leaf && !path.is_empty() {
        out.insert(path.clone());
    }
}
