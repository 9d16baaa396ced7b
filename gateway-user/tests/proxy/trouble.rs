//! Backends that fail, clients that leave, limits and the end.

use std::{
    io::{Read, Write},
    thread,
    time::{Duration, Instant},
};

use gateway_user::proxy::{ProxyConfig, Reason};

use super::support::{Gateway, Origin, backend, closed_port, eventually, group, ok, rule};

#[test]
fn each_failure_has_its_status_and_names_its_reason() {
    let broken = Origin::answering(|_, _| Err(std::io::ErrorKind::ConnectionReset.into()));
    let garbage = Origin::fixed("SMTP ready\r\n\r\n");
    let silent = Origin::answering(|_, _| Ok(()));
    for (backends, status, reason) in [
        (vec![], 503, "no-server"),
        (
            vec![
                backend("c1", closed_port(), 1),
                backend("c2", closed_port(), 1),
            ],
            502,
            "connect-refused",
        ),
        (
            vec![backend("c1", broken.address, 1)],
            502,
            "backend-closed",
        ),
        (vec![backend("c1", garbage.address, 1)], 502, "bad-response"),
        (vec![backend("c1", silent.address, 1)], 504, "timeout"),
    ] {
        let mut gateway = Gateway::start(vec![rule(group("web", backends))]);
        gateway.change(|listener| listener.settings.request_timeout = Duration::from_millis(300));
        let mut client = gateway.client();
        let reply = client.get("/");
        assert_eq!((reply.status, reply.reason().as_str()), (status, reason));
        assert_eq!(reply.header("server"), ["fleetgate"]);
        gateway.change(|listener| listener.rules.clear());
        let reply = client.get("/");
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (404, "no-rule"),
            "the connection goes on after {reason}"
        );
    }
    assert_eq!(
        silent.seen().len(),
        1,
        "a request that was sent is not sent again"
    );
}

#[test]
fn an_address_without_a_listener_is_a_404() {
    let gateway = Gateway::start(Vec::new());
    gateway
        .proxy
        .update(gateway_user::proxy::RouteTable::default());
    let reply = gateway.client().get("/");
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (404, "no-listener")
    );
    assert_eq!(gateway.stats().reason(Reason::NoListener), 1);
}

#[test]
fn before_its_first_table_the_proxy_is_starting_and_knows_no_absence() {
    let proxy = gateway_user::proxy::Proxy::start(ProxyConfig {
        workers: 1,
        ..ProxyConfig::default()
    })
    .unwrap();
    let mut client = super::support::Client::connect(&proxy);
    let reply = client.get("/");
    assert_eq!((reply.status, reply.reason().as_str()), (503, "starting"));
    proxy.update(gateway_user::proxy::RouteTable::default());
    // An idle connection to a listener that is not there is closed.
    let reply = super::support::Client::connect(&proxy).get("/");
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (404, "no-listener")
    );
}

#[test]
fn a_client_that_leaves_mid_body_aborts_the_backends_request() {
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let origin = Origin::fixed(ok("ok"));
        let gateway = Gateway::to(&origin);
        let mut client = gateway.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n5\r\nhello\r\n"
        ));
        eventually("the backend has the head", || origin.connections() == 1);
        thread::sleep(Duration::from_millis(50));
        drop(client);
        eventually("the backend's connection ended", || {
            !origin.seen().is_empty()
        });
        assert!(
            origin.seen().iter().all(|seen| !seen.complete),
            "{framing}: {:?}",
            origin.seen()
        );
        eventually("nothing is held", || {
            gateway.stats().active_connections == 0
        });
    }
}

#[test]
fn a_client_that_leaves_while_waiting_frees_the_backend() {
    let origin = Origin::raw(|seen, stream| {
        let mut buf = [0; 1024];
        while stream.read(&mut buf)? > 0 {}
        seen.lock().unwrap().push(super::support::Seen {
            ..Default::default()
        });
        Ok(())
    });
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the backend is asked", || origin.connections() == 1);
    thread::sleep(Duration::from_millis(50));
    drop(client);
    eventually("the backend's connection ended", || {
        !origin.seen().is_empty()
    });
}

