//! Who is compared, and where each of them listens.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    cases::{Case, Front, Load},
    configs, network, objects,
    usage::Usage,
};
use crate::{bench::stage, netns, process};

/// A proxy.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Contender {
    /// Ours: the agent, whose proxy serves.
    Fleetgate,
    /// HAProxy.
    Haproxy,
    /// nginx.
    Nginx,
    /// Envoy.
    Envoy,
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    /// Fleetgate's agent.
    pub(super) agent: PathBuf,
    /// Envoy.
    pub(super) envoy: PathBuf,
    /// They write access logs.
    pub(super) logs: bool,
}

impl Contender {
    /// All, in the order in which they take turns.
    pub(super) const ALL: [Self; 4] = [Self::Fleetgate, Self::Haproxy, Self::Nginx, Self::Envoy];
    /// All but ours.
    pub(super) const OTHERS: [Self; 3] = [Self::Haproxy, Self::Nginx, Self::Envoy];

    /// Name in options and results.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fleetgate => "fleetgate",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
        }
    }

    /// By its name.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Port of a listener, all on [`network::VIP`].
    pub(super) const fn port(self, front: Front) -> u16 {
        8100 + 100 * self as u16 + front as u16
    }

    /// Where it writes its access log.
    pub(super) fn access_log(self) -> PathBuf {
        Path::new(stage::SCRATCH)
            .join(self.name())
            .join("access.log")
    }

    /// Writes its configuration and starts it in the gateway's namespace; returns when it serves.
    pub(super) fn start(self, programs: &Programs) -> Result<Running> {
        let home = Path::new(stage::SCRATCH).join(self.name());
        fs::create_dir_all(&home)?;
        for (name, text) in self.files(&home, programs.logs)? {
            let path = home.join(name);
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let command = self.command(programs, &home)?;
        let mut wrapped = netns::command(network::GATEWAY, command.get_program());
        wrapped.args(command.get_args());
        let log = home.join("output.log");
        let said = fs::File::create(&log)?;
        // HAProxy's access log is its stdout.
        let stdout = match self {
            Self::Haproxy => fs::File::options()
                .create(true)
                .append(true)
                .open(self.access_log())?,
            _ => said.try_clone()?,
        };
        let child = wrapped
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(said)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name()))?;
        let mut running = Running { who: self, child };
        running.wait().with_context(|| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            format!(
                "{}; it says: {}",
                self.name(),
                process::last_lines(&said, 20)
            )
        })?;
        Ok(running)
    }

    fn files(self, home: &Path, logs: bool) -> Result<Vec<(String, String)>> {
        Ok(match self {
            Self::Fleetgate => objects::manifests()?,
            Self::Haproxy => configs::haproxy(home, logs),
            Self::Nginx => configs::nginx(home, logs),
            Self::Envoy => vec![("envoy.json".into(), configs::envoy(logs))],
        })
    }

    fn command(self, programs: &Programs, home: &Path) -> Result<Command> {
        let file = |name: &str| home.join(name);
        Ok(match self {
            Self::Fleetgate => {
                let mut command = Command::new(&programs.agent);
                command.arg("run").arg("--manifests").arg(file("manifests"));
                command.args(["--interface", "cl0", "--interface", "up0"]);
                command.args(["--steering", "request", "--proxy-workers", "1"]);
                command
                    .arg("--pin-dir")
                    .arg(Path::new(stage::PINS).join("l7"));
                command.arg("--access-log");
                if programs.logs {
                    command.arg(self.access_log());
                } else {
                    command.arg("off");
                }
                command
            }
            Self::Haproxy => {
                let mut command = Command::new(process::which("haproxy").context("no haproxy")?);
                command.args(["-db", "-f"]).arg(file("haproxy.cfg"));
                command
            }
            Self::Nginx => {
                let mut command = Command::new(process::which("nginx").context("no nginx")?);
                command
                    .arg("-p")
                    .arg(home)
                    .arg("-c")
                    .arg(file("nginx.conf"));
                command.args(["-e", "stderr"]);
                command
            }
            Self::Envoy => {
                let mut command = Command::new(&programs.envoy);
                command.arg("-c").arg(file("envoy.json"));
                command.args(["--concurrency", "1", "--disable-hot-restart"]);
                command.args(["--log-level", "warn"]);
                command
            }
        })
    }
}

/// A running contender; dropping it ends it.
#[derive(Debug)]
pub(super) struct Running {
    /// Who it is.
    pub(super) who: Contender,
    child: Child,
}

impl Running {
    /// What it has used so far.
    pub(super) fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id()).with_context(|| format!("{} has ended", self.who.name()))
    }

    /// Why a case is not served; `None` if it is.
    pub(super) fn refuses(&self, case: &Case) -> Result<Option<String>> {
        let version = if case.load == Load::H2 { "2" } else { "1.1" };
        let mut tried = self.ask(case.front, version, &case.path())?;
        for _ in 0..5 {
            if tried.is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(200));
            tried = self.ask(case.front, version, &case.path())?;
        }
        Ok(tried.err())
    }

    /// One request; the inner error says what is wrong with the answer.
    fn ask(&self, front: Front, version: &str, path: &str) -> Result<Result<(), String>> {
        let scheme = if front == Front::Tls { "https" } else { "http" };
        let url = format!("{scheme}://{}:{}{path}", network::VIP, self.who.port(front));
        let mut curl = netns::command(network::CLIENT, "curl");
        curl.args([
            "-sSk",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{http_version}",
        ]);
        curl.args([
            "--max-time",
            "3",
            if version == "2" {
                "--http2"
            } else {
                "--http1.1"
            },
            &url,
        ]);
        let out = curl.output().context("cannot run curl")?;
        let said = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        if !out.status.success() {
            let error = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            return Ok(Err(error));
        }
        Ok(if said == format!("200 {version}") {
            Ok(())
        } else {
            Err(format!("status and version {said}"))
        })
    }

    fn wait(&mut self) -> Result<()> {
        let give_up = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("ended while starting ({status})");
            }
            match self.ask(Front::Plain, "1.1", "/33")? {
                Ok(()) => return Ok(()),
                Err(why) if Instant::now() > give_up => bail!("does not serve: {why}"),
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(known) = process::Known::of(self.child.id(), self.who.name()) {
            process::end(&[known]);
        }
        let _ = self.child.wait();
    }
}
