//! A Kubernetes API server in this process: what everything that talks to Kubernetes is tested against.
//!
//! It answers on 127.0.0.1, with or without TLS, on a thread of its own, and stops when its handle is dropped. Lists,
//! watches, resource versions, optimistic locks, status subresources, managed fields and server-side apply follow the
//! real server, as far as a client can see them; where it knows less, it says so here:
//!
//! * Every list is atomic in an apply, also those that the real schemas merge by key (ports of a Service).
//! * Schemas are not checked, except what the file `validate` says; unknown fields are kept.
//! * Namespaces exist by being named.
//!
//! ```no_run
//! use fleetgate_tests::apiserver::{ApiServer, Login, Options, Resource, Verb};
//! # fn main() -> anyhow::Result<()> {
//! let server = ApiServer::start(Options::default())?;
//! server.put(serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"}}))?;
//! let kubeconfig = server.kubeconfig(Login::Nobody)?; // YAML for kube::config::Kubeconfig::from_yaml
//! server.freeze();
//! assert_eq!(server.count(Verb::List, Resource::Services), 0);
//! # Ok(()) }
//! ```

mod access;
mod base64;
mod discovery;
mod faults;
mod fields;
mod gate;
mod http;
mod journal;
mod patch;
mod query;
mod read;
mod refusal;
mod resource;
mod selector;
mod serve;
mod store;
mod validate;
mod watch;
mod write;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::sync;

pub use access::{Identity, Login};
pub use faults::{Failure, Older, WatchFaults};
pub use journal::{Request, Verb};
pub use refusal::Refusal;
pub use resource::Resource;

use access::{Access, Authority, User};
use faults::{Faults, Signal};
use gate::Gate;
use journal::Journal;
use resource::Target;
use serve::Command;
use store::{Key, Store};
use write::PatchKind;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Speak TLS, with a certificate authority made for this server.
    pub tls: bool,
    /// Who shows neither a known token nor a known client certificate gets 401.
    pub login: bool,
    /// How often a quiet watch is told how far it is. The real server does it about once a minute.
    pub bookmark_every: Duration,
    /// The first revision; different servers should not share it.
    pub first_revision: u64,
    /// How many changes of each resource are kept for watches to go on from.
    pub history: usize,
    /// How many requests are kept in full.
    pub requests: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: false,
            login: false,
            bookmark_every: Duration::from_secs(1),
            first_revision: 1_000,
            history: 16_384,
            requests: 1_000,
        }
    }
}

/// What becomes of the history when a server starts again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum History {
    /// Watches go on where they were.
    Kept,
    /// As from a backup: the objects are there, versions from before are too old.
    Lost,
}

/// What the handle, the connections and the watches share.
struct Shared {
    store: Mutex<Store>,
    faults: Mutex<Faults>,
    journal: Mutex<Journal>,
    access: Mutex<Access>,
    signals: sync::watch::Sender<[Signal; Resource::COUNT]>,
    gate: Arc<Gate>,
    bookmark_every: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }

    fn access(&self) -> MutexGuard<'_, Access> {
        lock(&self.access)
    }

    fn signal(&self, resource: Resource) -> Signal {
        self.signals.borrow()[resource.index()]
    }

    fn signals(&self) -> sync::watch::Receiver<[Signal; Resource::COUNT]> {
        self.signals.subscribe()
    }

    fn bookmark_every(&self) -> Duration {
        self.bookmark_every
    }
}

