//! One table of hostile HTTP/1.x: what the proxy makes of it, what the origin sees, and what HAProxy makes of it.
//!
//! The law of every row: requests that are complete at the origin are those that were answered 2xx, in their order. What
//! is refused never gets there, and a body that goes wrong breaks its request off.

#[path = "ambiguity/referee.rs"]
mod referee;
#[path = "ambiguity/rows.rs"]
mod rows;
#[path = "ambiguity/run.rs"]
mod run;

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use self::{
    referee::{ALONE, Haproxy},
    rows::{Row, rows},
    run::{Cut, Prefix, check, statuses},
};

/// Runs a job for each row on a few threads; what it says of any row is printed, and is a failure.
fn each_row(rows: &[Row], job: impl Fn(&Row) -> Result<(), String> + Sync) {
    let failures = Mutex::new(vec![]);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, SeqCst)) {
                    if let Err(what) = job(row) {
                        failures.lock().unwrap().push((row, what));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    for (row, what) in &failures {
        let text = row.bytes.escape_ascii();
        eprintln!("RFC {} {}: {what}\n    {text}", row.section, row.name);
    }
    let count = (failures.len(), rows.len());
    assert!(
        failures.is_empty(),
        "{} of {} rows fail, see above",
        count.0,
        count.1
    );
}

#[test]
fn every_hostile_input_has_one_reading() {
    each_row(&rows(), |row| check(row, Prefix::None, Cut::Whole));
}

#[test]
fn every_hostile_input_has_the_same_reading_byte_by_byte() {
    each_row(&rows(), |row| check(row, Prefix::None, Cut::Bytes));
}

#[test]
fn a_good_request_in_front_of_hostile_input_is_answered_first() {
    each_row(&rows(), |row| check(row, Prefix::Good, Cut::Whole));
    each_row(&rows(), |row| check(row, Prefix::Good, Cut::Bytes));
}

#[test]
fn the_names_of_rows_are_unique() {
    let rows = rows();
    let names: std::collections::BTreeSet<_> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), rows.len());
    for (name, _) in ALONE {
        assert!(names.contains(name), "{name} is no row");
    }
}

#[test]
fn the_proxy_accepts_nothing_that_haproxy_refuses() {
    let Some(haproxy) = Haproxy::start() else {
        let must = env::var_os("FLEETGATE_REFEREE").is_some();
        assert!(!must, "haproxy is not on PATH; run: cargo xtask setup");
        eprintln!("SKIPPED: haproxy is not on PATH; `cargo xtask setup` installs it");
        return;
    };
    let answers: Mutex<Vec<(&str, Vec<u16>)>> = Mutex::default();
    let rows = rows();
    each_row(&rows, |row| {
        let theirs = statuses(&haproxy.ask(row));
        let accepted = theirs.iter().filter(|status| **status < 300).count();
        answers.lock().unwrap().push((row.name, theirs));
        let told = ALONE.iter().any(|(name, _)| *name == row.name);
        match (row.served.len() > accepted, told) {
            (true, false) => Err("HAProxy refuses what the proxy accepts".into()),
            (false, true) => Err("HAProxy accepts it, too: it need not be listed".into()),
            _ => Ok(()),
        }
    });
    let answers = answers.into_inner().unwrap();
    let (mut lenient, mut equal) = (0, 0);
    for row in &rows {
        let ours = row.statuses();
        let theirs = answers.iter().find(|(name, _)| *name == row.name);
        let theirs = theirs.map(|(_, statuses)| statuses.as_slice());
        let theirs = theirs.unwrap_or_default();
        let accepted = theirs.iter().filter(|status| **status < 300).count();
        let mark = match accepted.cmp(&row.served.len()) {
            std::cmp::Ordering::Greater => "HAProxy accepts more",
            std::cmp::Ordering::Equal => "",
            std::cmp::Ordering::Less => "HAProxy accepts less",
        };
        lenient += usize::from(accepted > row.served.len());
        equal += usize::from(ours == theirs);
        let (ours, theirs) = (format!("{ours:?}"), format!("{theirs:?}"));
        let reason = ALONE.iter().find(|(name, _)| *name == row.name);
        let reason = reason.map_or("", |(_, reason)| reason);
        eprintln!("{:60} {ours:18} {theirs:18} {mark} {reason}", row.name);
    }
    eprintln!(
        "{} rows: {equal} answered alike, {lenient} accepted by HAProxy alone, {} by the proxy alone",
        rows.len(),
        ALONE.len()
    );
}
