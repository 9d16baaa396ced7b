//! HTTP/1: a request, and the status of its answer, over TCP or TLS.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{Met, host};
use crate::ir::{HealthCheck, ProbeFailure};

/// `HTTP/1.1 200`: all that is read of an answer before it counts.
const STATUS: usize = 12;
/// The rest of an answer is read for so long, and up to so many bytes, so that the pod may close in order.
const REST: (Duration, u64) = (Duration::from_millis(200), 16 * 1024);

pub(super) async fn ask<S>(
    mut stream: S,
    address: SocketAddr,
    check: &HealthCheck,
) -> io::Result<Met>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    stream.write_all(request(address, check).as_bytes()).await?;
    // TLS keeps what is written until then.
    stream.flush().await?;
    let mut line = [0; STATUS];
    stream.read_exact(&mut line).await?;
    match status(&line) {
        None => Ok(Met::bad(ProbeFailure::NotHttp)),
        Some(status) if check.codes.contains(&(status / 100)) => Ok(Met::good(async {
            let (patience, most) = REST;
            let mut rest = stream.take(most);
            let _ = timeout(patience, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
        })),
        Some(status) => Ok(Met::bad(ProbeFailure::Status(status))),
    }
}

fn request(address: SocketAddr, check: &HealthCheck) -> String {
    let version = if check.http10 { "1.0" } else { "1.1" };
    let length = if check.method == "POST" {
        "Content-Length: 0\r\n"
    } else {
        ""
    };
    format!(
        "{} {} HTTP/{version}\r\nHost: {}\r\nUser-Agent: fleetgate-health\r\nAccept: */*\r\n{length}Connection: close\r\n\r\n",
        check.method,
        check.path,
        host(address)
    )
}

/// RFC 9112 section 4: `HTTP-version SP status-code`.
fn status(line: &[u8; STATUS]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    match rest {
        [b'0'..=b'9', b' ', code @ ..] if code.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(code).ok()?.parse().ok()
        }
        _ => None,
    }
}
