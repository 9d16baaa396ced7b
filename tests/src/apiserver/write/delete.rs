//! DELETE of one object.

use serde_json::{Value, json};

use super::{
    super::{
        refusal::Refusal,
        resource::Resource,
        store::{Key, Store},
    },
    Options,
};

/// DELETE of one object: its last state, or its state with a deletion timestamp while finalizers hold it.
pub(in crate::apiserver) fn delete(
    store: &mut Store,
    resource: Resource,
    key: &Key,
    body: &Value,
    options: &Options,
) -> Result<Deleted, Refusal> {
    let value = store
        .find(resource, key)
        .ok_or_else(|| Refusal::not_found(resource, &key.name))?
        .value();
    for (asked, have) in [("resourceVersion", "ResourceVersion"), ("uid", "UID")] {
        let (want, is) = (&body["preconditions"][asked], &value["metadata"][asked]);
        if !want.is_null() && want != is {
            let why = format!(
                "Precondition failed: {have} in precondition: {want}, {have} in object meta: {is}"
            );
            return Err(Refusal::conflict(resource, &key.name, &why));
        }
    }
    let held = value["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|list| !list.is_empty());
    if options.dry_run {
        return Ok(Deleted::Gone(value));
    }
    if !held {
        store.remove(resource, key);
        return Ok(Deleted::Gone(value));
    }
    if !value["metadata"]["deletionTimestamp"].is_null() {
        return Ok(Deleted::Waits(value));
    }
    let mut marked = value;
    marked["metadata"]["deletionTimestamp"] = json!(options.now);
    marked["metadata"]["deletionGracePeriodSeconds"] = json!(0);
    Ok(Deleted::Waits(store.put(resource, marked)))
}

/// What became of an object that was to be deleted.
#[derive(Debug)]
pub(in crate::apiserver) enum Deleted {
    Gone(Value),
    /// Finalizers hold it.
    Waits(Value),
}
