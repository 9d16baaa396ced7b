//! HTTP/2 clients, by prior knowledge.

use std::{future::Future, thread, time::Duration};

use bytes::Bytes;
use gateway_user::proxy::Proxy;
use h2::client::{self, SendRequest};
use http::{HeaderMap, Request, Response};

use crate::{
    h2frames::{Client, Event, block, code, data, headers, ping},
    support::*,
};

/// A gateway whose listener allows HTTP/2 without TLS.
pub(crate) fn gateway(origin: &Origin) -> Gateway {
    let mut gateway = Gateway::to(origin);
    gateway.change(|listener| listener.settings.h2c = true);
    gateway
}

/// Runs a client on a runtime of its own.
pub(crate) fn with<T, F: Future<Output = T>>(
    proxy: &Proxy,
    run: impl FnOnce(SendRequest<Bytes>) -> F,
) -> T {
    let address = proxy.local_addr();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (send, connection) = client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let limit = Duration::from_secs(20);
        let outcome = tokio::time::timeout(limit, run(send)).await.unwrap();
        driver.abort();
        outcome
    })
}

pub(crate) struct Got {
    pub(crate) head: Response<()>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

pub(crate) async fn receive(response: client::ResponseFuture) -> Result<Got, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let mut data = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        data.extend_from_slice(&piece);
    }
    Ok(Got {
        head: Response::from_parts(head, ()),
        body: data,
        trailers: body.trailers().await?,
    })
}

pub(crate) async fn get(send: &SendRequest<Bytes>, path: &str) -> Result<Got, h2::Error> {
    let mut send = send.clone().ready().await?;
    let request = Request::get(format!("http://a.example{path}"))
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(())
        .unwrap();
    let (response, _) = send.send_request(request, true)?;
    receive(response).await
}

#[test]
fn a_request_over_http_2_reaches_the_backend_as_http_1_1() {
    let origin = Origin::fixed(ok("hello"));
    let gateway = gateway(&origin);
    let got = with(&gateway.proxy, |send| async move {
        get(&send, "/p?q=1").await.unwrap()
    });
    assert_eq!(got.head.status(), 200);
    assert_eq!(got.body, b"hello");
    let seen = origin.seen();
    assert_eq!(seen[0].line(), "GET /p?q=1 HTTP/1.1");
    assert_eq!(seen[0].header("host"), ["a.example"]);
    assert_eq!(seen[0].header("cookie"), ["a=1; b=2"]);
    assert_eq!(seen[0].header("x-forwarded-for"), ["127.0.0.1"]);
}

#[test]
fn streams_of_one_connection_are_served_side_by_side() {
    let origin = Origin::answering(|seen, stream| {
        if seen.line().contains("/slow") {
            thread::sleep(Duration::from_millis(300));
        }
        std::io::Write::write_all(stream, &ok(seen.line()))
    });
    let gateway = gateway(&origin);
    with(&gateway.proxy, |send| async move {
        let slow = get(&send, "/slow");
        let fast = async {
            for turn in 0..20 {
                let got = get(&send, &format!("/{turn}")).await.unwrap();
                assert_eq!(got.body, format!("GET /{turn} HTTP/1.1").as_bytes());
            }
            std::time::Instant::now()
        };
        let slow = async { (slow.await.unwrap(), std::time::Instant::now()) };
        let ((slow, slow_at), fast_at) = futures_util::future::join(slow, fast).await;
        assert_eq!(slow.body, b"GET /slow HTTP/1.1");
        assert!(fast_at < slow_at, "nobody waits for the slow one");
    });
}

