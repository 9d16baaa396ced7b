//! Who the client of a request is: whoever connected, whom a load balancer names in a PROXY header, or whom a trusted
//! proxy names in `X-Forwarded-For`. All that depends on it sees the same one.

use std::{
    io::{BufReader, Read, Write},
    sync::Arc,
    time::Instant,
};

use gateway_user::ir::{
    Filter, InsertHeader, InsertedValue, ListenerSettings, Network, Policy, Scheduler, SystemValue,
    TrafficLimit,
};

use crate::{
    rules::log::logged_with,
    support::{Gateway, Origin, Seen, backend, filtered, group, ok, read_head, rule, treated},
};

fn network(text: &str) -> Network {
    text.parse().unwrap()
}

/// Believes `X-Forwarded-For` of the test's own addresses and of one load balancer.
fn trust(settings: &mut ListenerSettings) {
    settings.trusted = Some(vec![network("127.0.0.0/8"), network("198.51.100.0/24")]);
}

fn told(client: &str) -> String {
    format!("X-Forwarded-For: {client}\r\n")
}

#[test]
fn balancing_by_source_follows_the_client_that_a_trusted_proxy_names() {
    let pods: Vec<Origin> = (0..3)
        .map(|at| Origin::fixed(ok(&at.to_string())))
        .collect();
    let backends = pods.iter().map(|it| backend("c1", it.address, 1)).collect();
    let policy = Policy {
        scheduler: Scheduler::SourceHash,
        ..Policy::default()
    };
    let mut gateway = Gateway::start(vec![rule(treated("web", backends, policy))]);
    let chosen = |gateway: &Gateway| -> Vec<String> {
        // A connection each, so that it is not the connection or the worker that decides.
        let ask = |last| {
            let fields = told(&format!("192.0.2.{last}, 198.51.100.7"));
            gateway.client().get_with("/", &fields).text()
        };
        (0..30).map(ask).collect()
    };
    let of_peer = chosen(&gateway);
    assert!(of_peer.iter().all(|it| *it == of_peer[0]), "{of_peer:?}");
    gateway.change(|site| trust(&mut site.settings));
    let of_clients = chosen(&gateway);
    for pod in ["0", "1", "2"] {
        assert!(of_clients.iter().any(|it| it == pod), "{of_clients:?}");
    }
    assert_eq!(chosen(&gateway), of_clients);
}

#[test]
fn limits_per_client_count_the_clients_behind_a_trusted_proxy_apart() {
    let origin = Origin::fixed(ok("hello"));
    let limit = Filter::TrafficLimit(TrafficLimit {
        per_second: Some(1000),
        per_client: Some(1),
    });
    let web = group("web", vec![backend("c1", origin.address, 1)]);
    let mut gateway = Gateway::start(vec![filtered(web, vec![limit])]);
    gateway.change(|site| trust(&mut site.settings));
    let begun = Instant::now();
    let mut client = gateway.client();
    for last in 0..20 {
        let reply = client.get_with("/", &told(&format!("192.0.2.{last}")));
        assert_eq!(reply.status, 200, "the first of 192.0.2.{last}");
    }
    let again = client.get_with("/", &told("192.0.2.19"));
    assert!(again.status == 503 || begun.elapsed().as_secs() >= 1);
}

#[test]
fn the_log_tells_the_client_and_who_connected_where_that_is_another() {
    let origin = Origin::fixed(ok("hello"));
    let web = group("web", vec![backend("c1", origin.address, 1)]);
    let settings = |settings: &mut ListenerSettings| {
        trust(settings);
        settings.proxy_protocol = Some(vec![network("127.0.0.1")]);
    };
    let forwarded = "X-Forwarded-For: 192.0.2.1\r\n";
    // What comes first, what the request says, and the client; none: who connected.
    let cases = [
        ("PROXY UNKNOWN\r\n", "", None),
        ("PROXY UNKNOWN\r\n", forwarded, Some("192.0.2.1")),
        // Who is named by a load balancer and is no proxy is the client, whatever it says itself.
        (
            "PROXY TCP4 203.0.113.9 198.51.100.2 12345 80\r\n",
            forwarded,
            Some("203.0.113.9:12345"),
        ),
        (
            "PROXY TCP4 198.51.100.7 198.51.100.2 12345 80\r\n",
            "X-Forwarded-For: ::ffff:192.0.2.1\r\n",
            Some("192.0.2.1"),
        ),
        (
            "PROXY TCP4 198.51.100.7 198.51.100.2 12345 80\r\n",
            "X-Forwarded-For: 2001:db8::1\r\n",
            Some("2001:db8::1"),
        ),
    ];
    let mut peers = Vec::new();
    let lines = logged_with(vec![rule(web)], settings, |gateway| {
        for (at, (header, fields, _)) in cases.iter().enumerate() {
            let mut client = gateway.client();
            peers.push(client.stream().local_addr().unwrap().to_string());
            client.send(header);
            assert_eq!(client.get_with(&format!("/{at}"), fields).status, 200);
        }
    });
    assert_eq!(lines.len(), cases.len());
    for (at, ((_, _, client), peer)) in cases.iter().zip(&peers).enumerate() {
        let path = format!("/{at}");
        let line = lines.iter().find(|it| it["path"] == path).unwrap();
        assert_eq!(line["client"], client.unwrap_or(peer), "{line}");
        let told = line.get("peer").and_then(|it| it.as_str());
        assert_eq!(told, client.and(Some(peer.as_str())), "{line}");
    }
}

#[test]
fn pods_are_told_the_client_by_headers_and_in_front_of_the_connection() {
    let origin = Origin::raw(|seen, stream| {
        let mut header = [0; 28];
        stream.read_exact(&mut header)?;
        let head = read_head(&mut BufReader::new(stream.try_clone()?))?;
        seen.lock().unwrap().push(Seen {
            head,
            body: header.to_vec(),
            ..Seen::default()
        });
        stream.write_all(&ok("hello"))
    });
    let policy = Policy {
        proxy_header: true,
        ..Policy::default()
    };
    let name = Filter::InsertHeader(InsertHeader {
        name: "x-client".to_owned(),
        value: InsertedValue::System(SystemValue::ClientAddress),
        overwrite: true,
    });
    let web = treated("web", vec![backend("c1", origin.address, 1)], policy);
    let mut gateway = Gateway::start(vec![filtered(Arc::clone(&web), vec![name])]);
    gateway.change(|site| trust(&mut site.settings));
    assert_eq!(
        gateway.client().get_with("/", &told("192.0.2.1")).status,
        200
    );
    let seen = origin.seen().pop().unwrap();
    assert_eq!(seen.header("x-client"), ["192.0.2.1"]);
    // The list goes on with the end of the connection, as every proxy on the way added its own.
    assert_eq!(seen.header("x-forwarded-for"), ["192.0.2.1, 127.0.0.1"]);
    assert_eq!(seen.body[16..20], [192, 0, 2, 1]);
    assert_eq!(seen.body[24..26], [0, 0], "its port is not known");
}
