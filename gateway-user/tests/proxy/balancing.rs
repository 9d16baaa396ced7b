//! Who gets which request.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use gateway_user::{
    ir::{Affinity, Backend, Group, HeaderMatch, HostPattern, PathPattern},
    proxy::ProxyConfig,
};

use super::support::{Gateway, Origin, backend, closed_port, group, ok, rule};

#[test]
fn the_first_rule_whose_conditions_all_hold_decides() {
    let origins: Vec<Origin> = ["gray", "host", "path", "rest"]
        .into_iter()
        .map(|name| Origin::fixed(ok(name)))
        .collect();
    let mut rules: Vec<_> = origins
        .iter()
        .enumerate()
        .map(|(index, origin)| {
            rule(group(
                &format!("s{index}"),
                vec![backend("c1", origin.address, 1)],
            ))
        })
        .collect();
    rules[0].conditions.headers = vec![HeaderMatch {
        name: "stage".into(),
        values: vec!["gray".into(), "can?ry*".into()],
    }];
    rules[1].conditions.hosts = vec![HostPattern::OneLabel(".example.com".into())];
    rules[2].conditions.paths = vec![PathPattern::Prefix("/foo".into())];
    rules[3].conditions.paths = vec![PathPattern::Exact("/".into())];
    let gateway = Gateway::start(rules);
    let mut client = gateway.client();
    for (path, fields, expected) in [
        ("/foo", "Host: a\r\nStage: gray", "gray"),
        ("/", "Host: a\r\nstage: red\r\nstage: canary-1", "gray"),
        ("/", "Host: a\r\nstage: Gray", "rest"),
        ("/foo", "Host: A.Example.COM:81", "host"),
        ("/foo/bar?x", "Host: a.b.example.com", "path"),
        ("/?x=/foo", "Host: b", "rest"),
        (
            "/foobar",
            "Host: b",
            "no-rule: no rule of this listener matches the request\n",
        ),
    ] {
        client.send(format!("GET {path} HTTP/1.1\r\n{fields}\r\n\r\n"));
        assert_eq!(client.reply().unwrap().text(), expected, "{path} {fields}");
    }
}

/// Origins c1/2 and c2/3, and a group that splits them 60/40.
fn sixty_forty() -> (Vec<Origin>, Arc<Group>) {
    let origins: Vec<Origin> = (0..5)
        .map(|index| Origin::fixed(ok(&index.to_string())))
        .collect();
    let backends: Vec<Backend> = origins
        .iter()
        .enumerate()
        .map(|(index, origin)| {
            if index < 2 {
                backend("c1", origin.address, 30_000_000)
            } else {
                backend("c2", origin.address, 13_333_333)
            }
        })
        .collect();
    (origins, group("web", backends))
}

#[test]
fn clusters_and_pods_get_their_shares_over_2000_requests() {
    for connections in [1, 100, 2000] {
        let (origins, group) = sixty_forty();
        let gateway = Gateway::start(vec![rule(group)]);
        for _ in 0..connections {
            let mut client = gateway.client();
            for _ in 0..2000 / connections {
                assert_eq!(client.get("/").status, 200);
            }
        }
        let hits: Vec<usize> = origins.iter().map(|origin| origin.seen().len()).collect();
        assert_eq!(hits.iter().sum::<usize>(), 2000);
        for (hit, expected) in hits.iter().zip([600, 600, 267, 267, 267]) {
            assert!(
                hit.abs_diff(expected) <= 4,
                "{connections} connections: {hits:?}"
            );
        }
        let counted: Vec<u64> = gateway
            .stats()
            .backends
            .iter()
            .map(|(_, count)| *count)
            .collect();
        assert_eq!(counted.iter().sum::<u64>(), 2000);
    }
}

#[test]
fn turns_go_on_across_a_table_swap_when_the_group_is_equal() {
    let (origins, group) = sixty_forty();
    let mut gateway = Gateway::start(vec![rule(Arc::clone(&group))]);
    let mut client = gateway.client();
    for _ in 0..300 {
        // An equal group under another identity each time; without memory the first backend would get everything.
        gateway.change(|listener| listener.rules = vec![rule(Arc::new(Group::clone(&group)))]);
        assert_eq!(client.get("/").status, 200);
    }
    let hits: Vec<usize> = origins.iter().map(|origin| origin.seen().len()).collect();
    for (hit, expected) in hits.iter().zip([90, 90, 40, 40, 40]) {
        assert!(hit.abs_diff(expected) <= 4, "{hits:?}");
    }
}

