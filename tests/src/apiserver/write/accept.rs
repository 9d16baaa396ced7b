//! What a client sends, made fit to be stored.

use serde_json::{Map, Value, json};

use super::super::{
    refusal::Refusal,
    resource::{Resource, Target},
};

/// Checks that a body is about what its path names, and makes its metadata complete.
pub(super) fn accept(target: &Target, mut body: Value) -> Result<Value, Refusal> {
    let resource = target.resource;
    if !body.is_object() {
        return Err(Refusal::bad_request(
            "the body of the request is not a JSON object",
        ));
    }
    drop_nulls(&mut body);
    if Resource::of(&body) != Some(resource) {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({}) or its kind ({}) does not match the expected {} {}",
            body["apiVersion"],
            body["kind"],
            resource.api_version(),
            resource.kind()
        )));
    }
    let metadata = &mut body["metadata"];
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    if !metadata.is_object() {
        return Err(Refusal::bad_request("metadata is not a JSON object"));
    }
    let named = [
        ("name", target.name.as_deref()),
        ("namespace", target.namespace.as_deref()),
    ];
    for (field, wanted) in named {
        let Some(wanted) = wanted else { continue };
        match metadata[field].as_str() {
            Some(have) if have != wanted => {
                return Err(Refusal::bad_request(format!(
                    "the {field} of the object ({have}) does not match the {field} on the URL ({wanted})"
                )));
            }
            _ => metadata[field] = json!(wanted),
        }
    }
    if !resource.traits().namespaced
        && let Some(metadata) = metadata.as_object_mut()
    {
        metadata.remove("namespace");
    }
    Ok(body)
}

/// Typed objects cannot hold a null.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
