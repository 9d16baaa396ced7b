//! WebSocket over HTTP/2 (RFC 8441) towards a backend that speaks HTTP/1.1.

use std::{
    io::{self, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use bytes::Bytes;
use gateway_user::proxy::ProxyConfig;
use h2::{RecvStream, SendStream, client::SendRequest, ext::Protocol};
use http::{Request, Response};

use crate::{
    http2::{gateway, get, receive, with},
    support::*,
};

/// A backend that agrees to a handshake, and what it does then.
fn origin(speak: fn(&mut TcpStream) -> io::Result<()>) -> Origin {
    Origin::raw(move |seen, stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        let head = read_head(&mut reader)?;
        let request = Seen {
            head,
            ..Seen::default()
        };
        let accept = accept(&request.header("sec-websocket-key").concat());
        seen.lock().unwrap().push(request);
        // The first bytes come with the head.
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\nearly"
        );
        stream.write_all(head.as_bytes())?;
        speak(stream)
    })
}

/// Sends back what comes, and a last word when nothing comes any more.
fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut buf = vec![0; 10_000];
    loop {
        match stream.read(&mut buf)? {
            0 => break,
            read => stream.write_all(&buf[..read])?,
        }
    }
    stream.write_all(b"bye")?;
    stream.shutdown(Shutdown::Write)
}

/// RFC 6455 section 4.2.2.
fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = (hash.as_ref().iter())
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let digit = |bits: &[u8]| {
        let value = (0..6).fold(0, |value, at| {
            value << 1 | bits.get(at).copied().unwrap_or(0)
        });
        char::from(digits[usize::from(value)])
    };
    bits.chunks(6).map(digit).chain(['=']).collect()
}

type Open = (Response<RecvStream>, SendStream<Bytes>);

async fn open(send: &SendRequest<Bytes>, protocol: &str) -> Open {
    let mut send = send.clone().ready().await.unwrap();
    // The server's SETTINGS come first.
    while !send.is_extended_connect_protocol_enabled() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let request = Request::connect("http://a.example/chat?room=1")
        .extension(Protocol::from(protocol))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .body(())
        .unwrap();
    let (response, stream) = send.send_request(request, false).unwrap();
    (response.await.unwrap(), stream)
}

/// Sends it all, as room is made.
async fn write(stream: &mut SendStream<Bytes>, mut bytes: Bytes) {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = futures_util::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let piece = bytes.split_to(room.unwrap().unwrap().min(bytes.len()));
        stream.send_data(piece, false).unwrap();
    }
}

/// Reads this many bytes, or to the end.
async fn read(body: &mut RecvStream, most: usize) -> Result<Vec<u8>, h2::Error> {
    let mut read = Vec::new();
    while read.len() < most
        && let Some(piece) = body.data().await
    {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        read.extend_from_slice(&piece);
    }
    Ok(read)
}

#[test]
fn a_websocket_over_http_2_reaches_the_backend_as_an_upgrade_and_ends_on_both_sides() {
    let origin = origin(echo);
    let gateway = gateway(&origin);
    let sent: Bytes = (0..700_000_u32).map(|it| (it % 251) as u8).collect();
    with(&gateway.proxy, |send| async move {
        let (response, mut stream) = open(&send, "websocket").await;
        let (head, mut body) = response.into_parts();
        assert_eq!(head.status, 200);
        assert_eq!(head.headers["sec-websocket-protocol"], "chat");
        for gone in ["connection", "upgrade", "sec-websocket-accept"] {
            assert!(!head.headers.contains_key(gone), "{gone}");
        }
        assert_eq!(read(&mut body, 5).await.unwrap(), b"early");
        let back = read(&mut body, sent.len());
        let (back, ()) = futures_util::future::join(back, write(&mut stream, sent.clone())).await;
        assert!(back.unwrap() == sent, "what comes back is what was sent");
        assert_eq!(get_beside(&send).await, 501);
        stream.send_data(Bytes::new(), true).unwrap();
        assert_eq!(read(&mut body, usize::MAX).await.unwrap(), b"bye");
        assert!(body.is_end_stream());
        let (again, _stream) = open(&send, "websocket").await;
        assert_eq!(again.status(), 200);
    });
    let seen = origin.seen();
    assert_eq!(seen[0].line(), "GET /chat?room=1 HTTP/1.1");
    assert_eq!(seen[0].header("host"), ["a.example"]);
    assert_eq!(seen[0].header("connection"), ["upgrade"]);
    assert_eq!(seen[0].header("upgrade"), ["websocket"]);
    assert_eq!(seen[0].header("sec-websocket-version"), ["13"]);
    let keys = [0, 1].map(|index| seen[index].header("sec-websocket-key"));
    assert_eq!(keys[0].len(), 1);
    assert_eq!(keys[0][0].len(), 24, "16 bytes");
    assert_ne!(keys[0], keys[1], "each handshake has its own");
    assert_eq!(gateway.stats().upgrades, 2);
}