#[test]
fn bodies_and_trailers_pass_both_ways() {
    let origin = Origin::answering(|seen, stream| {
        let body = &seen.body;
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut reply = head.as_bytes().to_vec();
        for piece in body.chunks(10_000) {
            reply.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            reply.extend_from_slice(piece);
            reply.extend_from_slice(b"\r\n");
        }
        let sum = seen.trailers.join(",");
        reply.extend_from_slice(format!("0\r\nX-Back: {sum}\r\n\r\n").as_bytes());
        std::io::Write::write_all(stream, &reply)
    });
    let gateway = gateway(&origin);
    let body: Vec<u8> = (0..700_000_u32).map(|it| (it % 251) as u8).collect();
    let sent = body.clone();
    let got = with(&gateway.proxy, |send| async move {
        let mut send = send.ready().await.unwrap();
        let request = Request::post("http://a/").body(()).unwrap();
        let (response, mut stream) = send.send_request(request, false).unwrap();
        let upload = async {
            for piece in sent.chunks(9_000) {
                stream.reserve_capacity(piece.len());
                let mut left = Bytes::copy_from_slice(piece);
                while !left.is_empty() {
                    let room = futures_util::future::poll_fn(|cx| stream.poll_capacity(cx))
                        .await
                        .unwrap()
                        .unwrap();
                    let now = left.split_to(room.min(left.len()));
                    stream.send_data(now, false).unwrap();
                }
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "7".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
        };
        let (got, ()) = futures_util::future::join(receive(response), upload).await;
        got.unwrap()
    });
    assert!(got.body == body, "{} of {}", got.body.len(), body.len());
    let trailers = got.trailers.expect("trailers");
    assert_eq!(trailers["x-back"], "x-sum: 7");
}

#[test]
fn a_stream_that_is_reset_frees_the_backend_and_no_other_stream_notices() {
    let origin = Origin::raw(|seen, stream| {
        let mut reader = std::io::BufReader::new(stream.try_clone()?);
        loop {
            let head = read_head(&mut reader)?;
            seen.lock().unwrap().push(Seen {
                head: head.clone(),
                ..Seen::default()
            });
            if !head.contains("/never") {
                std::io::Write::write_all(stream, &ok("ok"))?;
            }
        }
    });
    let gateway = gateway(&origin);
    with(&gateway.proxy, |send| async move {
        let mut ready = send.clone().ready().await.unwrap();
        let request = Request::get("http://a/never").body(()).unwrap();
        let (response, mut stream) = ready.send_request(request, true).unwrap();
        while origin.seen().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        assert_eq!(get(&send, "/").await.unwrap().body, b"ok");
        while origin.ended() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn refusals_have_their_reason_and_leave_the_connection_alone() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = gateway(&origin);
    with(&gateway.proxy, |send| async move {
        let mut ready = send.clone().ready().await.unwrap();
        for (request, status, reason) in [
            (Request::get("http://a/../b"), 400, "bad-request"),
            (
                Request::get("http://a/").header("host", "b"),
                400,
                "bad-request",
            ),
            (
                Request::get("http://a/").header("expect", "x"),
                417,
                "unknown-expectation",
            ),
        ] {
            let (response, _) = ready.send_request(request.body(()).unwrap(), true).unwrap();
            let got = receive(response).await.unwrap();
            assert_eq!(got.head.status(), status);
            assert_eq!(got.head.headers()["x-fleetgate-reason"], reason);
        }
        assert_eq!(get(&send, "/").await.unwrap().body, b"ok");
    });
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn an_answer_that_comes_before_the_body_is_whole_reaches_a_client_that_still_sends() {
    for closes in ["", "Connection: close\r\n"] {
        let origin = Origin::raw(move |_, stream| {
            let mut reader = std::io::BufReader::new(stream.try_clone()?);
            read_head(&mut reader)?;
            let head = format!("HTTP/1.1 413 No\r\n{closes}Content-Length: 8\r\n\r\ntoo long");
            std::io::Write::write_all(stream, head.as_bytes())
        });
        let gateway = gateway(&origin);
        with(&gateway.proxy, |send| async move {
            let mut ready = send.clone().ready().await.unwrap();
            let request = Request::post("http://a/").body(()).unwrap();
            let (response, mut stream) = ready.send_request(request, false).unwrap();
            stream
                .send_data(Bytes::from(vec![0; 60_000]), false)
                .unwrap();
            let got = receive(response).await.unwrap();
            assert_eq!(
                (got.head.status().as_u16(), &*got.body),
                (413, &b"too long"[..])
            );
        });
    }
}

/// Each would hold its stream for a second.
#[test]
fn a_refusal_does_not_wait_for_a_body_that_may_never_come() {
    let origin = Origin::fixed(ok("ok"));
    let mut gateway = gateway(&origin);
    gateway.change(|listener| listener.rules.clear());
    with(&gateway.proxy, |send| async move {
        for _ in 0..40 {
            let mut ready = send.clone().ready().await.unwrap();
            let request = Request::post("http://a/").body(()).unwrap();
            let (response, mut body) = ready.send_request(request, false).unwrap();
            assert_eq!(receive(response).await.unwrap().head.status(), 404);
            // RFC 9113 section 8.1: the answer is whole, and the rest of the request is of no use.
            let reset = std::future::poll_fn(|cx| body.poll_reset(cx)).await;
            assert_eq!(reset.unwrap(), h2::Reason::NO_ERROR);
        }
    });
}

/// RFC 9113 section 5.1: after RST_STREAM frames may still be on their way. They are no error of the client's.
#[test]
fn bodies_that_come_after_many_refusals_leave_the_connection_alone() {
    const REFUSED: u32 = 128;
    let origin = Origin::fixed(ok("ok"));
    let mut gateway = gateway(&origin);
    gateway.change(|listener| listener.rules.clear());
    let stream = std::net::TcpStream::connect(gateway.proxy.local_addr()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut client = Client::new(stream);
    client.open(&[]);
    let post = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "a"),
    ];
    let ids = || (0..REFUSED).map(|it| 2 * it + 1);
    for id in ids() {
        client.send(&headers(id, block(&post), false)).unwrap();
    }
    let mut resets = 0;
    while resets < REFUSED {
        match client.event() {
            Event::Reset { code, .. } => {
                assert_eq!(code, code::NO_ERROR);
                resets += 1;
            }
            Event::Closed | Event::Silence => panic!("{resets} resets"),
            _ => {}
        }
    }
    for id in ids() {
        client.send(&data(id, "late", true)).unwrap();
    }
    client.send(&ping(*b"and now?")).unwrap();
    loop {
        match client.event() {
            Event::Pong(payload) if payload == b"and now?" => break,
            Event::Closed | Event::Silence | Event::GoAway { .. } => panic!("it ended"),
            _ => {}
        }
    }
}

#[test]
fn an_answer_that_breaks_off_resets_the_stream() {
    let origin = Origin::raw(|_, stream| {
        let mut reader = std::io::BufReader::new(stream.try_clone()?);
        read_head(&mut reader)?;
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
        std::io::Write::write_all(stream, head)
    });
    let gateway = gateway(&origin);
    let broken = with(&gateway.proxy, |send| async move {
        get(&send, "/").await.is_err()
    });
    assert!(broken);
}

#[test]
fn a_stopping_proxy_says_goaway_and_finishes_what_is_under_way() {
    let origin = Origin::answering(|_, stream| {
        thread::sleep(Duration::from_millis(400));
        std::io::Write::write_all(stream, &ok("late"))
    });
    let gateway = gateway(&origin);
    let proxy = gateway.proxy;
    let address = proxy.local_addr();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (send, connection) = client::handshake(stream).await.unwrap();
        let ended = tokio::spawn(connection);
        let under_way = tokio::spawn({
            let send = send.clone();
            async move { get(&send, "/").await }
        });
        while origin.seen().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let stopping = thread::spawn(move || proxy.shutdown(Duration::from_secs(10)));
        assert_eq!(under_way.await.unwrap().unwrap().body, b"late");
        drop(send);
        assert!(ended.await.unwrap().is_ok(), "GOAWAY, then the end");
        stopping.join().unwrap();
    });
}

#[test]
fn without_permission_the_preface_is_no_request() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(client.reply().unwrap().status, 505);
}
