//! The handle's way to the objects, without HTTP.

use serde_json::{Value, json};

use super::{
    ApiServer, Refusal, Resource, http,
    resource::Target,
    store::{Key, Scope},
    write::{self, PatchKind},
};

/// Objects, without HTTP.
impl ApiServer {
    /// Creates or replaces an object, as `kubectl replace` would; a `status` in it is stored too, and one that it
    /// leaves out is kept. Returns the object's revision; the same object again changes nothing.
    pub fn put(&self, object: Value) -> Result<u64, Refusal> {
        let (mut target, key) = self.target_of(&object)?;
        let options = direct_options();
        let mut store = self.shared.store();
        let status = object.get("status").cloned();
        let mut body = object;
        if let Some(live) = store.find(target.resource, &key) {
            // The version is never in the way of a test.
            body["metadata"]["resourceVersion"] = json!(live.revision.to_string());
            body["metadata"]["uid"] = Value::Null;
            write::update(&mut store, &target, body, &options)?;
        } else {
            body["metadata"]["resourceVersion"] = Value::Null;
            target.name = None;
            write::create(&mut store, &target, body, &options)?;
            target.name = Some(key.name.clone());
        }
        if let Some(status) = status.filter(|_| target.resource.traits().status) {
            target.status = true;
            let patch = json!({"status": status});
            write::patch(&mut store, &target, PatchKind::Merge, patch, &options)?;
        }
        // Gone already if it waited for its finalizers and this write took them away.
        Ok(store
            .find(target.resource, &key)
            .map_or_else(|| store.revision(), |object| object.revision))
    }

    /// Merges a JSON merge patch into an object and its status. Returns the object's revision.
    pub fn patch(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        name: &str,
        patch: Value,
    ) -> Result<u64, Refusal> {
        let mut target = target(resource, namespace, name);
        let mut store = self.shared.store();
        let options = direct_options();
        write::patch(
            &mut store,
            &target,
            PatchKind::Merge,
            patch.clone(),
            &options,
        )?;
        if resource.traits().status && patch.get("status").is_some() {
            target.status = true;
            write::patch(&mut store, &target, PatchKind::Merge, patch, &options)?;
        }
        let object = store.find(resource, &Key::new(namespace, name));
        Ok(object.map_or_else(|| store.revision(), |object| object.revision))
    }

    /// Removes an object, also one with finalizers. False if there is none.
    pub fn delete(&self, resource: Resource, namespace: Option<&str>, name: &str) -> bool {
        self.shared
            .store()
            .remove(resource, &Key::new(namespace, name))
    }

    /// An object as it is now.
    pub fn get(&self, resource: Resource, namespace: Option<&str>, name: &str) -> Option<Value> {
        let store = self.shared.store();
        store
            .find(resource, &Key::new(namespace, name))
            .map(|object| object.value())
    }

    /// All objects of a resource, or those of one namespace, in order of their names.
    pub fn list(&self, resource: Resource, namespace: Option<&str>) -> Vec<Value> {
        let store = self.shared.store();
        let scope = Scope {
            namespace,
            ..Scope::default()
        };
        let page = store.page(resource, &scope, store.revision(), |_| true);
        let items = page.map(|page| page.items).unwrap_or_default();
        items.into_iter().map(|object| object.value()).collect()
    }

    /// The revision of the last change of anything.
    pub fn revision(&self) -> u64 {
        self.shared.store().revision()
    }

    /// Forgets the history: who goes on from any version up to now gets 410. Running watches are not disturbed.
    pub fn compact(&self) {
        self.shared.store().compact();
    }

    fn target_of(&self, object: &Value) -> Result<(Target, Key), Refusal> {
        let resource = Resource::of(object).ok_or_else(|| {
            Refusal::bad_request(format!(
                "no such kind here: {} {}",
                object["apiVersion"], object["kind"]
            ))
        })?;
        let key = Key::of(object);
        let namespaced = resource.traits().namespaced;
        if key.name.is_empty() || namespaced == key.namespace.is_empty() {
            return Err(Refusal::bad_request(
                "an object needs a name, and a namespace if its kind has one",
            ));
        }
        let namespace = namespaced.then_some(key.namespace.as_str());
        Ok((target(resource, namespace, &key.name), key))
    }
}

fn target(resource: Resource, namespace: Option<&str>, name: &str) -> Target {
    Target {
        resource,
        namespace: namespace.map(str::to_owned),
        name: Some(name.to_owned()),
        status: false,
    }
}

fn direct_options() -> write::Options {
    write::Options {
        manager: "test".to_owned(),
        dry_run: false,
        force: false,
        now: http::now(),
    }
}
