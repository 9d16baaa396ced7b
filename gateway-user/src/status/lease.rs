//! Keeps the Lease: carries out what the election decides.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    api::{Failure, Fleet},
    backoff::{Backoff, chance},
    election::{Election, Move, Term},
};

/// Giving the Lease back must not keep the node from stopping.
const RELEASE: Duration = Duration::from_secs(1);

/// This node's hold on the Lease.
pub(super) struct Keeper<'a> {
    fleet: &'a Fleet,
    namespace: &'a str,
    name: &'a str,
    request: Duration,
    lease: Duration,
    election: Election,
    term: watch::Sender<Option<Term>>,
}

impl<'a> Keeper<'a> {
    /// What it finds out is seen in `term`. `request` bounds each request, `lease` how long failures are waited for.
    pub(super) fn new(
        fleet: &'a Fleet,
        (namespace, name): (&'a str, &'a str),
        (request, lease): (Duration, Duration),
        election: Election,
        term: watch::Sender<Option<Term>>,
    ) -> Self {
        Self {
            fleet,
            namespace,
            name,
            request,
            lease,
            election,
            term,
        }
    }

    /// Takes part in the election until it is dropped.
    pub(super) async fn run(&mut self) {
        let mut backoff = Backoff::new(self.lease / 30, self.lease / 5);
        let mut told = false;
        loop {
            let now = Instant::now();
            let next = self.election.next(now, Timestamp::now());
            self.publish(now);
            let failed = match next {
                Move::Wait(until) => {
                    tokio::time::sleep_until(until.into()).await;
                    continue;
                }
                next => self.request(next).await,
            };
            self.publish(Instant::now());
            match failed {
                Ok(()) => {
                    backoff.reset();
                    told = false;
                }
                Err(failure) => {
                    if !std::mem::replace(&mut told, true) {
                        warn!(lease = self.name, namespace = self.namespace, error = %failure,
                            "cannot take part in the election of who writes status; trying again");
                    }
                    self.pause(backoff.failed(chance())).await;
                }
            }
        }
    }

    /// Waits after a failure, but no longer than this node leads.
    async fn pause(&mut self, wait: Duration) {
        let now = Instant::now();
        self.election.unanswered(now);
        let ends = self.election.term(now).and_then(|term| term.until);
        let until = ends.map_or(now + wait, |ends| ends.min(now + wait));
        tokio::time::sleep_until(until.into()).await;
    }

    async fn request(&mut self, next: Move) -> Result<(), Failure> {
        let sent = Instant::now();
        // A renewal that takes too long must not keep this node from noticing that it no longer leads.
        let ends = self.election.term(sent).and_then(|term| term.until);
        let until = ends.map_or(sent + self.request, |ends| ends.min(sent + self.request));
        let key = (self.namespace, self.name);
        let (record, version) = match next {
            Move::Wait(_) => return Ok(()),
            Move::Read => {
                let lease = self.fleet.read_lease(key, until).await?;
                self.election.observed(lease, Instant::now());
                return Ok(());
            }
            Move::Create(record) => (record, None),
            Move::Replace(record, version) => (record, Some(version)),
        };
        match self.fleet.write_lease(key, record, version, until).await {
            Ok((record, version)) => self.election.written(record, version, sent),
            Err(Failure::Changed | Failure::Exists | Failure::Gone) => self.election.refused(),
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    fn publish(&self, now: Instant) {
        let term = self.election.term(now);
        self.term.send_if_modified(|known| {
            if known.map(|it| it.number) != term.map(|it| it.number) {
                match term {
                    Some(_) => info!(lease = self.name, "this node writes status now"),
                    None => info!(lease = self.name, "this node no longer writes status"),
                }
            }
            std::mem::replace(known, term) != term
        });
    }

    /// Gives the Lease back, so that another node need not wait for its end. All writing must have stopped.
    pub(super) async fn release(mut self) {
        if let Some((record, version)) = self.election.release(Timestamp::now()) {
            let until = Instant::now() + self.request.min(RELEASE);
            let key = (self.namespace, self.name);
            // If it fails, the others wait until it ends.
            let _ = self
                .fleet
                .write_lease(key, record, Some(version), until)
                .await;
        }
    }
}