#[test]
fn a_response_that_breaks_off_breaks_off_for_the_client_too() {
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let origin = Origin::answering(move |_, stream| {
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n").as_bytes())?;
            thread::sleep(Duration::from_millis(50));
            Err(std::io::ErrorKind::UnexpectedEof.into())
        });
        let gateway = Gateway::to(&origin);
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let outcome = client.reply();
        assert!(outcome.is_err(), "{head}: {outcome:?}");
    }
}

#[test]
fn an_upload_that_moves_is_not_late_and_one_that_stalls_is_a_408() {
    let origin = Origin::fixed(ok("ok"));
    let mut gateway = Gateway::to(&origin);
    gateway.change(|listener| listener.settings.request_timeout = Duration::from_millis(400));
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(100));
        client.send("x".repeat(100));
    }
    assert_eq!(client.reply().unwrap().status, 200);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    let reply = client.reply().unwrap();
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (408, "request-timeout")
    );
    assert_eq!(client.rest(), "");
    eventually("the backend's request ended", || origin.seen().len() == 2);
    assert!(!origin.seen()[1].complete);
}

#[test]
fn an_upload_that_only_drips_is_a_408() {
    let origin = Origin::fixed(ok("ok"));
    let mut gateway = Gateway::to(&origin);
    gateway.change(|listener| listener.settings.request_timeout = Duration::from_millis(400));
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    let mut stream = client.stream().try_clone().unwrap();
    let drip = thread::spawn(move || {
        for _ in 0..30 {
            thread::sleep(Duration::from_millis(100));
            if stream.write_all(b"x").is_err() {
                return;
            }
        }
    });
    let started = Instant::now();
    let reply = client.reply().unwrap();
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (408, "request-timeout")
    );
    assert!(started.elapsed() < Duration::from_millis(1500));
    drop(client);
    drip.join().unwrap();
}

#[test]
fn empty_lines_do_not_prolong_an_idle_connection() {
    let origin = Origin::fixed(ok("ok"));
    let mut gateway = Gateway::to(&origin);
    gateway.change(|listener| listener.settings.idle_timeout = Duration::from_millis(500));
    let mut client = gateway.client();
    let mut stream = client.stream().try_clone().unwrap();
    let sender = thread::spawn(move || {
        for byte in b"\r\n\r\n\r\n\r" {
            thread::sleep(Duration::from_millis(200));
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
        }
    });
    let started = Instant::now();
    assert_eq!(client.rest(), "");
    assert!(
        (450..900).contains(&started.elapsed().as_millis()),
        "{:?}",
        started.elapsed()
    );
    sender.join().unwrap();
}

#[test]
fn slow_heads_get_a_408_and_idle_connections_are_closed() {
    let origin = Origin::fixed(ok("ok"));
    let mut gateway = Gateway::with(
        ProxyConfig {
            workers: 1,
            head_timeout: Duration::from_millis(500),
            ..ProxyConfig::default()
        },
        vec![rule(group("web", vec![backend("c1", origin.address, 1)]))],
    );
    gateway.change(|listener| listener.settings.idle_timeout = Duration::from_millis(800));

    let started = Instant::now();
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHo");
    thread::sleep(Duration::from_millis(300));
    client.send("st: a\r\nX");
    let reply = client.reply().unwrap();
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (408, "request-timeout")
    );
    assert!(
        (450..2000).contains(&started.elapsed().as_millis()),
        "{:?}",
        started.elapsed()
    );

    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").status, 200);
        thread::sleep(Duration::from_millis(600));
    }
    let started = Instant::now();
    assert_eq!(
        client.get("/").status,
        200,
        "each request begins the idle time anew"
    );
    assert_eq!(client.rest(), "", "an idle connection ends without a word");
    assert!(
        (700..3000).contains(&started.elapsed().as_millis()),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn an_error_reply_to_a_large_upload_reaches_the_client() {
    let gateway = Gateway::start(Vec::new());
    for _ in 0..10 {
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
        // The proxy may stop reading; what matters is that its answer is not lost.
        let mut writer = client.stream().try_clone().unwrap();
        let sender = thread::spawn(move || {
            let _ = writer.write_all(&vec![b'x'; 500_000]);
        });
        assert_eq!(client.reply().unwrap().status, 404);
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(20));
            let sent = client.stream().write_all(b"x");
            assert!(sent.is_ok(), "no reset overtakes the reply: {sent:?}");
        }
        sender.join().unwrap();
    }
}

