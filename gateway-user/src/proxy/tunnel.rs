//! After an upgrade both sides speak something else: bytes are carried, nothing is read into them.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    task::Poll,
};

use tokio::io::AsyncWrite;

use super::{
    http2::{Sending, duplex::Duplex},
    io::Io,
    stats::ConnectionCount,
    upstream::Upstream,
    wire::relay::{self, Ended, RelayOptions, RelayStream},
    worker::Worker,
};

impl RelayStream for Io {
    fn plain(&self) -> Option<&tokio::net::TcpStream> {
        self.bare()
    }
}

/// Carries bytes until both sides are done, one breaks, or nothing has moved for long; or the proxy ends, and nothing is
/// under way: then the client is told so, and this is true. What was read ahead goes first.
pub(super) async fn carry(
    worker: &Worker,
    client: &mut Io,
    ahead: &[u8],
    backend: Upstream,
    count: &ConnectionCount,
) -> bool {
    let Upstream { mut io, buffer, .. } = backend;
    let counted = (client.read(), client.written());
    let outcome = relay::relay(client, &mut io, ahead, buffer.bytes(), options(worker)).await;
    // What came ahead was counted with the request.
    let up = outcome.to_upstream.saturating_sub(ahead.len() as u64);
    count.bytes(up, outcome.to_downstream);
    // What was spliced went by the connection's own counters, what was not is in both.
    let beside = (client.read() - counted.0, client.written() - counted.1);
    worker.stats.bytes(
        up.saturating_sub(beside.0),
        outcome.to_downstream.saturating_sub(beside.1),
    );
    tracing::debug!(ended = ?outcome.ended, "a tunnel ended");
    let told = matches!(outcome.ended, Ended::Told);
    told && poll_fn(|cx| client.poll_shutdown(cx)).await.is_ok()
}

/// The same for a client's stream of HTTP/2, whose bytes its connection counts. One that is not carried to its end is
/// reset, as TCP would be (RFC 8441 section 5).
pub(super) async fn carry_stream(
    worker: &Worker,
    local: SocketAddr,
    mut client: Duplex,
    sending: &Sending,
    backend: Upstream,
) {
    let Upstream { mut io, buffer, .. } = backend;
    // Its task is another one than that of the connection.
    let _place = worker.connections.enter(local).await;
    let ended = {
        let relay = relay::relay(&mut client, &mut io, &[], buffer.bytes(), options(worker));
        let mut relay = pin!(relay);
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = relay.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome.ended));
            }
            // A client that has ended its half is not read any more, and can still leave.
            sending.poll_reset(cx).map(|()| None)
        })
        .await
    };
    match ended {
        Some(Ended::Closed) => {}
        Some(Ended::Told) => {
            // Of the client's half nothing is waited for.
            let _ = poll_fn(|cx| Pin::new(&mut client).poll_shutdown(cx)).await;
            sending.reset(h2::Reason::NO_ERROR);
        }
        _ => sending.reset(h2::Reason::CANCEL),
    }
    tracing::debug!(?ended, "a tunnel ended");
}

fn options(worker: &Worker) -> RelayOptions<'_> {
    RelayOptions {
        idle: worker.stall_timeout,
        ending: worker.connections.ending(),
        pipes: &worker.pipes,
    }
}
