//! gRPC against servers of HTTP/2, and others.

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use hyper::http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::AsyncWriteExt;

use super::*;

fn grpc(path: &str, codes: &[u16], timeout: Duration) -> HealthCheck {
    HealthCheck {
        path: path.to_owned(),
        timeout,
        ..check(HealthProtocol::Grpc, "POST", codes)
    }
}

/// What a pod answers.
#[derive(Clone, Copy, Debug)]
enum Answer<'a> {
    /// A message, and then trailers with this status.
    Call(&'a [u8], &'a str),
    /// A status in the headers.
    TrailersOnly(&'a str),
    /// An answer of HTTP without a status of gRPC.
    Plain(u16, &'a [u8]),
    /// `RST_STREAM`.
    Reset,
}

/// What a probe met at a server that gives this answer, and what it had asked.
fn met(answer: Answer<'_>, check: HealthCheck) -> (Outcome, Request<Vec<u8>>) {
    let mut asked = None;
    let outcome = met_by(check, async |stream| {
        let connection = h2::server::handshake(stream).await;
        let mut connection = connection.expect("a preface");
        let first = connection.accept().await.expect("a request");
        let (request, respond) = first.expect("a request");
        let (head, body) = request.into_parts();
        tokio::join!(
            async {
                asked = Some(Request::from_parts(head, read(body).await));
                reply(answer, respond);
            },
            // Moves frames until the probe says that it is over.
            async { while connection.accept().await.is_some() {} },
        );
    });
    (outcome, asked.expect("a request"))
}

async fn read(mut body: RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        all.extend_from_slice(&piece.expect("a body"));
    }
    all
}

fn reply(answer: Answer<'_>, mut respond: SendResponse<Bytes>) {
    let head = |status: u16| {
        let mut head = Response::new(());
        *head.status_mut() = status.try_into().expect("a status");
        head
    };
    let status = |status: &str| {
        let value = HeaderValue::from_str(status).expect("a value");
        HeaderMap::from_iter([("grpc-status".parse().expect("a name"), value)])
    };
    match answer {
        Answer::Call(message, code) => {
            let stream = respond.send_response(head(200), false);
            let mut stream = stream.expect("a stream");
            let message = Bytes::copy_from_slice(message);
            stream.send_data(message, false).expect("a stream");
            stream.send_trailers(status(code)).expect("a stream");
        }
        Answer::TrailersOnly(code) => {
            let mut head = head(200);
            *head.headers_mut() = status(code);
            respond.send_response(head, true).expect("a stream");
        }
        Answer::Plain(code, body) => {
            let stream = respond.send_response(head(code), body.is_empty());
            let body = Bytes::copy_from_slice(body);
            if !body.is_empty() {
                let sent = stream.expect("a stream").send_data(body, true);
                sent.expect("a stream");
            }
        }
        Answer::Reset => respond.send_reset(Reason::REFUSED_STREAM),
    }
}

const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
const NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 2];

#[test]
fn path_slash_asks_for_the_health_of_the_whole_server() {
    let (outcome, asked) = met(Answer::Call(SERVING, "0"), grpc("/", &[0], LONG));
    assert_eq!(outcome, GOOD);
    assert_eq!(
        (asked.method().as_str(), asked.body()),
        ("POST", &vec![0; 5])
    );
    assert_eq!(
        asked.uri().to_string(),
        "http://127.0.0.1/grpc.health.v1.Health/Check"
    );
    assert_eq!(asked.headers()["te"], "trailers");
    assert_eq!(asked.headers()["content-type"], "application/grpc");
}

#[test]
fn an_answer_counts_by_its_status_and_what_the_pod_says_of_itself() {
    use Answer::{Call, Plain, Reset, TrailersOnly};
    use ProbeFailure::{Closed, GrpcStatus, NotGrpc, NotServing, Status};
    let large = [0; 8192];
    for (answer, codes, expected) in [
        (Call(NOT_SERVING, "0"), &[0][..], bad(NotServing)),
        (Call(&[0; 5], "0"), &[0], bad(NotServing)),
        (Call(SERVING, "5"), &[0], bad(GrpcStatus(5))),
        (Call(SERVING, "0"), &[12], bad(GrpcStatus(0))),
        (Call(b"", "14"), &[0, 14], GOOD),
        (TrailersOnly("12"), &[0], bad(GrpcStatus(12))),
        (TrailersOnly("12"), &[0, 12], GOOD),
        // OK without a message says nothing of the pod's health.
        (TrailersOnly("0"), &[0], bad(NotGrpc)),
        (Call(b"serving", "0"), &[0], bad(NotGrpc)),
        (Call(SERVING, "fine"), &[0], bad(NotGrpc)),
        (Call(&large, "0"), &[0], bad(NotGrpc)),
        (Plain(200, b"hello"), &[0], bad(NotGrpc)),
        (Plain(200, b""), &[0], bad(NotGrpc)),
        (Plain(503, b"busy"), &[0], bad(Status(503))),
        (Reset, &[0], bad(Closed)),
    ] {
        let (outcome, _) = met(answer, grpc("/", codes, LONG));
        assert_eq!(outcome, expected, "{answer:?} {codes:?}");
    }
}