#[test]
fn a_thousand_idle_connections_are_held_and_one_more_than_allowed_is_shed() {
    let origin = Origin::fixed(ok("ok"));
    let gateway = Gateway::with(
        ProxyConfig {
            workers: 2,
            max_connections: 1001,
            ..ProxyConfig::default()
        },
        vec![rule(group("web", vec![backend("c1", origin.address, 1)]))],
    );
    let mut idle: Vec<_> = (0..1000).map(|_| gateway.client()).collect();
    eventually("all are accepted", || {
        gateway.stats().active_connections == 1000
    });
    let mut client = gateway.client();
    assert_eq!(client.get("/").status, 200);
    let mut shed = gateway.client();
    let reply = shed.reply().unwrap();
    assert_eq!((reply.status, reply.reason().as_str()), (503, "overloaded"));
    for client in idle.iter_mut().step_by(100) {
        assert_eq!(client.get("/").status, 200);
    }
    drop(idle);
    eventually("places are given back", || {
        gateway.stats().active_connections == 1
    });
    assert_eq!(gateway.client().get("/").status, 200);
}

#[test]
fn shutdown_lets_requests_finish_and_closes_idle_connections_at_once() {
    let origin = Origin::answering(|_, stream| {
        thread::sleep(Duration::from_millis(400));
        stream.write_all(&ok("late"))
    });
    let gateway = Gateway::to(&origin);
    let mut idle = gateway.client();
    let mut busy = gateway.client();
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request is under way", || {
        !origin.seen().is_empty() && gateway.stats().active_connections == 2
    });
    let address = gateway.proxy.local_addr();
    let started = Instant::now();
    let proxy = gateway.proxy;
    let ending = thread::spawn(move || proxy.shutdown(Duration::from_secs(10)));
    assert_eq!(idle.rest(), "");
    assert!(started.elapsed() < Duration::from_millis(300));
    let reply = busy.reply().unwrap();
    assert_eq!(
        (reply.text().as_str(), reply.header("connection")),
        ("late", vec!["close".to_owned()])
    );
    ending.join().unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "the grace is a limit, not a wait"
    );
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn shutdown_does_not_wait_longer_than_its_grace() {
    let origin = Origin::answering(|_, _| Ok(()));
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request is under way", || !origin.seen().is_empty());
    let started = Instant::now();
    gateway.proxy.shutdown(Duration::from_millis(200));
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(client.rest(), "");
}

#[test]
fn an_exchange_on_which_nothing_moves_is_broken_off() {
    let origin = Origin::answering(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
    });
    let gateway = Gateway::with(
        ProxyConfig {
            workers: 1,
            stall_timeout: Duration::from_millis(300),
            ..ProxyConfig::default()
        },
        vec![rule(group("web", vec![backend("c1", origin.address, 1)]))],
    );
    let started = Instant::now();
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.reply().is_err());
    assert!((250..5000).contains(&started.elapsed().as_millis()));
    eventually("the backend's connection ended", || origin.ended() == 1);
}

#[test]
fn a_backend_that_accepts_no_connection_is_a_504_within_the_request_timeout() {
    // A full backlog leaves further attempts unanswered.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let fillers: Vec<_> = (0..4)
        .map(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)))
        .collect();
    assert!(fillers.iter().any(Result::is_err), "the backlog is full");
    let mut gateway = Gateway::start(vec![rule(group("web", vec![backend("c1", address, 1)]))]);
    gateway.change(|listener| listener.settings.request_timeout = Duration::from_millis(500));
    let started = Instant::now();
    let reply = gateway.client().get("/");
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (504, "connect-timeout")
    );
    assert!(started.elapsed() < Duration::from_secs(2));
}

