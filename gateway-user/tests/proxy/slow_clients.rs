//! Clients that take their answers slowly.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use gateway_user::proxy::{ProxyConfig, Reason};
use socket2::{Domain, Socket, Type};

use crate::{
    h2frames::{Client as Frames, Event, block, code, headers, setting, window_update},
    support::{Gateway, Origin, backend, dial, eventually, group, rule},
};

/// How long may pass without that a client takes something worth it.
const SPAN: Duration = Duration::from_millis(300);

fn gateway(origin: &Origin) -> Gateway {
    let config = ProxyConfig {
        workers: 1,
        stall_timeout: SPAN,
        ..ProxyConfig::default()
    };
    let backends = vec![backend("c1", origin.address, 1)];
    let mut gateway = Gateway::with(config, vec![rule(group("web", backends))]);
    gateway.change(|site| site.settings.h2c = true);
    gateway
}

/// An answer of `pieces`, each of 10 bytes, `pause` apart.
fn pieces(pieces: usize, pause: Duration) -> Origin {
    Origin::answering(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for _ in 0..pieces {
            stream.write_all(b"a\r\n0123456789\r\n")?;
            thread::sleep(pause);
        }
        stream.write_all(b"0\r\n\r\n")
    })
}

/// More than any buffer on the way holds.
fn large() -> Origin {
    Origin::answering(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let many = b"a\r\n0123456789\r\n".repeat(1000);
        for _ in 0..2000 {
            stream.write_all(&many)?;
        }
        stream.write_all(b"0\r\n\r\n")
    })
}

/// A client of HTTP/2 that has asked, and left no room for the answer.
fn asking(gateway: &Gateway) -> Frames<TcpStream> {
    let mut client = Frames::new(dial(gateway.proxy.local_addr()));
    client.open(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
    ];
    client.send(&headers(1, block(&fields), true)).unwrap();
    client
}

#[test]
fn a_stream_whose_window_is_opened_byte_by_byte_is_reset() {
    let origin = large();
    let gateway = gateway(&origin);
    let mut client = asking(&gateway);
    let mut bytes = 0;
    loop {
        match client.event() {
            Event::SettingsAck | Event::Other(_) | Event::Headers { stream: 1, .. } => {}
            Event::Data { bytes: data, .. } => bytes += data.len(),
            Event::Reset { stream: 1, code } => {
                assert_eq!(code, code::INTERNAL_ERROR);
                break;
            }
            other => panic!("after {bytes} bytes: {other:?}"),
        }
        thread::sleep(Duration::from_millis(20));
        // It may be reset by now.
        drop(client.send(&window_update(1, 1)));
    }
    assert!((1..1024).contains(&bytes), "{bytes} bytes");
    assert_eq!(gateway.stats().reason(Reason::SlowClient), 1);
    eventually("the backend's connection ended", || origin.ended() == 1);
}

#[test]
fn a_connection_that_is_read_byte_by_byte_is_reset() {
    let origin = large();
    let gateway = gateway(&origin);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(&gateway.proxy.local_addr().into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let ended = loop {
        match stream.read(&mut [0]) {
            Ok(1..) => thread::sleep(Duration::from_millis(1)),
            ended => break ended,
        }
    };
    let err = ended.expect_err("what is missing is told");
    assert_eq!(err.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(gateway.stats().reason(Reason::SlowClient), 1);
    eventually("the backend's connection ended", || origin.ended() == 1);
}

#[test]
fn a_client_whose_pod_is_slow_is_not_slow() {
    let origin = pieces(30, SPAN / 6);
    let gateway = gateway(&origin);
    let mut client = gateway.client();
    assert_eq!(client.get("/").body.len(), 300);
    assert_eq!(client.get("/").status, 200, "the connection goes on");
    assert_eq!(gateway.stats().reason(Reason::SlowClient), 0);
}

#[test]
fn a_client_that_takes_enough_in_each_span_gets_all() {
    let origin = Origin::fixed(crate::support::ok(&"x".repeat(40_000)));
    let gateway = gateway(&origin);
    let mut client = asking(&gateway);
    let mut bytes = 0;
    loop {
        match client.event() {
            Event::SettingsAck | Event::Other(_) | Event::Headers { stream: 1, .. } => {}
            Event::Data {
                bytes: data, end, ..
            } => {
                bytes += data.len();
                if end {
                    break;
                }
            }
            other => panic!("after {bytes} bytes: {other:?}"),
        }
        thread::sleep(SPAN / 6);
        client.send(&window_update(1, 2000)).unwrap();
    }
    assert_eq!(bytes, 40_000);
}