/// A running server. Every method may be called from any thread, also from async code.
pub struct ApiServer {
    shared: Arc<Shared>,
    authority: Option<Authority>,
    address: SocketAddr,
    commands: Option<sync::mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Starts a server on a free port of 127.0.0.1.
    pub fn start(options: Options) -> Result<Self> {
        let authority = options.tls.then(Authority::new).transpose()?;
        let tls = authority
            .as_ref()
            .map(Authority::server_config)
            .transpose()?;
        let listener =
            std::net::TcpListener::bind("127.0.0.1:0").context("no port to listen on")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new(options.first_revision, options.history)),
            faults: Mutex::default(),
            journal: Mutex::new(Journal::new(options.requests)),
            access: Mutex::new(Access::new(options.login)),
            signals: sync::watch::Sender::new(Default::default()),
            gate: Arc::default(),
            bookmark_every: options.bookmark_every,
        });
        let (commands, orders) = sync::mpsc::unbounded_channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("apiserver".to_owned())
            .spawn(move || serve::serve(&serving, listener, tls, orders))?;
        Ok(Self {
            shared,
            authority,
            address,
            commands: Some(commands),
            thread: Some(thread),
        })
    }

    /// Where it listens; the same after a restart.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`, or https.
    pub fn url(&self) -> String {
        let scheme = if self.authority.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    /// A kubeconfig for this server, as YAML. A certificate is issued by this call; a token has to be accepted by
    /// [`Self::accept_token`] to be of use.
    pub fn kubeconfig(&self, login: Login<'_>) -> Result<String> {
        let user = User::of(login, self.authority.as_ref(), &mut self.shared.access())?;
        Ok(access::kubeconfig(
            &self.url(),
            self.authority.as_ref(),
            &user,
        ))
    }

    /// From now on this token means this user.
    pub fn accept_token(&self, token: &str, user: &str) {
        self.shared.access().accept_token(token, user);
    }

    /// No token is known any longer.
    pub fn revoke_tokens(&self) {
        self.shared.access().revoke_tokens();
    }

    /// A client certificate for this user, accepted from now on. Fails without TLS.
    pub fn client_certificate(&self, user: &str) -> Result<Identity> {
        let authority = self
            .authority
            .as_ref()
            .context("client certificates need a server with TLS")?;
        self.shared.access().issue(authority, user)
    }

    /// No client certificate is known any longer.
    pub fn revoke_certificates(&self) {
        self.shared.access().revoke_certificates();
    }
}

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
            body["metadata"]["resourceVersion"] = live.value["metadata"]["resourceVersion"].clone();
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
        Ok(revision_of(
            store
                .find(target.resource, &key)
                .map(|object| &*object.value),
        ))
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
        let mut written = write::patch(
            &mut store,
            &target,
            PatchKind::Merge,
            patch.clone(),
            &direct_options(),
        )?;
        if resource.traits().status && patch.get("status").is_some() {
            target.status = true;
            written = write::patch(
                &mut store,
                &target,
                PatchKind::Merge,
                patch,
                &direct_options(),
            )?;
        }
        Ok(revision_of(Some(&written.object)))
    }

    /// Removes an object, also one with finalizers. False if there is none.
    pub fn delete(&self, resource: Resource, namespace: Option<&str>, name: &str) -> bool {
        self.shared
            .store()
            .remove(resource, &Key::new(namespace, name))
            .is_some()
    }

    /// An object as it is now.
    pub fn get(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<Arc<Value>> {
        let store = self.shared.store();
        store
            .find(resource, &Key::new(namespace, name))
            .map(|object| Arc::clone(&object.value))
    }

    /// All objects of a resource, or those of one namespace, in order of their names.
    pub fn list(&self, resource: Resource, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let store = self.shared.store();
        let scope = store::Scope {
            namespace,
            ..store::Scope::default()
        };
        let page = store.page(resource, &scope, store.revision(), |_| true);
        let items = page.map(|page| page.items).unwrap_or_default();
        items
            .into_iter()
            .map(|object| Arc::clone(&object.value))
            .collect()
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

/// Faults. All of them take effect at once.
impl ApiServer {
    /// Goes silent: connections are accepted and stay open, nothing is read or written on any of them.
    pub fn freeze(&self) {
        self.shared.gate.freeze();
    }

    /// Goes on where [`Self::freeze`] stopped.
    pub fn thaw(&self) {
        self.shared.gate.thaw();
    }

    /// Resets every connection and closes the port. Objects are kept. Ends a freeze.
    pub fn kill(&self) -> Result<()> {
        self.order(Command::Kill)?;
        self.shared.gate.thaw();
        Ok(())
    }

    /// Listens again on the same port.
    pub fn restart(&self, history: History) -> Result<()> {
        if history == History::Lost {
            self.compact();
        }
        self.order(|done| Command::Listen(self.address, done))
    }

    /// Breaks the connection of every watch of a resource (none: of all), in the middle of the answer.
    pub fn cut_watches(&self, resource: Option<Resource>) {
        self.signal(resource, |signal| signal.cut += 1);
    }

    /// Ends every watch of a resource (none: of all) in good order, as a timeout does.
    pub fn end_watches(&self, resource: Option<Resource>) {
        self.signal(resource, |signal| signal.end += 1);
    }

    /// Ends every watch of a resource (none: of all) with an ERROR event that carries 410.
    pub fn expire_watches(&self, resource: Option<Resource>) {
        self.signal(resource, |signal| signal.expire += 1);
    }

    /// Disturbs all watches of a resource (none: of all), from their next event on; the default ends it.
    pub fn disturb_watches(&self, resource: Option<Resource>, with: WatchFaults) {
        let mut faults = self.shared.faults();
        for resource in chosen(resource) {
            faults.watches[resource.index()] = with;
        }
    }

    /// The next `count` events of each chosen resource (none: of all) are sent by half, then the connection breaks.
    pub fn tear_events(&self, resource: Option<Resource>, count: u32) {
        let mut faults = self.shared.faults();
        for resource in chosen(resource) {
            faults.torn[resource.index()] = count;
        }
    }

    /// Fails the next requests that it is about. Several may be ordered; the first that fits strikes.
    pub fn fail_requests(&self, failure: Failure) {
        self.shared.faults().failures.push(failure);
    }

    /// Forgets the failures that were ordered.
    pub fn stop_failing(&self) {
        self.shared.faults().failures.clear();
    }

    /// Answers 403 to this verb on this resource, as without a rule in RBAC. Running watches go on.
    pub fn forbid(&self, verb: Verb, resource: Resource) {
        self.shared.faults().forbidden.insert((verb, resource));
    }

    /// Takes [`Self::forbid`] back.
    pub fn allow(&self, verb: Verb, resource: Resource) {
        self.shared.faults().forbidden.remove(&(verb, resource));
    }

    /// Reads that accept any version (`resourceVersion=0`) see the objects of this revision, as from a replica that
    /// lags behind; none for the present.
    pub fn lag(&self, revision: Option<u64>) {
        self.shared.faults().stale = revision;
    }

    /// Whether a watch from a version that is too old is answered with HTTP 410; as an ERROR event otherwise, which
    /// is what the real server does today.
    pub fn gone_as_status(&self, holds: bool) {
        self.shared.faults().gone_as_status = holds;
    }

    fn signal(&self, resource: Option<Resource>, change: impl Fn(&mut Signal)) {
        self.shared.signals.send_modify(|all| {
            for resource in chosen(resource) {
                change(&mut all[resource.index()]);
            }
        });
    }

    fn order(&self, command: impl FnOnce(serve::Done) -> Command) -> Result<()> {
        let (done, answer) = std::sync::mpsc::sync_channel(1);
        let commands = self.commands.as_ref().context("the server has stopped")?;
        commands
            .send(command(done))
            .ok()
            .context("the server has stopped")?;
        answer
            .recv_timeout(Duration::from_secs(10))
            .context("the server does not answer")??;
        Ok(())
    }
}

/// What was asked of it.
impl ApiServer {
    /// Requests of this verb for this resource since the start, or since [`Self::clear_journal`].
    pub fn count(&self, verb: Verb, resource: Resource) -> u64 {
        self.shared
            .journal()
            .counts()
            .get(&(verb, resource))
            .copied()
            .unwrap_or_default()
    }

    /// All counts that are not zero.
    pub fn counts(&self) -> BTreeMap<(Verb, Resource), u64> {
        self.shared.journal().counts().clone()
    }

    /// The last requests, oldest first. A watch is here as soon as its answer begins.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.journal().last()
    }

    /// Starts counting anew.
    pub fn clear_journal(&self) {
        self.shared.journal().clear();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server was reported by its thread already.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiServer({})", self.url())
    }
}

fn chosen(resource: Option<Resource>) -> impl Iterator<Item = Resource> {
    Resource::ALL
        .into_iter()
        .filter(move |have| resource.is_none_or(|only| only == *have))
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

fn revision_of(object: Option<&Value>) -> u64 {
    let text = object.and_then(|object| object["metadata"]["resourceVersion"].as_str());
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
