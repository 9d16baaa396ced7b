//! Copies of requests, whose answers nobody gets.
//!
//! A copy goes its own way from the moment it is made: it never delays the request, nor fails it. What a slow mirror
//! does not take in time is dropped, and the copy with it.

use std::{cell::Cell, rc::Rc, time::Duration};

use bytes::Bytes;
use tokio::{sync::mpsc, time::Instant};

use super::{
    attempt,
    balance::Choice,
    body::{Incoming, Outgoing},
    framing::{answer, body::Body},
    group::GroupState,
    h1::{Sink, Source},
    message::{Request, Response},
    upstream::Upstream,
    worker::Worker,
};
use crate::ir::BackendProtocol;

/// Copies under way per worker; further requests are not copied.
const MOST: usize = 256;
/// Pieces of a body that wait for the mirror.
const PIECES: usize = 16;
/// Bytes of an answer that are read so that the connection can be kept.
const ANSWER_BYTES: usize = 256 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

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
            Some(to) if to.capacity() == 0 => true,
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
            // A mirror that is behind is broken off.
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
    client: (std::net::IpAddr, bool),
    timeout: Duration,
) -> Option<Tee> {
    let mirrors: &Cell<usize> = &worker.mirrors;
    if mirrors.get() >= MOST || request.upgrade || request.expects {
        return None;
    }
    mirrors.set(mirrors.get() + 1);
    let place = Place(Rc::clone(worker));
    let request = request.clone();
    let (to, from) = mpsc::channel(PIECES);
    let body = request.has_body().then_some(from);
    let tee = request.has_body().then_some(Tee(Some(to)));
    tokio::task::spawn_local(async move {
        let limit = Instant::now() + timeout;
        let copy = copy(&place.0, &group, &request, client, body);
        if !matches!(tokio::time::timeout_at(limit, copy).await, Ok(Some(()))) {
            tracing::debug!(service = %group.service, "a mirrored request was not answered");
        }
    });
    tee
}

async fn copy(
    worker: &Worker,
    group: &GroupState,
    request: &Request,
    (client, v6): (std::net::IpAddr, bool),
    body: Option<mpsc::Receiver<Piece>>,
) -> Option<()> {
    let now = Instant::now();
    let choice = Choice {
        client,
        v6,
        query: request.query(),
        sticky: None,
        now: now.into_std(),
    };
    let picked = group.pick(&choice, &[], |address| worker.is_marked(address, now))?;
    let tls = group.group.policy.protocol == BackendProtocol::Https;
    let place = (picked.address, tls);
    let mut upstream = match worker.pool.take(place, now, true) {
        Some(upstream) => upstream,
        None => worker.pool.connect(place, CONNECT_TIMEOUT).await.ok()?,
    };
    let Upstream {
        io, buffer, out, ..
    } = &mut upstream;
    let mut to = Outgoing::h1(attempt::head(request, Sink::new(io, out)));
    if let Some(mut body) = body {
        while let Piece::Data(data) = body.recv().await? {
            to.data(&data).await.ok()?;
        }
    }
    to.end(None).await.ok()?;
    let mut response = Response::default();
    loop {
        let end = std::future::poll_fn(|cx| attempt::poll_head(io, buffer, u64::MAX, cx)).await;
        let end = end.ok()?;
        response.clear();
        let read = answer::read(&buffer.bytes()[..end], request.is_head(), &mut response);
        buffer.consume(end);
        read.ok()?;
        if !(100..200).contains(&response.status) {
            break;
        }
    }
    let mut body = Body::of_response(response.body);
    let mut source = Incoming::H1(Source::new(io, buffer, &mut body));
    let mut left = ANSWER_BYTES;
    loop {
        match source.step().await.ok()? {
            0 => break,
            len => left = left.checked_sub(len)?,
        }
    }
    if response.keep_alive {
        worker.pool.put(upstream, Instant::now());
    }
    Some(())
}
