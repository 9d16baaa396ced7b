//! The thread that probes.

use std::{
    collections::{BTreeSet, hash_map::RandomState},
    hash::BuildHasher,
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    task::{JoinSet, LocalSet},
    time::sleep_until,
};

use super::{
    Counters, Reader,
    probe::{Outcome, probe},
    schedule::{Id, Next, Schedule},
    verdicts::{Writer, verdicts},
};
use crate::ir::{Probe, ProbeChanges};

/// A probe that begins later than this after its time counts as late.
const LATE: Duration = Duration::from_secs(1);
/// Failing targets that went and may be back, remembered at once.
const GHOSTS: usize = 1 << 16;

/// The running prober. Dropping it ends it.
#[derive(Debug)]
pub struct Prober {
    changes: Option<mpsc::UnboundedSender<ProbeChanges>>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Probes what is wanted from now on, and no more what is gone.
    pub fn follow(&self, changes: ProbeChanges) {
        if changes == ProbeChanges::default() {
            return;
        }
        if let Some(sender) = &self.changes {
            // A prober that panicked probes nothing: what it said last stands.
            let _ = sender.send(changes);
        }
    }

    /// What probes met.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        drop(self.changes.take());
        if let Some(thread) = self.thread.take() {
            // It panicked, or it ended: both are over.
            let _ = thread.join();
        }
    }
}

/// Starts a prober that has nothing to probe yet. Fails only when no thread can be started.
pub fn start() -> io::Result<(Prober, Reader)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (sender, changes) = mpsc::unbounded_channel();
    let (writer, reader) = verdicts();
    let counters = Arc::new(Counters::default());
    let counted = Arc::clone(&counters);
    let thread = thread::Builder::new()
        .name("health".to_owned())
        .spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, run(changes, writer, &counted));
        })?;
    let prober = Prober {
        changes: Some(sender),
        counters,
        thread: Some(thread),
    };
    Ok((prober, reader))
}

async fn run(
    mut changes: mpsc::UnboundedReceiver<ProbeChanges>,
    writer: Writer,
    counters: &Counters,
) {
    let mut schedule = Schedule::new(Instant::now());
    let mut under_way: JoinSet<(Id, Outcome)> = JoinSet::new();
    let mut ghosts: BTreeSet<Probe> = BTreeSet::new();
    loop {
        let wait = loop {
            let now = Instant::now();
            match schedule.next(now) {
                Next::Begin(id, target, due) => {
                    if now.saturating_duration_since(due) > LATE {
                        Counters::add(&counters.late);
                    }
                    under_way.spawn_local(async move { (id, probe(&target).await) });
                }
                Next::Wait(at) => break at,
            }
        };
        tokio::select! {
            news = changes.recv() => {
                let Some(news) = news else {
                    return;
                };
                follow(news, &mut schedule, &mut ghosts, &writer);
                counters.targets.store(schedule.len() as u64, Relaxed);
            }
            Some(Ok((id, outcome))) = under_way.join_next(), if !under_way.is_empty() => {
                Counters::add(match outcome {
                    Outcome::Answer(Ok(())) => &counters.passed,
                    Outcome::Answer(Err(_)) => &counters.failed,
                    Outcome::Unsent => &counters.unsent,
                });
                if let Some((target, why)) = schedule.done(id, outcome, Instant::now()) {
                    Counters::add(if why.is_some() { &counters.fell } else { &counters.rose });
                    writer.tell(target, why);
                }
            }
            () = sleep_until(wait.unwrap_or_else(Instant::now).into()), if wait.is_some() => {}
        }
    }
}

fn follow(
    news: ProbeChanges,
    schedule: &mut Schedule,
    ghosts: &mut BTreeSet<Probe>,
    writer: &Writer,
) {
    for target in news.gone {
        writer.forget(&target);
        if schedule.forget(&target) {
            if ghosts.len() >= GHOSTS {
                ghosts.clear();
            }
            ghosts.insert(target);
        }
    }
    for (target, why) in news.wanted {
        // That the one before failed may have been told after this one was asked for.
        if ghosts.remove(&target) {
            writer.tell(target.clone(), why);
        }
        let chance = RandomState::new().hash_one(&target) as u32;
        schedule.watch(target, why, Instant::now(), chance);
    }
}