/// A gateway of one worker that opens so many connections to a pod.
fn bounded(connections: usize, origin: &Origin) -> Gateway {
    Gateway::with(
        ProxyConfig {
            workers: 1,
            connections_per_backend: connections,
            ..ProxyConfig::default()
        },
        vec![rule(group("web", vec![backend("c1", origin.address, 1)]))],
    )
}

#[test]
fn requests_beyond_the_connections_to_a_pod_wait_for_one_in_turn() {
    let origin = Origin::answering(|seen, stream| {
        thread::sleep(Duration::from_millis(20));
        stream.write_all(&ok(seen.line()))
    });
    let gateway = bounded(2, &origin);
    let mut clients: Vec<_> = (0..20).map(|_| gateway.client()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /{at} HTTP/1.1\r\nHost: a\r\n\r\n"));
        // One after the other, so that the order is known.
        eventually("it is read", || gateway.stats().requests == at as u64 + 1);
    }
    for (at, client) in clients.iter_mut().enumerate() {
        let reply = client.reply().unwrap();
        assert_eq!(reply.text(), format!("GET /{at} HTTP/1.1"));
    }
    assert_eq!(origin.connections(), 2);
    let seen = origin.seen();
    let order: Vec<usize> = seen
        .iter()
        .map(|it| it.line()[5..].split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(
        order
            .iter()
            .enumerate()
            .all(|(at, it)| it.abs_diff(at) <= 1),
        "{order:?}"
    );
}

#[test]
fn a_request_that_gets_no_connection_in_time_is_a_503_that_says_so_and_the_pod_is_not_blamed() {
    let origin = Origin::answering(|seen, stream| {
        if seen.line().contains("/long") {
            thread::sleep(Duration::from_secs(1));
        }
        stream.write_all(&ok("ok"))
    });
    let mut gateway = bounded(1, &origin);
    gateway.change(|site| site.settings.request_timeout = Duration::from_millis(300));
    let mut long = gateway.client();
    long.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is under way", || origin.seen().len() == 1);
    // Its own deadline is well before that of the next one, and well behind its beginning.
    thread::sleep(Duration::from_millis(150));
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(long.reply().unwrap().status, 504);
    assert_eq!(
        client.reply().unwrap().status,
        200,
        "that one's end is a place"
    );
    gateway.change(|site| site.settings.request_timeout = Duration::from_secs(2));
    long.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is under way", || origin.seen().len() == 3);
    gateway.change(|site| site.settings.request_timeout = Duration::from_millis(100));
    for _ in 0..4 {
        let reply = client.get("/");
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (503, "backend-busy")
        );
    }
    assert_eq!(long.reply().unwrap().status, 200);
    assert_eq!(client.get("/").status, 200);
}

/// The last stream of many that were refused is no client that asks one thing at a time.
#[test]
fn a_connection_that_had_many_streams_leaves_half_of_the_connections_to_others() {
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let origin = Origin::answering(move |seen, stream| {
        if seen.line().contains("/hold") {
            let _ = held.lock().unwrap().recv();
        }
        stream.write_all(&ok("ok"))
    });
    let mut gateway = bounded(2, &origin);
    gateway.change(|site| site.settings.h2c = true);
    super::http2::with(&gateway.proxy, async |first| {
        let stream = tokio::net::TcpStream::connect(gateway.proxy.local_addr()).await;
        let (second, connection) = h2::client::handshake(stream.unwrap()).await.unwrap();
        tokio::spawn(connection);
        let get = super::http2::get;
        for send in [&first, &second] {
            let both = futures_util::future::join(get(send, "/1"), get(send, "/2")).await;
            assert!(both.0.is_ok() && both.1.is_ok());
        }
        let held = get(&first, "/hold");
        let waits = async {
            while origin.seen().len() < 5 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            get(&second, "/hold").await
        };
        let other = async {
            while gateway.stats().requests < 6 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            for _ in 0..5 {
                assert_eq!(gateway.client().get("/other").status, 200);
            }
        };
        let waits = async {
            let (waited, ()) = futures_util::future::join(waits, other).await;
            hold.send(()).unwrap();
            waited.unwrap().head.status()
        };
        let (held, waited) = futures_util::future::join(held, waits).await;
        assert_eq!(
            (held.unwrap().head.status().as_u16(), waited.as_u16()),
            (200, 503)
        );
    });
}

