//! Mutated HTTP/1.x against the proxy, judged by a second reading of the same bytes.
//!
//! A case is a stream of requests over one connection, made from a seed and a number alone ([`cases`]). Who judges is
//! [`reading`], a parser of its own: it reads what the client sent and what the proxy passed on. The law: what is complete
//! at the origin is, in order and byte for byte, how the stream reads from its start, and each was answered 2xx; no more,
//! no less.

pub mod cases;
pub mod judge;
pub mod mutations;
pub mod reading;
pub mod site;
pub mod stage;

#[path = "../../gateway-user/tests/proxy/ambiguity/rows.rs"]
#[allow(missing_docs, unreachable_pub, reason = "the table of another suite")]
mod rows;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;

use self::{
    cases::Case,
    judge::{judge, statuses},
    stage::Stage,
};

/// How long, and which cases.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long new cases are begun.
    pub lasting: Duration,
    /// Seed of all cases.
    pub seed: u64,
    /// This case alone.
    pub case: Option<u64>,
}

/// What was run, and what was found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Of [`Options`].
    pub seed: u64,
    /// How long it took.
    pub seconds: f64,
    /// Cases that were run.
    pub executions: u64,
    /// Requests that were served.
    pub served: u64,
    /// Answers that were refusals.
    pub refused: u64,
    /// Requests that the origin saw broken off.
    pub broken: u64,
    /// Cases that were suspicious once, and fine when run alone.
    pub withdrawn: u64,
    /// Where proxy and judge do not agree.
    pub disagreements: Vec<Disagreement>,
}

/// A case against the law.
#[derive(Clone, Debug, Serialize)]
pub struct Disagreement {
    /// `--seed` and `--case` repeat it.
    pub case: u64,
    /// What was found.
    pub what: String,
    /// All bytes that were sent.
    pub hex: String,
}

/// More are not looked for.
const ENOUGH: usize = 20;
/// Cases between two plain requests that must be served.
const CHECKED: u64 = 16;
/// A client that has heard nothing for this long leaves; alone on a stage, it waits for longer.
const QUIET: Duration = Duration::from_millis(40);
const VERY_QUIET: Duration = Duration::from_millis(800);
/// Connections at once; most of the time each waits for another thread.
const THREADS: usize = 16;

/// Runs cases until the time is over.
pub fn run(options: Options) -> Result<Report> {
    let began = Instant::now();
    let next = AtomicU64::new(options.case.unwrap_or(0));
    let report = Mutex::new(Report {
        seed: options.seed,
        ..Report::default()
    });
    let work = || -> Result<()> {
        let mut stage = Stage::build()?;
        let mut last = None;
        loop {
            let number = next.fetch_add(1, SeqCst);
            let over = match options.case {
                Some(only) => number > only,
                None => began.elapsed() >= options.lasting,
            };
            if over || lock(&report).disagreements.len() >= ENOUGH {
                return Ok(());
            }
            let case = Case::new(options.seed, number);
            let mut outcome = stage.play(&case, QUIET)?;
            outcome.statuses = statuses(&outcome.got);
            let mut wrong = judge(&case, &outcome).err();
            if wrong.is_none() && number.is_multiple_of(CHECKED) && !stage.serves() {
                wrong = Some("a plain request is not served afterwards".into());
            }
            {
                let mut report = lock(&report);
                report.executions += 1;
                report.served += outcome.served.len() as u64;
                report.broken += outcome.broken;
                let refusals = outcome.statuses.iter().filter(|status| **status >= 400);
                report.refused += refusals.count() as u64;
            }
            if wrong.is_some() {
                // What comes late may belong to the case before; and a busy machine may have been slow.
                let suspects = last.into_iter().chain([number]);
                let found = suspects.map(|it| alone(options.seed, it));
                let found = found.collect::<Result<Vec<_>>>()?;
                let mut report = lock(&report);
                match found.into_iter().flatten().next() {
                    Some(disagreement) => report.disagreements.push(disagreement),
                    None => report.withdrawn += 1,
                }
                drop(report);
                stage = Stage::build()?;
            }
            last = Some(number);
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| panic!("a player panicked"))
        })
    })?;
    let mut report = report
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

/// Runs one case on a stage of its own, patiently, to the end of all connections.
fn alone(seed: u64, number: u64) -> Result<Option<Disagreement>> {
    let case = Case::new(seed, number);
    let mut stage = Stage::build()?;
    let mut outcome = stage.play(&case, VERY_QUIET)?;
    let serves = stage.serves();
    stage.end(&mut outcome);
    let what = match judge(&case, &outcome) {
        Ok(()) if serves => return Ok(None),
        Ok(()) => "a plain request is not served afterwards".into(),
        Err(what) => what,
    };
    Ok(Some(Disagreement {
        case: number,
        what,
        hex: case
            .bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    }))
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
