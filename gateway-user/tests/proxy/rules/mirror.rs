//! Copies of requests.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, atomic::Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use gateway_user::ir::{BackendProtocol, Filter, Group, PathPattern, Policy, WeightedGroup};

use super::{h2pod::pod, literal, one};
use crate::support::{
    Gateway, Origin, Routed, backend, closed_port, eventually, filtered, group, ok, rule, treated,
};

fn mirrored(origin: &Origin, mirror: SocketAddr) -> Routed {
    mirrored_to(origin, group("copies", vec![backend("c1", mirror, 1)]))
}

fn mirrored_to(origin: &Origin, copies: Arc<Group>) -> Routed {
    let to = WeightedGroup {
        group: copies.name.clone(),
        weight: 100,
    };
    Routed {
        others: vec![copies],
        ..filtered(
            one(origin),
            vec![literal("x-stage", "gray", true), Filter::Mirror(vec![to])],
        )
    }
}

#[test]
fn a_copy_arrives_as_the_request_does_with_its_body_byte_by_byte() {
    let (origin, mirror) = (Origin::fixed(ok("real")), Origin::fixed(ok("copy")));
    let gateway = Gateway::start(vec![mirrored(&origin, mirror.address)]);
    let mut client = gateway.client();
    let body: Vec<u8> = (0..48_000_u32)
        .map(|at| (at * 7 + at / 251) as u8)
        .collect();
    client.send(format!(
        "POST /a?b=1 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    client.send(&body);
    assert_eq!(client.reply().unwrap().text(), "real");
    client.send("POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in ["5\r\nhello\r\n", "6\r\n world\r\n", "0\r\n\r\n"] {
        thread::sleep(Duration::from_millis(20));
        client.send(piece);
    }
    assert_eq!(client.reply().unwrap().text(), "real");
    assert_eq!(client.get("/c").text(), "real");
    eventually("three copies", || mirror.seen().len() == 3);
    let (mut originals, mut copies) = (origin.seen(), mirror.seen());
    originals.sort_by_key(|it| it.line().to_owned());
    copies.sort_by_key(|it| it.line().to_owned());
    for (original, copy) in originals.iter().zip(&copies) {
        assert!(
            copy.complete && copy.body == original.body,
            "{}",
            copy.line()
        );
        assert_eq!(copy.head, original.head);
    }
    // In the order of their first lines: GET /c comes first.
    assert_eq!(
        (copies[1].body.as_slice(), copies[2].body.as_slice()),
        (&body[..], &b"hello world"[..])
    );
    assert_eq!(
        copies[0].header("x-stage"),
        ["gray"],
        "what filters did is copied"
    );
}

/// The median times of a plain request and of one whose copy goes to `mirror`, asked in turn.
fn medians(mirror: SocketAddr) -> [Duration; 2] {
    let origin = Origin::fixed(ok("real"));
    let mut copied = mirrored(&origin, mirror);
    copied.conditions.paths = vec![PathPattern::Prefix("/copied".into())];
    let gateway = Gateway::start(vec![copied, rule(one(&origin))]);
    let mut client = gateway.client();
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..600 {
        for (path, times) in ["/plain", "/copied"].into_iter().zip(&mut times) {
            let begun = Instant::now();
            let reply = client.get(path);
            times.push(begun.elapsed());
            assert_eq!((reply.status, reply.text().as_str()), (200, "real"));
        }
    }
    assert_eq!(origin.seen().len(), 1200);
    times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    })
}

fn assert_no_delay(mirror: SocketAddr) {
    let [plain, copied] = medians(mirror);
    assert!(
        copied < 2 * plain,
        "{plain:?} without and {copied:?} with a copy"
    );
}

#[test]
fn a_mirror_that_is_down_changes_and_delays_nothing() {
    assert_no_delay(closed_port());
}

#[test]
fn a_mirror_that_hangs_changes_and_delays_nothing() {
    // Connections are accepted by the kernel, then no more; nobody reads.
    let hanging = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    assert_no_delay(hanging.local_addr().unwrap());
}