#[test]
fn a_live_change_of_weights_loses_no_request() {
    let (origins, group) = sixty_forty();
    let mut gateway = Gateway::start(vec![rule(Arc::clone(&group))]);
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            let mut client = gateway.client();
            thread::spawn(move || {
                while !stop.load(SeqCst) {
                    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
                    assert_eq!(client.reply().unwrap().status, 200);
                    served.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    for round in 0..60 {
        let keep = 1 + round % 5;
        let changed = Group {
            backends: group.backends[..keep].to_vec(),
            ..Group::clone(&group)
        };
        gateway.change(|listener| listener.rules = vec![rule(Arc::new(changed))]);
        thread::sleep(Duration::from_millis(20));
    }
    // After a swap no new request goes to a backend that left.
    gateway.change(|listener| {
        listener.rules = vec![rule(Arc::new(Group {
            backends: group.backends[..1].to_vec(),
            ..Group::clone(&group)
        }))]
    });
    thread::sleep(Duration::from_millis(100));
    let before = origins[1].seen().len();
    thread::sleep(Duration::from_millis(200));
    assert_eq!(origins[1].seen().len(), before);
    stop.store(true, SeqCst);
    for client in clients {
        client.join().expect("a client met an error");
    }
    assert!(served.load(SeqCst) > 100);
    let stats = gateway.stats();
    assert_eq!(stats.responses[1], served.load(SeqCst) as u64);
    assert_eq!(stats.responses[4], 0);
}

#[test]
fn a_group_with_affinity_serves_a_client_from_one_backend() {
    let (origins, group) = sixty_forty();
    let sticky = Arc::new(Group {
        affinity: Affinity::ClientIp,
        ..Group::clone(&group)
    });
    let gateway = Gateway::start(vec![rule(sticky)]);
    for _ in 0..40 {
        assert_eq!(gateway.client().get("/").status, 200);
    }
    assert_eq!(
        origins
            .iter()
            .filter(|origin| !origin.seen().is_empty())
            .count(),
        1
    );
}

#[test]
fn a_backend_that_refuses_is_passed_over_and_nobody_notices() {
    let live = Origin::fixed(ok("live"));
    let dead = closed_port();
    let gateway = Gateway::with(
        ProxyConfig {
            workers: 1,
            ..ProxyConfig::default()
        },
        vec![rule(group(
            "web",
            vec![backend("c1", dead, 10), backend("c1", live.address, 1)],
        ))],
    );
    let mut client = gateway.client();
    for _ in 0..50 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(client.reply().unwrap().text(), "live");
    }
    assert_eq!(live.seen().len(), 50);
    assert!(live.seen().iter().all(|seen| seen.body == b"body"));
    assert!(
        gateway.stats().retries <= 3,
        "a backend that refused is tried last for a while: {}",
        gateway.stats().retries
    );
}

#[test]
fn a_pooled_connection_that_closed_is_replaced_without_an_error() {
    // Each connection serves two requests, then closes without having said so.
    let origin = Origin::raw(|seen, stream| {
        let mut reader = std::io::BufReader::new(stream.try_clone()?);
        for _ in 0..2 {
            let head = super::support::read_head(&mut reader)?;
            if head.starts_with("POST") {
                std::io::Read::read_exact(&mut reader, &mut [0; 4])?;
            }
            seen.lock().unwrap().push(super::support::Seen {
                head,
                ..Default::default()
            });
            stream.write_all(&ok("ok"))?;
        }
        Ok(())
    });
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    for _ in 0..40 {
        assert_eq!(client.get("/").status, 200);
    }
    // A request that may not be repeated looks at the socket first.
    for _ in 0..20 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(client.reply().unwrap().status, 200);
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(origin.seen().len(), 60, "nothing is sent twice");
}

#[test]
fn only_a_request_that_may_be_repeated_is_sent_again_when_its_connection_closes_unanswered() {
    // The first request of a connection is answered; the second is read, and the connection closes.
    let origin = Origin::raw(|seen, stream| {
        let mut reader = std::io::BufReader::new(stream.try_clone()?);
        for answered in [true, false] {
            let head = super::support::read_head(&mut reader)?;
            seen.lock().unwrap().push(super::support::Seen {
                head,
                ..Default::default()
            });
            if answered {
                stream.write_all(&ok("ok"))?;
            }
        }
        Ok(())
    });
    let gateway = Gateway::to(&origin);
    let mut client = gateway.client();
    assert_eq!(client.get("/").status, 200);
    assert_eq!(
        client.get("/").status,
        200,
        "sent again on a new connection"
    );
    assert_eq!(origin.seen().len(), 3);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let reply = client.reply().unwrap();
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (502, "backend-closed")
    );
    assert_eq!(origin.seen().len(), 4, "a POST is sent once");
}
