//! Nodes that share a secret steer alike, whatever they went through.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Child,
};

use anyhow::{Context, Result, ensure};
use fleetgate_tests::e2e::{
    Gateway, VIP, eventually,
    manifests::{self, File, Ingress, WEB},
};
use gateway_common::service::mode;
use gateway_user::{
    dataplane::{
        pins::Pins,
        tables::{Tables, service_key},
    },
    plan::{ServiceAddr, Transport},
};
use rustix::process::Signal;
use xtask::{lab::topology::HTTP_PORT, process::Known};

/// Listeners, each with weights of its own; the last one leads to another Service.
const PORTS: [u16; 3] = [WEB, WEB + 1, WEB + 2];

/// One more node, as far as rings go: manifests, pins and source addresses of its own.
struct Node {
    manifests: tempfile::TempDir,
    pins: PathBuf,
    agent: Child,
}

impl Node {
    fn start(gateway: &mut Gateway, number: u8, secret: &str, files: &[File]) -> Result<Self> {
        let manifests = tempfile::tempdir()?;
        write(manifests.path(), files)?;
        let pins = format!("/sys/fs/bpf/fg-test-{}-node{number}", std::process::id());
        let pins = PathBuf::from(pins);
        let agent = launch(gateway, manifests.path(), &pins, number, secret)?;
        Ok(Self {
            manifests,
            pins,
            agent,
        })
    }

    fn write(&self, files: &[File]) -> Result<()> {
        write(self.manifests.path(), files)
    }

    fn end(&mut self) -> Result<()> {
        if let Some(agent) = Known::of(self.agent.id(), "agent") {
            agent.signal(Signal::TERM);
        }
        self.agent.wait()?;
        Ok(())
    }

    fn restart(&mut self, gateway: &mut Gateway, number: u8, secret: &str) -> Result<()> {
        self.end()?;
        self.agent = launch(gateway, self.manifests.path(), &self.pins, number, secret)?;
        Ok(())
    }

