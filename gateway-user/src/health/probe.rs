//! One probe, from connecting to its answer.

mod grpc;
mod http;
mod message;
mod tls;

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::Pin,
};

use rustix::io::Errno;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use crate::ir::{HealthCheck, HealthProtocol, Probe, ProbeFailure};

/// What a probe met.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// An answer, good or bad, or none.
    Answer(Result<(), ProbeFailure>),
    /// This node could not send it, which says nothing about the pod.
    Unsent,
}

/// An answer, and what to do once it counts.
struct Met {
    answer: Result<(), ProbeFailure>,
    /// Lets the pod close in order; bounded in time by itself.
    rest: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Met {
    fn good(rest: impl Future<Output = ()> + 'static) -> Self {
        Self {
            answer: Ok(()),
            rest: Some(Box::pin(rest)),
        }
    }

    fn bad(why: ProbeFailure) -> Self {
        Self {
            answer: Err(why),
            rest: None,
        }
    }
}

/// Most that is read of a pod that speaks TLS or HTTP/2, all frames and records counted; then the connection counts as
/// ended. A handshake with a chain of some certificates takes 5 KiB.
const MOST: u64 = 128 * 1024;

/// Probes once: a connection of its own, from the address by which the node reaches the pod.
pub(super) async fn probe(probe: &Probe) -> Outcome {
    let Probe { address, check } = probe;
    let met = match timeout(check.timeout, talk(*address, check)).await {
        Err(_) => Met::bad(ProbeFailure::Timeout),
        Ok(Err(error)) if local(&error) => return Outcome::Unsent,
        Ok(Err(error)) => Met::bad(failure(&error)),
        Ok(Ok(met)) => met,
    };
    if let Some(rest) = met.rest {
        rest.await;
    }
    Outcome::Answer(met.answer)
}

async fn talk(address: SocketAddr, check: &HealthCheck) -> io::Result<Met> {
    let stream = TcpStream::connect(address).await?;
    match check.protocol {
        HealthProtocol::Tcp => Ok(Met {
            answer: Ok(()),
            rest: None,
        }),
        HealthProtocol::Http => http::ask(stream, address, check).await,
        HealthProtocol::Https => {
            let stream = tls::connect(bounded(stream), address).await?;
            http::ask(stream, address, check).await
        }
        HealthProtocol::Grpc => grpc::ask(bounded(stream), address, check).await,
    }
}

/// A stream of many small writes, of which only so much can be read.
fn bounded(stream: TcpStream) -> impl AsyncRead + AsyncWrite + Unpin + 'static {
    // A pod that is slow to acknowledge would hold back the second write. It costs time only where it fails.
    let _ = stream.set_nodelay(true);
    let (read, write) = stream.into_split();
    tokio::io::join(read.take(MOST), write)
}

/// "Host header of the probe = server IP."
fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}

/// Whether it was this node that failed.
fn local(error: &io::Error) -> bool {
    // A path that no request can carry.
    if error.kind() == ErrorKind::InvalidInput {
        return true;
    }
    let ours = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ADDRNOTAVAIL,
        Errno::PERM,
        Errno::ACCESS,
    ];
    let code = error.raw_os_error();
    code.is_some_and(|code| ours.iter().any(|it| it.raw_os_error() == code))
}

fn failure(error: &io::Error) -> ProbeFailure {
    if tls::is_tls(error) {
        return ProbeFailure::Tls;
    }
    match error.kind() {
        ErrorKind::ConnectionRefused => ProbeFailure::Refused,
        ErrorKind::TimedOut => ProbeFailure::Timeout,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
            ProbeFailure::Unreachable
        }
        _ => ProbeFailure::Closed,
    }
}

#[cfg(test)]
mod tests;
