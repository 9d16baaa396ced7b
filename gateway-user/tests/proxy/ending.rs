//! A proxy that ends, or that another one follows.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::support::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const LONG: Duration = Duration::from_secs(10);

/// Sends back what comes, each time a while later.
fn echo() -> Origin {
    Origin::answering(|_, stream| {
        stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
        )?;
        let mut buf = [0; 1024];
        loop {
            let read = stream.read(&mut buf)?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            thread::sleep(Duration::from_millis(300));
            stream.write_all(&buf[..read])?;
        }
    })
}

fn tunnel(gateway: &Gateway) -> Client {
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(client.reply().unwrap().status, 101);
    client
}

fn heard(client: &mut Client) -> String {
    let mut buf = [0; 64];
    let read = client.read_some(&mut buf).unwrap();
    String::from_utf8_lossy(&buf[..read]).into_owned()
}

#[test]
fn a_proxy_that_another_one_follows_ends_connections_with_their_next_answer_and_not_before() {
    let origin = Origin::fixed(ok("ok"));
    let mut gateway = Gateway::to(&origin);
    let address = gateway.proxy.local_addr();
    let (mut used, mut unused) = (gateway.client(), gateway.client());
    used.send(GET);
    assert!(used.reply().unwrap().header("connection").is_empty());
    eventually("both are taken", || gateway.stats().active_connections == 2);
    gateway.proxy.retire();
    eventually("it accepts no more", || {
        TcpStream::connect(address).is_err()
    });
    for client in [&mut used, &mut unused] {
        client.send(GET);
        let reply = client.reply().unwrap();
        assert_eq!(
            (reply.status, reply.header("connection")),
            (200, vec!["close".to_owned()])
        );
        assert_eq!(client.rest(), "");
    }
}

#[test]
fn tunnels_stay_when_another_proxy_follows_and_end_with_the_proxy_when_nothing_is_under_way() {
    let origin = echo();
    let mut gateway = Gateway::to(&origin);
    let address = gateway.proxy.local_addr();
    let (mut idle, mut busy) = (tunnel(&gateway), tunnel(&gateway));
    gateway.proxy.retire();
    eventually("it accepts no more", || {
        TcpStream::connect(address).is_err()
    });
    for client in [&mut idle, &mut busy] {
        client.send("before");
        assert_eq!(heard(client), "before");
    }
    busy.send("asked");
    let started = Instant::now();
    let Gateway { proxy, .. } = gateway;
    let ending = thread::spawn(move || proxy.shutdown(LONG));
    assert_eq!(idle.rest(), "");
    assert_eq!(heard(&mut busy), "asked", "the answer was under way");
    assert_eq!(busy.rest(), "");
    drop((idle, busy));
    ending.join().unwrap();
    assert!(started.elapsed() < LONG, "the grace is a limit, not a wait");
}

#[test]
fn who_is_accepted_while_the_proxy_stops_is_answered() {
    // Connections are accepted for a moment only: on a machine that is busy nobody may have come in time.
    for _ in 0..20 {
        let origin = Origin::fixed(ok("ok"));
        let gateway = Gateway::to(&origin);
        let address = gateway.proxy.local_addr();
        let mut idle = gateway.client();
        eventually("it is taken", || gateway.stats().active_connections == 1);
        let Gateway { proxy, .. } = gateway;
        let ending = thread::spawn(move || proxy.shutdown(LONG));
        assert_eq!(idle.rest(), "");
        let late = TcpStream::connect(address);
        let mut answered = String::new();
        if let Ok(mut late) = late {
            thread::sleep(Duration::from_millis(30));
            // In the queue of a socket that is closed it is reset.
            let _ = late.write_all(GET.as_bytes());
            let read = late.read_to_string(&mut answered);
            assert!(
                read.is_err() || !answered.is_empty(),
                "it was closed without an answer"
            );
        }
        ending.join().unwrap();
        if !answered.is_empty() {
            assert!(
                answered.contains("200 OK") && answered.contains("close"),
                "{answered}"
            );
            return;
        }
    }
    panic!("nobody was answered");
}
