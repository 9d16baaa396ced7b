//! One lab with one agent, and the command line to ask about it.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use aya::programs::links::{FdLink, PinnedLink};
use gateway_user::dataplane::fault;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use xtask::{
    client,
    lab::{
        Lab,
        topology::{self, GATEWAY, Pod},
    },
    netns, paths,
    process::{self, Known},
};

use super::{PATIENCE, manifests};

/// The address of listeners that name none.
pub const VIP: Ipv4Addr = topology::VIP;
/// How long an agent may take to load its programs beside one that serves, on a machine that is busy.
const LONG_PATIENCE: Duration = Duration::from_secs(30);
/// Numbers the agents of this process, for pins and logs.
static AGENTS: AtomicU32 = AtomicU32::new(0);

/// A lab, a manifest directory, a pin directory, and an agent that may run or not.
///
/// Dropping it ends the agent, unloads the programs and removes the lab.
#[derive(Debug)]
pub struct Gateway {
    agent: Option<Child>,
    /// The agent that another one has taken the place of.
    leaving: Option<Child>,
    log: PathBuf,
    /// Arguments of `fleetgate run` that say where objects come from: the manifest directory, unless a test says otherwise.
    pub source: Vec<String>,
    /// Further arguments of `fleetgate run`.
    pub arguments: Vec<String>,
    /// Where the agent finds the number of the write at which it is to crash; see `dataplane::fault`.
    crash: TempDir,
    manifests: TempDir,
    pins: PathBuf,
    program: PathBuf,
    /// The namespaces, pods and their HTTP servers.
    pub lab: Lab,
}

