//! A client, a gateway node and an origin, each in a namespace. All contenders share the one gateway, and so one path.
//!
//! ```text
//! fg-bench-client cl 10.40.0.2 --- 10.40.0.1 cl0 fg-bench-gw up0 10.41.0.1 --- 10.41.0.2 pod fg-bench-origin
//! ```

use std::{
    fs,
    net::Ipv4Addr,
    num::NonZero,
    path::Path,
    process::{Child, Stdio},
    thread,
};

use anyhow::{Context, Result};

use super::{
    cases::{self, FILES, MET},
    configs,
};
use crate::{
    bench::stage,
    lab::{self, topology},
    netns, process,
};

/// Namespace of the client.
pub(super) const CLIENT: &str = "fg-bench-client";
/// Namespace of all contenders.
pub(super) const GATEWAY: &str = "fg-bench-gw";
/// Namespace of the origin.
pub(super) const ORIGIN: &str = "fg-bench-origin";
/// Where all contenders listen.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(10, 40, 0, 1);
/// The origin.
pub(super) const POD: Ipv4Addr = Ipv4Addr::new(10, 41, 0, 2);
/// Its port.
pub(super) const POD_PORT: u16 = 8080;

/// Lays the cables.
pub(super) fn build() -> Result<()> {
    let all = [
        (CLIENT, topology::Role::Host),
        (GATEWAY, topology::Role::Router),
        (ORIGIN, topology::Role::Host),
    ];
    netns::ip_batch(None, &all.map(|(name, _)| format!("netns add {name}")))?;
    for (name, role) in all {
        stage::quiet(name)?;
        for (key, value) in topology::settings(role) {
            stage::set(name, key, value)?;
        }
        // A connection that had to wait for its turn does not begin anew.
        stage::set(name, "ipv4/tcp_slow_start_after_idle", "0")?;
    }
    // As network cards have them: a queue for each CPU.
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    let cable = |near: &str, far: &str, there: &str| {
        let queues = format!("numtxqueues {cpus} numrxqueues {cpus}");
        format!(
            "link add {near} {queues} netns {GATEWAY} type veth peer name {far} {queues} netns {there}"
        )
    };
    netns::ip_batch(
        None,
        &[cable("cl0", "cl", CLIENT), cable("up0", "pod", ORIGIN)],
    )?;
    for (name, device, address) in [
        (CLIENT, "cl", "10.40.0.2"),
        (GATEWAY, "cl0", "10.40.0.1"),
        (GATEWAY, "up0", "10.41.0.1"),
        (ORIGIN, "pod", "10.41.0.2"),
    ] {
        netns::ip_batch(
            Some(name),
            &[
                "link set lo up".to_owned(),
                format!("addr add {address}/24 dev {device}"),
                format!("link set {device} up"),
            ],
        )?;
    }
    let route = |name, line: &str| netns::ip_batch(Some(name), &[line.to_owned()]);
    route(CLIENT, "route add default via 10.40.0.1")?;
    route(ORIGIN, "route add default via 10.41.0.1")
}

/// Starts the origin: nginx with the files, whatever rule they are asked by. It ends with the stage.
pub(super) fn origin() -> Result<Child> {
    let home = Path::new(stage::SCRATCH).join("origin");
    for folder in ["files".to_owned(), format!("files/{}", cases::rule(MET))] {
        let folder = home.join(folder);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in FILES {
            fs::write(folder.join(name), "x".repeat(bytes))?;
        }
    }
    fs::write(home.join("nginx.conf"), configs::origin(&home))?;
    let log = fs::File::create(home.join("output.log"))?;
    let child = netns::command(ORIGIN, process::which("nginx").context("no nginx")?)
        .arg("-p")
        .arg(&home)
        .arg("-c")
        .arg(home.join("nginx.conf"))
        .args(["-e", "stderr"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start the origin")?;
    lab::wait_listening(ORIGIN, POD_PORT)
        .with_context(|| fs::read_to_string(home.join("output.log")).unwrap_or_default())?;
    Ok(child)
}

/// The key and certificate that all contenders show: files `key.pem`, `cert.pem` and both in `both.pem`.
pub(super) fn certificate() -> Result<()> {
    let scratch = Path::new(stage::SCRATCH);
    let mut command = std::process::Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]);
    command.args(["-nodes", "-days", "2", "-subj", "/CN=bench.example.com"]);
    command.args(["-addext", "subjectAltName=DNS:bench.example.com"]);
    command.arg("-keyout").arg(scratch.join("key.pem"));
    command.arg("-out").arg(scratch.join("cert.pem"));
    process::output(&mut command)?;
    let read = |name: &str| fs::read_to_string(scratch.join(name));
    fs::write(
        scratch.join("both.pem"),
        read("cert.pem")? + &read("key.pem")?,
    )?;
    Ok(())
}
