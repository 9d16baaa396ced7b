//! TLS that ends in pods: a connection goes to a pod whole, its ClientHello included.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    task::Poll,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{net::TcpStream, time::Instant};

use super::{
    access_log::{Entry, Timers},
    balance::Choice,
    downstream::Downstream,
    group::{GroupState, Picked},
    outlier::Outcome,
    reason::Reason,
    upstream::{Place, Seat},
    wire::relay::{self, Ended, RelayOptions, Side},
    worker::{ListenerState, Worker},
};

/// Pods tried for one connection.
const TRIES: usize = 3;
/// How long a pod may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a ClientHello asks for.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) sni: &'a str,
    pub(super) group: Rc<GroupState>,
    pub(super) listener: Rc<ListenerState>,
}

/// Carries a connection, of which nothing was taken yet, to a pod and back until both sides are done or nothing moves
/// for long. Where no pod takes it, it is closed.
pub(super) async fn carry(
    worker: &Rc<Worker>,
    mut stream: TcpStream,
    down: &Downstream,
    asked: Asked<'_>,
) {
    let place = worker.connections.enter(down.local).await;
    let (started, time) = (Instant::now(), SystemTime::now());
    let mut tried = Vec::new();
    let reached = reach(worker, down, &asked, &mut tried).await;
    let connect = started.elapsed();
    let mut bytes = (0, 0);
    let (reason, backend) = match reached {
        Err(reason) => {
            worker.stats.reason(reason);
            (Some(reason), None)
        }
        // The pod is busy with it as long as `picked` lives.
        Ok((mut pod, picked, _seat)) => {
            worker.stats.upstream_opened.fetch_add(1, Relaxed);
            let options = RelayOptions {
                idle: worker.stall_timeout,
                ending: worker.connections.ending(),
                pipes: &worker.pipes,
            };
            let outcome = {
                let mut relay = pin!(relay::relay(&mut stream, &mut pod, &[], &[], options));
                poll_fn(|cx| match place.is_cut() {
                    true => Poll::Ready(None),
                    false => relay.as_mut().poll(cx).map(Some),
                })
                .await
            };
            // Whose listener is gone was told to end, and had its time.
            let Some(outcome) = outcome else {
                return;
            };
            bytes = (outcome.to_upstream, outcome.to_downstream);
            worker.stats.bytes(bytes.0, bytes.1);
            let reason = ended(outcome.ended, asked.sni);
            (reason, Some((picked.index, picked.address)))
        }
    };
    asked.listener.stats.received_bytes.add(bytes.0);
    asked.listener.stats.sent_bytes.add(bytes.1);
    let mut log = worker.log.borrow_mut();
    if !log.is_on() {
        return;
    }
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let group = &asked.group.group;
    let cluster = backend.and_then(|it| group.backends.get(it.0));
    log.write(&Entry {
        time_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        client: Some(down.client),
        peer: Some(down.peer).filter(|it| *it != down.client),
        listener: &asked.listener.name,
        protocol: "TLS",
        reason: reason.map(Reason::label),
        service: &asked.group.service,
        cluster: cluster.map_or("", |it| &*it.cluster.0),
        backend: backend.map(|it| it.1),
        attempts: u32::try_from(tried.len()).unwrap_or(u32::MAX) + u32::from(backend.is_some()),
        received_bytes: bytes.0,
        sent_bytes: bytes.1,
        timers: Timers {
            connect: Some(connect),
            total: started.elapsed(),
            ..Timers::default()
        },
        sni: asked.sni.as_bytes(),
        ..Entry::default()
    });
}

/// Why a connection that was passed on broke; `None`: both sides were done. Nobody is left to be told, so it is not
/// counted.
fn ended(ended: Ended, sni: &str) -> Option<Reason> {
    let (reason, err) = match ended {
        Ended::Closed | Ended::Told => return None,
        Ended::Idle => return Some(Reason::Timeout),
        Ended::Error(Side::Downstream, err) => (Reason::ClientGone, err),
        Ended::Error(Side::Upstream, err) => (Reason::BackendClosed, err),
    };
    tracing::debug!(sni, reason = reason.label(), error = %err, "a connection that was passed on broke");
    Some(reason)
}

/// A connection to a pod of the group. Nothing was sent yet, so another pod is tried where one does not accept; `tried`
/// are those that did not.
async fn reach(
    worker: &Worker,
    down: &Downstream,
    asked: &Asked<'_>,
    tried: &mut Vec<usize>,
) -> Result<(TcpStream, Picked, Seat), Reason> {
    let group = &asked.group;
    let now = Instant::now();
    let _begun = group.begin(now);
    let choice = Choice {
        client: down.client.ip(),
        v6: down.local.ip().to_canonical().is_ipv6(),
        query: None,
        sticky: None,
        now: now.into_std(),
    };
    let named = group.group.policy.proxy_header;
    let mut failed = Reason::NoServer;
    while tried.len() < TRIES && (tried.is_empty() || group.may_retry()) {
        let marked = |address: SocketAddr| worker.is_marked(address, now);
        let Some(picked) = group.pick(&choice, tried, marked) else {
            break;
        };
        let place = Place {
            address: picked.address,
            tls: false,
            client: named.then_some((down.client, down.local)),
            beside: false,
        };
        let Ok(seat) = worker.pool.seat(place, CONNECT_TIMEOUT).await else {
            failed = Reason::BackendBusy;
            tried.push(picked.index);
            continue;
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, place.dial()).await {
            Ok(Ok(pod)) => {
                group.note(&picked, Outcome::Fine);
                return Ok((pod, picked, seat));
            }
            Ok(Err(_)) => failed = Reason::ConnectRefused,
            Err(_) => failed = Reason::ConnectTimeout,
        }
        worker.mark(picked.address);
        worker.stats.retries.fetch_add(1, Relaxed);
        group.note(&picked, Outcome::GatewayFailure);
        tried.push(picked.index);
    }
    Err(failed)
}
