//! `metadata.managedFields` as objects carry them: `FieldsV1`.

use serde_json::{Value, json};

use super::{Entry, FieldSet, Path};

pub(super) fn read(object: &Value) -> Vec<Entry> {
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

pub(super) fn write(object: &mut Value, entries: &[Entry]) {
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
