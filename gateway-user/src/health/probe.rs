//! One probe, from connecting to its answer.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use rustix::io::Errno;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
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

/// `HTTP/1.1 200`: all that is read of an answer before it counts.
const STATUS: usize = 12;
/// The rest of an answer is read for so long, and up to so many bytes, so that the pod may close in order.
const REST: (Duration, u64) = (Duration::from_millis(200), 16 * 1024);

/// Probes once: a connection of its own, from the address by which the node reaches the pod.
pub(super) async fn probe(probe: &Probe) -> Outcome {
    let Probe { address, check } = probe;
    let mut stream = None;
    let met = timeout(check.timeout, talk(*address, check, &mut stream)).await;
    let answer = match met {
        Err(_) => Err(ProbeFailure::Timeout),
        Ok(Err(error)) if local(&error) => return Outcome::Unsent,
        Ok(Err(error)) => Err(failure(&error)),
        Ok(Ok(answer)) => answer,
    };
    if let Some(stream) = stream.filter(|_| answer.is_ok()) {
        let (patience, most) = REST;
        let mut rest = stream.take(most);
        let _ = timeout(patience, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    }
    Outcome::Answer(answer)
}

/// The answer, and the connection it came by, if there is more to read.
async fn talk(
    address: SocketAddr,
    check: &HealthCheck,
    kept: &mut Option<TcpStream>,
) -> io::Result<Result<(), ProbeFailure>> {
    let mut stream = TcpStream::connect(address).await?;
    if check.protocol == HealthProtocol::Tcp {
        return Ok(Ok(()));
    }
    stream.write_all(request(address, check).as_bytes()).await?;
    let mut line = [0; STATUS];
    stream.read_exact(&mut line).await?;
    let answer = match status(&line) {
        None => Err(ProbeFailure::NotHttp),
        Some(status) if check.codes.contains(&(status / 100)) => Ok(()),
        Some(status) => Err(ProbeFailure::Status(status)),
    };
    *kept = Some(stream);
    Ok(answer)
}

/// "Host header of the probe = server IP."
fn request(address: SocketAddr, check: &HealthCheck) -> String {
    let version = if check.http10 { "1.0" } else { "1.1" };
    let length = if check.method == "POST" {
        "Content-Length: 0\r\n"
    } else {
        ""
    };
    let host = match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    };
    format!(
        "{} {} HTTP/{version}\r\nHost: {host}\r\nUser-Agent: fleetgate-health\r\nAccept: */*\r\n{length}Connection: close\r\n\r\n",
        check.method, check.path
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

/// Whether it was this node that failed.
fn local(error: &io::Error) -> bool {
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
mod tests {
    use std::{io::Read, io::Write, net::TcpListener, sync::Arc, thread};

    use super::*;

    fn check(protocol: HealthProtocol, method: &str, codes: &[u16]) -> HealthCheck {
        HealthCheck {
            protocol,
            port: None,
            path: "/up".into(),
            method: method.into(),
            http10: false,
            codes: codes.to_vec(),
            timeout: Duration::from_millis(400),
            interval: Duration::from_secs(1),
            rise: 2,
            fall: 2,
        }
    }

    fn ask(address: SocketAddr, check: HealthCheck) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let target = Probe {
            address,
            check: Arc::new(check),
        };
        runtime.block_on(probe(&target))
    }

    /// What a probe met at a server that answers with `answer` after it read a head, and what it had asked.
    fn met(answer: &'static [u8], check: HealthCheck) -> (Outcome, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = listener.local_addr().expect("an address");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a probe");
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                asked.push(byte[0]);
            }
            stream.write_all(answer).expect("an answer");
            if answer.is_empty() {
                // Says nothing, and holds the connection for longer than a probe waits.
                thread::sleep(Duration::from_millis(800));
            }
            String::from_utf8(asked).expect("ASCII")
        });
        let outcome = ask(address, check);
        (outcome, server.join().expect("no panic"))
    }

    const GOOD: Outcome = Outcome::Answer(Ok(()));

    #[test]
    fn an_answer_of_an_accepted_class_is_good_and_any_other_is_named() {
        let head = || check(HealthProtocol::Http, "HEAD", &[2, 3]);
        let (outcome, asked) = met(b"HTTP/1.1 204 No Content\r\n\r\n", head());
        assert_eq!(outcome, GOOD);
        assert!(
            asked.starts_with("HEAD /up HTTP/1.1\r\nHost: 127.0.0.1\r\n"),
            "{asked}"
        );
        assert_eq!(met(b"HTTP/1.0 302 Found\r\n\r\n", head()).0, GOOD);
        for (answer, why) in [
            (
                b"HTTP/1.1 503 Busy\r\n\r\n".as_slice(),
                ProbeFailure::Status(503),
            ),
            (b"HTTP/2.0 200 OK\r\n\r\n", ProbeFailure::NotHttp),
            (b"HTTP/1.1 2x0 OK\r\n\r\n", ProbeFailure::NotHttp),
            (b"SSH-2.0-OpenSSH_9\r\n", ProbeFailure::NotHttp),
            (b"HTTP/1.1", ProbeFailure::Closed),
            (b"", ProbeFailure::Timeout),
        ] {
            assert_eq!(
                met(answer, head()).0,
                Outcome::Answer(Err(why)),
                "{answer:?}"
            );
        }
        let (_, asked) = met(
            b"HTTP/1.1 200 OK\r\n\r\n",
            check(HealthProtocol::Http, "POST", &[2]),
        );
        assert!(
            asked.contains("POST /up") && asked.contains("Content-Length: 0\r\n"),
            "{asked}"
        );
    }

    #[test]
    fn a_tcp_probe_asks_for_a_connection_only_and_a_refused_one_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = listener.local_addr().expect("an address");
        let tcp = || check(HealthProtocol::Tcp, "HEAD", &[]);
        assert_eq!(ask(address, tcp()), GOOD);
        drop(listener);
        assert_eq!(
            ask(address, tcp()),
            Outcome::Answer(Err(ProbeFailure::Refused))
        );
    }
}
