//! Who owns which field: `metadata.managedFields`, and server-side apply.
//!
//! Every list is one value, as for a list without `x-kubernetes-list-type`; maps are merged key by key. A set of
//! fields holds the paths of the leaves: scalars, lists and empty maps.
//! Source: <https://kubernetes.io/docs/reference/using-api/server-side-apply/>.

mod v1;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use v1::{read, write};

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
            if covers(&entry.set, path, live) {
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
            .any(|(_, entry)| covers(&entry.set, path, &new));
        if !kept && !covers(&wanted, path, config) {
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

/// Whether the set holds this path, one below it, or one above it that is one value in `object`. A map above it that
/// was empty when it was written is not one value: it says nothing of what others put into it.
fn covers(set: &FieldSet, path: &[String], object: &Value) -> bool {
    let whole =
        |above: &[String]| set.contains(above) && !at(object, above).is_some_and(Value::is_object);
    let below = set.range(path.to_vec()..).next();
    below.is_some_and(|next| next.starts_with(path))
        || (1..path.len()).any(|len| whole(&path[..len]))
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