/// What a command of the program said.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Gateway {
    /// Builds the lab, and a manifest directory with one connection-steered listener on 8001 over all five pods.
    /// No agent runs yet.
    pub fn new() -> Result<Self> {
        let program = program()?;
        let mut lab = Lab::up()?;
        let number = AGENTS.fetch_add(1, Ordering::Relaxed);
        let pins = PathBuf::from(format!(
            "/sys/fs/bpf/fg-test-{}-{number}",
            std::process::id()
        ));
        lab.owns_pins(&pins)?;
        let manifests = tempfile::tempdir()?;
        let directory = manifests.path().display().to_string();
        let this = Self {
            agent: None,
            leaving: None,
            log: paths::lab().join("e2e-agent.log"),
            source: vec!["--manifests".to_owned(), directory],
            arguments: Vec::new(),
            crash: tempfile::tempdir()?,
            manifests,
            pins,
            program,
            lab,
        };
        for (path, text) in manifests::basic() {
            this.write(&path, &text)?;
        }
        Ok(this)
    }

    /// [`Self::new`], and starts the agent.
    pub fn running() -> Result<Self> {
        let mut this = Self::new()?;
        this.start()?;
        Ok(this)
    }

    /// The manifest directory.
    pub fn manifests(&self) -> &Path {
        self.manifests.path()
    }

    /// The pin directory.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// The program under test.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Has the agent whose maps have another layout started and asked from now on, or the usual one again.
    ///
    /// # Errors
    /// When it is not built.
    pub fn other_layout(&mut self, other: bool) -> Result<()> {
        self.program = if other { other_program()? } else { program()? };
        Ok(())
    }

    /// Layouts of the maps that are pinned.
    pub fn layouts(&self) -> Result<Vec<String>> {
        let names = fs::read_dir(&self.pins)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>>>()?;
        let layouts = names.iter().filter_map(|name| name.strip_prefix("maps-"));
        Ok(layouts.map(str::to_owned).collect())
    }

    /// Saves a manifest whole: aside, then renamed.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.manifests().join(path);
        let dir = path.parent().context("a file has a folder")?;
        fs::create_dir_all(dir)?;
        let aside = dir.join(".aside");
        fs::write(&aside, text)?;
        fs::rename(&aside, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Removes a manifest.
    pub fn remove(&self, path: &str) -> Result<()> {
        fs::remove_file(self.manifests().join(path))
            .with_context(|| format!("cannot remove {path}"))
    }

    /// Starts the agent and waits until its plan is in the kernel.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_ready()
    }

    /// Starts the agent and waits for nothing.
    pub fn launch(&mut self) -> Result<()> {
        self.log = paths::lab().join("e2e-agent.log");
        ensure!(self.agent.is_none(), "the test's agent runs already");
        let command = self.command(&self.pins, "127.0.0.1:9620");
        self.agent = Some(self.lab.spawn(GATEWAY, "e2e-agent", &command)?);
        Ok(())
    }

    /// Starts one more agent on the same manifests, with pins and an admin address of its own choice.
    pub fn launch_another(&mut self, pins: &Path, admin: &str, log: &str) -> Result<Child> {
        self.lab.owns_pins(pins)?;
        let command = self.command(pins, admin);
        self.lab.spawn(GATEWAY, log, &command)
    }

    /// Starts an agent that takes the place of the one that runs, and waits until its plan is in the kernel. The other
    /// one is told to end by [`Self::see_off`].
    pub fn take_over(&mut self) -> Result<()> {
        ensure!(self.leaving.is_none(), "an agent is leaving already");
        self.leaving = self.agent.take();
        let mut command = self.command(&self.pins, "127.0.0.1:9620");
        command.arg("--take-over");
        let successor = self.lab.spawn(GATEWAY, "e2e-successor", &command)?;
        let pid = successor.id();
        self.agent = Some(successor);
        self.log = paths::lab().join("e2e-successor.log");
        // Until it has the pins the other one answers for its readiness.
        let give_up = Instant::now() + LONG_PATIENCE;
        let has_the_pins = |status: &Value| status["agent"]["pid"] == pid;
        while !self.json(&["status"]).as_ref().is_ok_and(has_the_pins) {
            ensure!(
                Instant::now() < give_up,
                "the successor has no pins:\n{}",
                self.words()
            );
            thread::sleep(Duration::from_millis(30));
        }
        self.wait_ready()
    }

    /// SIGTERM for the agent that another one has taken the place of.
    pub fn see_off(&mut self) -> Result<ExitStatus> {
        ended(self.leaving.take().context("no agent is leaving")?)
    }

    fn command(&self, pins: &Path, admin: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("run").args(&self.source);
        for device in ["cl0", "c1", "c2"] {
            command.args(["--interface", device]);
        }
        command.arg("--pin-dir").arg(pins).args(["--admin", admin]);
        command.args(&self.arguments).env("RUST_BACKTRACE", "1");
        command.env(fault::VARIABLE, self.crash_file());
        command
    }

    /// Waits until `/readyz` says 200.
    pub fn wait_ready(&mut self) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(agent) = &mut self.agent
                && let Some(status) = agent.try_wait()?
            {
                bail!(
                    "the agent ended while starting ({status}):\n{}",
                    self.words()
                );
            }
            let said = self.admin("/readyz");
            match &said {
                Ok((200, _)) => return Ok(()),
                _ if Instant::now() > give_up => {
                    bail!("the agent is not ready: {said:?}\n{}", self.words())
                }
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// SIGTERM, as systemd and the kubelet send it.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        ended(self.agent.take().context("no agent runs")?)
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        let mut agent = self.agent.take().context("no agent runs")?;
        agent.kill()?;
        agent.wait()?;
        Ok(())
    }

    fn crash_file(&self) -> PathBuf {
        self.crash.path().join("write")
    }

    /// Has the agent crash at the write of this number, counted from now (0 is the next one); with `None` never.
    pub fn crash_at(&self, write: Option<u64>) -> Result<()> {
        let file = self.crash_file();
        match write {
            Some(number) => {
                let aside = file.with_extension("aside");
                fs::write(&aside, number.to_string())?;
                fs::rename(&aside, file)?;
            }
            None if file.exists() => fs::remove_file(file)?,
            None => {}
        }
        Ok(())
    }

    /// Waits until the agent has crashed (true), or `done` says true while it runs on (false).
    pub fn crashes_or(&mut self, mut done: impl FnMut(&Self) -> Result<bool>) -> Result<bool> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let agent = self.agent.as_mut().context("no agent runs")?;
            if agent.try_wait()?.is_some() {
                self.agent = None;
                return Ok(true);
            }
            if done(self)? {
                return Ok(false);
            }
            ensure!(
                Instant::now() < give_up,
                "neither done nor crashed:\n{}",
                self.words()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// All that the agent has written since it was started last.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// The agent's last words.
    pub fn words(&self) -> String {
        process::last_lines(&fs::read_to_string(&self.log).unwrap_or_default(), 40)
    }

    /// One GET from the agent's admin server.
    pub fn admin(&self, path: &str) -> Result<(u16, String)> {
        let admin = SocketAddr::from(([127, 0, 0, 1], 9620));
        Ok(netns::inside(GATEWAY, || client::get(admin, path))??)
    }

    /// Runs a command of the program in the gateway's namespace, with this gateway's pins.
    pub fn cli(&self, arguments: &[&str]) -> Result<Ran> {
        let mut command = netns::command(GATEWAY, &self.program);
        let out = command
            .args(arguments)
            .arg("--pin-dir")
            .arg(&self.pins)
            .output()?;
        Ok(Ran {
            code: out.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&out.stdout).into_owned(),
            err: String::from_utf8_lossy(&out.stderr).into_owned(),
        })
    }

    /// The same with `-o json`; whatever the exit code, the answer must be JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let ran = self.cli(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&ran.out).with_context(|| format!("{arguments:?} said {ran:?}"))
    }

    /// `connection` or `request`, as `routes` says for the listener on a port.
    pub fn steering(&self, port: u16) -> Result<(String, String)> {
        let routes = self.json(&["routes"])?;
        let end = format!(":{port}");
        let found = routes.as_array().context("an array")?.iter().find(|route| {
            route["listener"]
                .as_str()
                .is_some_and(|text| text.ends_with(&end))
        });
        let found = found.with_context(|| format!("no listener {port} in {routes}"))?;
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        Ok((text("steering"), text("reason")))
    }

    /// Waits until `routes` says so of the listener on a port: the record follows the kernel, and clients may be faster.
    pub fn until_steering(&self, port: u16, mode: &str, why: &str) -> Result<()> {
        super::eventually(&format!("{port} is steered by {mode}"), || {
            let (steering, reason) = self.steering(port)?;
            Ok((steering == mode && reason.contains(why), (steering, reason)))
        })
    }

    /// Flows as `client -> service -> pod`, sorted.
    pub fn flows(&self) -> Result<Vec<String>> {
        let view = self.json(&["flows", "--limit", "100000"])?;
        let flows = view["flows"].as_array().context("flows is an array")?;
        let text = |flow: &Value, key: &str| flow[key].as_str().unwrap_or_default().to_owned();
        let mut all: Vec<String> = flows
            .iter()
            .map(|flow| {
                let [client, service, source, pod, state] =
                    ["client", "service", "source", "pod", "state"].map(|key| text(flow, key));
                format!("{client} -> {service} -> {source} -> {pod} {state}")
            })
            .collect();
        all.sort();
        Ok(all)
    }

    /// Problems that `status` shows, as `(object, field, message)`.
    pub fn problems(&self) -> Result<Vec<(String, String, String)>> {
        let status = self.json(&["status"])?;
        let problems = status["problems"]
            .as_array()
            .context("problems is an array")?;
        Ok(problems
            .iter()
            .map(|one| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let object = &one["object"];
                (
                    format!("{} {}", text(&object["kind"]), text(&object["name"])),
                    text(&one["field"]),
                    text(&one["message"]),
                )
            })
            .collect())
    }

    /// Packets counted under a reason since the maps were made.
    pub fn counted(&self, reason: &str) -> Result<u64> {
        let stats = self.json(&["stats"])?;
        let reasons = stats["reasons"].as_array().context("reasons is an array")?;
        let found = reasons.iter().find(|one| one["reason"] == reason);
        Ok(found.map_or(0, |one| one["packets"].as_u64().unwrap_or_default()))
    }

    /// Kernel ids of what the pinned links are and run: `(link, program)`.
    pub fn links(&self) -> Result<Vec<(u32, u32)>> {
        fs::read_dir(self.pins.join("links"))?
            .map(|entry| {
                let info = FdLink::from(PinnedLink::from_pin(entry?.path())?).info()?;
                Ok((info.id(), info.program_id()))
            })
            .collect()
    }

    /// Runs `ip` with these words in a namespace.
    pub fn ip(&self, namespace: &str, words: &str) -> Result<()> {
        netns::ip_batch(Some(namespace), &[words.to_owned()])
    }

    /// Runs a program in a namespace and returns its output.
    pub fn tool(&self, namespace: &str, program: &str, words: &str) -> Result<String> {
        process::output(netns::command(namespace, program).args(words.split_whitespace()))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if thread::panicking() {
            #[expect(
                clippy::print_stderr,
                reason = "the test harness shows it for a failed test"
            )]
            {
                eprintln!("the agent's last words:\n{}", self.words());
            }
        }
        for mut agent in self.leaving.take().into_iter().chain(self.agent.take()) {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        // What is left after this, the lab removes with its namespaces.
        let _ = self.cli(&["unload", "--force"]);
    }
}