#[test]
fn a_mirror_that_answers_500_changes_and_delays_nothing() {
    let mirror = Origin::fixed("HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nwrong");
    assert_no_delay(mirror.address);
    eventually("copies come", || mirror.seen().len() > 500);
}

#[test]
fn a_hanging_mirror_takes_no_upload_from_the_backend() {
    let hanging = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let origin = Origin::fixed(ok("real"));
    let gateway = Gateway::start(vec![mirrored(&origin, hanging.local_addr().unwrap())]);
    let body = vec![b'x'; 8 << 20];
    let mut client = gateway.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    client.send(&body);
    assert_eq!(client.reply().unwrap().text(), "real");
    assert_eq!(origin.seen()[0].body.len(), body.len());
}

#[test]
fn a_copy_that_broke_off_is_never_complete_at_the_mirror() {
    let (origin, mirror) = (Origin::fixed(ok("real")), Origin::fixed(ok("copy")));
    let gateway = Gateway::start(vec![mirrored(&origin, mirror.address)]);
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    eventually("both have a connection", || {
        origin.connections() + mirror.connections() == 2
    });
    drop(client);
    eventually("both have ended", || origin.ended() + mirror.ended() == 2);
    let seen = [origin.seen(), mirror.seen()].concat();
    assert!(seen.iter().all(|it| !it.complete), "{seen:?}");
}

#[test]
fn a_copy_whose_pieces_come_at_once_has_its_end_too() {
    let (origin, mirror) = (Origin::fixed(ok("real")), Origin::fixed(ok("copy")));
    let gateway = Gateway::start(vec![mirrored(&origin, mirror.address)]);
    let mut client = gateway.client();
    // As many as wait for a mirror at most.
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}{}0\r\n\r\n", "5\r\nhello\r\n".repeat(16)));
    assert_eq!(client.reply().unwrap().text(), "real");
    eventually("a copy", || mirror.seen().len() == 1);
    let copy = &mirror.seen()[0];
    assert!(
        copy.complete && copy.body == "hello".repeat(16).as_bytes(),
        "{copy:?}"
    );
}

#[test]
fn a_mirror_that_speaks_http_2_gets_its_copies_so() {
    let (origin, mirror) = (Origin::fixed(ok("real")), pod());
    let policy = Policy {
        protocol: BackendProtocol::Grpc,
        ..Policy::default()
    };
    let copies = treated("copies", vec![backend("c1", mirror.address, 1)], policy);
    let gateway = Gateway::start(vec![mirrored_to(&origin, copies)]);
    let mut client = gateway.client();
    for copies in 1..=3 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(client.reply().unwrap().text(), "real");
        eventually("a copy", || mirror.whole.load(SeqCst) == copies);
    }
    // One that the client breaks off has no end there.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    eventually("the backend is asked", || origin.connections() == 1);
    thread::sleep(Duration::from_millis(50));
    drop(client);
    eventually("the mirror is told", || mirror.resets.load(SeqCst) == 1);
    assert_eq!(mirror.whole.load(SeqCst), 3);
}

#[test]
fn a_mirror_that_fails_is_left_out_for_a_while() {
    let (origin, good) = (Origin::fixed(ok("real")), Origin::fixed(ok("copy")));
    let bad = Origin::answering(|_, _| Err(std::io::ErrorKind::ConnectionReset.into()));
    let backends = [&good, &bad].map(|it| backend("c1", it.address, 1));
    let copies = group("copies", backends.to_vec());
    let gateway = Gateway::start(vec![mirrored_to(&origin, copies)]);
    let mut client = gateway.client();
    for asked in 1..=20 {
        assert_eq!(client.get("/").text(), "real");
        eventually("a copy", || good.seen().len() + bad.seen().len() == asked);
        // What became of it is known a moment later.
        thread::sleep(Duration::from_millis(5));
    }
    assert!(bad.seen().len() <= 5, "{} copies failed", bad.seen().len());
}
