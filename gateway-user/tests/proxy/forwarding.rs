//! What passes, and how.

use std::{
    io::{Read, Write},
    thread,
    time::{Duration, Instant},
};

use gateway_user::ir::{ForwardedFor, ForwardedHeaders};

use super::support::{Gateway, Origin, eventually, ok};

#[test]
fn both_sides_keep_their_connections() {
    let origin = Origin::fixed(ok("hello"));
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    for _ in 0..50 {
        let reply = client.get("/a?b=c");
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    }
    assert_eq!(origin.connections(), 1);
    let seen = origin.seen();
    assert_eq!(seen.len(), 50);
    assert_eq!(seen[0].line(), "GET /a?b=c HTTP/1.1");
    assert_eq!(seen[0].header("host"), ["demo"]);
    let stats = gateway.stats();
    assert_eq!(
        (
            stats.accepted_connections,
            stats.active_connections,
            stats.requests
        ),
        (1, 1, 50)
    );
    assert_eq!((stats.upstream_opened, stats.upstream_reused), (1, 49));
    assert_eq!(stats.responses, [0, 50, 0, 0, 0]);
    assert_eq!(stats.backends.len(), 1);
    assert_eq!(stats.backends[0].1, 50);
    assert!(stats.downstream_received_bytes > 50 * 30 && stats.downstream_sent_bytes > 50 * 30);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::answering(|seen, stream| stream.write_all(&ok(seen.line())));
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    let mut burst = Vec::new();
    for number in 0..20 {
        burst.extend_from_slice(
            format!("POST /{number} HTTP/1.1\r\nHost: demo\r\nContent-Length: 3\r\n\r\nabc")
                .as_bytes(),
        );
        burst.extend_from_slice(format!("PUT /{number} HTTP/1.1\r\nHost: demo\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").as_bytes());
    }
    client.send(&burst);
    for number in 0..20 {
        assert_eq!(
            client.reply().unwrap().text(),
            format!("POST /{number} HTTP/1.1")
        );
        assert_eq!(
            client.reply().unwrap().text(),
            format!("PUT /{number} HTTP/1.1")
        );
    }
    assert!(origin.seen().iter().all(|seen| seen.body == b"abc"));
}

#[test]
fn how_a_client_cuts_its_bytes_makes_no_difference() {
    let origin = Origin::answering(|seen, stream| stream.write_all(&ok(seen.line())));
    let gateway = Gateway::to(&origin);
    let burst = b"\r\nGET /1 HTTP/1.1\r\nHost: demo\r\n\r\nPOST /2 HTTP/1.1\r\nHost: demo\r\nContent-Length: 3\r\n\r\nabc\
        PUT /3 HTTP/1.1\r\nHost: demo\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nA: b\r\n\r\n\
        GET /4 HTTP/1.1\r\nHost: demo\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nGET /5 HTTP/1.1\r\nHost: demo\r\n\r\n";
    for cut in [1, 2, 3, 7, 50, 400] {
        let mut client = gateway.client();
        for piece in burst.chunks(cut) {
            client.send(piece);
            if cut < 50 {
                thread::sleep(Duration::from_micros(200));
            }
        }
        for line in ["GET /1", "POST /2", "PUT /3", "GET /4", "GET /5"] {
            let text = client.reply().unwrap().text();
            assert_eq!(text, format!("{line} HTTP/1.1"), "cut {cut}");
        }
        let seen = origin.seen();
        let bodies: Vec<&[u8]> = seen[seen.len() - 5..]
            .iter()
            .map(|seen| seen.body.as_slice())
            .collect();
        assert_eq!(bodies, [&b""[..], b"abc", b"abc", b"", b""], "cut {cut}");
    }
}

#[test]
fn the_largest_head_that_is_allowed_passes() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    let (target, value) = ("t".repeat(32_000), "v".repeat(30_000));
    for _ in 0..2 {
        client.send(format!(
            "GET /{target} HTTP/1.1\r\nHost: demo\r\nX: {value}\r\n\r\n"
        ));
        assert_eq!(client.reply().unwrap().status, 200);
    }
    assert_eq!(origin.seen()[1].header("x"), [value]);
}

#[test]
fn chunked_bodies_and_trailers_pass_both_ways() {
    let origin = Origin::answering(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n")
    });
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: demo\r\nTE: trailers\r\nTrailer: x-req\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nx-req: 7\r\n\r\n");
    let reply = client.reply().unwrap();
    assert_eq!(reply.text(), "hello");
    assert_eq!(reply.trailers, ["x-sum: 42"]);
    assert_eq!(reply.header("transfer-encoding"), ["chunked"]);
    let seen = &origin.seen()[0];
    assert_eq!(
        (seen.body.as_slice(), seen.trailers.as_slice()),
        (&b"abcde"[..], &["x-req: 7".to_owned()][..])
    );
    assert_eq!(seen.header("te"), ["trailers"]);
    assert_eq!(client.get("/").status, 200, "the connection goes on");
}

