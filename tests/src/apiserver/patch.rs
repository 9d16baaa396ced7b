//! JSON merge patch (RFC 7396) and JSON patch (RFC 6902).

use serde_json::{Map, Value};

use super::refusal::Refusal;

/// Merges `patch` into `target`; null removes.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (name, value) in fields {
        if value.is_null() {
            if let Some(have) = target.as_object_mut() {
                have.remove(name);
            }
        } else {
            merge(&mut target[name], value);
        }
    }
}

/// Carries out a list of operations: add, remove, replace, test.
pub(super) fn json(target: &mut Value, operations: &Value) -> Result<(), Refusal> {
    let Some(operations) = operations.as_array() else {
        return Err(Refusal::bad_request("a JSON patch is a list of operations"));
    };
    for operation in operations {
        one(target, operation).ok_or_else(|| {
            Refusal::new(
                422,
                "Invalid",
                format!(
                    "the server rejected our request due to an error in our request: {operation}"
                ),
            )
        })?;
    }
    Ok(())
}

/// None if the operation cannot be carried out.
fn one(target: &mut Value, operation: &Value) -> Option<()> {
    let path = operation["path"].as_str()?;
    let (parent, last) = path.rsplit_once('/')?;
    let last = last.replace("~1", "/").replace("~0", "~");
    let value = operation.get("value");
    match operation["op"].as_str()? {
        "test" => (target.pointer(path) == value).then_some(()),
        "replace" => {
            *target.pointer_mut(path)? = value?.clone();
            Some(())
        }
        "add" => match target.pointer_mut(parent)? {
            Value::Object(fields) => {
                fields.insert(last, value?.clone());
                Some(())
            }
            Value::Array(items) if last == "-" => {
                items.push(value?.clone());
                Some(())
            }
            Value::Array(items) => {
                let at = last.parse::<usize>().ok().filter(|at| *at <= items.len())?;
                items.insert(at, value?.clone());
                Some(())
            }
            _ => None,
        },
        "remove" => match target.pointer_mut(parent)? {
            Value::Object(fields) => fields.remove(&last).map(|_| ()),
            Value::Array(items) => {
                let at = last.parse::<usize>().ok().filter(|at| *at < items.len())?;
                items.remove(at);
                Some(())
            }
            _ => None,
        },
        _ => None,
    }
}
