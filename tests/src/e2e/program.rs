//! Programs in Python that talk through the gateway: clients that tell what they see, and pods.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::{
    lab::{self, topology::CLIENT, topology::Pod},
    netns,
};

use super::Gateway;

/// Longest wait for a line.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program in the client's namespace that writes a line of JSON for each subject. Ends with this.
#[derive(Debug)]
pub struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Client {
    /// Runs this program text.
    pub fn start(python: &Path, program: &str, arguments: &[&str]) -> Result<Self> {
        let mut child = netns::command(CLIENT, python)
            .args(["-I", "-c", program])
            .args(arguments)
            // What fails on purpose is no news.
            .env("GRPC_VERBOSITY", "NONE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", python.display()))?;
        let out = child.stdout.take().context("no stdout")?;
        let (told, lines) = mpsc::channel();
        // Ends with the program.
        thread::spawn(move || {
            BufReader::new(out)
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| told.send(line))
        });
        let stdin = child.stdin.take();
        Ok(Self {
            child,
            stdin,
            lines,
        })
    }

    /// Reads as many lines as these, which must be they.
    pub fn tells(&mut self, wanted: &[Value]) -> Result<()> {
        for wanted in wanted {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.with_context(|| format!("the client has not come to {wanted}"))?;
            let seen: Value =
                serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))?;
            ensure!(seen == *wanted, "seen {seen}, must be {wanted}");
        }
        Ok(())
    }

    /// Lets it go on.
    pub fn go_on(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the client has no stdin")?;
        Ok(stdin.write_all(b"\n")?)
    }

    /// Waits until it has ended without an error.
    pub fn ends(mut self) -> Result<()> {
        let more = self.lines.recv_timeout(PATIENCE).ok();
        ensure!(more.is_none(), "the client tells more: {more:?}");
        let status = self.child.wait()?;
        ensure!(status.success(), "the client failed: {status}");
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a program in a pod, and waits until it listens on this port. It ends with the lab.
pub fn serve(gateway: &mut Gateway, pod: &Pod, port: u16, command: &Command) -> Result<Child> {
    let log = format!("{}-{port}", pod.name);
    let child = gateway.lab.spawn(&pod.namespace, &log, command)?;
    lab::wait_listening(&pod.namespace, port)
        .with_context(|| format!("the server of pod {}; see target/lab/{log}.log", pod.name))?;
    Ok(child)
}