#[test]
fn hop_by_hop_fields_end_at_the_proxy_in_both_directions() {
    let origin = Origin::fixed(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-End: 1\r\n\r\nok",
    );
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: demo\r\nConnection: keep-alive, X-Secret, Content-Length, Host\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip\r\nTrailer: x\r\nUpgrade: h2c\r\nX-End: 1\r\n\r\n",
    );
    let reply = client.reply().unwrap();
    let seen = &origin.seen()[0];
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
        "x-secret",
        "transfer-encoding",
    ] {
        assert!(
            seen.header(name).is_empty(),
            "{name} reached the backend:\n{}",
            seen.head
        );
    }
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "x-hop",
    ] {
        assert!(
            reply.header(name).is_empty(),
            "{name} reached the client:\n{}",
            reply.head
        );
    }
    assert_eq!(
        (seen.header("x-end"), seen.header("host")),
        (vec!["1".to_owned()], vec!["demo".to_owned()])
    );
    assert_eq!(reply.header("x-end"), ["1"]);
}

#[test]
fn what_a_pod_could_take_for_a_field_of_the_gateway_does_not_pass_and_other_underscores_do() {
    let origin = Origin::fixed(ok("ok"));
    let mut gateway = Gateway::to(&origin);
    gateway.change(|listener| listener.settings.h2c = true);
    let claims = [
        "X_Forwarded_For",
        "x-forwarded_proto",
        "SLB_ID",
        "X_Forwarded_ClientCert_SubjectDN",
        "Content_Length",
        "Transfer_Encoding",
    ];
    let lines = |name: &str| claims.map(|it| format!("{it}: 7\r\n")).concat() + name + ": 7\r\n";
    let mut client = gateway.client();
    assert_eq!(client.get_with("/", &lines("user_id")).status, 200);
    crate::http2::with(&gateway.proxy, async |send| {
        let mut request = http::Request::get("http://a/");
        for name in claims {
            request = request.header(name, "7");
        }
        let request = request.header("user_id", "7").body(()).unwrap();
        let mut send = send.ready().await.unwrap();
        let (response, _) = send.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    });
    let seen = origin.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        for claim in claims {
            assert!(seen.header(claim).is_empty(), "{claim}: {}", seen.head);
        }
        assert_eq!(seen.header("user_id"), ["7"]);
        assert_eq!(seen.header("x-forwarded-for"), ["127.0.0.1"]);
    }
}

#[test]
fn forwarded_headers_follow_the_listener() {
    let origin = Origin::fixed(ok(""));
    let mut gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    let mut ask = |gateway: &mut Gateway, forwarded_for, forwarded| {
        gateway.change(|listener| {
            listener.settings.forwarded_for = forwarded_for;
            listener.settings.forwarded = forwarded;
        });
        client.send("GET / HTTP/1.1\r\nHost: Demo:8080\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\nX-Forwarded-Proto: gopher\r\n\r\n");
        assert_eq!(client.reply().unwrap().status, 200);
        origin.seen().pop().unwrap()
    };
    let seen = ask(
        &mut gateway,
        ForwardedFor::Append,
        ForwardedHeaders::default(),
    );
    assert_eq!(
        seen.header("x-forwarded-for"),
        ["1.2.3.4, 5.6.7.8, 127.0.0.1"]
    );
    assert_eq!(seen.header("x-forwarded-proto"), ["gopher"]);
    let seen = ask(
        &mut gateway,
        ForwardedFor::Remove,
        ForwardedHeaders::default(),
    );
    assert!(seen.header("x-forwarded-for").is_empty());
    let all = ForwardedHeaders {
        proto: true,
        port: true,
        host: true,
        client_port: true,
    };
    let seen = ask(&mut gateway, ForwardedFor::Keep, all);
    assert_eq!(seen.header("x-forwarded-for"), ["1.2.3.4", "5.6.7.8"]);
    assert_eq!(seen.header("x-forwarded-proto"), ["http"]);
    assert_eq!(
        seen.header("x-forwarded-port"),
        [gateway.proxy.local_addr().port().to_string()]
    );
    assert_eq!(seen.header("x-forwarded-host"), ["Demo:8080"]);
    assert_eq!(
        seen.header("x-forwarded-client-srcport"),
        [client.stream().local_addr().unwrap().port().to_string()]
    );
}

