//! Connections of load balancers that name the client in a PROXY header.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use gateway_user::{
    ir::{Conditions, Group, ListenerSettings, Network, Policy},
    proxy::{ProxyConfig, Reason},
};
use socket2::{Domain, Socket, Type};

use super::support::{Client, Gateway, Origin, backend, eventually, group, ok, rule};

/// Trusts load balancers on 127.0.0.1 alone.
fn behind(origin: &Origin) -> Gateway {
    let mut gateway = Gateway::to(origin);
    gateway.change(|site| trust(&mut site.settings));
    gateway
}

fn trust(settings: &mut ListenerSettings) {
    settings.proxy_protocol = Some(vec!["127.0.0.1".parse::<Network>().unwrap()]);
}

/// A version 2 header: command (0 LOCAL, 1 PROXY), and the addresses of TCP over IPv4.
fn v2(command: u8, source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11, 0, 12]);
    header.extend(source);
    header.extend([198, 51, 100, 2, 0x30, 0x39, 0, 80]);
    header
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: demo\r\n\r\n";
const V1: &[u8] = b"PROXY TCP4 203.0.113.9 198.51.100.2 12345 80\r\n";

fn told(origin: &Origin) -> String {
    origin
        .seen()
        .last()
        .unwrap()
        .header("x-forwarded-for")
        .join("|")
}

#[test]
fn the_client_is_whom_the_header_names_in_either_version_for_all_requests_of_a_connection() {
    let origin = Origin::fixed(ok("hello"));
    let gateway = behind(&origin);
    for header in [V1.to_vec(), v2(1, [203, 0, 113, 9])] {
        let mut client = gateway.client();
        client.send([&header[..], GET].concat());
        assert_eq!(client.reply().unwrap().status, 200);
        assert_eq!(told(&origin), "203.0.113.9");
        assert_eq!(client.get("/again").status, 200);
        assert_eq!(told(&origin), "203.0.113.9");
    }
}

#[test]
fn conditions_on_the_source_see_the_client_and_not_the_load_balancer() {
    let (near, far) = (Origin::fixed(ok("near")), Origin::fixed(ok("far")));
    let of = |name: &str, origin: &Origin| group(name, vec![backend("c1", origin.address, 1)]);
    let mut inside = rule(of("near", &near));
    inside.conditions = Conditions {
        sources: vec!["203.0.113.0/24".parse().unwrap()],
        ..Conditions::default()
    };
    let mut gateway = Gateway::start(vec![inside, rule(of("far", &far))]);
    gateway.change(|site| trust(&mut site.settings));
    for (source, answer) in [([203, 0, 113, 9], "near"), ([192, 0, 2, 9], "far")] {
        let mut client = gateway.client();
        client.send(v2(1, source));
        assert_eq!(client.get("/").text(), answer);
    }
}

#[test]
fn how_the_header_is_cut_makes_no_difference() {
    let origin = Origin::fixed(ok("hello"));
    let gateway = behind(&origin);
    // A field of 2 KiB that means nothing, so that the first look is too short.
    let mut long = v2(1, [203, 0, 113, 9]);
    long[14..16].copy_from_slice(&(12_u16 + 3 + 2048).to_be_bytes());
    long.extend([0x04, 0x08, 0x00]);
    long.extend([0; 2048]);
    for (header, cut) in [(V1.to_vec(), 1), (v2(1, [203, 0, 113, 9]), 1), (long, 700)] {
        let mut client = gateway.client();
        for piece in [&header[..], GET].concat().chunks(cut) {
            client.send(piece);
            thread::sleep(Duration::from_micros(300));
        }
        assert_eq!(client.reply().unwrap().status, 200);
        assert_eq!(told(&origin), "203.0.113.9");
    }
}

#[test]
fn a_header_without_addresses_leaves_the_peer_as_the_client() {
    let origin = Origin::fixed(ok("hello"));
    let gateway = behind(&origin);
    for header in [v2(0, [203, 0, 113, 9]), b"PROXY UNKNOWN\r\n".to_vec()] {
        let mut client = gateway.client();
        client.send(header);
        assert_eq!(client.get("/").status, 200);
        assert_eq!(told(&origin), "127.0.0.1");
    }
}

