//! Bodies through TLS: whole, in step, and known to be cut where they are.

use std::{
    io::Write,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
    time::Instant,
};

use super::{
    made::{certificate, client},
    *,
};

const LARGE: usize = 10 * 1024 * 1024;

fn echo() -> Origin {
    Origin::answering(|seen, stream| {
        let length = seen.body.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
        )?;
        stream.write_all(&seen.body)
    })
}

fn one(origin: &Origin) -> Gateway {
    gateway(origin, &[("a", &certificate(&["a.example"]))])
}

fn body() -> Vec<u8> {
    (0..LARGE).map(|at| (at * 31 % 251) as u8).collect()
}

#[test]
fn large_bodies_pass_both_ways_unchanged() {
    let origin = echo();
    let gateway = one(&origin);
    let mut client = connect(&gateway, &client().config(), "a.example");
    let body = body();
    for chunked in [false, true] {
        if chunked {
            client.send("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n");
            for piece in body.chunks(70_001) {
                client.send(format!("{:x}\r\n", piece.len()));
                client.send(piece);
                client.send("\r\n");
            }
            client.send("0\r\n\r\n");
        } else {
            client.send(format!(
                "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {LARGE}\r\n\r\n"
            ));
            client.send(&body);
        }
        let reply = client.reply().unwrap();
        assert!(origin.seen().pop().unwrap().body == body, "up {chunked}");
        assert!(reply.body == body, "down {chunked}");
    }
}

#[test]
fn large_bodies_pass_over_http_2_both_ways_unchanged() {
    let origin = echo();
    let gateway = one(&origin);
    let body = body();
    let sent = body.clone();
    let got = over_h2(gateway.proxy.local_addr(), "a.example", |send| async move {
        let mut send = send.ready().await.unwrap();
        let request = Request::post("https://a.example/").body(()).unwrap();
        let (response, mut stream) = send.send_request(request, false).unwrap();
        let upload = async {
            let mut left = Bytes::from(sent);
            while !left.is_empty() {
                stream.reserve_capacity(left.len());
                let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                let now = left.split_to(room.unwrap().unwrap().min(left.len()));
                stream.send_data(now, left.is_empty()).unwrap();
            }
        };
        let (got, ()) = futures_util::future::join(receive(response), upload).await;
        got.unwrap()
    });
    assert!(origin.seen()[0].body == body, "up");
    assert!(got.body == body, "down");
}

const TOTAL: usize = 64 * 1024 * 1024;

/// Answers with much, and counts what it gets rid of.
fn pouring() -> (Origin, Arc<AtomicUsize>) {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let origin = Origin::answering(move |_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n")?;
        let piece = vec![7_u8; 64 * 1024];
        for _ in 0..TOTAL / piece.len() {
            stream.write_all(&piece)?;
            count.fetch_add(piece.len(), SeqCst);
        }
        Ok(())
    });
    (origin, written)
}

/// Waits until a count stands still.
fn settled(count: &AtomicUsize) -> usize {
    let mut before = usize::MAX;
    let until = Instant::now() + Duration::from_secs(10);
    while (count.load(SeqCst) == 0 || before != count.load(SeqCst)) && Instant::now() < until {
        before = count.load(SeqCst);
        thread::sleep(Duration::from_millis(300));
    }
    count.load(SeqCst)
}

#[test]
fn a_slow_reader_holds_the_backend_back() {
    let (origin, written) = pouring();
    let gateway = one(&origin);
    let mut client = connect(&gateway, &client().config(), "a.example");
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let held = settled(&written);
    assert!(
        held > 0 && held < TOTAL / 2,
        "{held} bytes left the backend although nobody reads"
    );
    let reply = client.reply().unwrap();
    assert_eq!(reply.body.len(), TOTAL);
    assert!(reply.body.iter().all(|it| *it == 7));
}

#[test]
fn a_stream_that_nobody_reads_holds_its_backend_back_and_no_other_stream() {
    let (origin, written) = pouring();
    let gateway = one(&origin);
    over_h2(gateway.proxy.local_addr(), "a.example", |send| async move {
        let mut ready = send.clone().ready().await.unwrap();
        let request = Request::get("https://a.example/slow").body(()).unwrap();
        let (slow, _) = ready.send_request(request, true).unwrap();
        let mut slow = slow.await.unwrap().into_body();
        let mut before = usize::MAX;
        while written.load(SeqCst) == 0 || before != written.load(SeqCst) {
            before = written.load(SeqCst);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(before < TOTAL / 2, "{before} bytes left the backend");
        let got = ask_h2(&send, "https://b.example/../").await.unwrap();
        assert_eq!(got.head.status(), 400, "others are served");
        let mut read = 0;
        while let Some(piece) = slow.data().await {
            let piece = piece.unwrap();
            read += piece.len();
            slow.flow_control().release_capacity(piece.len()).unwrap();
        }
        assert_eq!(read, TOTAL);
    });
}

#[test]
fn a_client_that_ends_in_the_middle_of_a_body_aborts_the_backends_request() {
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        // Whether it says so (RFC 8446 section 6.1) or just goes.
        for says_so in [true, false] {
            let origin = Origin::fixed(ok("ok"));
            let gateway = one(&origin);
            let mut client = connect(&gateway, &client().config(), "a.example");
            client.send(format!(
                "POST / HTTP/1.1\r\nHost: a.example\r\n{framing}\r\n\r\n5\r\nhello\r\n"
            ));
            eventually("the backend is asked", || origin.connections() == 1);
            if says_so {
                let stream = client.stream();
                stream.conn.send_close_notify();
                stream.flush().unwrap();
                client.rest();
            } else {
                let stream = &client.stream().sock;
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                client.rest();
            }
            eventually("the backend's connection ended", || origin.ended() == 1);
            let seen = origin.seen();
            assert!(seen.iter().all(|it| !it.complete), "{framing}: {seen:?}");
            eventually("nothing is held", || {
                gateway.stats().active_connections == 0
            });
        }
    }
}

#[test]
fn a_client_that_says_it_is_done_while_it_waits_frees_the_backend() {
    // As without TLS: who ends its side has left.
    let origin = Origin::raw(|_, stream| io::copy(stream, &mut io::sink()).map(drop));
    let gateway = one(&origin);
    let mut client = connect(&gateway, &client().config(), "a.example");
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    eventually("the backend is asked", || origin.connections() == 1);
    thread::sleep(Duration::from_millis(50));
    let stream = client.stream();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    eventually("the backend's connection ended", || origin.ended() == 1);
    eventually("nothing is held", || {
        gateway.stats().active_connections == 0
    });
}

#[test]
fn an_answer_that_breaks_off_ends_without_a_close_notify() {
    let origin = Origin::raw(|_, stream| {
        let mut reader = io::BufReader::new(stream.try_clone()?);
        read_head(&mut reader)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    });
    let gateway = one(&origin);
    let mut client = connect(&gateway, &client().config(), "a.example");
    client.send("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n");
    // A client of HTTP/1.0 knows the end of the body by the end of the connection alone.
    assert!(client.reply().is_err());
}
