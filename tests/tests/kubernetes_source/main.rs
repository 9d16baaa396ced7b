//! The Kubernetes source against API servers that really list and watch, and really fail.

mod access;
mod disturbed;
mod members;
mod outages;
mod start;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fleetgate_tests::apiserver::{ApiServer, Login, Options as Server, Resource, Verb};
use gateway_user::{
    manifest::{Changes, ClusterId, NamespacedName, Reach, Snapshot},
    source::{
        Reader, feed,
        kubernetes::{Access, Handle, Options, ServerHealth, Timing, follow},
    },
};
use serde_json::{Value, json};

/// What must happen, happens within this time: the bar for recovery.
const SOON: Duration = Duration::from_secs(5);
/// How long nothing must happen.
const QUIET: Duration = Duration::from_millis(400);

const FLEET: [Resource; 4] = [
    Resource::AlbConfigs,
    Resource::IngressClasses,
    Resource::Ingresses,
    Resource::Secrets,
];
const MEMBER: [Resource; 2] = [Resource::Services, Resource::EndpointSlices];

/// Servers to follow, and what was heard of them.
struct World {
    fleet: ApiServer,
    members: BTreeMap<&'static str, ApiServer>,
    folder: tempfile::TempDir,
    timing: Timing,
    cluster_secrets: Option<String>,
    running: Option<(Handle, Reader)>,
    snapshot: Snapshot,
    /// How often something was published.
    published: u32,
}

