//! Writes: create, update, patch, apply and delete, as the registry of the real server does them.

mod accept;
mod apply;
mod delete;
mod names;

use serde_json::{Value, json};

use super::{
    fields::{self, Writer},
    patch,
    refusal::Refusal,
    resource::{Resource, Target},
    store::{Key, Store, Stored},
    validate,
};

pub(super) use delete::{Deleted, delete};

use accept::accept;
use apply::apply;

/// How a write is to be done.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Who owns the fields that are written.
    pub(super) manager: String,
    /// Answer as if, but store nothing.
    pub(super) dry_run: bool,
    /// Take fields from other managers.
    pub(super) force: bool,
    /// RFC 3339, whole seconds.
    pub(super) now: String,
}

/// What a patch says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PatchKind {
    Merge,
    Json,
    Apply,
}

/// The object after a write, and whether it is new.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) object: Value,
    pub(super) created: bool,
}

/// POST to a collection.
pub(super) fn create(
    store: &mut Store,
    target: &Target,
    body: Value,
    options: &Options,
) -> Result<Written, Refusal> {
    let resource = target.resource;
    let mut object = accept(target, body)?;
    if !object["metadata"]["resourceVersion"].is_null() {
        let why = "resourceVersion should not be set on objects to be created";
        return Err(Refusal::new(500, "InternalError", why));
    }
    if object["metadata"]["name"].is_null() {
        let prefix = object["metadata"]["generateName"]
            .as_str()
            .unwrap_or_default();
        if prefix.is_empty() {
            let cause = (
                "metadata.name".to_owned(),
                "Required value: name or generateName is required".to_owned(),
            );
            return Err(Refusal::invalid(resource.kind(), "", &[cause]));
        }
        object["metadata"]["name"] = json!(format!("{prefix}{}", names::suffix(store.revision())));
    }
    let key = Key::of(&object);
    if store.find(resource, &key).is_some() {
        return Err(Refusal::already_exists(resource, &key.name));
    }
    insert(store, resource, object, options, true)
}

/// Stores an object that is new; `track` unless its managed fields are in it already.
fn insert(
    store: &mut Store,
    resource: Resource,
    mut object: Value,
    options: &Options,
    track: bool,
) -> Result<Written, Refusal> {
    let traits = resource.traits();
    if traits.status
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    validate::default_fields(resource, &mut object);
    validate::check(resource, &Value::Null, &object)?;
    let metadata = object["metadata"]
        .as_object_mut()
        .expect("accept made it a map");
    for server_owned in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "generation",
        "resourceVersion",
    ] {
        metadata.remove(server_owned);
    }
    metadata.insert("uid".to_owned(), json!(names::uid(store.revision())));
    metadata.insert("creationTimestamp".to_owned(), json!(options.now));
    if traits.generation {
        metadata.insert("generation".to_owned(), json!(1));
    }
    if track {
        fields::track(&Value::Null, &mut object, writer(options, false));
    }
    let object = match options.dry_run {
        true => object,
        false => store.put(resource, object),
    };
    Ok(Written {
        object,
        created: true,
    })
}

/// PUT of an object or its status.
pub(super) fn update(
    store: &mut Store,
    target: &Target,
    body: Value,
    options: &Options,
) -> Result<Written, Refusal> {
    let (resource, traits) = (target.resource, target.resource.traits());
    let body = accept(target, body)?;
    let key = Key::of(&body);
    let uid = body["metadata"]["uid"].as_str().map(str::to_owned);
    let Some(live) = store.find(resource, &key).cloned() else {
        if !traits.create_on_update || target.status {
            return Err(Refusal::not_found(resource, &key.name));
        }
        if let Some(uid) = uid {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: ");
            return Err(Refusal::conflict(resource, &key.name, &why));
        }
        return insert(store, resource, body, options, true);
    };
    if body["metadata"]["resourceVersion"].is_null() && !traits.unconditional_update {
        let cause = (
            "metadata.resourceVersion".to_owned(),
            "Invalid value: 0x0: must be specified for an update".to_owned(),
        );
        return Err(Refusal::invalid(&resource.qualified(), &key.name, &[cause]));
    }
    replace(store, target, &live, body, options, true)
}

