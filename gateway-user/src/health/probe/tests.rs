//! Probes against servers on this node.

mod grpc;
mod tls;

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
    thread,
    time::Duration,
};

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
    let target = Probe {
        address,
        check: Arc::new(check),
    };
    runtime().block_on(probe(&target))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// What a probe met at a server that does this with the connection, and holds what it returns until the probe is over.
fn met_by<T>(check: HealthCheck, serve: impl AsyncFnOnce(TcpStream) -> T) -> Outcome {
    runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a socket");
        let target = Probe {
            address: listener.local_addr().expect("an address"),
            check: Arc::new(check),
        };
        let server = async {
            let (stream, _) = listener.accept().await.expect("a probe");
            let _held = serve(stream).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = probe(&target) => outcome,
            () = server => Outcome::Unsent,
        }
    })
}

/// So long that only what never comes meets it.
const LONG: Duration = Duration::from_secs(60);
/// For what never comes.
const SHORT: Duration = Duration::from_millis(300);

fn bad(why: ProbeFailure) -> Outcome {
    Outcome::Answer(Err(why))
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
