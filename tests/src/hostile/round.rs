//! One kind of attacker against the proxy: the normal client alone, then under attack, in turns.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    attackers::Attack,
    gateway::Counts,
    normal::{self, Met},
    part::{self, Part},
    script::Script,
    told::Told,
};

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Attackers at once.
    pub clients: u32,
    /// How long the normal client asks, each time.
    pub lasting: Duration,
    /// How often each half is measured.
    pub turns: u32,
}

/// The bar: the median under attack is at most this many times the median alone.
pub const MOST: f64 = 2.0;

/// What one kind of attack did.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Name of the script.
    pub kind: String,
    /// What it does.
    pub does: String,
    /// Requests of the normal client under attack.
    pub requests: u64,
    /// Those that failed, under attack, by what went wrong: the first few.
    pub failures: Vec<String>,
    /// Their number.
    pub failed: u64,
    /// Those that failed without an attack.
    pub failed_alone: u64,
    /// Median of the medians, in microseconds.
    pub alone_us: f64,
    /// The same under attack.
    pub attacked_us: f64,
    /// The second by the first.
    pub ratio: f64,
    /// Median of the 99th percentiles under attack, in microseconds.
    pub attacked_p99_us: f64,
    /// What the attackers heard.
    pub told: Told,
    /// What the proxy counted.
    pub counts: Counts,
    /// Most memory of the proxy in the first attack beyond what it had before, for each attacker, in bytes.
    pub bytes_per_attacker: f64,
    /// How much more the later attacks took, in bytes altogether: a leak goes on growing.
    pub grew_again_bytes: i64,
    /// CPU that the attack alone takes from the proxy, in seconds per second.
    pub cpu: f64,
    /// Most file descriptors of the proxy.
    pub files: u64,
    /// Connections that the proxy still held seconds after the last attacker had left.
    pub left_over: u64,
}

impl Outcome {
    /// Whether the normal client was served as always; its time aside.
    pub fn succeeded(&self) -> bool {
        self.failed == 0 && self.requests > 0
    }

    /// Whether the bar holds.
    pub fn holds(&self) -> bool {
        self.succeeded() && self.ratio <= MOST
    }
}

/// Runs proxy and backend with `program`, sets attackers of this kind on them, and tells.
pub fn run(program: &Path, script: &Arc<Script>, options: Options) -> Result<Outcome> {
    let origin = Part::start(program, &["origin"])?;
    let origin_address = origin.address.to_string();
    let mut gateway = Part::start(program, &["gateway", "--origin", &origin_address])?;
    let target = gateway.address;
    normal::run(target, Duration::from_millis(500));
    let before = part::resident_bytes(gateway.pid())?;
    let (mut alone, mut attacked) = (Vec::new(), Vec::new());
    let mut peaks = Vec::new();
    let (mut cpu, mut files, mut left_over) = (0.0_f64, 0, 0);
    let mut told = Told::default();
    for _ in 0..options.turns {
        alone.push(normal::run(target, options.lasting));
        let watch = Watch::start(gateway.pid());
        let attack = Attack::start(Arc::clone(script), target, options.clients);
        let ramp = Instant::now() + Duration::from_secs(3);
        while attack.connected() < u64::from(options.clients) && Instant::now() < ramp {
            thread::sleep(Duration::from_millis(20));
        }
        attacked.push(normal::run(target, options.lasting));
        let (from, since) = (part::cpu(gateway.pid())?, Instant::now());
        thread::sleep(Duration::from_secs(1));
        let used = part::cpu(gateway.pid())?.saturating_sub(from);
        cpu = cpu.max(used.as_secs_f64() / since.elapsed().as_secs_f64());
        told.add(attack.stop()?);
        let (bytes, most_files) = watch.stop()?;
        peaks.push(bytes);
        files = files.max(most_files);
        left_over = settle(&mut gateway)?;
    }
    let counts: Counts = serde_json::from_str(&gateway.ask()?).context("what the proxy counted")?;
    let first = peaks.first().copied().unwrap_or(before);
    let most = peaks.iter().copied().max().unwrap_or(before);
    let alone_us = median(&alone, |it| it.median);
    let attacked_us = median(&attacked, |it| it.median);
    let failures = attacked.iter().flat_map(|it| &it.bad);
    Ok(Outcome {
        kind: script.name.into(),
        does: script.does.into(),
        requests: attacked
            .iter()
            .map(|it| it.good + it.bad.len() as u64)
            .sum(),
        failed: failures.clone().count() as u64,
        failures: failures.take(3).cloned().collect(),
        failed_alone: alone.iter().map(|it| it.bad.len() as u64).sum(),
        alone_us,
        attacked_us,
        ratio: attacked_us / alone_us,
        attacked_p99_us: median(&attacked, |it| it.p99),
        told,
        counts,
        bytes_per_attacker: first.saturating_sub(before) as f64 / f64::from(options.clients),
        grew_again_bytes: most.cast_signed() - first.cast_signed(),
        cpu,
        files,
        left_over,
    })
}

/// Waits until the proxy has seen all attackers leave; how many it still holds after ten seconds.
fn settle(gateway: &mut Part) -> Result<u64> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let counts: Counts = serde_json::from_str(&gateway.ask()?)?;
        if counts.active == 0 || Instant::now() > until {
            return Ok(counts.active);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn median(met: &[Met], of: impl Fn(&Met) -> Duration) -> f64 {
    let mut all: Vec<f64> = met.iter().map(|it| of(it).as_secs_f64() * 1e6).collect();
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    match all.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(all[middle - 1], all[middle]),
        _ => all[middle],
    }
}

/// Looks at a process ten times a second.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<(u64, u64)>>,
}

impl Watch {
    fn start(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut most = (0, 0);
            while !stopped.load(Relaxed) {
                most.0 = part::resident_bytes(pid)?.max(most.0);
                most.1 = part::open_files(pid)?.max(most.1);
                thread::sleep(Duration::from_millis(100));
            }
            Ok(most)
        });
        Self { stop, thread }
    }

    /// Most memory in bytes, most open files.
    fn stop(self) -> Result<(u64, u64)> {
        self.stop.store(true, Relaxed);
        let most = self.thread.join();
        most.map_err(|_| anyhow::anyhow!("the watch over the proxy panicked"))?
    }
}