/// PATCH of an object or its status.
pub(super) fn patch(
    store: &mut Store,
    target: &Target,
    kind: PatchKind,
    body: Value,
    options: &Options,
) -> Result<Written, Refusal> {
    let resource = target.resource;
    let key = Key::new(
        target.namespace.as_deref(),
        target.name.as_deref().unwrap_or_default(),
    );
    let live = store.find(resource, &key).cloned();
    if kind == PatchKind::Apply {
        return apply(store, target, live.as_ref(), body, options);
    }
    let live = live.ok_or_else(|| Refusal::not_found(resource, &key.name))?;
    let mut new = live.value();
    // A patch is put on the newest state: only a version in the patch itself can be in conflict.
    match kind {
        PatchKind::Json => patch::json(&mut new, &body)?,
        _ => patch::merge(&mut new, &body),
    }
    let new = accept(target, new)?;
    replace(store, target, &live, new, options, true)
}

/// Stores the new state of an object that exists, unless nothing changed.
fn replace(
    store: &mut Store,
    target: &Target,
    live: &Stored,
    mut new: Value,
    options: &Options,
    track: bool,
) -> Result<Written, Refusal> {
    let (resource, old) = (target.resource, &live.value());
    let name = &live.key.name;
    let (old_meta, new_meta) = (&old["metadata"], &new["metadata"]);
    if !new_meta["uid"].is_null() && new_meta["uid"] != old_meta["uid"] {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            new_meta["uid"], old_meta["uid"]
        );
        return Err(Refusal::conflict(resource, name, &why));
    }
    if !new_meta["resourceVersion"].is_null()
        && new_meta["resourceVersion"] != old_meta["resourceVersion"]
    {
        return Err(Refusal::modified(resource, name));
    }
    if target.status {
        let status = new["status"].take();
        let managed = new["metadata"]["managedFields"].take();
        new = old.clone();
        put_or_remove(&mut new, "status", status);
        put_or_remove(&mut new["metadata"], "managedFields", managed);
    } else if resource.traits().status {
        put_or_remove(&mut new, "status", old["status"].clone());
    }
    for kept in [
        "creationTimestamp",
        "deletionTimestamp",
        "generation",
        "resourceVersion",
        "uid",
        "generateName",
    ] {
        put_or_remove(&mut new["metadata"], kept, old_meta[kept].clone());
    }
    validate::default_fields(resource, &mut new);
    validate::check(resource, old, &new)?;
    if resource.traits().generation && wishes(old) != wishes(&new) {
        let generation = old_meta["generation"].as_i64().unwrap_or_default() + 1;
        new["metadata"]["generation"] = json!(generation);
    }
    if track {
        fields::track(old, &mut new, writer(options, target.status));
    }
    if new == *old || options.dry_run {
        return Ok(Written {
            object: new,
            created: false,
        });
    }
    let finalizers = new["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|list| !list.is_empty());
    if !new["metadata"]["deletionTimestamp"].is_null() && !finalizers {
        store.remove(resource, &live.key);
        return Ok(Written {
            object: new,
            created: false,
        });
    }
    let object = store.put(resource, new);
    Ok(Written {
        object,
        created: false,
    })
}

/// What `metadata.generation` counts the changes of.
fn wishes(object: &Value) -> Vec<(&String, &Value)> {
    let fields = object.as_object().into_iter().flatten();
    fields
        .filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status"))
        .collect()
}

fn put_or_remove(object: &mut Value, name: &str, value: Value) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    if value.is_null() {
        fields.remove(name);
    } else {
        fields.insert(name.to_owned(), value);
    }
}

fn writer(options: &Options, status: bool) -> Writer<'_> {
    Writer {
        manager: &options.manager,
        status,
        now: &options.now,
    }
}
