//! Writes: create, update, patch, apply and delete, as the registry of the real server does them.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    fields::{self, Clash, Writer},
    patch,
    refusal::Refusal,
    resource::{Resource, Target},
    store::{Key, Store, Stored},
    validate,
};

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
    pub(super) object: Arc<Value>,
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
        object["metadata"]["name"] = json!(format!("{prefix}{}", suffix(store.revision())));
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
    metadata.insert("uid".to_owned(), json!(uid(store.revision())));
    metadata.insert("creationTimestamp".to_owned(), json!(options.now));
    if traits.generation {
        metadata.insert("generation".to_owned(), json!(1));
    }
    if track {
        fields::track(&Value::Null, &mut object, writer(options, false));
    }
    let object = match options.dry_run {
        true => Arc::new(object),
        false => Arc::clone(&store.put(resource, object).value),
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
    let mut new = Value::clone(&live.value);
    // A patch is put on the newest state: only a version in the patch itself can be in conflict.
    match kind {
        PatchKind::Json => patch::json(&mut new, &body)?,
        _ => patch::merge(&mut new, &body),
    }
    let new = accept(target, new)?;
    replace(store, target, &live, new, options, true)
}

fn apply(
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
    let null = Value::Null;
    let before = live.map_or(&null, |live| &*live.value);
    if live.is_none() && target.status {
        return Err(Refusal::not_found(resource, name));
    }
    let asked = config["metadata"]["resourceVersion"].take();
    if live.is_none() && !asked.is_null() {
        return Err(Refusal::not_found(resource, name));
    }
    let applied = fields::apply(
        before,
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

/// Stores the new state of an object that exists, unless nothing changed.
fn replace(
    store: &mut Store,
    target: &Target,
    live: &Stored,
    mut new: Value,
    options: &Options,
    track: bool,
) -> Result<Written, Refusal> {
    let (resource, old) = (target.resource, &*live.value);
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
            object: Arc::new(new),
            created: false,
        });
    }
    let finalizers = new["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|list| !list.is_empty());
    if !new["metadata"]["deletionTimestamp"].is_null() && !finalizers {
        store.remove(resource, &live.key);
        return Ok(Written {
            object: Arc::new(new),
            created: false,
        });
    }
    let object = Arc::clone(&store.put(resource, new).value);
    Ok(Written {
        object,
        created: false,
    })
}

/// DELETE of one object: its last state, or its state with a deletion timestamp while finalizers hold it.
pub(super) fn delete(
    store: &mut Store,
    resource: Resource,
    key: &Key,
    body: &Value,
    options: &Options,
) -> Result<Deleted, Refusal> {
    let live = store
        .find(resource, key)
        .cloned()
        .ok_or_else(|| Refusal::not_found(resource, &key.name))?;
    for (asked, have) in [("resourceVersion", "ResourceVersion"), ("uid", "UID")] {
        let (want, is) = (
            &body["preconditions"][asked],
            &live.value["metadata"][asked],
        );
        if !want.is_null() && want != is {
            let why = format!(
                "Precondition failed: {have} in precondition: {want}, {have} in object meta: {is}"
            );
            return Err(Refusal::conflict(resource, &key.name, &why));
        }
    }
    let held = live.value["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|list| !list.is_empty());
    if options.dry_run {
        return Ok(Deleted::Gone(live));
    }
    if !held {
        store.remove(resource, key);
        return Ok(Deleted::Gone(live));
    }
    if !live.value["metadata"]["deletionTimestamp"].is_null() {
        return Ok(Deleted::Waits(live));
    }
    let mut marked = Value::clone(&live.value);
    marked["metadata"]["deletionTimestamp"] = json!(options.now);
    marked["metadata"]["deletionGracePeriodSeconds"] = json!(0);
    Ok(Deleted::Waits(store.put(resource, marked)))
}

/// What became of an object that was to be deleted.
#[derive(Debug)]
pub(super) enum Deleted {
    Gone(Arc<Stored>),
    /// Finalizers hold it.
    Waits(Arc<Stored>),
}

/// Checks that a body is about what its path names, and makes its metadata complete.
fn accept(target: &Target, mut body: Value) -> Result<Value, Refusal> {
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

/// Five characters as the real server appends to `generateName`; no two alike in a server's life.
fn suffix(revision: u64) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rest = random() ^ revision;
    let mut out = String::new();
    for _ in 0..5 {
        let at = usize::try_from(rest % 27).unwrap_or_default();
        out.push(char::from(ALPHABET[at]));
        rest /= 27;
    }
    out
}

/// A UUID, version 4.
fn uid(revision: u64) -> String {
    let (a, b) = (random(), random() ^ revision);
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    )
}

fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::time::SystemTime::now())
}
