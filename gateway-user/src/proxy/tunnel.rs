//! After an upgrade both sides speak something else: bytes are carried, nothing is read into them.

use std::{sync::Arc, time::Duration};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::exchanges::{Exchanges, InFlight};

/// Buffer of each direction.
const BUFFER_BYTES: usize = 16 * 1024;

/// Carries bytes until one side is done or nothing has moved for `quiet`.
pub(super) async fn carry(
    downstream: OnUpgrade,
    upstream: OnUpgrade,
    exchanges: Arc<Exchanges>,
    quiet: Duration,
    in_flight: InFlight,
) {
    let (downstream, upstream) = match futures_util::future::try_join(downstream, upstream).await {
        Ok(both) => both,
        Err(err) => {
            return tracing::debug!(error = %err, "an upgrade was granted but one side left");
        }
    };
    let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
    let copying = tokio::io::copy_bidirectional_with_sizes(
        &mut downstream,
        &mut upstream,
        BUFFER_BYTES,
        BUFFER_BYTES,
    );
    tokio::select! {
        outcome = copying => if let Err(err) = outcome {
            tracing::debug!(error = %err, "a tunnel broke");
        },
        () = stalled(&exchanges, quiet) => tracing::debug!("a tunnel was quiet for too long"),
    }
    drop(in_flight);
}

/// Ends when no byte has moved between two looks.
async fn stalled(exchanges: &Exchanges, quiet: Duration) {
    loop {
        let before = exchanges.moved();
        tokio::time::sleep(quiet).await;
        if exchanges.moved() == before {
            return;
        }
    }
}
