//! The lab: a client, a gateway node and two clusters of pods, in network namespaces of this machine.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use rustix::process::Signal;

use self::{guard::Guard, state::State, topology::Pod};
use crate::{console, netns, paths, process::Known, setup};

pub mod guard;
pub mod state;
pub mod topology;

/// A running lab. Dropping it ends its processes and removes its namespaces; so does its guard if we cannot.
#[derive(Debug)]
pub struct Lab {
    state: State,
    guard: Option<Guard>,
    _lock: File,
}

impl Lab {
    /// Removes what an earlier lab left and builds a new one, with an HTTP server and `iperf3 -s` in every pod.
    pub fn up() -> Result<Self> {
        let lock = state::lock(Duration::from_secs(15))?;
        State::load().remove()?;
        let guard = Guard::start()?;
        let owner = Known::of(std::process::id(), guard::mark(guard.id()));
        let mut lab = Self {
            state: State {
                owner,
                ..State::default()
            },
            guard: Some(guard),
            _lock: lock,
        };
        lab.state.save()?;
        lab.build()?;
        Ok(lab)
    }

    /// Leaves the lab running after this program has ended, until `lab down` or the next lab.
    pub fn keep(mut self) -> Result<()> {
        if let Some(owner) = &mut self.state.owner {
            owner.what = "lab up".into();
        }
        self.state.save()?;
        if let Some(mut guard) = self.guard.take() {
            guard.dismiss();
        }
        self.state = State::default();
        Ok(())
    }

    /// Starts a program in a namespace, with its output in `<target>/lab/<log>.log`. It ends with the lab.
    pub fn spawn(&mut self, namespace: &str, log: &str, command: &Command) -> Result<Child> {
        fs::create_dir_all(paths::lab())?;
        let file =
            File::create(paths::lab().join(log).with_extension("log")).with_context(|| {
                format!(
                    "cannot write the log of {log} in {}",
                    paths::lab().display()
                )
            })?;
        let mut wrapped = netns::command(namespace, command.get_program());
        wrapped.args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        // nsenter does not fork here, so the child's number is the program's. Its own process group keeps the
        // terminal's Ctrl-C away from it: the guard ends it, in order.
        let child = wrapped
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {log} in {namespace}"))?;
        let known = Known::of(child.id(), log)
            .with_context(|| format!("{log} ended at once; see its log"))?;
        self.state.processes.push(known);
        self.state.save()?;
        Ok(child)
    }

    /// Has a folder of pins removed with the lab.
    pub fn owns_pins(&mut self, dir: impl Into<std::path::PathBuf>) -> Result<()> {
        self.state.pins.push(dir.into());
        self.state.save()
    }

