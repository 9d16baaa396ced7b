//! Real sockets over real devices, with tables written by hand: client, gateway and pod are network namespaces, the
//! gateway runs the TC program. Frames here are super-packets whose checksums the card has yet to complete, which test
//! runs of single frames never are.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{
    io::{Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use fleetgate_tests::{
    fixtures::ipv6::{CLIENT6, POD6, POD6_UDP, SNAT6, VIP6, VIP6_UDP, both},
    kernel::Kernel,
    world::{CLIENT, HOP_CLIENTS, HOP_PODS, POD, POD_UDP, SNAT, VIP, VIP_UDP, World},
};
use gateway_common::{
    backend::{NeighbourKey, NextHop},
    verdict::Reason,
};
use socket2::{Domain, Protocol, Socket, Type};
use xtask::netns;

/// Bytes sent each way over one connection.
const AMOUNT: usize = 300_000;
/// Bytes of the largest IP packet that the gateway sends to pods.
const NARROW: u16 = 1300;
const WAIT: Duration = Duration::from_secs(5);
/// Interface numbers of the gateway, towards client and pod.
const WIRES: [u32; 2] = [101, 102];
const MACS: [[u8; 6]; 4] = [
    [2, 0, 0, 0, 0xa, 1],
    [2, 0, 0, 0, 0xa, 2],
    [2, 0, 0, 0, 0xa, 3],
    [2, 0, 0, 0, 0xa, 4],
];

/// Three namespaces in a row; gone when this is dropped.
struct Wires([String; 3]);

impl Drop for Wires {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = netns::ip_batch(None, &[format!("netns del {name}")]);
        }
    }
}

impl Wires {
    fn up() -> Self {
        let id = std::process::id();
        let wires = Self(["client", "gateway", "pod"].map(|who| format!("fg-w{who}-{id}")));
        let [client, gateway, pod] = &wires.0;
        let mac = |at: usize| MACS[at].map(|byte| format!("{byte:02x}")).join(":");
        let mut lines: Vec<String> = wires.0.iter().map(|it| format!("netns add {it}")).collect();
        for (at, (far, near)) in [(client, "c0"), (pod, "p0")].into_iter().enumerate() {
            lines.push(format!(
                "link add {near} index {} address {} netns {gateway} type veth peer name eth0 address {} netns {far}",
                WIRES[at],
                mac(2 * at + 1),
                mac(2 * at),
            ));
        }
        netns::ip_batch(None, &lines).unwrap();
        let run = |name: &String, lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            netns::ip_batch(Some(name), &lines).unwrap();
        };
        run(
            client,
            &[
                "link set lo up",
                "link set eth0 up",
                "address add 192.0.2.1/24 dev eth0",
                "address add 2001:db8:0:1::1/64 dev eth0 nodad",
                "route add 203.0.113.0/24 via 192.0.2.254",
                "route add 2001:db8:a::/64 via 2001:db8:0:1::fe",
            ],
        );
        run(
            gateway,
            &[
                "link set c0 up",
                "link set p0 up",
                "address add 192.0.2.254/24 dev c0",
                "address add 2001:db8:0:1::fe/64 dev c0 nodad",
                "address add 10.1.0.254/24 dev p0",
                "address add fd00:99::fe/64 dev p0 nodad",
                "route add fd00:1234:5678::/48 via fd00:99::1",
                "route add fd00:1::/64 via fd00:99::1",
            ],
        );
        run(
            pod,
            &[
                "link set lo up",
                "link set eth0 up",
                "address add 10.1.0.1/24 dev eth0",
                "address add 10.1.0.3/24 dev eth0",
                "address add fd00:99::1/64 dev eth0 nodad",
                "address add fd00:1234:5678:1:9abc:def0:0:1/128 dev lo nodad",
                "address add fd00:1::3/128 dev lo nodad",
                "route add 198.51.100.0/24 via 10.1.0.254",
                "route add fd00:0:0:ffff::/64 via fd00:99::fe",
            ],
        );
        netns::inside(gateway, || {
            for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{switch}"), "1").unwrap();
            }
        })
        .unwrap();
        netns::inside(client, || {
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
        })
        .unwrap();
        wires
    }

    /// The devices of the gateway complete checksums before they send, as a card would.
    fn complete_checksums(&self) {
        for device in ["c0", "p0"] {
            let done = netns::command(&self.0[1], "ethtool")
                .args(["-K", device, "tx", "off"])
                .output()
                .unwrap();
            assert!(done.status.success(), "ethtool (package ethtool): {done:?}");
        }
    }
}

/// The world of the fixtures on these wires. `known`: the agent has resolved both hops.
fn world(known: bool) -> World {
    let mut world = both().ports(1000);
    world.snats[1].port_count = 1000;
    world.neighbours.clear();
    world.hops.clear();
    if known {
        let hop = |at: usize, mtu| NextHop {
            ifindex: WIRES[at],
            dmac: MACS[2 * at],
            smac: MACS[2 * at + 1],
            mtu,
            flags: 0,
        };
        world.hops.insert(HOP_CLIENTS, hop(0, 1500));
        world.hops.insert(HOP_PODS, hop(1, NARROW));
        let mac = MACS[0];
        let key = NeighbourKey {
            ifindex: WIRES[0],
            mac: [0, 2, 4].map(|at| u16::from_ne_bytes([mac[at], mac[at + 1]])),
            zero: 0,
        };
        world.neighbours.insert(key, HOP_CLIENTS);
    }
    world
}