#[test]
fn a_load_balancer_that_sends_no_good_header_is_cut_off_and_counted() {
    let origin = Origin::fixed(ok("hello"));
    let gateway = behind(&origin);
    let bad = [
        GET,
        b"PROXY TCP4 203.0.113.9 198.51.100.2 12345 99999\r\nGET / HTTP/1.1\r\nHost: demo\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31",
    ];
    for bytes in bad {
        let mut client = gateway.client();
        client.send(bytes);
        assert_eq!(client.rest(), "", "{bytes:?}");
    }
    // Cut off.
    let mut client = gateway.client();
    client.send(&V1[..20]);
    client.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "");
    assert_eq!(origin.connections(), 0);
    assert_eq!(gateway.stats().reason(Reason::BadProxyHeader), 4);
    // A probe that says nothing is no mistake.
    let mut client = gateway.client();
    client.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "");
    assert_eq!(gateway.stats().reason(Reason::BadProxyHeader), 4);
    eventually("no connection stays", || {
        gateway.stats().active_connections == 0
    });
}

#[test]
fn a_header_that_does_not_come_is_waited_for_as_long_as_a_head() {
    let origin = Origin::fixed(ok("hello"));
    let config = ProxyConfig {
        workers: 1,
        head_timeout: Duration::from_millis(200),
        ..ProxyConfig::default()
    };
    let target = group("web", vec![backend("c1", origin.address, 1)]);
    let mut gateway = Gateway::with(config, vec![rule(target)]);
    gateway.change(|site| trust(&mut site.settings));
    let mut client = gateway.client();
    client.send(&V1[..20]);
    assert_eq!(client.rest(), "");
    assert_eq!(gateway.stats().reason(Reason::RequestTimeout), 1);
}

#[test]
fn who_is_not_trusted_cannot_name_another_client() {
    let origin = Origin::fixed(ok("hello"));
    let gateway = behind(&origin);
    // From 127.0.0.2, which is no load balancer.
    let connect = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
        socket.bind(&from.into()).unwrap();
        socket.connect(&gateway.proxy.local_addr().into()).unwrap();
        let stream = TcpStream::from(socket);
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    };
    let talk = |bytes: &[u8]| {
        let mut stream = connect();
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let answer = talk(&[V1, GET].concat());
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(origin.connections(), 0);
    let get = b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n";
    let answer = talk(get);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(told(&origin), "127.0.0.2");
}

#[test]
fn without_load_balancers_a_header_is_no_request() {
    let origin = Origin::fixed(ok("hello"));
    let gateway = Gateway::to(&origin);
    let mut client: Client = gateway.client();
    client.send([V1, GET].concat());
    assert_eq!(client.reply().unwrap().status, 400);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_pod_is_told_the_client_of_each_request_on_a_connection_of_its_own() {
    let origin = Origin::raw(|seen, stream| {
        let mut header = [0; 28];
        stream.read_exact(&mut header)?;
        let mut reader = std::io::BufReader::new(stream.try_clone()?);
        let head = super::support::read_head(&mut reader)?;
        seen.lock().unwrap().push(super::support::Seen {
            head,
            body: header.to_vec(),
            ..Default::default()
        });
        stream.write_all(&ok("hello"))?;
        // A second request here would be another client's.
        stream.read(&mut header).map(drop)
    });
    let mut gateway = Gateway::to(&origin);
    gateway.change(|site| {
        trust(&mut site.settings);
        let mut named = Group::clone(&site.rules[0].group);
        named.policy = Arc::new(Policy {
            proxy_header: true,
            ..Policy::default()
        });
        site.rules[0].group = Arc::new(named);
    });
    for last in [9, 10] {
        let mut client = gateway.client();
        client.send(v2(1, [203, 0, 113, last]));
        for _ in 0..2 {
            assert_eq!(client.get("/").status, 200);
            let seen = origin.seen().pop().unwrap();
            assert!(seen.body.starts_with(&v2(1, [203, 0, 113, last])[..20]));
        }
    }
    assert_eq!(origin.connections(), 4);
}
