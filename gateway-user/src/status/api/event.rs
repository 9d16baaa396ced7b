//! Writes Events.

use std::time::Instant;

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{DynamicObject, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{Failure, Fleet, Written, bounded, resource_of};
use crate::{
    problem::ObjectRef,
    status::notice::{Notice, api_version},
};

/// `reportingController` of our Events.
const CONTROLLER: &str = "fleetgate.io/gateway";

impl Fleet {
    /// The uid of an object that Events are written about; `None` where nobody may know.
    pub(in crate::status) async fn uid(
        &self,
        object: &ObjectRef,
        until: Instant,
    ) -> Result<Option<String>, Failure> {
        let (plural, namespaced) = match object.kind.as_str() {
            "AlbConfig" => ("albconfigs", false),
            "IngressClass" => ("ingressclasses", false),
            "Ingress" => ("ingresses", true),
            // Only its metadata would be read, but the right to do so is the right to read all of it.
            _ => return Ok(None),
        };
        let resource = resource_of(&object.kind, plural);
        let api: Api<DynamicObject> = if namespaced {
            Api::namespaced_with(self.client.clone(), &object.namespace, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        };
        match bounded(until, api.get_metadata(&object.name)).await {
            Ok(found) => Ok(found.metadata.uid),
            Err(failure @ Failure::Forbidden(_)) => {
                self.note("get", plural, &failure);
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Writes an Event; the `times`th of the same content makes a series of the first.
    pub(in crate::status) async fn tell(
        &self,
        notice: &Notice,
        times: i32,
        uid: Option<&str>,
        until: Instant,
    ) -> Result<(), Failure> {
        // Events about objects without a namespace belong into this one. Source: pkg/apis/core/validation/events.go.
        let namespace = match notice.object.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let name = notice.event_name();
        if times > 1 {
            let series = json!({"series": {"count": times, "lastObservedTime": micros()}});
            let patch = Patch::Merge(&series);
            let params = PatchParams::default();
            let patched = bounded(until, api.patch(&name, &params, &patch)).await;
            self.count(Written::Event, &patched);
            match patched {
                // The first one has expired.
                Err(Failure::Gone) => {}
                Err(failure) => {
                    self.note("patch", "events.events.k8s.io", &failure);
                    return Err(failure);
                }
                Ok(_) => return Ok(()),
            }
        }
        let event = self.event(notice, name, namespace, uid);
        let created = bounded(until, api.create(&PostParams::default(), &event)).await;
        self.count(Written::Event, &created);
        match created {
            // The leader before us told it.
            Ok(_) | Err(Failure::Exists) => Ok(()),
            Err(failure) => {
                self.note("create", "events.events.k8s.io", &failure);
                Err(failure)
            }
        }
    }

    fn event(&self, notice: &Notice, name: String, namespace: &str, uid: Option<&str>) -> Event {
        let object = &notice.object;
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let kind = if notice.reason.is_warning() {
            "Warning"
        } else {
            "Normal"
        };
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(micros()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            action: Some("Reconcile".to_owned()),
            reason: Some(notice.reason.name().to_owned()),
            type_: Some(kind.to_owned()),
            note: Some(notice.note.clone()),
            regarding: Some(ObjectReference {
                api_version: api_version(&object.kind).map(str::to_owned),
                kind: some(&object.kind),
                namespace: some(&object.namespace),
                name: some(&object.name),
                uid: uid.map(str::to_owned),
                ..ObjectReference::default()
            }),
            ..Event::default()
        }
    }
}

fn micros() -> MicroTime {
    MicroTime(Timestamp::now())
}
