//! Listeners of protocol TCP and UDP, described by manifests: a database and a game server behind two clusters.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use fleetgate_tests::e2e::{Gateway, VIP, eventually, manifests::WEB};
use xtask::{
    lab::topology::{self, CLIENT},
    member::{self, Endpoint, Port},
    netns,
};

/// Listeners of the gateway.
const DB: u16 = 5432;
const GAME: u16 = 27_015;
/// Where pods listen.
const DB_POD: u16 = 7432;
const GAME_POD: u16 = 7015;
/// What HTTP would never say: the server speaks first, and not in text.
const GREETING: &[u8] = &[0, 0xff, 0x10, b'\n'];
const PATIENCE: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(20);

const FLEET: &str = "apiVersion: alibabacloud.com/v1
kind: AlbConfig
metadata: {name: mcg}
spec:
  config: {name: mcg}
  listeners:
  - {port: 8001, protocol: HTTP}
  - {port: 5432, protocol: TCP}
  - {port: 27015, protocol: UDP}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: alb}
spec:
  controller: ingress.k8s.alibabacloud/alb
  parameters: {apiGroup: alibabacloud.com, kind: AlbConfig, name: mcg}
";

/// An Ingress that attaches a Service to a listener; `notes` are further annotations.
fn ingress(name: &str, listener: &str, notes: &[(&str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  namespace: demo
  annotations:
    alb.ingress.kubernetes.io/listen-ports: '[{{{listener}}}]'
"
    );
    for (key, value) in notes {
        let _ = writeln!(text, "    alb.ingress.kubernetes.io/{key}: '{value}'");
    }
    text + &format!(
        "spec:
  ingressClassName: alb
  defaultBackend: {{service: {{name: {name}, port: {{name: main}}}}}}
"
    )
}

/// A Service and the slice of its pods in one cluster; `there` tells whether a pod is named, and whether it is ready.
fn of_cluster(
    cluster: &str,
    name: &str,
    port: (u16, u16, &str),
    there: impl Fn(&str) -> Option<bool>,
) -> String {
    let (number, target, protocol) = port;
    let port = Port {
        name: "main",
        number,
        protocol,
    };
    let ours = topology::pods()
        .into_iter()
        .filter(|pod| pod.cluster == cluster);
    let pods: Vec<Endpoint> = ours
        .filter_map(|pod| Some(pod.endpoint(there(&pod.name)?)))
        .collect();
    member::service(name, port, target, "None") + &member::slice(name, port.at(target), &pods)
}

fn members(gateway: &Gateway, there: impl Fn(&str) -> Option<bool> + Copy) -> Result<()> {
    for cluster in ["c1", "c2"] {
        let db = of_cluster(cluster, "db", (DB, DB_POD, "TCP"), there);
        let game = of_cluster(cluster, "game", (GAME, GAME_POD, "UDP"), there);
        gateway.write(
            &format!("clusters/{cluster}/l4.yaml"),
            &(db + "---\n" + &game),
        )?;
    }
    Ok(())
}

fn weigh(gateway: &Gateway, weights: &[(&str, &str)]) -> Result<()> {
    gateway.write("fleet/db.yaml", &ingress("db", "\"TCP\": 5432", weights))?;
    gateway.write(
        "fleet/game.yaml",
        &ingress("game", "\"UDP\": 27015", weights),
    )
}

/// One pod of the lab, speaking for itself until the test is over.
struct Server {
    name: String,
    stream: TcpListener,
    datagrams: UdpSocket,
}

impl Server {
    fn of(pod: &topology::Pod) -> Result<Self> {
        let (stream, datagrams) = netns::inside(&pod.namespace, || {
            Ok::<_, std::io::Error>((
                TcpListener::bind((pod.address, DB_POD))?,
                UdpSocket::bind((pod.address, GAME_POD))?,
            ))
        })??;
        stream.set_nonblocking(true)?;
        datagrams.set_read_timeout(Some(TICK))?;
        Ok(Self {
            name: pod.name.clone(),
            stream,
            datagrams,
        })
    }

    /// Greets each connection first, with its name after the bytes that are no HTTP; then says back what it hears.
    fn streams(&self, over: &AtomicBool) {
        thread::scope(|scope| {
            while !over.load(Ordering::Relaxed) {
                match self.stream.accept() {
                    Ok((mut stream, _)) => {
                        scope.spawn(move || {
                            let _ = self.stream(&mut stream, over);
                        });
                    }
                    Err(_) => thread::sleep(TICK),
                }
            }
        });
    }

    fn stream(&self, stream: &mut TcpStream, over: &AtomicBool) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.write_all(GREETING)?;
        stream.write_all(format!("{}\n", self.name).as_bytes())?;
        let mut heard = [0; 512];
        while !over.load(Ordering::Relaxed) {
            match stream.read(&mut heard) {
                Ok(0) => break,
                Ok(length) => stream.write_all(&heard[..length])?,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
        stream.shutdown(Shutdown::Both)
    }

    fn answers(&self, over: &AtomicBool) {
        let mut heard = [0; 512];
        while !over.load(Ordering::Relaxed) {
            if let Ok((_, from)) = self.datagrams.recv_from(&mut heard) {
                let _ = self.datagrams.send_to(self.name.as_bytes(), from);
            }
        }
    }
}

/// Ends the pods' threads, also when an assertion fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` while every pod serves streams and datagrams.
fn with_pods(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let over = &AtomicBool::new(false);
    let pods = topology::pods();
    let servers = pods.iter().map(Server::of).collect::<Result<Vec<_>>>()?;
    thread::scope(|scope| {
        for server in &servers {
            scope.spawn(move || server.streams(over));
            scope.spawn(move || server.answers(over));
        }
        let _over = Over(over);
        work()
    })
}

/// A connection to the database, and the pod that greeted.
struct Stream(TcpStream, String);

impl Stream {
    fn open() -> Result<Self> {
        let to = SocketAddr::from((VIP, DB));
        let stream = netns::inside(CLIENT, || TcpStream::connect_timeout(&to, PATIENCE))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut this = Self(stream, String::new());
        let mut greeting = [0; 4];
        this.0.read_exact(&mut greeting).context("no greeting")?;
        assert_eq!(greeting, GREETING, "somebody else speaks here");
        this.1 = this.line()?;
        Ok(this)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            self.0.read_exact(&mut byte)?;
            if byte[0] == b'\n' {
                return Ok(String::from_utf8(line)?);
            }
            line.push(byte[0]);
        }
    }

    /// The connection still carries bytes both ways.
    fn says_back(&mut self) -> Result<()> {
        // What a proxy of HTTP would answer by itself.
        self.0.write_all(b"GET /\0 nonsense\n")?;
        assert_eq!(self.line()?, "GET /\0 nonsense");
        Ok(())
    }
}

/// A player who never changes its port.
struct Player(UdpSocket);

impl Player {
    fn new(port: u16) -> Result<Self> {
        let socket = netns::inside(CLIENT, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))??;
        socket.connect((VIP, GAME))?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        Ok(Self(socket))
    }

    /// The pod that answers; none if nobody does.
    fn asks(&self) -> Result<Option<String>> {
        self.0.send(b"who?")?;
        let mut answer = [0; 64];
        match self.0.recv(&mut answer) {
            Ok(length) => Ok(Some(String::from_utf8(answer[..length].to_vec())?)),
            Err(_) => Ok(None),
        }
    }
}