#[test]
fn of_another_method_the_status_alone_counts() {
    let ping = || grpc("/shop.Cart/Ping", &[0], LONG);
    let (outcome, asked) = met(Answer::Call(NOT_SERVING, "0"), ping());
    assert_eq!((outcome, asked.uri().path()), (GOOD, "/shop.Cart/Ping"));
    assert_eq!(met(Answer::TrailersOnly("0"), ping()).0, GOOD);
    let named = grpc("/grpc.health.v1.Health/Check", &[0], LONG);
    let (outcome, _) = met(Answer::Call(NOT_SERVING, "0"), named);
    assert_eq!(outcome, bad(ProbeFailure::NotServing));
    let got = HealthCheck {
        method: "GET".to_owned(),
        ..ping()
    };
    let (outcome, asked) = met(Answer::TrailersOnly("0"), got);
    assert_eq!((outcome, asked.method().as_str()), (GOOD, "GET"));
}

#[test]
fn a_path_that_no_request_carries_says_nothing_of_the_pod() {
    let outcome = met_by(grpc("/a<b", &[0], LONG), async |stream| stream);
    assert_eq!(outcome, Outcome::Unsent);
}

/// `SETTINGS`, empty.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// `HEADERS` of stream 1 that ends it: `:status: 200`, `grpc-status: 12`.
const UNIMPLEMENTED: &[u8] = b"\0\0\x11\x01\x05\0\0\0\x01\x88\0\x0bgrpc-status\x0212";

#[test]
fn an_answer_counts_though_the_pod_closes_behind_it() {
    let outcome = met_by(grpc("/", &[12], LONG), async |mut stream| {
        // Its call, so that nothing unread resets the connection.
        let mut asked = Vec::new();
        while !asked.ends_with(b"\x01\0\0\0\0\0") {
            stream.read_buf(&mut asked).await.expect("a call");
        }
        let both = [SETTINGS, UNIMPLEMENTED].concat();
        stream.write_all(&both).await.expect("room");
    });
    assert_eq!(outcome, GOOD);
}

#[test]
fn a_pod_that_speaks_no_http2_is_told_as_such() {
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9\r\n"] {
        let outcome = met_by(grpc("/", &[0], LONG), async |mut stream| {
            stream.write_all(answer.as_bytes()).await.expect("room");
            stream
        });
        assert_eq!(outcome, bad(ProbeFailure::NotGrpc), "{answer}");
    }
    // Closed at once; behind what a server of TLS says of it.
    for answer in [&b""[..], b"\x15\x03\x03\0\x02\x02\x32"] {
        let outcome = met_by(grpc("/", &[0], LONG), async |mut stream| {
            stream.write_all(answer).await.expect("room");
        });
        assert_eq!(outcome, bad(ProbeFailure::Closed), "{answer:?}");
    }
}

#[test]
fn a_pod_that_never_answers_is_a_timeout() {
    for begun in [&b""[..], SETTINGS, &UNIMPLEMENTED[..15]] {
        let outcome = met_by(grpc("/", &[0, 12], SHORT), async |mut stream| {
            stream.write_all(begun).await.expect("room");
            stream
        });
        assert_eq!(outcome, bad(ProbeFailure::Timeout), "{begun:?}");
    }
}

#[test]
fn a_pod_that_sends_frames_without_end_is_left_before_the_timeout() {
    let ping = b"\0\0\x08\x06\x01\0\0\0\0pingpong";
    let mut frames = 0;
    let outcome = met_by(grpc("/", &[0], LONG), async |mut stream| {
        let _ = stream.write_all(SETTINGS).await;
        while stream.write_all(ping).await.is_ok() {
            frames += 1;
        }
    });
    assert_eq!(outcome, bad(ProbeFailure::Closed));
    assert!(frames as u64 * ping.len() as u64 > MOST, "{frames}");
}