/// SIGTERM, and waits.
fn ended(mut agent: Child) -> Result<ExitStatus> {
    if let Some(known) = Known::of(agent.id(), "agent") {
        known.signal(Signal::TERM);
    }
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = agent.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > give_up {
            // It must not outlive its test.
            agent.kill()?;
            agent.wait()?;
            bail!("the agent did not end within {PATIENCE:?} of SIGTERM");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The pod of this name, e.g. `c2-p3`.
pub fn pod_named(name: &str) -> Result<Pod> {
    topology::pods()
        .into_iter()
        .find(|pod| pod.name == name)
        .with_context(|| format!("the lab has no pod {name}"))
}

/// Runs `ip` lines in a namespace.
pub fn ip(namespace: &str, lines: &[&str]) -> Result<()> {
    let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    netns::ip_batch(Some(namespace), &lines)
}

/// The agent of another layout, as `cargo xtask test` leaves it.
fn other_program() -> Result<PathBuf> {
    let (agent, object) = (paths::other_agent(), paths::other_object());
    let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified());
    match (modified(&agent), modified(&object)) {
        (Ok(agent_time), Ok(object_time)) if agent_time >= object_time => Ok(agent),
        _ => bail!(
            "{} is not built, or older than its kernel programs: cargo xtask test builds it",
            agent.display()
        ),
    }
}

/// The program under test: `FLEETGATE_AGENT`, or the one in the target folder that these tests were built into.
fn program() -> Result<PathBuf> {
    if let Some(given) = paths::given_agent() {
        return Ok(given);
    }
    // <target>/<profile>/deps/e2e-<hash>
    let me = env::current_exe()?;
    let profile = me
        .ancestors()
        .nth(2)
        .context("the test runs from a target folder")?;
    let built = profile.join("fleetgate");
    let remedy =
        "run: cargo xtask build-ebpf && cargo build -p gateway-user (cargo xtask test does both)";
    let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified());
    let Ok(agent) = modified(&built) else {
        bail!("{} is not built; {remedy}", built.display());
    };
    let object = paths::object();
    let Ok(object_time) = modified(&object) else {
        bail!("{} is not built; {remedy}", object.display());
    };
    ensure!(
        agent >= object_time,
        "{} is older than {}, so it holds other kernel programs; {remedy}",
        built.display(),
        object.display()
    );
    Ok(built)
}