fn opened(count: usize) -> Result<BTreeMap<String, Vec<Stream>>> {
    let mut by_pod: BTreeMap<String, Vec<Stream>> = BTreeMap::new();
    for _ in 0..count {
        let stream = Stream::open()?;
        by_pod.entry(stream.1.clone()).or_default().push(stream);
    }
    Ok(by_pod)
}

/// Waits until both listeners lead to just these pods.
fn only(begins: &str, from: u16) -> Result<()> {
    eventually(begins, || {
        let streams = opened(20)?;
        let streams: Vec<String> = streams.into_keys().collect();
        let players = (from..from + 20).map(|port| Player::new(port)?.asks());
        let players: Vec<String> = players
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect();
        let all = streams.iter().chain(&players);
        let right = all.clone().all(|pod| pod.starts_with(begins)) && players.len() == 20;
        Ok((right, (streams, players)))
    })
}

fn laid_out(gateway: &mut Gateway) -> Result<()> {
    gateway.write("fleet/gateway.yaml", FLEET)?;
    weigh(gateway, &[])?;
    members(gateway, |_| Some(true))?;
    gateway.start()
}

#[test]
fn a_database_and_a_game_server_follow_weights_and_pods_and_the_proxy_never_speaks() -> Result<()> {
    let mut gateway = Gateway::new()?;
    laid_out(&mut gateway)?;
    with_pods(|| {
        let mut held = opened(60)?;
        assert_eq!(held.len(), 5, "{:?}", held.keys());
        only("c", 41_000)?;
        let stay = |held: &mut BTreeMap<String, Vec<Stream>>| -> Result<()> {
            held.values_mut().flatten().try_for_each(Stream::says_back)
        };
        for (nth, (cluster, other)) in [("c1", "c2"), ("c2", "c1")].into_iter().enumerate() {
            let (all, none) = (
                format!("cluster-weight.{cluster}"),
                format!("cluster-weight.{other}"),
            );
            weigh(&gateway, &[(&all, "100"), (&none, "0")])?;
            only(cluster, 42_000 + 1000 * nth as u16)?;
            stay(&mut held)?;
        }
        weigh(&gateway, &[])?;
        only("c", 44_000)?;

        // A pod goes for good: its connections may end by themselves, its datagrams go elsewhere at once.
        let players = (45_000..45_060)
            .map(Player::new)
            .collect::<Result<Vec<_>>>()?;
        let mut of_first: Vec<&Player> = Vec::new();
        for player in &players {
            if player.asks()?.as_deref() == Some("c1-p1") {
                of_first.push(player);
            }
        }
        assert!(!of_first.is_empty(), "60 players missed a pod");
        members(&gateway, |pod| (pod != "c1-p1").then_some(true))?;
        eventually("datagrams are steered again", || {
            let mut now = Vec::new();
            for player in &of_first {
                now.push(player.asks()?);
            }
            let moved = |pod: &Option<String>| pod.as_deref().is_some_and(|pod| pod != "c1-p1");
            Ok((now.iter().all(moved), now))
        })?;
        assert!(opened(40)?.keys().all(|pod| pod != "c1-p1"));
        stay(&mut held).context("with the pod gone")?;

        let scraped = gateway.admin("/metrics")?.1;
        let proxied = scraped
            .lines()
            .find(|line| line.contains("proxy_connections") && !line.starts_with('#'));
        assert!(
            proxied.is_some_and(|line| line.ends_with(" 0")),
            "the proxy had connections: {proxied:?}"
        );
        Ok(())
    })
}