    fn rings(&self) -> Result<Rings> {
        rings(&self.pins)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

fn launch(
    gateway: &mut Gateway,
    manifests: &Path,
    pins: &Path,
    number: u8,
    secret: &str,
) -> Result<Child> {
    gateway.source = vec!["--manifests".into(), manifests.display().to_string()];
    gateway.arguments = vec![
        "--ring-secret".into(),
        secret.into(),
        "--snat".into(),
        format!("10.99.{number}.0/29"),
    ];
    let admin = format!("127.0.0.1:{}", 9620 + u16::from(number));
    gateway.launch_another(pins, &admin, &format!("e2e-node{number}"))
}

fn write(directory: &Path, files: &[File]) -> Result<()> {
    for (path, text) in files {
        let path = directory.join(path);
        let folder = path.parent().context("a file has a folder")?;
        fs::create_dir_all(folder)?;
        let aside = folder.join(".aside");
        fs::write(&aside, text)?;
        fs::rename(&aside, &path)?;
    }
    Ok(())
}

/// What all nodes are to serve in the end: three listeners over the pods that `ready` names.
fn wanted(ports: &[u16], ready: impl Fn(&str) -> bool + Copy) -> Vec<File> {
    let ingresses: String = ports
        .iter()
        .zip([(60, 40), (10, 90), (50, 50)])
        .map(|(port, (c1, c2))| {
            let service = if *port == PORTS[2] { "other" } else { "web" };
            Ingress::new(&format!("on-{port}"), *port)
                .service(service)
                .weights(&[("c1", c1), ("c2", c2)])
                .yaml()
        })
        .collect();
    let mut files = manifests::clusters("web", HTTP_PORT, "None", ready);
    files.extend(manifests::clusters("other", HTTP_PORT + 1, "None", ready));
    files.extend([
        ("fleet/gateway.yaml".into(), manifests::gateway(ports, "")),
        ("fleet/web.yaml".into(), ingresses),
    ]);
    files
}

/// A ring as it lies in the kernel.
#[derive(Debug, Default, PartialEq)]
struct Ring {
    offset: u32,
    ids: Vec<u32>,
    pods: Vec<SocketAddr>,
}

/// By port; a listener that the kernel does not steer has none.
type Rings = BTreeMap<u16, Ring>;

fn rings(pins: &Path) -> Result<Rings> {
    let tables = Tables::open(&Pins::new(pins))?;
    let mut rings = Rings::new();
    for port in PORTS {
        let key = service_key(&ServiceAddr {
            transport: Transport::Tcp,
            address: (VIP, port).into(),
        });
        let Ok(service) = tables.services.get(&key, 0) else {
            continue;
        };
        if service.mode != mode::NAT {
            continue;
        }
        let mut ring = Ring {
            offset: service.ring_off,
            ..Ring::default()
        };
        for slot in service.ring_off..service.ring_off + service.ring_len {
            let id = tables.rings.get(&slot, 0)?;
            let backend = tables.backends.get(&id, 0)?;
            ring.ids.push(id);
            ring.pods
                .push(SocketAddr::new(backend.addr.into(), backend.port.host()));
        }
        rings.insert(port, ring);
    }
    Ok(rings)
}

/// Slot by slot, by who serves.
fn pods(rings: &Rings) -> BTreeMap<u16, &[SocketAddr]> {
    let pods = rings.iter().map(|(port, ring)| (*port, &*ring.pods));
    pods.collect()
}

/// Waits until each listener is served by so many pods; a reader may meet a change half way.
fn until_pods(node: &Node, counts: &[(u16, usize)]) -> Result<Rings> {
    let wanted: BTreeMap<u16, usize> = counts.iter().copied().collect();
    let mut found = Rings::new();
    eventually(&format!("rings over {wanted:?}"), || {
        let Ok(rings) = node.rings() else {
            return Ok((false, BTreeMap::new()));
        };
        let count = |ring: &Ring| ring.pods.iter().collect::<BTreeSet<_>>().len();
        let counts: BTreeMap<u16, usize> =
            rings.iter().map(|(port, it)| (*port, count(it))).collect();
        found = rings;
        Ok((counts == wanted, counts))
    })?;
    Ok(found)
}

#[test]
fn nodes_with_one_secret_have_the_same_rings_whatever_they_went_through() -> Result<()> {
    let mut gateway = Gateway::new()?;
    let all = PORTS.map(|port| (port, 5));
    let straight = Node::start(&mut gateway, 1, "shared", &wanted(&PORTS, |_| true))?;
    let one = until_pods(&straight, &all)?;

    // The other one began with two pods of one cluster, met the rest later, lost some, and had the listeners the other
    // way round.
    let first = wanted(&PORTS[2..], |pod| pod.starts_with("c2-p2"));
    let mut winding = Node::start(&mut gateway, 2, "shared", &first)?;
    until_pods(&winding, &[(PORTS[2], 1)])?;
    winding.write(&wanted(&PORTS[1..], |pod| pod.starts_with("c2")))?;
    until_pods(&winding, &[(PORTS[1], 3), (PORTS[2], 3)])?;
    winding.write(&wanted(&PORTS[1..], |pod| pod != "c2-p2"))?;
    until_pods(&winding, &[(PORTS[1], 4), (PORTS[2], 4)])?;
    winding.write(&wanted(&PORTS, |pod| pod.starts_with("c1")))?;
    until_pods(&winding, &PORTS.map(|port| (port, 2)))?;
    winding.write(&wanted(&PORTS, |_| true))?;
    until_pods(&winding, &all)?;
    eventually("the same rings on both nodes", || {
        Ok((pods(&winding.rings()?) == pods(&one), ()))
    })?;
    let other = winding.rings()?;
    for port in PORTS {
        let (here, there) = (&one[&port], &other[&port]);
        ensure!(
            here.ids != there.ids || here.offset != there.offset,
            "port {port}: the nodes did not differ in anything, so this shows nothing"
        );
    }
    ensure!(
        PORTS.iter().any(|port| one[port].ids != other[port].ids),
        "both nodes number the pods alike"
    );

    // Another secret is another ring, also for a node that had this one before, and back.
    let third = Node::start(&mut gateway, 3, "another", &wanted(&PORTS, |_| true))?;
    let third = until_pods(&third, &all)?;
    for port in PORTS {
        let pairs = one[&port].pods.iter().zip(&third[&port].pods);
        let alike = pairs.filter(|(a, b)| a == b).count();
        let slots = one[&port].pods.len();
        ensure!(
            alike < slots * 9 / 10,
            "port {port}: {alike} of {slots} slots are alike"
        );
    }
    winding.restart(&mut gateway, 2, "another")?;
    eventually("the rings of the other secret", || {
        Ok((pods(&winding.rings()?) == pods(&third), ()))
    })?;
    winding.restart(&mut gateway, 2, "shared")?;
    eventually("the rings of the shared secret again", || {
        Ok((pods(&winding.rings()?) == pods(&one), ()))
    })?;
    winding.end()?;
    Ok(())
}
