//! The agent itself on a fleet of API servers: from a change in an API to the flipped ring in the kernel.
//!
//! Runs inside a network namespace of its own (`cargo xtask bench control` makes it), with a route and a neighbour for
//! every pod address.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use fleetgate_tests::{
    apiserver::{ApiServer, Login, Options, Resource, Verb},
    fleet::{FIRST_PORT, Size},
};
use gateway_user::{
    dataplane::{
        pins::Pins,
        tables::{Tables, service_key},
    },
    plan::{ServiceAddr, Transport},
};
use serde_json::{Value, json};

/// Where the agent is given an address.
pub(crate) const DEVICE: &str = "fgb0";
/// Address of the listeners.
pub(crate) const VIP: &str = "192.0.2.1";
/// Changes measured.
const CHANGES: usize = 60;
/// Pause between two changes, so that each is alone.
const PAUSE: Duration = Duration::from_millis(60);
const PATIENCE: Duration = Duration::from_secs(120);

/// A running agent, ended and unloaded when dropped.
struct Agent {
    child: Child,
    program: PathBuf,
    pins: PathBuf,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let unload = Command::new(&self.program)
            .args(["unload", "--force", "--pin-dir"])
            .arg(&self.pins)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = unload;
    }
}

/// Starts everything, measures, and ends everything.
pub(crate) fn measure(size: Size, program: &Path) -> Result<Value> {
    let dir = tempfile::tempdir()?;
    let start = |at: u64| {
        ApiServer::start(Options {
            first_revision: 1000 * (at + 1),
            ..Options::default()
        })
    };
    let fleet = start(0)?;
    for (_, object) in size.fleet() {
        fleet.put(object).map_err(|it| anyhow::anyhow!("{it:?}"))?;
    }
    let kubeconfig = |server: &ApiServer, name: &str| -> Result<PathBuf> {
        let path = dir.path().join(name);
        fs::write(&path, server.kubeconfig(Login::Nobody)?)?;
        Ok(path)
    };
    let mut arguments = vec![
        "run".to_owned(),
        format!("--fleet={}", kubeconfig(&fleet, "fleet")?.display()),
    ];
    let mut members = Vec::new();
    for (at, id) in size.cluster_ids().enumerate() {
        let server = start(at as u64 + 1)?;
        for (_, object) in size.member(at) {
            server.put(object).map_err(|it| anyhow::anyhow!("{it:?}"))?;
        }
        arguments.push(format!(
            "--cluster={id}={}",
            kubeconfig(&server, &id)?.display()
        ));
        members.push(server);
    }
    let pins = PathBuf::from(format!("/sys/fs/bpf/fg-bench-{}", std::process::id()));
    arguments.extend([
        format!("--interface={DEVICE}"),
        format!("--vip={VIP}"),
        "--snat=198.18.0.0/28".to_owned(),
        "--max-flows=4096".to_owned(),
        format!("--pin-dir={}", pins.display()),
        "--admin=127.0.0.1:19620".to_owned(),
    ]);
    let log = fs::File::create(dir.path().join("agent.log"))?;
    let began = Instant::now();
    let child = Command::new(program)
        .args(&arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let mut agent = Agent {
        child,
        program: program.to_owned(),
        pins: pins.clone(),
    };
    let failed = |agent: &mut Agent| -> Result<()> {
        if let Some(status) = agent.child.try_wait()? {
            let log = fs::read_to_string(dir.path().join("agent.log")).unwrap_or_default();
            bail!(
                "the agent ended with {status}:\n{}",
                xtask::process::last_lines(&log, 20)
            );
        }
        Ok(())
    };
    let tables = loop {
        ensure!(began.elapsed() < PATIENCE, "the agent does not come up");
        failed(&mut agent)?;
        if let Ok(tables) = Tables::open(&Pins::new(&pins)) {
            break tables;
        }
        thread::sleep(Duration::from_millis(20));
    };
    let entry = |port: u16| -> Result<Option<(u32, u32)>> {
        let address = ServiceAddr {
            transport: Transport::Tcp,
            address: format!("{VIP}:{port}").parse()?,
        };
        let service = tables.services.get(&service_key(&address), 0).ok();
        Ok(service.map(|it| (it.epoch, it.ring_off)))
    };
    // The last listener of the kernel has its ring: everything is programmed.
    for at in 0..size.steered {
        while entry(FIRST_PORT + at as u16)?.is_none() {
            ensure!(began.elapsed() < PATIENCE, "a listener is not programmed");
            failed(&mut agent)?;
            thread::sleep(Duration::from_millis(5));
        }
    }
    let cold = began.elapsed();
    // What follows the first configuration (status, the record) is over.
    thread::sleep(Duration::from_secs(3));
    let lists = |servers: &[ApiServer]| -> u64 {
        let of = |server: &ApiServer| {
            server.count(Verb::List, Resource::EndpointSlices)
                + server.count(Verb::List, Resource::Services)
        };
        servers.iter().map(of).sum()
    };
    let listed = lists(&members);
    let mut flips = Vec::new();
    for at in 0..CHANGES {
        let service = at / 2 % size.steered;
        let cluster = at / 2 % size.clusters;
        let ready = if at % 2 == 0 {
            size.pods - 1
        } else {
            size.pods
        };
        let port = FIRST_PORT + service as u16;
        let before = entry(port)?;
        let slice = size.slice(cluster, service, ready);
        let changed = Instant::now();
        members[cluster]
            .put(slice)
            .map_err(|it| anyhow::anyhow!("{it:?}"))?;
        while entry(port)? == before {
            ensure!(
                changed.elapsed() < PATIENCE,
                "a change never reached the kernel"
            );
            std::hint::spin_loop();
        }
        flips.push(changed.elapsed().as_secs_f64() * 1e3);
        failed(&mut agent)?;
        thread::sleep(PAUSE);
    }
    flips.sort_by(f64::total_cmp);
    let at = |part: usize| flips[(flips.len() - 1) * part / 100];
    let memory = |what: &str| -> Option<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", agent.child.id())).ok()?;
        let line = text.lines().find(|line| line.starts_with(what))?;
        let kib: f64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some((kib / 1024.0 * 10.0).round() / 10.0)
    };
    Ok(json!({
        "endpoints": size.endpoints(),
        "start_to_programmed_ms": (cold.as_secs_f64() * 1e3).round(),
        "changes": flips.len(),
        "change_to_flip_ms": {"median": at(50), "p90": at(90), "p99": at(99), "max": at(100)},
        "relists": lists(&members) - listed,
        "memory_mib": memory("VmRSS:"),
        "peak_memory_mib": memory("VmHWM:"),
    }))
}
