//! `cargo xtask bench ring`: how evenly rings share, and what a change of backends moves.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Result;
use gateway_common::{
    hash,
    maglev::{self, Entry},
};
use serde::Serialize;
use serde_json::json;

use crate::console;

/// Slots of every ring measured here: the length that the bars are for.
pub const SLOTS: u32 = 65_537;
/// Most that a share may differ from its weight, in percent of the ring.
pub const SHARE_ERROR_PERCENT: f64 = 0.2;
/// Most slots that may change hands, for each that must, where at least [`SMALL_PERCENT`] of the ring must.
pub const DISRUPTION: f64 = 1.6;
/// A change that concerns less of the ring than this: one backend of more than 80, or little of one's weight. Whatever
/// little must move, Maglev moves up to a hundredth of the ring besides, so that a ratio says nothing.
pub const SMALL_PERCENT: f64 = 1.2;
/// Most of the ring, in percent, that a small change may move beyond what must: its bar in the place of the ratio.
pub const EXCESS_PERCENT: f64 = 1.0;

/// A ring and how well it keeps its weights.
#[derive(Clone, Debug, Serialize)]
pub struct Share {
    /// Which backends.
    pub what: String,
    /// How many.
    pub backends: usize,
    /// Largest difference of a share and its weight, in percent of the ring.
    pub error_percent: f64,
    /// Largest difference in percent of what the backend should have.
    pub relative_percent: f64,
}

/// A change and what it moves.
#[derive(Clone, Debug, Serialize)]
pub struct Disruption {
    /// Which change.
    pub what: String,
    /// Slots that changed hands.
    pub moved: usize,
    /// Slots that had to: what some backends lost in number.
    pub ideal: usize,
    /// One by the other.
    pub ratio: f64,
    /// One less the other, in percent of the ring.
    pub excess_percent: f64,
    /// Whether it is too small for its ratio to be judged.
    pub small: bool,
}

/// Everything that is measured.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Shares.
    pub shares: Vec<Share>,
    /// Changes.
    pub disruptions: Vec<Disruption>,
    /// Whether a second node with the same seed, which lists the backends in another order under other ids, has the same
    /// ring.
    pub same_on_two_nodes: bool,
}

impl Figures {
    /// Largest share error, in percent of the ring.
    pub fn worst_share(&self) -> f64 {
        let errors = self.shares.iter().map(|share| share.error_percent);
        errors.fold(0.0, f64::max)
    }

    /// Largest ratio of the changes that are not small.
    pub fn worst_disruption(&self) -> f64 {
        let judged = self.disruptions.iter().filter(|it| !it.small);
        judged.map(|it| it.ratio).fold(0.0, f64::max)
    }

    /// Most that a small change moved beyond what must move, in percent of the ring.
    pub fn worst_excess(&self) -> f64 {
        let small = self.disruptions.iter().filter(|it| it.small);
        small.map(|it| it.excess_percent).fold(0.0, f64::max)
    }

    /// Whether all bars hold.
    pub fn held(&self) -> bool {
        self.same_on_two_nodes
            && self.worst_share() <= SHARE_ERROR_PERCENT
            && self.worst_disruption() <= DISRUPTION
            && self.worst_excess() <= EXCESS_PERCENT
    }
}

/// Backends of these weights; number and name of each are its place.
pub fn entries(weights: &[u32]) -> Vec<Entry> {
    let named = |(at, weight): (usize, &u32)| Entry {
        id: at as u32 + 1,
        identity: hash::name(
            0,
            format!("c{}/10.{}.0.{}:80", at % 3, at / 250, at % 250).as_bytes(),
        ),
        weight: *weight,
    };
    weights.iter().enumerate().map(named).collect()
}

/// Slots of each id.
fn counts(ring: &[u32]) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    for id in ring {
        *counts.entry(*id).or_default() += 1;
    }
    counts
}

/// How a ring of these weights shares.
pub fn share(what: &str, weights: &[u32], seed: u64) -> Share {
    let counts = counts(&maglev::build(&entries(weights), SLOTS, seed));
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let (mut error, mut relative) = (0.0_f64, 0.0_f64);
    for (id, weight) in (1_u32..).zip(weights) {
        let want = f64::from(*weight) / total;
        let got = counts.get(&id).copied().unwrap_or(0) as f64 / f64::from(SLOTS);
        error = error.max((got - want).abs());
        if want > 0.0 {
            relative = relative.max((got - want).abs() / want);
        }
    }
    Share {
        what: what.to_owned(),
        backends: weights.len(),
        error_percent: error * 100.0,
        relative_percent: relative * 100.0,
    }
}

/// What a change of weights moves; a weight of zero is a backend that is not there.
pub fn disruption(what: &str, before: &[u32], after: &[u32], seed: u64) -> Disruption {
    let before = maglev::build(&entries(before), SLOTS, seed);
    let after = maglev::build(&entries(after), SLOTS, seed);
    let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    let left = counts(&after);
    let lost = |(id, had): (u32, usize)| had.saturating_sub(left.get(&id).copied().unwrap_or(0));
    let ideal: usize = counts(&before).into_iter().map(lost).sum();
    Disruption {
        what: what.to_owned(),
        moved,
        ideal,
        ratio: if moved == 0 {
            0.0
        } else {
            moved as f64 / ideal as f64
        },
        excess_percent: (moved as f64 - ideal as f64) * 100.0 / f64::from(SLOTS),
        small: ideal as f64 * 100.0 < SMALL_PERCENT * f64::from(SLOTS),
    }
}