/// Sends everything back, until told to stop.
fn serve(stop: &AtomicBool) {
    let tcp = [SocketAddr::from(POD), POD6.into()].map(|at| TcpListener::bind(at).unwrap());
    let udp = [SocketAddr::from(POD_UDP), POD6_UDP.into()].map(|at| UdpSocket::bind(at).unwrap());
    for listener in &tcp {
        listener.set_nonblocking(true).unwrap();
    }
    for socket in &udp {
        socket.set_nonblocking(true).unwrap();
    }
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        for listener in &tcp {
            if let Ok((mut stream, _)) = listener.accept() {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(WAIT)).unwrap();
                thread::spawn(move || {
                    let mut all = Vec::new();
                    let _ = stream.read_to_end(&mut all);
                    let _ = stream.write_all(&all);
                });
            }
        }
        for socket in &udp {
            if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..len], from);
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Sends `AMOUNT` bytes and reads them back.
fn transfer(to: SocketAddr) {
    let mut stream = TcpStream::connect_timeout(&to, WAIT).unwrap_or_else(|e| panic!("{to}: {e}"));
    stream.set_read_timeout(Some(WAIT)).unwrap();
    stream.set_write_timeout(Some(WAIT)).unwrap();
    let sent: Vec<u8> = (0..AMOUNT).map(|at| (at % 251) as u8).collect();
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream
        .read_to_end(&mut back)
        .unwrap_or_else(|e| panic!("{to}: {} bytes back, then {e}", back.len()));
    assert!(back == sent, "{to}: {} bytes back, or others", back.len());
}

/// Asks until an answer comes: neighbours may have to be resolved first.
fn ask(to: SocketAddr) {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => [0; 4].into(),
        SocketAddr::V6(_) => [0; 16].into(),
    };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(WAIT / 5)).unwrap();
    let mut buffer = [0; 64];
    let answered = (0..5).any(|_| {
        socket.send(b"question").unwrap();
        matches!(socket.recv(&mut buffer), Ok(8))
    });
    assert!(answered && buffer[..8] == *b"question", "{to}");
}

/// One echo, as `ping` sends it.
fn ping(to: IpAddr) {
    let (domain, protocol, kinds) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, [8, 0]),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, [128, 129]),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol)).unwrap();
    let socket: UdpSocket = socket.into();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    let mut question = [0; 40];
    question[0] = kinds[0];
    question[8..].fill(0xa5);
    socket.send_to(&question, (to, 0)).unwrap();
    let mut answer = [0; 64];
    let (len, from) = socket
        .recv_from(&mut answer)
        .unwrap_or_else(|e| panic!("{to}: {e}"));
    assert_eq!((from.ip(), len, answer[0]), (to, 40, kinds[1]));
    assert_eq!(answer[8..40], question[8..]);
}

/// Path MTU that the client has learnt, in bytes.
fn learnt(to: IpAddr) -> Option<u16> {
    let said = Command::new("ip")
        .args(["route", "get", &to.to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let mut words = said.split_whitespace();
    words.find(|word| *word == "mtu")?;
    words.next()?.parse().ok()
}

#[test]
fn connections_datagrams_echoes_and_a_narrow_path_work_in_both_families() {
    let wires = Wires::up();
    let [client, gateway, pod] = wires.0.clone();
    let mut kernel = Kernel::load().unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| netns::inside(&pod, || serve(&stop)));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            netns::inside(&gateway, || {
                kernel.attach_tc("c0").unwrap();
                kernel.attach_tc("p0").unwrap();
            })
            .unwrap();
            wait_for_addresses(&client);
            for (known, complete) in [(false, false), (true, false), (true, true)] {
                if complete {
                    wires.complete_checksums();
                }
                kernel.reset(&world(known)).unwrap();
                netns::inside(&client, || {
                    for to in [SocketAddr::from(VIP_UDP), VIP6_UDP.into()] {
                        ask(to);
                    }
                    for to in [SocketAddr::from(VIP), VIP6.into()] {
                        transfer(to);
                        ping(to.ip());
                        if known {
                            assert_eq!(learnt(to.ip()), Some(NARROW), "{to}");
                        }
                    }
                    // What was learnt is forgotten for the next round.
                    for family in ["-4", "-6"] {
                        let flushed = Command::new("ip")
                            .args([family, "route", "flush", "cache"])
                            .status();
                        assert!(flushed.unwrap().success());
                    }
                })
                .unwrap();
                let counters = kernel.counters().unwrap();
                let count = |reason: Reason| {
                    counters
                        .reasons
                        .get(&(reason as u32))
                        .map_or(0, |it| it.packets)
                };
                assert_eq!(count(Reason::EchoAnswered), 2, "{counters:?}");
                assert_eq!(count(Reason::TooBigAnswered) >= 2, known, "{counters:?}");
                for reason in [
                    Reason::OverMtu,
                    Reason::Rewrite,
                    Reason::NoRoute,
                    Reason::AnswerRate,
                ] {
                    assert_eq!(count(reason), 0, "known {known}: {counters:?}");
                }
                eprintln!(
                    "hops known {known}, checksums complete {complete}: {:?}",
                    counters.reasons
                );
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    // Used by the tables alone.
    let _ = (CLIENT, CLIENT6, SNAT, SNAT6);
}

/// IPv6 addresses and links need a moment until they can be used.
fn wait_for_addresses(client: &str) {
    let until = Instant::now() + WAIT;
    while Instant::now() < until {
        let up = netns::inside(client, || {
            let socket = UdpSocket::bind("[::]:0").unwrap();
            socket.connect(SocketAddr::from(VIP6_UDP)).is_ok()
        });
        if up.unwrap() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
}