#[test]
fn a_listener_without_ready_pods_refuses_connections_and_drops_datagrams_until_there_is_one()
-> Result<()> {
    let mut gateway = Gateway::new()?;
    laid_out(&mut gateway)?;
    with_pods(|| {
        let mut held = opened(10)?;
        members(&gateway, |_| Some(false))?;
        let to = SocketAddr::from((VIP, DB));
        eventually("connections are refused", || {
            let tried = netns::inside(CLIENT, || TcpStream::connect_timeout(&to, PATIENCE))?;
            let kind = tried.err().map(|error| error.kind());
            Ok((kind == Some(ErrorKind::ConnectionRefused), kind))
        })?;
        let counted = gateway.counted("no_backend")?;
        assert!(counted > 0);
        assert_eq!(Player::new(46_000)?.asks()?, None);
        assert!(gateway.counted("no_backend")? > counted);
        for port in [DB, GAME] {
            gateway.until_steering(port, "connection", "no ready backend")?;
        }
        let services = gateway.json(&["services"])?;
        let agree = services.as_array().context("an array")?.iter();
        assert!(agree.clone().all(|it| it["agrees"] == true), "{services}");
        // What is open stays, and the other listener is not disturbed.
        held.values_mut()
            .flatten()
            .try_for_each(Stream::says_back)?;
        assert_eq!(fleetgate_tests::e2e::wire::burst(WEB, 20)?.failed(), 0);

        members(&gateway, |pod| Some(pod == "c2-p2"))?;
        only("c2-p2", 47_000)
    })
}

#[test]
fn what_a_listener_of_tcp_was_given_by_mistake_is_not_served() -> Result<()> {
    let mut gateway = Gateway::new()?;
    laid_out(&mut gateway)?;
    with_pods(|| {
        only("c", 48_000)?;
        // Now it says more than a stream can be asked.
        let conditions =
            r#"[{"type": "SourceIp", "sourceIpConfig": {"values": ["192.0.2.0/24"]}}]"#;
        let restricted = ingress("db", "\"TCP\": 5432", &[("conditions.db", conditions)]);
        gateway.write("fleet/db.yaml", &restricted)?;
        let to = SocketAddr::from((VIP, DB));
        eventually("nothing is served in its place", || {
            let tried = netns::inside(CLIENT, || TcpStream::connect_timeout(&to, PATIENCE))?;
            let kind = tried.err().map(|error| error.kind());
            Ok((kind == Some(ErrorKind::ConnectionRefused), kind))
        })?;
        // The record follows the kernel.
        eventually("the mistake is told", || {
            let problems = gateway.problems()?;
            let told = problems.iter().any(|(object, field, message)| {
                object == "Ingress db" && field.contains("conditions.db") && message.contains("TCP")
            });
            Ok((told, problems))
        })
    })
}
