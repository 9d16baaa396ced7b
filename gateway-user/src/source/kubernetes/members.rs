//! Members as they run: one task each.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use serde_json::Value;
use tokio::{
    task::{JoinHandle, spawn_local},
    time::Instant,
};

use super::{
    Timing,
    access::Access,
    following::{self, Sink},
    gate::Gate,
    health::Board,
    lineage::Change,
    membership::{Membership, Read, Step},
    objects::Objects,
    resource::Resource,
    server::Server,
};
use crate::manifest::{ClusterId, Edit, Reach};

/// All members.
pub(super) struct Members {
    timing: Timing,
    gate: Rc<Gate>,
    board: Board,
    running: RefCell<BTreeMap<ClusterId, Running>>,
}

/// A member that is followed, until it is dropped.
struct Running {
    server: Rc<Server>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Members {
    pub(super) fn new(timing: &Timing, gate: &Rc<Gate>, board: &Board) -> Rc<Self> {
        Rc::new(Self {
            timing: timing.clone(),
            gate: gate.clone(),
            board: board.clone(),
            running: RefCell::default(),
        })
    }

    /// Follows a member, or goes on following it by another way.
    pub(super) fn follow(&self, id: ClusterId, access: Access) {
        let mut running = self.running.borrow_mut();
        if let Some(running) = running.get(&id) {
            running.server.replace(access);
            return;
        }
        self.gate.expect(id.clone());
        let server = Server::new(
            Some(id.clone()),
            access,
            &[],
            &self.timing,
            &self.gate,
            &self.board,
        );
        let task = spawn_local(run(server.clone(), None));
        running.insert(id, Running { server, task });
    }

    fn step(&self, step: Step) {
        match step {
            Step::Follow(id, kubeconfig) => self.follow(id, Access::Bytes(kubeconfig)),
            Step::Associate(id) => self.gate.send(vec![Edit::Cluster(id, Reach::Unknown)]),
            Step::Release(id) => {
                let running = self.running.borrow_mut().remove(&id);
                let edits = match running {
                    Some(running) => running.server.release(),
                    None => vec![Edit::RemoveCluster(id.clone())],
                };
                self.gate.send(edits);
                self.gate.settled(&id, Instant::now());
            }
            Step::Say(about, problems) => {
                for problem in &problems {
                    tracing::warn!(%problem, "Secret of a cluster");
                }
                self.gate.send(vec![Edit::Problems(about, problems)]);
            }
        }
    }
}

/// Secrets that name members.
pub(super) struct Secrets {
    pub(super) members: Rc<Members>,
    pub(super) membership: Membership,
    pub(super) namespace: Arc<str>,
}

impl Sink for Secrets {
    type Item = Read;

    fn read(&self, object: Value) -> Read {
        Read::of(&object)
    }

    fn take(&mut self, changes: Vec<Change<Read>>) -> Vec<Edit> {
        if !changes.is_empty() {
            for step in self.membership.take(changes) {
                self.members.step(step);
            }
        }
        Vec::new()
    }
}

/// Follows everything of one API server.
pub(super) async fn run(server: Rc<Server>, secrets: Option<Secrets>) {
    let follow = |resource| {
        let server = server.clone();
        async move {
            let sink = Objects {
                server: server.clone(),
                resource,
            };
            following::follow(server, resource, "", sink).await;
        }
    };
    match server.cluster {
        Some(_) => {
            let [services, slices] = Resource::MEMBER.map(follow);
            tokio::join!(server.probe(), services, slices);
        }
        None => {
            let [gateways, classes, ingresses] = Resource::FLEET.map(follow);
            let clusters = async {
                if let Some(secrets) = secrets {
                    let namespace = secrets.namespace.clone();
                    following::follow(
                        server.clone(),
                        Resource::ClusterSecrets,
                        &namespace,
                        secrets,
                    )
                    .await;
                }
            };
            let certificates = follow(Resource::Certificates);
            tokio::join!(
                server.probe(),
                gateways,
                classes,
                ingresses,
                certificates,
                clusters
            );
        }
    }
}
