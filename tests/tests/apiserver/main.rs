//! The API server of the tests is itself tested, by the client that the program uses.

mod access;
mod apply;
mod faults;
mod reads;
mod scale;
mod watches;
mod writes;

use std::{future::Future, pin::Pin, time::Duration};

use fleetgate_tests::apiserver::{ApiServer, Login, Options, Resource};
use futures_util::{Stream, StreamExt as _};
use kube::{
    Api, Client, Config, Error,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    config::{KubeConfigOptions, Kubeconfig},
    core::Status,
    runtime::watcher::{self, Event},
};
use serde_json::{Value, json};

/// Longest time of one test.
const TEST_MAX: Duration = Duration::from_secs(30);
/// Longest time until something that must come has come.
const SOON: Duration = Duration::from_secs(5);
/// How long nothing must come.
const QUIET: Duration = Duration::from_millis(300);

/// Runs one test, bounded in time.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let ended = runtime.block_on(async { tokio::time::timeout(TEST_MAX, test).await });
    ended.expect("the test ends in time");
}

/// A server may be driven from any thread.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<ApiServer>();
};

fn server() -> ApiServer {
    ApiServer::start(Options::default()).expect("a server")
}

async fn client_with(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.expect("a configuration");
    // Left on, the client hides 429, 503 and 504 behind up to 15 tries of its own.
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}

async fn client(server: &ApiServer) -> Client {
    client_with(&server.kubeconfig(Login::Nobody).expect("a kubeconfig")).await
}

fn api_resource(resource: Resource) -> ApiResource {
    let api_version = resource.api_version();
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let gvk = GroupVersionKind::gvk(group, version, resource.kind());
    ApiResource::from_gvk_with_plural(&gvk, resource.plural())
}

fn all(client: &Client, resource: Resource) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &api_resource(resource))
}

fn inside(client: &Client, resource: Resource, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &api_resource(resource))
}

/// A Service with one port, and a label to select it by.
fn service(name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
        "spec": {"ports": [{"name": "http", "port": port}]},
    })
}

fn ingress(name: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"ingressClassName": "fleetgate"},
    })
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).expect("an object")
}

fn names(objects: &[DynamicObject]) -> Vec<String> {
    objects
        .iter()
        .filter_map(|object| object.metadata.name.clone())
        .collect()
}

/// The Status behind an error of the server.
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Status {
    match outcome {
        Err(Error::Api(status)) => *status,
        other => panic!("the server should have refused, but: {other:?}"),
    }
}

type Events = Pin<Box<dyn Stream<Item = watcher::Result<Event<DynamicObject>>> + Send>>;

fn watching(api: Api<DynamicObject>, config: watcher::Config) -> Events {
    kube::runtime::watcher(api, config).boxed()
}

/// The next event, in words: `init`, `init web`, `done`, `apply web 80`, `delete web`, `error`.
async fn next(events: &mut Events) -> String {
    let event = tokio::time::timeout(SOON, events.next())
        .await
        .expect("an event comes soon");
    match event.expect("a watcher never ends") {
        Ok(Event::Init) => "init".to_owned(),
        Ok(Event::InitDone) => "done".to_owned(),
        Ok(Event::InitApply(object)) => format!("init {}", told(&object)),
        Ok(Event::Apply(object)) => format!("apply {}", told(&object)),
        Ok(Event::Delete(object)) => format!("delete {}", told(&object)),
        Err(cause) => format!("error {cause}"),
    }
}

/// Name and first port.
fn told(object: &DynamicObject) -> String {
    let name = object.metadata.name.clone().unwrap_or_default();
    match object.data.pointer("/spec/ports/0/port") {
        Some(port) => format!("{name} {port}"),
        None => name,
    }
}

/// The next events, in words.
async fn take(events: &mut Events, count: usize) -> Vec<String> {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(next(events).await);
    }
    taken
}

async fn quiet(events: &mut Events) {
    let event = tokio::time::timeout(QUIET, events.next()).await;
    assert!(event.is_err(), "nothing should have come, but: {event:?}");
}

/// A request by hand, for what the client cannot be made to send.
fn http_request(
    method: &str,
    path: &str,
    content_type: &str,
    body: &str,
) -> hyper::Request<Vec<u8>> {
    let mut request = hyper::Request::builder().method(method).uri(path);
    if !content_type.is_empty() {
        request = request.header("content-type", content_type);
    }
    request.body(body.as_bytes().to_vec()).expect("a request")
}
