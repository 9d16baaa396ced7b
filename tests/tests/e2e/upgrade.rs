//! An agent whose maps have another layout takes over, and back, while connections go on.
//!
//! The other one is built with the feature `other-layout`: three structs have their fields in other places.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::RandomState},
    hash::BuildHasher,
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use fleetgate_tests::e2e::{
    Gateway, VIP, eventually,
    manifests::WEB,
    wire::{self, Held},
};
use serde_json::Value;
use xtask::{
    lab::topology::{self, CLIENT, GATEWAY},
    member::{self, Endpoint, Port},
    netns,
};

/// The UDP listener, and where pods listen.
const GAME: u16 = 27_015;
const GAME_POD: u16 = 7015;

const FLEET: &str = "apiVersion: alibabacloud.com/v1
kind: AlbConfig
metadata: {name: mcg}
spec:
  config: {name: mcg}
  listeners:
  - {port: 8001, protocol: HTTP}
  - {port: 27015, protocol: UDP}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: alb}
spec:
  controller: ingress.k8s.alibabacloud/alb
  parameters: {apiGroup: alibabacloud.com, kind: AlbConfig, name: mcg}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: game
  namespace: demo
  annotations:
    alb.ingress.kubernetes.io/listen-ports: '[{\"UDP\": 27015}]'
spec:
  ingressClassName: alb
  defaultBackend: {service: {name: game, port: {name: main}}}
";

fn game(gateway: &Gateway) -> Result<()> {
    gateway.write("fleet/gateway.yaml", FLEET)?;
    for cluster in ["c1", "c2"] {
        let port = Port {
            name: "main",
            number: GAME,
            protocol: "UDP",
        };
        let pods = topology::pods().into_iter();
        let pods: Vec<Endpoint> = pods
            .filter(|pod| pod.cluster == cluster)
            .map(|pod| Endpoint {
                address: pod.address.into(),
                name: pod.name,
                ready: true,
            })
            .collect();
        let service = member::service("game", port, GAME_POD, "None");
        let text = service + &member::slice("game", port.at(GAME_POD), &pods);
        gateway.write(&format!("clusters/{cluster}/game.yaml"), &text)?;
    }
    Ok(())
}

/// A datagram of a client, with what the pod that answered it saw.
struct Player {
    socket: UdpSocket,
    first: String,
}

impl Player {
    fn new() -> Result<Self> {
        let socket = netns::inside(CLIENT, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.connect((VIP, GAME))?;
        let first = Self::ask(&socket)?;
        Ok(Self { socket, first })
    }

    /// Name of the pod, and the sender as it sees it.
    fn ask(socket: &UdpSocket) -> Result<String> {
        let mut answer = [0; 256];
        socket.send(b"?")?;
        let got = socket
            .recv(&mut answer)
            .context("no answer to a datagram")?;
        Ok(String::from_utf8_lossy(&answer[..got]).into_owned())
    }

    fn stay(&self) -> Result<()> {
        let now = Self::ask(&self.socket)?;
        ensure!(
            now == self.first,
            "a UDP flow moved from {} to {now}",
            self.first
        );
        Ok(())
    }
}

/// Connections and a UDP flow that stay over everything, and what the gateway knew of them at first.
struct Guests {
    held: Held,
    player: Player,
    flows: BTreeMap<String, String>,
    ids: BTreeMap<String, u64>,
}

impl Guests {
    fn come(gateway: &Gateway) -> Result<Self> {
        let mut guests = Self {
            held: Held::open(WEB, 30)?,
            player: Player::new()?,
            flows: BTreeMap::new(),
            ids: ids(gateway)?,
        };
        guests.held.stay()?;
        guests.player.stay()?;
        let wanted = guests.addresses()?;
        guests.flows = flows(gateway, &wanted)?;
        ensure!(guests.flows.len() == 31, "{:?}", guests.flows);
        Ok(guests)
    }

    fn addresses(&self) -> Result<BTreeSet<String>> {
        let held = self.held.0.iter().map(|(conn, _)| conn.local());
        let all = held.chain([self.player.socket.local_addr()]);
        all.map(|it| Ok(it?.to_string())).collect()
    }

    /// They are where they were.
    fn stay(&mut self) -> Result<()> {
        self.held.stay()?;
        self.player.stay()
    }