/// Measures everything with one seed.
pub fn measure(seed: u64) -> Figures {
    let shares = [
        ("2 alike", vec![1; 2]),
        ("10 alike", vec![1; 10]),
        ("50 alike", vec![1; 50]),
        ("655 alike", vec![1; 655]),
        ("60, 60, 40, 40, 40, 7, 1", vec![60, 60, 40, 40, 40, 7, 1]),
        ("90 and 10", vec![90, 10]),
        ("1000 and 1", vec![1000, 1]),
        ("30 of three clusters, 60:30:10", fleet([60, 30, 10])),
        ("1 to 100", (1..=100).collect()),
    ];
    let mut changes = Vec::new();
    let mut both_ways = |count: usize, from: u32, to: u32, what: [String; 2]| {
        let (old, new) = (vec![from; count], with(count, from, to));
        let [there, back] = what;
        changes.push((there, old.clone(), new.clone()));
        changes.push((back, new, old));
    };
    for count in [2, 3, 10, 50, 80, 200, 655] {
        let what = ["removed", "added"].map(|what| format!("1 of {count} {what}"));
        both_ways(count, 100, 0, what);
    }
    for (count, to) in [
        (3, 90),
        (10, 50),
        (10, 90),
        (10, 110),
        (10, 200),
        (50, 10),
        (50, 200),
        (50, 90),
    ] {
        let what = [(100, to), (to, 100)].map(|(a, b)| format!("1 of {count} from {a} to {b}"));
        both_ways(count, 100, to, what);
    }
    for (from, to) in [
        ([60, 30, 10], [50, 40, 10]),
        ([60, 30, 10], [60, 40, 0]),
        ([60, 30, 10], [0, 30, 10]),
        ([100, 100, 0], [100, 90, 10]),
        ([50, 50, 0], [49, 51, 0]),
        ([50, 50, 0], [10, 90, 0]),
    ] {
        let what = format!("three clusters from {from:?} to {to:?}");
        changes.push((what, fleet(from), fleet(to)));
    }
    Figures {
        shares: shares
            .iter()
            .map(|(what, weights)| share(what, weights, seed))
            .collect(),
        disruptions: changes
            .iter()
            .map(|(what, from, to)| disruption(what, from, to, seed))
            .collect(),
        same_on_two_nodes: same_on_two_nodes(&fleet([60, 30, 10]), seed),
    }
}

/// Ten backends in each of three clusters of these weights.
fn fleet(clusters: [u32; 3]) -> Vec<u32> {
    (0..30).map(|at: usize| clusters[at % 3]).collect()
}

/// Backends of one weight, but one of them of another.
fn with(count: usize, weight: u32, other: u32) -> Vec<u32> {
    let mut weights = vec![weight; count];
    weights[count / 2] = other;
    weights
}

/// Whether a node that numbers and lists the backends otherwise gives each the same slots.
pub fn same_on_two_nodes(weights: &[u32], seed: u64) -> bool {
    let here = entries(weights);
    let mut there = here.clone();
    there.reverse();
    for entry in &mut there {
        entry.id += 1000;
    }
    let ring = maglev::build(&here, SLOTS, seed);
    let other = maglev::build(&there, SLOTS, seed);
    ring.len() == other.len() && ring.iter().zip(&other).all(|(a, b)| a + 1000 == *b)
}

/// Measures and prints; fails where a bar does not hold.
pub fn run(json: bool) -> Result<ExitCode> {
    let figures = measure(1);
    if json {
        console::say(json!({ "slots": SLOTS, "figures": figures, "held": figures.held() }));
    } else {
        let rows: Vec<Vec<String>> = figures
            .shares
            .iter()
            .map(|it| {
                vec![
                    it.what.clone(),
                    format!("{:.4} %", it.error_percent),
                    format!("{:.2} %", it.relative_percent),
                ]
            })
            .collect();
        let header = ["backends", "share error, of the ring", "of the share"];
        console::say(console::table(&header, &rows));
        let rows: Vec<Vec<String>> = figures
            .disruptions
            .iter()
            .map(|it| {
                vec![
                    it.what.clone(),
                    it.moved.to_string(),
                    it.ideal.to_string(),
                    format!("{:.2}", it.ratio),
                    format!("{:.2} %", it.excess_percent),
                    if it.small { "small" } else { "" }.to_owned(),
                ]
            })
            .collect();
        let header = [
            "change",
            "slots moved",
            "at least",
            "ratio",
            "beyond it, of the ring",
            "",
        ];
        console::say(console::table(&header, &rows));
    }
    let row = |what: &str, measured: String, most: String, held: bool| {
        let verdict = if held { "held" } else { "FAILED" };
        vec![what.to_owned(), measured, most, verdict.to_owned()]
    };
    let (share, moved) = (figures.worst_share(), figures.worst_disruption());
    let excess = figures.worst_excess();
    console::note(console::table(
        &["bar", "measured", "at most", ""],
        &[
            row(
                "share error, % of the ring",
                format!("{share:.4}"),
                SHARE_ERROR_PERCENT.to_string(),
                share <= SHARE_ERROR_PERCENT,
            ),
            row(
                "slots moved / least, of changes not small",
                format!("{moved:.2}"),
                DISRUPTION.to_string(),
                moved <= DISRUPTION,
            ),
            row(
                "moved beyond the least by small ones, % of the ring",
                format!("{excess:.2}"),
                EXCESS_PERCENT.to_string(),
                excess <= EXCESS_PERCENT,
            ),
            row(
                "another ring on a second node",
                (!figures.same_on_two_nodes).to_string(),
                false.to_string(),
                figures.same_on_two_nodes,
            ),
        ],
    ));
    Ok(if figures.held() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
