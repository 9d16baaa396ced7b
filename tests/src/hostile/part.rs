//! A part that runs in a process of its own: it says where it listens, then answers each line with a line.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// A running part; ends with this value, or with whoever holds it.
#[derive(Debug)]
pub struct Part {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Drop for Part {
    fn drop(&mut self) {
        // It ends at the end of its input; one that hangs is killed, and a dead one needs neither.
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Part {
    /// Starts `program` with these arguments.
    pub fn start(program: &Path, arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {} {arguments:?}", program.display()))?;
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().context("the part has no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = line.trim().parse();
        let address = address.with_context(|| format!("{arguments:?} said {line:?}"))?;
        Ok(Self {
            child,
            input,
            output,
            address,
        })
    }

    /// Its answer of this moment.
    pub fn ask(&mut self) -> Result<String> {
        let input = self.input.as_mut().context("the part has no input")?;
        input.write_all(b"\n")?;
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("a part of the measurement ended by itself");
        }
        Ok(line)
    }

    /// Number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// The part's side: says where it listens, then answers until its input ends.
pub fn serve(address: SocketAddr, mut answer: impl FnMut() -> String) -> Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{address}")?;
    output.flush()?;
    for line in io::stdin().lock().lines() {
        line?;
        writeln!(output, "{}", answer())?;
        output.flush()?;
    }
    Ok(())
}

/// Memory of a process that is in RAM, in bytes. Source: proc(5), `VmRSS`.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.context("a process without VmRSS")? * 1024)
}

/// CPU that a process has used. Source: proc(5), fields 14 and 15 of `stat`, 100 ticks per second.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("a process without a name")?;
    let ticks = rest.split_ascii_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|it| it.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// File descriptors that a process has open.
pub fn open_files(pid: u32) -> Result<u64> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64)
}