    /// The same, and the agent of now knows them as the first one did.
    fn are_known(&mut self, gateway: &Gateway) -> Result<()> {
        self.stay()?;
        let now = flows(gateway, &self.addresses()?)?;
        ensure!(now == self.flows, "{now:?} instead of {:?}", self.flows);
        let now = ids(gateway)?;
        ensure!(now == self.ids, "{now:?} instead of {:?}", self.ids);
        Ok(())
    }
}

/// Source and pod of the flows of these clients.
fn flows(gateway: &Gateway, clients: &BTreeSet<String>) -> Result<BTreeMap<String, String>> {
    let view = gateway.json(&["flows", "--limit", "1000000"])?;
    let flows = view["flows"].as_array().context("flows")?;
    let text = |flow: &Value, key: &str| flow[key].as_str().unwrap_or_default().to_owned();
    Ok(flows
        .iter()
        .filter(|flow| clients.contains(&text(flow, "client")))
        .map(|flow| {
            let [source, pod] = ["source", "pod"].map(|key| text(flow, key));
            let whole = &flow["complete"];
            (text(flow, "client"), format!("{source} {pod} {whole}"))
        })
        .collect())
}

/// Ids of backends.
fn ids(gateway: &Gateway) -> Result<BTreeMap<String, u64>> {
    let backends = gateway.json(&["backends"])?;
    let backends = backends.as_array().context("backends")?;
    let id = |one: &Value| Some((one["address"].as_str()?.to_owned(), one["id"].as_u64()?));
    backends
        .iter()
        .map(|one| id(one).with_context(|| format!("{one}")))
        .collect()
}

/// Runs a test with pods that answer datagrams with their name and the sender they see.
fn with_pods<R>(work: impl FnOnce() -> Result<R>) -> Result<R> {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = &AtomicBool::new(false);
    let pods = topology::pods();
    thread::scope(|scope| {
        let _over = Over(over);
        for pod in &pods {
            let address = (pod.address, GAME_POD);
            let socket = netns::inside(&pod.namespace, || UdpSocket::bind(address))??;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            scope.spawn(move || {
                let mut datagram = [0; 256];
                while !over.load(Ordering::Relaxed) {
                    if let Ok((_, from)) = socket.recv_from(&mut datagram) {
                        let _ = socket.send_to(format!("{} {from}", pod.name).as_bytes(), from);
                    }
                }
            });
        }
        work()
    })
}

#[test]
fn another_layout_takes_over_and_back_and_no_connection_notices() -> Result<()> {
    there_and_back(&[], &[true, false])
}

#[test]
fn another_layout_takes_over_also_where_programs_are_filters_of_clsact() -> Result<()> {
    there_and_back(&["--tc", "clsact"], &[true, false])
}

#[test]
fn another_layout_takes_over_also_where_xdp_comes_first() -> Result<()> {
    there_and_back(&["--xdp", "generic"], &[true, false])
}

fn there_and_back(arguments: &[&str], turns: &[bool]) -> Result<()> {
    let mut gateway = Gateway::new()?;
    gateway.arguments = arguments.iter().map(|it| (*it).to_owned()).collect();
    game(&gateway)?;
    gateway.start()?;
    with_pods(|| {
        let mut guests = Guests::come(&gateway)?;
        let first = gateway.layouts()?;
        let links = gateway.links()?.len();
        for other in turns.iter().copied() {
            let before = gateway.json(&["status"])?;
            let tally = wire::under_load(WEB, || {
                gateway.stop()?;
                gateway.other_layout(other)?;
                gateway.start()?;
                guests.stay()
            })?;
            ensure!(
                tally.requests > 50 && tally.failed() == 0,
                "{tally:?}\n{}",
                gateway.words()
            );
            guests.are_known(&gateway)?;
            let now = gateway.layouts()?;
            ensure!(now.len() == 1 && (now == first) != other, "{now:?}");
            let status = gateway.json(&["status"])?;
            let upgrade = &status["upgrade"];
            ensure!(
                upgrade["flows"].as_u64() >= Some(31) && upgrade["left"] == serde_json::json!([]),
                "{upgrade}"
            );
            let generation = |status: &Value| status["config"]["generation"].as_u64();
            ensure!(generation(&status) == generation(&before).map(|it| it + 1));
            // Their counters too.
            let counted = |status: &Value| status["dropped"]["packets"].as_u64();
            ensure!(counted(&status) >= counted(&before));
            ensure!(
                gateway.links()?.len() == links,
                "{:?}\n{}",
                gateway.links(),
                gateway.words()
            );
            ensure!(
                status["interfaces"] == before["interfaces"] && !gateway.log()?.contains("stale"),
                "{}",
                gateway.words()
            );
            for device in ["cl0", "c1", "c2"] {
                let words = format!("filter show dev {device} ingress");
                let filters = gateway.tool(GATEWAY, "tc", &words)?;
                let ours = filters.matches("direct-action").count();
                ensure!(
                    ours == usize::from(arguments.contains(&"clsact")),
                    "{filters}"
                );
            }
        }
        Ok(())
    })
}

#[test]
fn commands_of_another_layout_say_so_and_unload_removes_all() -> Result<()> {
    let mut gateway = Gateway::running()?;
    gateway.other_layout(true)?;
    for command in ["status", "routes", "services", "backends", "flows", "stats"] {
        let ran = gateway.cli(&[command])?;
        ensure!(
            ran.code == 3 && ran.err.contains("layout") && ran.err.contains("use the fleetgate"),
            "{command}: {ran:?}"
        );
    }
    // Stopped in the middle: maps of both.
    gateway.kill()?;
    for _ in 0..50 {
        gateway.launch()?;
        thread::sleep(Duration::from_millis(100) + chance(Duration::from_millis(400)));
        gateway.kill()?;
        if gateway.layouts()?.len() == 2 {
            break;
        }
        gateway.other_layout(gateway.layouts()?.len() == 1)?;
    }
    ensure!(gateway.layouts()?.len() == 2, "never in the middle");
    let unloaded = gateway.cli(&["unload"])?;
    ensure!(
        unloaded.code == 0 && unloaded.out.contains("gave back source ports"),
        "{unloaded:?}"
    );
    ensure!(!gateway.pins().exists());
    // The kernel takes a link away a moment after its pin.
    eventually("nothing steers", || {
        let outcome = wire::outcome(WEB);
        Ok((outcome == "ConnectionRefused", outcome))
    })
}

/// A random wait: another one at each run.
fn chance(below: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 1_000;
    below.mul_f64(random as f64 / 1_000.0)
}

/// More writes than an upgrade of these maps has.
const MOST: u64 = 600;

/// Every write is far too many for each run: one of so many, from a random one on. `FLEETGATE_EVERY_WRITE=0` takes all,
/// with a larger number all from that one on.
const STRIDE: u64 = 32;

#[test]
fn an_agent_that_ends_before_any_write_of_an_upgrade_is_followed_by_either_version() -> Result<()> {
    let random = RandomState::new().hash_one(0) % STRIDE;
    let (mut write, stride) = match std::env::var("FLEETGATE_EVERY_WRITE") {
        Ok(first) => (first.parse()?, 1),
        Err(_) => (random, STRIDE),
    };
    let mut gateway = Gateway::new()?;
    game(&gateway)?;
    gateway.start()?;
    with_pods(|| {
        let mut guests = Guests::come(&gateway)?;
        let first = gateway.layouts()?;
        let (mut other, mut halves, mut crashes) = (false, 0, 0);
        loop {
            ensure!(write < MOST, "more than {MOST} writes");
            let story = format!("write {write}, from {other} to {}", !other);
            let mut over = false;
            let tally = wire::under_load(WEB, || {
                gateway.kill()?;
                gateway.other_layout(!other)?;
                over = !crashes_at(&mut gateway, write)?;
                halves += u32::from(gateway.layouts()?.len() > 1);
                guests.stay()?;
                if over {
                    return Ok(());
                }
                crashes += 1;
                // Every third time the next one, of either version, crashes as well.
                if crashes % 3 == 0 {
                    gateway.other_layout(other ^ (crashes % 2 == 0))?;
                    if !crashes_at(&mut gateway, write * 7 % 200)? {
                        gateway.kill()?;
                    }
                    guests.stay()?;
                }
                // The version that is there at the end: there or back.
                other ^= crashes % 4 < 2;
                gateway.other_layout(other)?;
                gateway.crash_at(None)?;
                gateway.start()?;
                guests.stay()
            })
            .with_context(|| story.clone())?;
            ensure!(
                tally.failed() == 0,
                "{story}: {tally:?}\n{}",
                gateway.words()
            );
            if over {
                break;
            }
            guests.are_known(&gateway).with_context(|| story.clone())?;
            let now = gateway.layouts()?;
            ensure!(
                now.len() == 1 && (now == first) != other,
                "{story}: {now:?}"
            );
            ensure!(
                gateway.links()?.len() == 4,
                "{story}: {:?}",
                gateway.links()
            );
            write += stride;
        }
        gateway.crash_at(None)?;
        ensure!(
            halves > 2 && crashes > 3,
            "{crashes} crashes, {halves} of them in the middle, the last before write {write}"
        );
        Ok(())
    })
}

/// Starts the agent, which crashes at a write (true), or is ready before that (false).
fn crashes_at(gateway: &mut Gateway, write: u64) -> Result<bool> {
    gateway.crash_at(Some(write))?;
    gateway.launch()?;
    gateway.crashes_or(|gateway| Ok(gateway.admin("/readyz").is_ok_and(|(code, _)| code == 200)))
}
