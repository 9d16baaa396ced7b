//! One API server: whether it lives, what follows it, and what is said of it.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::Rc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};
use tracing::{info, warn};

use super::{
    FLEET, Timing,
    access::Access,
    backoff::jittered,
    connection::{Connection, Failure},
    gate::Gate,
    health::Board,
    resource::Resource,
    standing::Standing,
};
use crate::{
    manifest::{ClusterId, Edit, Reach},
    problem::{ObjectRef, Problem},
};

/// Shortest time between two probes.
const PROBE_GAP: Duration = Duration::from_millis(250);

/// One API server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) cluster: Option<ClusterId>,
    pub(super) connection: Connection,
    pub(super) timing: Timing,
    name: String,
    gate: Rc<Gate>,
    board: Board,
    standing: RefCell<Standing>,
    said: RefCell<Said>,
    /// Objects of this server with problems.
    broken: RefCell<BTreeSet<ObjectRef>>,
    heard: Cell<Instant>,
    signal: watch::Sender<Signal>,
    suspect: Notify,
}

/// What was published last.
#[derive(Debug, Default)]
struct Said {
    reach: Option<Reach>,
    problems: Vec<Problem>,
}

/// What those who follow a list have to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signal {
    /// The server is not silent.
    answers: bool,
    /// Another number: requests that run are to be given up.
    epoch: u64,
    /// Another number: the server came back, it is worth trying now.
    wakes: u64,
}

impl Server {
    pub(super) fn new(
        cluster: Option<ClusterId>,
        access: Access,
        optional: &[Resource],
        timing: &Timing,
        gate: &Rc<Gate>,
        board: &Board,
    ) -> Rc<Self> {
        let name = cluster
            .as_ref()
            .map_or(FLEET.to_owned(), ToString::to_string);
        board.add(&name, cluster.as_ref());
        let required: &[Resource] = match cluster {
            Some(_) => &Resource::MEMBER,
            None => &Resource::FLEET,
        };
        let signal = Signal {
            answers: true,
            epoch: 0,
            wakes: 0,
        };
        let server = Self {
            connection: Connection::new(access, timing.clone()),
            timing: timing.clone(),
            gate: gate.clone(),
            board: board.clone(),
            standing: RefCell::new(Standing::new(required, optional, Instant::now())),
            said: RefCell::default(),
            broken: RefCell::default(),
            heard: Cell::new(Instant::now()),
            signal: watch::channel(signal).0,
            suspect: Notify::new(),
            cluster,
            name,
        };
        server.say(Vec::new());
        Rc::new(server)
    }

    /// Goes by other credentials from now on, and connects anew with them.
    pub(super) fn replace(&self, access: Access) {
        self.connection.replace(access);
        self.signal.send_modify(|signal| {
            signal.epoch += 1;
            signal.wakes += 1;
        });
        self.suspect.notify_one();
    }

    /// Takes back all that was said of this server and its objects. Nothing may follow it any more.
    pub(super) fn release(&self) -> Vec<Edit> {
        let broken = std::mem::take(&mut *self.broken.borrow_mut());
        let about = broken.into_iter().chain([self.object()]);
        let mut edits: Vec<Edit> = about
            .map(|about| Edit::Problems(about, Vec::new()))
            .collect();
        edits.extend(self.cluster.clone().map(Edit::RemoveCluster));
        self.board.remove(&self.name);
        info!(cluster = self.name, "cluster is no longer associated");
        edits
    }

    /// Waits while the server is silent.
    pub(super) async fn answering(&self) -> Signal {
        let mut signal = self.signal.subscribe();
        let answering = signal.wait_for(|signal| signal.answers).await.map(|it| *it);
        // The sender is a field of `self`.
        answering.unwrap_or(*self.signal.borrow())
    }

    /// Returns when requests that were begun at `signal` are to be given up.
    pub(super) async fn torn(&self, signal: Signal) {
        let mut now = self.signal.subscribe();
        let _ = now.wait_for(|now| now.epoch != signal.epoch).await;
    }

    /// Returns when the server came back since `signal`.
    pub(super) async fn woken(&self, signal: Signal) {
        let mut now = self.signal.subscribe();
        let _ = now.wait_for(|now| now.wakes != signal.wakes).await;
    }

    /// A sign of life.
    pub(super) fn heard(&self) {
        self.heard.set(Instant::now());
    }

    /// A list was read whole.
    pub(super) fn listed(&self, resource: Resource, edits: Vec<Edit>) {
        self.heard();
        self.board.change(&self.name, |health| health.lists += 1);
        self.standing.borrow_mut().listed(resource, Instant::now());
        self.say(edits);
        if self.cluster.is_none() {
            self.gate.fleet(resource, Instant::now());
        }
    }