/// Status of another stream that asks for what nobody knows.
async fn get_beside(send: &SendRequest<Bytes>) -> u16 {
    open(send, "connect-udp").await.0.status().as_u16()
}

#[test]
fn other_protocols_and_plain_connect_are_refused() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = gateway(&origin);
    with(&gateway.proxy, |send| async move {
        let (response, _stream) = open(&send, "connect-udp").await;
        assert_eq!(response.status(), 501);
        assert_eq!(response.headers()["x-fleetgate-reason"], "unknown-protocol");
        let mut ready = send.clone().ready().await.unwrap();
        let plain = Request::connect("a.example:80").body(()).unwrap();
        let (response, _stream) = ready.send_request(plain, false).unwrap();
        assert_eq!(response.await.unwrap().status(), 405);
        assert_eq!(get(&send, "/").await.unwrap().body, b"ok");
    });
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_backend_that_does_not_upgrade_answers_as_always() {
    let reply = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    let origin = Origin::fixed(reply);
    let gateway = gateway(&origin);
    with(&gateway.proxy, |send| async move {
        let (response, _stream) = open(&send, "websocket").await;
        let (head, mut body) = response.into_parts();
        assert_eq!(head.status, 403);
        assert_eq!(read(&mut body, 2).await.unwrap(), b"no");
        assert_eq!(get(&send, "/").await.unwrap().body, b"no");
    });
}

#[test]
fn a_handshake_that_does_not_answer_the_key_is_no_handshake() {
    for accept in ["", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"] {
        let origin = Origin::fixed(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{accept}\r\n"
        ));
        let gateway = gateway(&origin);
        with(&gateway.proxy, |send| async move {
            let (response, _stream) = open(&send, "websocket").await;
            assert_eq!(response.status(), 502);
            assert_eq!(response.headers()["x-fleetgate-reason"], "bad-response");
        });
    }
}

#[test]
fn a_stream_that_the_client_resets_closes_the_backends_connection() {
    for half_closed in [false, true] {
        let origin = origin(|stream| {
            let mut buf = [0; 100];
            while stream.read(&mut buf)? > 0 {}
            // Holds its own half open until the proxy has closed all.
            loop {
                stream.write_all(b"more")?;
                thread::sleep(Duration::from_millis(20));
            }
        });
        let gateway = gateway(&origin);
        with(&gateway.proxy, |send| async move {
            let (response, mut stream) = open(&send, "websocket").await;
            let mut body = response.into_body();
            assert_eq!(read(&mut body, 5).await.unwrap(), b"early");
            if half_closed {
                stream.send_data(Bytes::new(), true).unwrap();
                assert!(read(&mut body, 8).await.unwrap().starts_with(b"more"));
            }
            stream.send_reset(h2::Reason::CANCEL);
            while origin.ended() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
}

#[test]
fn a_backend_that_breaks_resets_the_stream() {
    let origin = origin(|stream| {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))
    });
    let gateway = gateway(&origin);
    with(&gateway.proxy, |send| async move {
        let (response, mut stream) = open(&send, "websocket").await;
        let mut body = response.into_body();
        assert_eq!(read(&mut body, 5).await.unwrap(), b"early");
        write(&mut stream, Bytes::from_static(b"x")).await;
        let broken = read(&mut body, usize::MAX).await.expect_err("a reset");
        assert_eq!(broken.reason(), Some(h2::Reason::CANCEL));
    });
}

#[test]
fn a_tunnel_on_which_nothing_moves_is_reset() {
    let origin = origin(echo);
    let config = ProxyConfig {
        stall_timeout: Duration::from_millis(300),
        ..ProxyConfig::default()
    };
    let web = group("web", vec![backend("c1", origin.address, 1)]);
    let mut gateway = Gateway::with(config, vec![rule(web)]);
    gateway.change(|listener| listener.settings.h2c = true);
    with(&gateway.proxy, |send| async move {
        let (response, _stream) = open(&send, "websocket").await;
        let mut body = response.into_body();
        assert_eq!(read(&mut body, 5).await.unwrap(), b"early");
        let broken = read(&mut body, usize::MAX).await.expect_err("a reset");
        assert_eq!(broken.reason(), Some(h2::Reason::CANCEL));
    });
}

#[test]
fn a_client_that_takes_nothing_does_not_stop_the_other_streams() {
    let origin = origin(|stream| stream.write_all(&vec![7; 4 * 1024 * 1024]));
    let gateway = gateway(&origin);
    with(&gateway.proxy, |send| async move {
        let (held, _stream) = open(&send, "websocket").await;
        assert_eq!(get_beside(&send).await, 501);
        // Once it takes, all comes.
        let mut body = held.into_body();
        let all = read(&mut body, usize::MAX).await.unwrap();
        assert_eq!(all.len(), 5 + 4 * 1024 * 1024);
        let response = send.clone().ready().await.unwrap().send_request(
            Request::connect("http://a.example/")
                .extension(Protocol::from("other"))
                .body(())
                .unwrap(),
            true,
        );
        let got = receive(response.unwrap().0).await.unwrap();
        assert_eq!(got.head.status(), 501);
    });
}