/// How long what is under way at a listener that goes has.
const DRAIN: Duration = Duration::from_millis(700);

/// A gateway whose pod answers after a while, opens tunnels that echo, or never answers, as the path says.
fn draining() -> (Gateway, Origin) {
    let origin = Origin::raw(|seen, stream| {
        let mut reader = std::io::BufReader::new(stream.try_clone()?);
        loop {
            let head = super::support::read_head(&mut reader)?;
            let (soon, tunnel) = (head.contains("/soon"), head.contains("/tunnel"));
            let request = super::support::Seen {
                head,
                ..Default::default()
            };
            seen.lock().unwrap().push(request);
            if soon {
                thread::sleep(Duration::from_millis(200));
                stream.write_all(&ok("in time"))?;
            } else if tunnel {
                stream.write_all(
                    b"HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
                )?;
                std::io::copy(&mut reader, stream)?;
            }
        }
    });
    let config = ProxyConfig {
        workers: 1,
        drain_timeout: DRAIN,
        ..ProxyConfig::default()
    };
    let backends = vec![backend("c1", origin.address, 1)];
    let mut gateway = Gateway::with(config, vec![rule(group("web", backends))]);
    gateway.change(|site| site.settings.h2c = true);
    (gateway, origin)
}

#[test]
fn what_is_under_way_at_a_listener_that_goes_has_the_drain_timeout_to_end() {
    let (gateway, origin) = draining();
    let mut idle = gateway.client();
    let [mut soon, mut never, mut tunnel] = ["/soon", "/never", "/tunnel"].map(|path| {
        let mut client = gateway.client();
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
        ));
        client
    });
    assert_eq!(tunnel.reply().unwrap().status, 101);
    let outcome = super::http2::with(&gateway.proxy, async |send| {
        let mut send = send.ready().await.unwrap();
        let asked = http::Request::get("http://a/never").body(()).unwrap();
        let (response, _) = send.send_request(asked, true).unwrap();
        while origin.seen().len() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gateway
            .proxy
            .update(gateway_user::proxy::RouteTable::default());
        let gone = Instant::now();
        assert_eq!(idle.rest(), "", "an idle connection ends at once");
        tunnel.send("still");
        let mut word = [0; 5];
        assert_eq!(tunnel.read_some(&mut word).unwrap(), 5);
        let reply = soon.reply().unwrap();
        assert_eq!(
            (reply.text().as_str(), reply.header("connection")),
            ("in time", vec!["close".to_owned()])
        );
        assert!(gone.elapsed() < DRAIN, "too slow a machine for this test");
        (response.await.map(drop), gone)
    });
    assert!(outcome.0.is_err(), "a stream is cut");
    assert!(outcome.1.elapsed() >= DRAIN, "but not before");
    assert!(never.reply().is_err() && tunnel.reply().is_err());
    eventually("nothing is held", || {
        gateway.stats().active_connections == 0
    });
}

#[test]
fn a_listener_that_comes_back_in_time_ends_nobody() {
    let (mut gateway, origin) = draining();
    let mut tunnel = gateway.client();
    tunnel.send("GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(tunnel.reply().unwrap().status, 101);
    gateway
        .proxy
        .update(gateway_user::proxy::RouteTable::default());
    let mut client = gateway.client();
    let reply = client.get("/");
    assert_eq!(
        (reply.status, reply.header("connection")),
        (404, vec!["close".to_owned()])
    );
    gateway.publish();
    thread::sleep(DRAIN + Duration::from_millis(100));
    tunnel.send("still");
    let mut word = [0; 5];
    assert_eq!(tunnel.read_some(&mut word).unwrap(), 5);
    drop(origin);
}