    /// A watch was opened.
    pub(super) fn opened(&self, resource: Resource) {
        self.heard();
        self.board.change(&self.name, |health| health.watches += 1);
        self.standing.borrow_mut().opened(resource);
        self.say(Vec::new());
    }

    /// A watch told of so many objects.
    pub(super) fn told(&self, events: u64, edits: Vec<Edit>) {
        self.heard();
        if events > 0 {
            self.board
                .change(&self.name, |health| health.events += events);
        }
        self.gate.send(edits);
    }

    /// A list or a watch ended.
    pub(super) fn closed(&self, resource: Resource, failure: Option<&Failure>) {
        self.connection.doubt(failure);
        self.standing
            .borrow_mut()
            .closed(resource, failure, Instant::now());
        self.say(Vec::new());
        match failure {
            Some(Failure::Unreachable(_)) => self.suspect.notify_one(),
            // RBAC may withhold certificates for good: what can be served without them is.
            Some(Failure::Refused { code: 403, .. }) if resource == Resource::Certificates => {
                self.gate.fleet(resource, Instant::now());
            }
            _ => {}
        }
    }

    /// An object cannot be decoded, or can again.
    pub(super) fn broken(&self, object: ObjectRef, problem: Option<Problem>) -> Option<Edit> {
        let mut broken = self.broken.borrow_mut();
        match problem {
            Some(problem) => {
                if broken.insert(object.clone()) {
                    warn!(%problem, "object cannot be used");
                }
                Some(Edit::Problems(object, vec![problem]))
            }
            None => broken
                .remove(&object)
                .then(|| Edit::Problems(object, Vec::new())),
        }
    }

    /// Asks the server whether it lives whenever nothing was heard of it for a while.
    pub(super) async fn probe(&self) {
        loop {
            self.quiet().await;
            let failure = match self.connection.live().await {
                Ok(live) => {
                    self.board.change(&self.name, |health| health.probes += 1);
                    live.probe(self.timing.probe_timeout).await.err()
                }
                Err(failure) => Some(failure),
            };
            let pause = match &failure {
                None => {
                    self.heard();
                    if self.standing.borrow_mut().answered() {
                        self.signal.send_modify(|signal| {
                            signal.answers = true;
                            signal.wakes += 1;
                        });
                    }
                    PROBE_GAP
                }
                Some(failure) => {
                    self.connection.doubt(Some(failure));
                    let mut standing = self.standing.borrow_mut();
                    if standing.missed(failure, self.heard.get().elapsed(), self.timing.lost_after)
                    {
                        self.signal.send_modify(|signal| {
                            signal.answers = false;
                            signal.epoch += 1;
                        });
                    }
                    if standing.silent() {
                        self.timing.probe_lost
                    } else {
                        PROBE_GAP
                    }
                }
            };
            self.say(Vec::new());
            sleep(jittered(pause)).await;
        }
    }

    /// Waits until a probe is due.
    async fn quiet(&self) {
        if self.standing.borrow().missing() {
            return;
        }
        loop {
            let due = self.heard.get() + self.timing.probe_every;
            if due <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.suspect.notified() => return,
            }
        }
    }

    fn object(&self) -> ObjectRef {
        ObjectRef {
            kind: "Cluster".to_owned(),
            name: self.name.clone(),
            ..ObjectRef::default()
        }
    }

    /// Hands edits on, with what they and everything else make of the server.
    fn say(&self, mut edits: Vec<Edit>) {
        let now = Instant::now();
        let mut standing = self.standing.borrow_mut();
        let reach = standing.reach(now, self.timing.stale_after);
        let problems = standing.problems(&self.object(), self.connection.url().as_deref());
        let trouble = standing.trouble();
        drop(standing);
        let mut said = self.said.borrow_mut();
        let changed = said.reach != Some(reach);
        if changed {
            edits.extend(self.cluster.clone().map(|id| Edit::Cluster(id, reach)));
            match (said.reach, reach) {
                (_, Reach::Connected) => info!(cluster = self.name, "API server is followed"),
                (Some(_), reach) => warn!(
                    cluster = self.name,
                    ?reach,
                    error = trouble,
                    "API server is not followed"
                ),
                (None, _) => {}
            }
            said.reach = Some(reach);
        }
        if said.problems != problems {
            for problem in problems.iter().filter(|it| !said.problems.contains(it)) {
                warn!(cluster = self.name, %problem, "API server");
            }
            edits.push(Edit::Problems(self.object(), problems.clone()));
            said.problems = problems;
        }
        drop(said);
        self.board.change(&self.name, |health| {
            if health.reach != reach {
                health.reach = reach;
                health.since = SystemTime::now();
            }
            if trouble.is_some() && health.last_error != trouble {
                health.last_error = trouble;
            }
        });
        self.gate.send(edits);
        if let Some(id) = self
            .cluster
            .as_ref()
            .filter(|_| changed && reach != Reach::Unknown)
        {
            self.gate.settled(id, now);
        }
    }
}
