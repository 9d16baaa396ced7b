//! The handle's way to faults, counts and the life of the server.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    ApiServer, Failure, History, Request, Resource, Verb, WatchFaults,
    faults::Signal,
    rbac::Rules,
    serve::{self, Command},
};

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

    /// From now on only what these Roles and ClusterRoles allow may be done, as if all of them were bound to everybody;
    /// other objects among them are passed over. No role at all: nothing may be done.
    pub fn allow_only(&self, roles: &[Value]) {
        self.shared.faults().rules = Some(Rules::of(roles));
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

fn chosen(resource: Option<Resource>) -> impl Iterator<Item = Resource> {
    Resource::ALL
        .into_iter()
        .filter(move |have| resource.is_none_or(|only| only == *have))
}
