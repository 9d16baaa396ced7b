//! Copies of requests, whose answers nobody gets.
//!
//! A copy goes its own way from the moment it is made: it never delays the request, nor fails it. What a slow mirror
//! does not take in time is dropped, and the copy with it.

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use tokio::{sync::mpsc, time::Instant};

use super::{
    attempt::{self, CONNECT_TIMEOUT, Leg},
    balance::Choice,
    group::GroupState,
    message::{Request, Response},
    outlier::Outcome,
    reason::Reason,
    upstream,
    worker::Worker,
};
use crate::ir::BackendProtocol;

/// Copies under way per worker; further requests are not copied.
const MOST: usize = 256;
/// Pieces of a body that wait for the mirror.
const PIECES: usize = 16;
/// Bytes of an answer that are read so that the connection can be kept.
const ANSWER_BYTES: usize = 256 * 1024;

/// Takes a copy of a body as it passes.
#[derive(Debug)]
pub(super) struct Tee(Option<mpsc::Sender<Piece>>);

#[derive(Debug)]
enum Piece {
    Data(Bytes),
    End,
}

impl Tee {
    /// Copies a piece, unless the mirror is behind: then it gets nothing more, and its request is broken off.
    pub(super) fn data(&mut self, data: &[u8]) {
        let full = match &self.0 {
            None => return,
            // One place is kept for the end.
            Some(to) if to.capacity() <= 1 => true,
            Some(to) => to
                .try_send(Piece::Data(Bytes::copy_from_slice(data)))
                .is_err(),
        };
        if full {
            self.0 = None;
        }
    }

    /// The body is complete.
    pub(super) fn end(&mut self) {
        if let Some(to) = self.0.take() {
            // A mirror that has left gets nothing.
            let _ = to.try_send(Piece::End);
        }
    }
}

/// Counts a copy as under way.
struct Place(Rc<Worker>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.mirrors.set(self.0.mirrors.get() - 1);
    }
}

/// Sends a copy of a request that is ready for a backend. The body, if there is one, comes through the [`Tee`].
pub(super) fn send(
    worker: &Rc<Worker>,
    group: Rc<GroupState>,
    request: &Request,
    (client, local): (SocketAddr, SocketAddr),
    timeout: Duration,
) -> Option<Tee> {
    let mirrors: &Cell<usize> = &worker.mirrors;
    if mirrors.get() >= MOST || request.upgrade || request.expects {
        return None;
    }
    mirrors.set(mirrors.get() + 1);
    let place = Place(Rc::clone(worker));
    let request = request.clone();
    let (to, from) = mpsc::channel(PIECES + 1);
    let body = request.has_body().then_some(from);
    let tee = request.has_body().then_some(Tee(Some(to)));
    tokio::task::spawn_local(async move {
        let worker = &place.0;
        let now = Instant::now();
        let choice = Choice {
            client: client.ip(),
            v6: local.ip().to_canonical().is_ipv6(),
            query: request.query(),
            sticky: None,
            now: now.into_std(),
        };
        let marked = |address| worker.is_marked(address, now);
        let Some(picked) = group.pick(&choice, &[], marked) else {
            return;
        };
        let copy = Copy {
            worker,
            group: &group,
            request: &request,
            sent: Cell::new(false),
        };
        let policy = &group.group.policy;
        let to = upstream::Place {
            address: picked.address,
            tls: policy.protocol == BackendProtocol::Https,
            client: policy.proxy_header.then_some((client, local)),
            // Of the original.
            beside: true,
        };
        let outcome = match tokio::time::timeout_at(now + timeout, copy.go(to, body)).await {
            Ok(outcome) => outcome,
            // Whoever has not been told all is not late.
            Err(_) => copy.sent.get().then_some(Outcome::GatewayFailure),
        };
        if let Some(outcome) = outcome {
            group.note(&picked, outcome);
        }
        if outcome.is_none_or(|it| it == Outcome::GatewayFailure) {
            tracing::debug!(service = %group.service, "a mirrored request was not answered");
        }
    });
    tee
}

/// A copy on its way.
struct Copy<'a> {
    worker: &'a Worker,
    group: &'a GroupState,
    request: &'a Request,
    /// The mirror has all of it.
    sent: Cell<bool>,
}

impl Copy<'_> {
    /// Sends all and reads the answer; `None` if nothing was learnt of the mirror.
    async fn go(
        &self,
        to: upstream::Place,
        body: Option<mpsc::Receiver<Piece>>,
    ) -> Option<Outcome> {
        let (worker, protocol) = (self.worker, self.group.group.policy.protocol);
        let leg = match Leg::kept(worker, to, protocol, Instant::now(), true) {
            Some(leg) => Ok(leg),
            None => Leg::open(worker, to, protocol, CONNECT_TIMEOUT).await,
        };
        let mut leg = match leg {
            Ok(leg) => leg,
            Err(err) => {
                let refused = attempt::refused(worker, to.address, &err);
                let busy = refused.reason == Reason::BackendBusy;
                return (!busy).then_some(Outcome::GatewayFailure);
            }
        };
        let (status, kept) = match self.converse(&mut leg, body).await {
            Ok(answered) => answered,
            Err(Cut::Copy) => return None,
            Err(Cut::Mirror) => return Some(Outcome::GatewayFailure),
        };
        if let Leg::Own(upstream) = leg
            && kept
        {
            worker.pool.put(upstream, Instant::now());
        }
        Some(attempt::of_status(status))
    }

    /// The status of the answer, and whether the connection may be kept.
    async fn converse(
        &self,
        leg: &mut Leg,
        body: Option<mpsc::Receiver<Piece>>,
    ) -> Result<(u16, bool), Cut> {
        let begun = leg.begin(self.request);
        let (mut to, mut answers) = begun.map_err(|_| Cut::Mirror)?;
        if let Some(mut body) = body {
            while let Piece::Data(data) = body.recv().await.ok_or(Cut::Copy)? {
                to.data(&data).await.map_err(|_| Cut::Mirror)?;
            }
        }
        to.end(None).await.map_err(|_| Cut::Mirror)?;
        self.sent.set(true);
        let mut response = Response::default();
        let mut source = loop {
            let next = answers.next(self.request.is_head(), &mut response).await;
            let source = next.map_err(|_| Cut::Mirror)?;
            if !(100..200).contains(&response.status) {
                break source;
            }
        };
        let mut left = ANSWER_BYTES;
        loop {
            match source.step().await.map_err(|_| Cut::Mirror)? {
                0 => return Ok((response.status, response.keep_alive)),
                len if len <= left => left -= len,
                _ => return Ok((response.status, false)),
            }
        }
    }
}

/// Why there is no answer to a copy.
enum Cut {
    /// It is not whole, so the mirror must not get its end.
    Copy,
    /// The mirror does not take it, or says nothing that can be read.
    Mirror,
}