impl World {
    /// A fleet with one Ingress, and members with one Service each.
    fn new(members: &[&'static str]) -> Self {
        Self::with(members, &Server::default())
    }

    fn with(members: &[&'static str], options: &Server) -> Self {
        let server = |index: u64| {
            let first_revision = 1_000 * (index + 1);
            let options = Server {
                first_revision,
                ..options.clone()
            };
            ApiServer::start(options).expect("a server")
        };
        let fleet = server(0);
        for object in [
            gateway("gw"),
            class("fleetgate"),
            ingress("first"),
            certificate("cert"),
        ] {
            fleet.put(object).expect("stored");
        }
        let member = |(index, id): (usize, &&'static str)| {
            let server = server(1 + u64::try_from(index).expect("few"));
            server.put(service("web", 80)).expect("stored");
            server
                .put(slice("web-1", "web", &["10.0.0.1"]))
                .expect("stored");
            (*id, server)
        };
        Self {
            fleet,
            members: members.iter().enumerate().map(member).collect(),
            folder: tempfile::tempdir().expect("a folder"),
            timing: Timing {
                initial_wait: Duration::from_millis(500),
                ..Timing::default()
            },
            cluster_secrets: None,
            running: None,
            snapshot: Snapshot::default(),
            published: 0,
        }
    }

    fn member(&self, id: &str) -> &ApiServer {
        &self.members[id]
    }

    fn file(&self, id: &str) -> PathBuf {
        self.folder.path().join(id)
    }

    fn access(&self, id: &str) -> Access {
        Access::File {
            path: self.file(id),
            context: None,
        }
    }

    /// Follows the fleet and all members, as nobody.
    fn follow(&mut self) {
        write(&self.file("fleet"), &self.fleet, Login::Nobody);
        for (id, server) in &self.members {
            write(&self.file(id), server, Login::Nobody);
        }
        self.follow_as_written();
    }

    /// Follows by the kubeconfigs that are there.
    fn follow_as_written(&mut self) {
        let flags = self
            .members
            .keys()
            .filter(|_| self.cluster_secrets.is_none());
        let clusters = flags
            .map(|id| (ClusterId((*id).into()), self.access(id)))
            .collect();
        let (writer, reader) = feed();
        let options = Options {
            fleet: self.access("fleet"),
            clusters,
            cluster_secrets: self.cluster_secrets.clone(),
            timing: self.timing.clone(),
        };
        self.running = Some((follow(options, writer).expect("a thread"), reader));
    }

    /// Takes what was published.
    fn take(&mut self) {
        let (_, reader) = self.running.as_mut().expect("it runs");
        while let Some(edits) = reader.take_now() {
            self.published += 1;
            for edit in edits {
                self.snapshot.apply(edit, &mut Changes::default());
            }
        }
    }

    /// Waits until the snapshot is as it should be. How long that took.
    #[track_caller]
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Snapshot) -> bool) -> Duration {
        let start = Instant::now();
        loop {
            self.take();
            if holds(&self.snapshot) {
                return start.elapsed();
            }
            assert!(
                start.elapsed() < SOON,
                "not in time: {what}\n{:#?}\n{:#?}",
                self.snapshot.problems,
                self.health()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the server of the members and the fleet are followed, whole.
    #[track_caller]
    fn until_followed(&mut self) {
        let members = self.members.len();
        self.until("everything is followed", |snapshot| {
            let connected = snapshot
                .clusters
                .values()
                .filter(|it| it.reach == Reach::Connected);
            snapshot.whole && connected.count() == members
        });
        // The lists are complete; the watches open right after.
        let start = Instant::now();
        while !self.watched() {
            assert!(start.elapsed() < SOON, "not watched: {:?}", self.health());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn watched(&self) -> bool {
        let fleet = FLEET
            .iter()
            .all(|it| self.fleet.count(Verb::Watch, *it) > 0);
        let members = self.members.values();
        let mut watches = members.flat_map(|server| MEMBER.map(|it| server.count(Verb::Watch, it)));
        fleet && watches.all(|count| count > 0)
    }

    /// Lets time pass in which nothing changes by itself.
    fn pass(&mut self, time: Duration) {
        std::thread::sleep(time);
        self.take();
    }

    fn health(&self) -> Vec<ServerHealth> {
        self.running
            .as_ref()
            .map(|(handle, _)| handle.health())
            .unwrap_or_default()
    }

    /// Starts counting requests anew.
    fn clear(&self) {
        self.fleet.clear_journal();
        self.members.values().for_each(ApiServer::clear_journal);
    }
}

fn write(path: &Path, server: &ApiServer, login: Login<'_>) {
    std::fs::write(path, server.kubeconfig(login).expect("a kubeconfig")).expect("written");
}

fn lists(server: &ApiServer, resources: &[Resource]) -> Vec<u64> {
    resources
        .iter()
        .map(|it| server.count(Verb::List, *it))
        .collect()
}

fn reach(snapshot: &Snapshot, id: &str) -> Option<Reach> {
    Some(snapshot.clusters.get(&ClusterId(id.into()))?.reach)
}

/// First port of a Service as the snapshot has it.
fn port(snapshot: &Snapshot, id: &str, name: &str) -> Option<i64> {
    let has = snapshot.clusters.get(&ClusterId(id.into()))?;
    let service = has.services.get(&shop(name))?;
    Some(service.spec.ports.first()?.port)
}

/// Messages about a cluster or the fleet.
fn troubles(snapshot: &Snapshot, name: &str) -> Vec<String> {
    let problems = snapshot.problems.iter();
    let about = problems.filter(|(about, _)| about.kind == "Cluster" && about.name == name);
    about
        .flat_map(|(_, problems)| problems)
        .map(ToString::to_string)
        .collect()
}

fn shop(name: &str) -> NamespacedName {
    NamespacedName {
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn gateway(name: &str) -> Value {
    json!({"apiVersion": "alibabacloud.com/v1", "kind": "AlbConfig", "metadata": {"name": name},
        "spec": {"config": {"name": name}, "listeners": [{"port": 80, "protocol": "HTTP"}]}})
}

fn class(name: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name},
        "spec": {"controller": "ingress.k8s.alibabacloud/alb",
            "parameters": {"apiGroup": "alibabacloud.com", "kind": "AlbConfig", "name": "gw"}}})
}

fn ingress(name: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"namespace": "shop", "name": name}, "spec": {"ingressClassName": "fleetgate"}})
}

fn certificate(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"namespace": "shop", "name": name}, "stringData": {"tls.crt": "x", "tls.key": "y"}})
}

fn service(name: &str, port: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name},
        "spec": {"ports": [{"name": "http", "port": port}]}})
}

fn slice(name: &str, service: &str, addresses: &[&str]) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": addresses.iter().map(|it| json!({"addresses": [it], "conditions": {"ready": true}})).collect::<Vec<_>>()})
}
