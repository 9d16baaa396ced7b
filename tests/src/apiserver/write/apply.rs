//! Server-side apply: PATCH with `application/apply-patch+yaml`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    super::{
        fields::{self, Clash},
        refusal::Refusal,
        resource::Target,
        store::{Store, Stored},
    },
    Options, Written,
    accept::accept,
    insert, replace, writer,
};

/// Applies a configuration to an object or its status; creates the object if there is none.
pub(super) fn apply(
    store: &mut Store,
    target: &Target,
    live: Option<&Arc<Stored>>,
    body: Value,
    options: &Options,
) -> Result<Written, Refusal> {
    let resource = target.resource;
    if !body["metadata"]["managedFields"].is_null() {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    let mut config = accept(target, body)?;
    if resource.traits().status
        && !target.status
        && let Some(fields) = config.as_object_mut()
    {
        fields.remove("status");
    }
    let name = target.name.as_deref().unwrap_or_default();
    let before = live.map_or(Value::Null, |live| live.value());
    if live.is_none() && target.status {
        return Err(Refusal::not_found(resource, name));
    }
    let asked = config["metadata"]["resourceVersion"].take();
    if live.is_none() && !asked.is_null() {
        return Err(Refusal::not_found(resource, name));
    }
    let applied = fields::apply(
        &before,
        &config,
        writer(options, target.status),
        options.force,
    )
    .map_err(|clashes| clash_refusal(&config, &clashes))?;
    let Some(live) = live else {
        let mut object = applied;
        for field in ["apiVersion", "kind"] {
            object[field] = config[field].clone();
        }
        for field in ["name", "namespace"] {
            if !config["metadata"][field].is_null() {
                object["metadata"][field] = config["metadata"][field].clone();
            }
        }
        return insert(store, resource, object, options, false);
    };
    let mut applied = applied;
    applied["metadata"]["resourceVersion"] = asked;
    replace(store, target, live, applied, options, false)
}

fn clash_refusal(config: &Value, clashes: &[Clash]) -> Refusal {
    let version = config["apiVersion"].as_str().unwrap_or_default();
    let told: Vec<String> = clashes
        .iter()
        .map(|clash| {
            format!(
                "conflict with \"{}\" using {version}: {}",
                clash.manager, clash.field
            )
        })
        .collect();
    let plural = if clashes.len() == 1 { "" } else { "s" };
    let message = format!(
        "Apply failed with {} conflict{plural}: {}",
        clashes.len(),
        told.join(", ")
    );
    let mut refusal = Refusal::new(409, "Conflict", message);
    let causes: Vec<Value> = clashes
        .iter()
        .zip(&told)
        .map(|(clash, told)| json!({"reason": "FieldManagerConflict", "message": told, "field": clash.field}))
        .collect();
    refusal.details = json!({"causes": causes});
    refusal
}