    /// Kills the HTTP server of a pod; its open connections are reset.
    pub fn kill_pod(&mut self, pod: &Pod) -> Result<()> {
        let found = |known: &&Known| known.what == pod.name && known.alive();
        let server = self.state.processes.iter().find(found);
        let server = server.with_context(|| format!("no server runs in pod {}", pod.name))?;
        server.signal(Signal::KILL);
        let give_up = Instant::now() + Duration::from_secs(5);
        while server.alive() {
            if Instant::now() > give_up {
                bail!("the server of pod {} does not end", pod.name);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Starts the HTTP server of a pod that was killed.
    pub fn start_pod(&mut self, pod: &Pod) -> Result<()> {
        self.serve(pod)?;
        wait_listening(&pod.namespace, topology::HTTP_PORT)
    }

    fn serve(&mut self, pod: &Pod) -> Result<()> {
        let listen = format!("{}:{}", pod.address, topology::HTTP_PORT);
        let mut http = Command::new(paths::xtask()?);
        http.args(["lab-pod", "--cluster", &pod.cluster])
            .args(["--pod", &pod.name, "--listen", &listen]);
        self.spawn(&pod.namespace, &pod.name, &http)?;
        Ok(())
    }

    fn build(&mut self) -> Result<()> {
        let namespaces = topology::namespaces();
        let add: Vec<String> = namespaces
            .iter()
            .map(|one| format!("netns add {}", one.name))
            .collect();
        netns::ip_batch(None, &add)?;
        for one in &namespaces {
            let settings = topology::settings(one.role);
            netns::inside(&one.name, || {
                settings.iter().try_for_each(|(key, value)| set(key, value))
            })??;
        }
        netns::ip_batch(None, &topology::cables())?;
        thread::scope(|scope| {
            let work: Vec<_> = namespaces
                .iter()
                .map(|one| scope.spawn(|| netns::ip_batch(Some(&one.name), &one.lines)))
                .collect();
            work.into_iter()
                .try_for_each(|one| one.join().map_err(|_| anyhow!("a lab thread panicked"))?)
        })?;
        self.start_pods()
    }

    fn start_pods(&mut self) -> Result<()> {
        for pod in topology::pods() {
            self.serve(&pod)?;
            let mut iperf = Command::new("iperf3");
            iperf.args(["--server", "--port", &topology::IPERF_PORT.to_string()]);
            self.spawn(&pod.namespace, &format!("{}-iperf", pod.name), &iperf)?;
        }
        for pod in topology::pods() {
            for port in [topology::HTTP_PORT, topology::IPERF_PORT] {
                wait_listening(&pod.namespace, port).with_context(|| {
                    format!(
                        "pod {} does not listen on {port}; see {}",
                        pod.name,
                        paths::lab().display()
                    )
                })?;
            }
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let Some(mut guard) = self.guard.take() else {
            return;
        };
        match self.state.remove() {
            Ok(()) => guard.dismiss(),
            // Then the guard tries again, once our end of its pipe and our lock are gone.
            Err(error) => console::note(format_args!("the lab could not be removed: {error:#}")),
        }
    }
}

/// `cargo xtask lab up`.
pub fn up() -> Result<()> {
    setup::ensure(setup::LAB)?;
    let step = console::Step::start("building the lab");
    Lab::up()?.keep()?;
    step.done();
    status()?;
    let me = "cargo xtask";
    let pod = topology::pods().remove(0);
    console::say(format_args!(
        "\nTry next:\n  nsenter --net=/run/netns/{client} curl http://{address}:{http}/headers\n  \
         nsenter --net=/run/netns/{client} iperf3 -c {address} -t 2\n  \
         {me} lab-client --target {address}:{http} --connections 1000\n  \
         nsenter --net=/run/netns/{gw} target/release/fleetgate run --manifests DIR --interface cl0 --interface c1 --interface c2\n  \
         {me} lab down",
        client = topology::CLIENT,
        gw = topology::GATEWAY,
        address = pod.address,
        http = topology::HTTP_PORT,
    ));
    Ok(())
}

/// `cargo xtask lab down`.
pub fn down() -> Result<()> {
    let _lock = state::lock(Duration::from_secs(2))?;
    let found = state::existing().len();
    State::load().remove()?;
    console::say(format_args!("lab down: {found} namespaces removed"));
    Ok(())
}

/// `cargo xtask lab status`.
pub fn status() -> Result<()> {
    let there = state::existing();
    if there.is_empty() {
        console::say("no lab; bring one up with: cargo xtask lab up");
        return Ok(());
    }
    let state = State::load();
    let rows: Vec<Vec<String>> = topology::namespaces()
        .into_iter()
        .map(|one| {
            let addresses: Vec<&str> = one
                .lines
                .iter()
                .filter_map(|line| line.strip_prefix("addr add ")?.split(' ').next())
                .collect();
            let label = one.name.trim_start_matches(topology::PREFIX);
            let running: Vec<String> = state
                .processes
                .iter()
                .filter(|known| known.alive() && known.what.split("-iperf").next() == Some(label))
                .map(|known| format!("{} ({})", known.what, known.pid))
                .collect();
            let mut addresses: Vec<String> = addresses.into_iter().map(String::from).collect();
            addresses.dedup();
            let up = if there.contains(&one.name) {
                "up"
            } else {
                "MISSING"
            };
            vec![one.name, up.into(), addresses.join(" "), running.join(" ")]
        })
        .collect();
    console::say(console::table(
        &["namespace", "state", "addresses", "processes"],
        &rows,
    ));
    Ok(())
}

/// Waits up to five seconds until something in the namespace listens on a TCP port.
pub fn wait_listening(namespace: &str, port: u16) -> Result<()> {
    let give_up = Instant::now() + Duration::from_secs(5);
    // proc(5): local address in hexadecimal, then the port; state 0A is LISTEN.
    let port_text = format!(":{port:04X}");
    loop {
        let tables = netns::inside(namespace, || {
            ["tcp", "tcp6"].map(|name| {
                fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default()
            })
        })?;
        let listening = tables.iter().flat_map(|table| table.lines()).any(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            fields
                .get(1)
                .is_some_and(|local| local.ends_with(&port_text))
                && fields.get(3) == Some(&"0A")
        });
        if listening {
            return Ok(());
        }
        if Instant::now() > give_up {
            bail!("nothing listens on port {port} in {namespace} after 5 s");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn set(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{key}");
    match fs::write(&path, value) {
        // A kernel without IPv6 has nothing to calm down.
        Err(error) if key.starts_with("ipv6/") && error.kind() == std::io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other.with_context(|| format!("cannot write {path}")),
    }
}
