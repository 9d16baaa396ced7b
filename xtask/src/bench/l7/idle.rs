//! What connections cost that do nothing: memory of the process, for each.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{
    cases::{Case, Front, Load},
    contender::{Contender, Programs},
    network,
};
use crate::netns;

const HOLD: &str = include_str!("hold.py");
/// For what is still on its way.
const SETTLE: Duration = Duration::from_millis(500);

/// Bytes of resident memory for each of `count` connections to a process started for this; or why it does not serve them.
pub(super) fn run(
    who: Contender,
    programs: &Programs,
    front: Front,
    count: u32,
) -> Result<Result<f64, String>> {
    // A new process: what load has left in its heap would hide what connections take.
    let running = who.start(programs)?;
    let probe = Case {
        name: "idle",
        about: "",
        front,
        load: Load::KeepAlive,
        file: "33",
    };
    if let Some(why) = running.refuses(&probe)? {
        return Ok(Err(why));
    }
    thread::sleep(SETTLE);
    let before = running.usage()?.rss_bytes;
    let kind = if front == Front::Tls { "tls" } else { "plain" };
    let mut child = netns::command(network::CLIENT, "python3")
        .args(["-I", "-c", HOLD, &network::VIP.to_string()])
        .args([&who.port(front).to_string(), &count.to_string(), kind])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run python3")?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("python3 has no stdout")?;
    BufReader::new(stdout).read_line(&mut line)?;
    thread::sleep(SETTLE);
    let after = running.usage()?.rss_bytes;
    // Its stdin closes, and it ends.
    let done = child.wait_with_output()?;
    if line.trim() != format!("held {count}") {
        bail!(
            "{count} idle connections could not be held ({}): {line}",
            done.status
        );
    }
    Ok(Ok(after.saturating_sub(before) as f64 / f64::from(count)))
}