#[test]
fn an_absolute_target_is_routed_and_rewritten() {
    let origin = Origin::fixed(ok(""));
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    client.send("GET http://other.example:81?x=1 HTTP/1.1\r\nHost: demo\r\n\r\n");
    assert_eq!(client.reply().unwrap().status, 200);
    let seen = &origin.seen()[0];
    assert_eq!(
        (seen.line(), seen.header("host")),
        ("GET /?x=1 HTTP/1.1", vec!["other.example:81".to_owned()])
    );
}

#[test]
fn http_1_0_clients_are_served_without_chunks() {
    let origin = Origin::fixed(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let reply = client.reply().unwrap();
    assert!(reply.header("transfer-encoding").is_empty());
    assert_eq!(reply.text(), "hello");
    assert_eq!(origin.seen()[0].line(), "GET / HTTP/1.1");
    assert_eq!(
        origin.seen()[0].header("host"),
        [gateway.proxy.local_addr().to_string()]
    );

    let origin = Origin::fixed(ok("kept"));
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.reply().unwrap().text(), "kept");
    }
}

#[test]
fn responses_without_a_body_keep_the_connection_in_step() {
    let origin = Origin::answering(|seen, stream| match seen.line().split(' ').nth(1) {
        Some("/204") => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n"),
        Some("/304") => stream
            .write_all(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n"),
        Some("/head") => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"),
        _ => stream.write_all(&ok("body")),
    });
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.get("/204").status, 204);
        assert_eq!(client.get("/304").status, 304);
        client.send("HEAD /head HTTP/1.1\r\nHost: demo\r\n\r\n");
        assert_eq!(
            client.reply_to("HEAD").unwrap().header("content-length"),
            ["12345"]
        );
        assert_eq!(client.get("/").text(), "body");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn early_hints_of_a_backend_reach_the_client_ahead_of_the_final_response() {
    let origin = Origin::fixed(
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    for _ in 0..2 {
        let hints = client.get("/");
        assert_eq!(
            (hints.status, hints.header("link")),
            (103, vec!["x".to_owned()])
        );
        assert_eq!(client.reply().unwrap().text(), "ok");
    }
    let mut old = gateway.client();
    old.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.reply().unwrap().status, 200, "HTTP/1.0 knows no 1xx");
}

#[test]
fn a_client_that_expects_100_is_told_to_continue_only_when_the_backend_wants_the_body() {
    let origin = Origin::raw(|seen, stream| {
        let mut reader = std::io::BufReader::new(stream.try_clone()?);
        let head = super::support::read_head(&mut reader)?;
        let refuses = head.contains("/refuse");
        let mut request = super::support::Seen {
            head,
            ..Default::default()
        };
        if refuses {
            stream.write_all(
                b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            )?;
        } else {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            request.body = vec![0; 5];
            reader.read_exact(&mut request.body)?;
            seen.lock().unwrap().push(request);
            stream.write_all(&ok("took it"))?;
        }
        Ok(())
    });
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    client.send(
        "PUT /take HTTP/1.1\r\nHost: demo\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.reply().unwrap().status, 100);
    client.send("hello");
    assert_eq!(client.reply().unwrap().text(), "took it");
    assert_eq!(origin.seen()[0].body, b"hello");
    assert_eq!(origin.seen()[0].header("expect"), ["100-continue"]);

    let mut client = gateway.client();
    client.send(
        "PUT /refuse HTTP/1.1\r\nHost: demo\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.reply().unwrap().status, 413, "no 100 comes first");
}

const LARGE: usize = 10 * 1024 * 1024;

#[test]
fn large_bodies_pass_both_ways_unchanged() {
    let origin = Origin::answering(|seen, stream| {
        stream.write_all(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                seen.body.len()
            )
            .as_bytes(),
        )?;
        stream.write_all(&seen.body)
    });
    let gateway = Gateway::to(&origin);
    let body: Vec<u8> = (0..LARGE).map(|at| (at * 31 % 251) as u8).collect();
    for chunked in [false, true] {
        let mut client = gateway.client();
        let mut writer = client.stream().try_clone().unwrap();
        let sent = body.clone();
        let sender = thread::spawn(move || {
            if chunked {
                writer
                    .write_all(
                        b"POST / HTTP/1.1\r\nHost: demo\r\nTransfer-Encoding: chunked\r\n\r\n",
                    )
                    .unwrap();
                for piece in sent.chunks(70_001) {
                    write!(writer, "{:x}\r\n", piece.len()).unwrap();
                    writer.write_all(piece).unwrap();
                    writer.write_all(b"\r\n").unwrap();
                }
                writer.write_all(b"0\r\n\r\n").unwrap();
            } else {
                write!(
                    writer,
                    "POST / HTTP/1.1\r\nHost: demo\r\nContent-Length: {}\r\n\r\n",
                    sent.len()
                )
                .unwrap();
                writer.write_all(&sent).unwrap();
            }
        });
        let reply = client.reply().unwrap();
        sender.join().unwrap();
        assert!(
            reply.body == body,
            "chunked {chunked}: {} bytes came back",
            reply.body.len()
        );
    }
}

#[test]
fn a_slow_reader_holds_the_backend_back() {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };
    const TOTAL: usize = 64 * 1024 * 1024;
    let written = Arc::new(AtomicUsize::new(0));
    let origin = {
        let written = Arc::clone(&written);
        Origin::answering(move |_, stream| {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n")?;
            let piece = vec![7_u8; 64 * 1024];
            for _ in 0..TOTAL / piece.len() {
                stream.write_all(&piece)?;
                written.fetch_add(piece.len(), SeqCst);
            }
            Ok(())
        })
    };
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: demo\r\n\r\n");
    // Until it stands still: only socket buffers and the codec's are full.
    let mut before = usize::MAX;
    let until = Instant::now() + Duration::from_secs(10);
    while before != written.load(SeqCst) && Instant::now() < until {
        before = written.load(SeqCst);
        thread::sleep(Duration::from_millis(300));
    }
    let held = written.load(SeqCst);
    assert!(
        held < TOTAL / 2,
        "{held} bytes left the backend although nobody reads"
    );
    let reply = client.reply().unwrap();
    assert_eq!(reply.body.len(), TOTAL);
    eventually("the backend is done", || written.load(SeqCst) == TOTAL);
}

#[test]
fn an_upgraded_connection_carries_bytes_both_ways() {
    let origin = Origin::answering(|_, stream| {
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello ")?;
        let mut buf = [0; 1024];
        loop {
            let read = stream.read(&mut buf)?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            stream.write_all(&buf[..read])?;
        }
    });
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    client.send(
        "GET /chat HTTP/1.1\r\nHost: demo\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n\0early",
    );
    let reply = client.reply().unwrap();
    assert_eq!(
        (reply.status, reply.header("upgrade")),
        (101, vec!["echo".to_owned()])
    );
    let mut heard = Vec::new();
    let mut buf = [0; 64];
    while heard.len() < b"hello \0early".len() {
        let read = client.read_some(&mut buf).unwrap();
        assert!(read > 0);
        heard.extend_from_slice(&buf[..read]);
    }
    assert_eq!(heard, b"hello \0early");
    client.send("more");
    let read = client.read_some(&mut buf).unwrap();
    assert_eq!(&buf[..read], b"more");
    assert_eq!(origin.seen()[0].header("upgrade"), ["echo"]);
    drop(client);
    eventually("the tunnel ends with the client", || {
        gateway.stats().active_connections == 0
    });
    let stats = gateway.stats();
    let listener = stats.latencies.listeners.values().next().unwrap();
    assert!(listener.received_bytes > 60 + 10 && listener.sent_bytes > 60 + 16);
    assert_eq!(
        (listener.received_bytes, listener.sent_bytes),
        (stats.downstream_received_bytes, stats.downstream_sent_bytes)
    );
}

#[test]
fn an_upgrade_the_backend_ignores_stays_http_and_hides_nothing() {
    let origin = Origin::answering(|seen, stream| stream.write_all(&ok(seen.line())));
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    client.send("GET /1 HTTP/1.1\r\nHost: demo\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nGET /2 HTTP/1.1\r\nHost: demo\r\n\r\n");
    assert_eq!(client.reply().unwrap().text(), "GET /1 HTTP/1.1");
    assert_eq!(client.reply().unwrap().text(), "GET /2 HTTP/1.1");
}

#[test]
fn no_upgrade_to_http_2_reaches_a_backend() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    for protocols in [
        "Upgrade: h2c",
        "Upgrade: websocket, H2C",
        "Upgrade: websocket\r\nUpgrade: h2c",
        "Upgrade: HTTP/2.0",
        "X-None: 1",
    ] {
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: demo\r\nConnection: Upgrade\r\n{protocols}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        ));
        assert_eq!(client.reply().unwrap().status, 200, "{protocols}");
    }
    let seen = origin.seen();
    assert_eq!(seen.len(), 5);
    for request in seen {
        for name in ["upgrade", "http2-settings", "connection"] {
            assert!(request.header(name).is_empty(), "{name}: {}", request.head);
        }
    }
}
