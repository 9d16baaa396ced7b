//! Requests to the fleet's API server: each is bounded in time, counted, and fails in a way that says what to do.

mod event;
mod failure;
mod lease;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::json;
use tracing::warn;

use super::{
    counters::{Counters, Outcome, Written},
    ledger::{Live, MANAGER, Manager, Write},
    notice::api_version,
    wanted::{Kind, Target},
};
use crate::problem::shown;

pub(super) use failure::Failure;

/// Objects in one page of a list.
const PAGE: u32 = 250;
/// Pages of one list: an API server that never ends it is not believed.
const PAGES: usize = 4000;
/// Longest `reportingInstance` the API takes, in bytes.
const INSTANCE_BYTES: usize = 128;

/// The fleet's API server.
pub(super) struct Fleet {
    client: Client,
    counters: Arc<Counters>,
    instance: String,
    /// What was said of missing rights: once for each.
    missing: RefCell<BTreeSet<(&'static str, String)>>,
}

impl Fleet {
    pub(super) fn new(client: Client, counters: Arc<Counters>, identity: &str) -> Self {
        let end = identity.floor_char_boundary(INSTANCE_BYTES);
        Self {
            client,
            counters,
            instance: identity[..end].to_owned(),
            missing: RefCell::default(),
        }
    }

    /// All objects of a kind, page by page; each page may take `longest`.
    pub(super) async fn list(
        &self,
        kind: Kind,
        longest: Duration,
    ) -> Result<BTreeMap<Target, Live>, Failure> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource(kind));
        let mut found = BTreeMap::new();
        let mut page = ListParams::default().limit(PAGE);
        for _ in 0..PAGES {
            let list = bounded(Instant::now() + longest, api.list(&page)).await;
            let list = list.inspect_err(|failure| self.note("list", plural(kind), failure))?;
            let next = list.metadata.continue_.filter(|token| !token.is_empty());
            for object in list.items {
                let target = Target {
                    kind,
                    namespace: object.metadata.namespace.clone().unwrap_or_default(),
                    name: object.metadata.name.clone().unwrap_or_default(),
                };
                found.insert(target, live(&object));
            }
            match next {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(found),
            }
        }
        Err(Failure::Refused("a list without end".to_owned()))
    }

    /// Applies a status, without force. What the server then has.
    pub(super) async fn apply(&self, write: &Write, until: Instant) -> Result<Live, Failure> {
        let Target {
            kind,
            namespace,
            name,
        } = &write.target;
        let resource = resource(*kind);
        let api: Api<DynamicObject> = match kind {
            Kind::AlbConfig => Api::all_with(self.client.clone(), &resource),
            Kind::Ingress => Api::namespaced_with(self.client.clone(), namespace, &resource),
        };
        let mut body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name},
        });
        // An apply that names none of the fields we had gives them back.
        if !write.fields.is_empty() {
            body["status"] = json!({"loadBalancer": write.fields});
        }
        let patch = Patch::Apply(&body);
        let params = PatchParams::apply(MANAGER);
        let applied = bounded(until, api.patch_status(name, &params, &patch)).await;
        let what = match kind {
            Kind::AlbConfig => Written::AlbConfig,
            Kind::Ingress => Written::Ingress,
        };
        self.count(what, &applied);
        let path = format!("{}/status", plural(*kind));
        applied
            .inspect_err(|failure| self.note("patch", &path, failure))
            .map(|object| live(&object))
    }

    fn count<T>(&self, what: Written, result: &Result<T, Failure>) {
        let outcome = result
            .as_ref()
            .map_or_else(Failure::outcome, |_| Outcome::Done);
        self.counters.count(what, outcome);
    }

    /// Says once which right is missing.
    fn note(&self, verb: &'static str, what: &str, failure: &Failure) {
        if let Failure::Forbidden(why) = failure
            && self.missing.borrow_mut().insert((verb, what.to_owned()))
        {
            warn!(
                verb,
                resource = what,
                error = %shown(why),
                "the fleet's API server forbids this; give the role of the gateway this verb on this resource"
            );
        }
    }
}

async fn bounded<T>(
    until: Instant,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Failure> {
    match tokio::time::timeout_at(until.into(), request).await {
        Ok(answer) => answer.map_err(Failure::of),
        Err(_) => Err(Failure::TimedOut),
    }
}

const fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::AlbConfig => "albconfigs",
        Kind::Ingress => "ingresses",
    }
}

fn resource(kind: Kind) -> ApiResource {
    resource_of(kind.name(), plural(kind))
}

fn resource_of(kind: &str, plural: &str) -> ApiResource {
    let api_version = api_version(kind).unwrap_or("v1");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

fn live(object: &DynamicObject) -> Live {
    let managers: Vec<Manager<'_>> = object
        .metadata
        .managed_fields
        .iter()
        .flatten()
        .filter_map(|entry| {
            Some(Manager {
                name: entry.manager.as_deref().unwrap_or_default(),
                applied: entry.operation.as_deref() == Some("Apply"),
                fields: &entry.fields_v1.as_ref()?.0,
            })
        })
        .collect();
    let uid = object.metadata.uid.clone().unwrap_or_default();
    Live::read(uid, object.data.get("status"), &managers)
}
