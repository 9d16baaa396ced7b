//! After an upgrade both sides speak something else: bytes are carried, nothing is read into them.

use super::{
    io::Io,
    upstream::Upstream,
    wire::relay::{self, RelayOptions, RelayStream},
    worker::Worker,
};

impl RelayStream for Io {
    fn plain(&self) -> Option<&tokio::net::TcpStream> {
        self.bare()
    }
}

/// Carries bytes until both sides are done, one breaks, or nothing has moved for long. What was read ahead goes first.
pub(super) async fn carry(worker: &Worker, client: &mut Io, ahead: &[u8], backend: Upstream) {
    let Upstream { mut io, buffer, .. } = backend;
    let options = RelayOptions {
        idle: worker.stall_timeout,
        pipes: &worker.pipes,
    };
    let counted = (client.read(), client.written());
    let outcome = relay::relay(client, &mut io, ahead, buffer.bytes(), options).await;
    // What was spliced went by the connection's own counters, what was not is in both.
    let beside = (client.read() - counted.0, client.written() - counted.1);
    worker.stats.bytes(
        outcome
            .to_upstream
            .saturating_sub(beside.0 + ahead.len() as u64),
        outcome.to_downstream.saturating_sub(beside.1),
    );
    tracing::debug!(ended = ?outcome.ended, "a tunnel ended");
}
