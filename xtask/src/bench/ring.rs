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

/// Most that a share may differ from its weight, in percent of the ring.
pub const SHARE_ERROR_PERCENT: f64 = 0.2;
/// Most that a share may differ from its weight, in slots: it is rounded up or down.
pub const SHARE_ERROR_SLOTS: f64 = 1.0;
/// Slots of the ring that rings are compared by, whatever length the agent gives them.
pub const REFERENCE: u32 = 65_537;
/// Most slots that may change hands, for each that must, when one backend comes, goes or gets another weight.
pub const DISRUPTION: f64 = 1.6;
/// The same, when several do at once. A backend that keeps its share wins slots of those that lose, and loses as many to
/// those that win: in an endless ring, 60:30:10 that become 60:40:0 move 1.57 times what they must.
pub const DISRUPTION_OF_MANY: f64 = 2.0;
/// A change is small if fewer slots than this must move for each backend, where one comes or goes: a ring of three times
/// the square of its backends gives each three times as many slots as there are backends.
pub const SMALL_COMING: f64 = 3.0;
/// The same for other changes. The slots that a backend has too many or too few by chance, and those that are rounded, are
/// then as many as those that must move, and a ratio says little.
pub const SMALL_WEIGHT: f64 = 12.0;
/// Most slots for each backend that a small change may move beyond [`DISRUPTION`].
pub const BEYOND_SLOTS: f64 = 4.0;

/// A ring and how well it keeps its weights.
#[derive(Clone, Debug, Serialize)]
pub struct Share {
    /// Which backends.
    pub what: String,
    /// How many.
    pub backends: usize,
    /// Slots of the ring.
    pub slots: u32,
    /// Largest difference of a share and its weight, in slots.
    pub error_slots: f64,
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
    /// Slots of the ring.
    pub slots: u32,
    /// Slots that changed hands.
    pub moved: usize,
    /// Slots that had to: what some backends lost in number.
    pub ideal: usize,
    /// One by the other.
    pub ratio: f64,
    /// The same in a ring of [`REFERENCE`] slots; nothing where the agent's own would be longer.
    pub reference_ratio: Option<f64>,
    /// Those moved beyond [`DISRUPTION`], for each backend.
    pub beyond_slots: f64,
    /// Whether that is judged, and not the ratio.
    pub small: bool,
    /// Backends whose weight changed.
    pub changed: usize,
}

impl Disruption {
    /// Whether its bar holds.
    pub fn held(&self) -> bool {
        match (self.small, self.changed) {
            (true, _) => self.beyond_slots <= BEYOND_SLOTS,
            (false, 0 | 1) => self.ratio <= DISRUPTION,
            (false, _) => self.ratio <= DISRUPTION_OF_MANY,
        }
    }
}

/// A backend more that makes for a longer ring. Told, not judged: a slot of the longer ring is another one.
#[derive(Clone, Debug, Serialize)]
pub struct Longer {
    /// Backends before.
    pub backends: usize,
    /// Slots before and after.
    pub slots: (u32, u32),
    /// Clients without a flow that go to another backend than before, in percent.
    pub moved_percent: f64,
}

/// Everything that is measured.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Shares.
    pub shares: Vec<Share>,
    /// Changes.
    pub disruptions: Vec<Disruption>,
    /// Where one backend more has another length.
    pub longer: Vec<Longer>,
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

    /// Largest share error, in slots.
    pub fn worst_slots(&self) -> f64 {
        let errors = self.shares.iter().map(|share| share.error_slots);
        errors.fold(0.0, f64::max)
    }

    /// Largest ratio of a change that is not small in a ring of [`REFERENCE`] slots.
    pub fn worst_reference(&self) -> f64 {
        let judged = self.disruptions.iter().filter(|it| !it.small);
        let ratios = judged.filter_map(|it| it.reference_ratio);
        ratios.fold(0.0, f64::max)
    }

    /// Largest ratio of the changes of one backend that are not small.
    pub fn worst_disruption(&self) -> f64 {
        let judged = self.disruptions.iter().filter(|it| !it.small);
        let of_one = judged.filter(|it| it.changed == 1);
        of_one.map(|it| it.ratio).fold(0.0, f64::max)
    }

    /// Largest ratio of the changes of several backends that are not small.
    pub fn worst_of_many(&self) -> f64 {
        let judged = self.disruptions.iter().filter(|it| !it.small);
        let of_many = judged.filter(|it| it.changed > 1);
        of_many.map(|it| it.ratio).fold(0.0, f64::max)
    }

    /// Most that a small change moved beyond [`DISRUPTION`], in slots for each backend.
    pub fn worst_beyond(&self) -> f64 {
        let small = self.disruptions.iter().filter(|it| it.small);
        small.map(|it| it.beyond_slots).fold(0.0, f64::max)
    }

    /// Whether all bars hold.
    pub fn held(&self) -> bool {
        self.same_on_two_nodes
            && self.worst_share() <= SHARE_ERROR_PERCENT
            && self.worst_slots() <= SHARE_ERROR_SLOTS
            && self.worst_reference() <= DISRUPTION
            && self.disruptions.iter().all(Disruption::held)
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

/// Each number of backends after which rings are longer.
fn longer(seed: u64) -> Vec<Longer> {
    const CLIENTS: u32 = 1 << 16;
    let steps = (1..2_000).filter(|count| maglev::ring_len(*count) != maglev::ring_len(count + 1));
    let measure = |backends: usize| {
        let ring = |count: usize| {
            let slots = maglev::ring_len(count);
            maglev::build(&entries(&vec![1; count]), slots, seed)
        };
        let (before, after) = (ring(backends), ring(backends + 1));
        let pod = |ring: &[u32], client: u32| {
            let hash = hash::mix(client);
            ring.get(hash::scale(hash, ring.len() as u32) as usize)
                .copied()
        };
        let moves = |client: &u32| pod(&before, *client) != pod(&after, *client);
        Longer {
            backends,
            slots: (before.len() as u32, after.len() as u32),
            moved_percent: (0..CLIENTS).filter(moves).count() as f64 * 100.0 / f64::from(CLIENTS),
        }
    };
    steps.map(measure).collect()
}

/// The length that the agent would choose.
fn length(weights: &[u32]) -> u32 {
    maglev::ring_len(weights.iter().filter(|weight| **weight > 0).count())
}

/// How a ring of these weights shares.
pub fn share(what: &str, weights: &[u32], seed: u64) -> Share {
    let slots = length(weights);
    let counts = counts(&maglev::build(&entries(weights), slots, seed));
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let (mut error, mut relative) = (0.0_f64, 0.0_f64);
    for (id, weight) in (1_u32..).zip(weights) {
        let want = f64::from(*weight) * f64::from(slots) / total;
        let got = counts.get(&id).copied().unwrap_or(0) as f64;
        error = error.max((got - want).abs());
        if want > 0.0 {
            relative = relative.max((got - want).abs() / want);
        }
    }
    Share {
        what: what.to_owned(),
        backends: weights.len(),
        slots,
        error_slots: error,
        error_percent: error * 100.0 / f64::from(slots),
        relative_percent: relative * 100.0,
    }
}

/// What a change of weights moves in a ring of the length it has before; a weight of zero is a backend that is not there.
pub fn disruption(what: &str, before: &[u32], after: &[u32], seed: u64) -> Disruption {
    let slots = length(before);
    let (moved, ideal) = moves(before, after, slots, seed);
    let reference = (slots <= REFERENCE).then(|| moves(before, after, REFERENCE, seed));
    let ratio = |moved: usize, ideal: usize| match moved {
        0 => 0.0,
        _ => moved as f64 / ideal as f64,
    };
    let pairs = || before.iter().zip(after);
    let backends = pairs().filter(|(a, b)| **a > 0 || **b > 0).count();
    let changed = pairs().filter(|(a, b)| a != b).count();
    let coming = pairs().any(|(a, b)| (*a == 0) != (*b == 0));
    let small = if coming { SMALL_COMING } else { SMALL_WEIGHT };
    Disruption {
        what: what.to_owned(),
        slots,
        moved,
        ideal,
        ratio: ratio(moved, ideal),
        reference_ratio: reference.map(|(moved, ideal)| ratio(moved, ideal)),
        beyond_slots: (moved as f64 - DISRUPTION * ideal as f64).max(0.0) / backends as f64,
        small: (ideal as f64) < small * backends as f64,
        changed,
    }
}

/// Slots that change hands, and how many must.
fn moves(before: &[u32], after: &[u32], slots: u32, seed: u64) -> (usize, usize) {
    let before = maglev::build(&entries(before), slots, seed);
    let after = maglev::build(&entries(after), slots, seed);
    let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    let left = counts(&after);
    let lost = |(id, had): (u32, usize)| had.saturating_sub(left.get(&id).copied().unwrap_or(0));
    (moved, counts(&before).into_iter().map(lost).sum())
}

/// Measures everything with one seed.
pub fn measure(seed: u64) -> Figures {
    let shares = [
        ("2 alike", vec![1; 2]),
        ("10 alike", vec![1; 10]),
        ("50 alike", vec![1; 50]),
        ("147 alike", vec![1; 147]),
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
    for count in [2, 3, 5, 10, 20, 36, 50, 73, 100, 147, 200, 209, 655] {
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
        longer: longer(seed),
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
    let slots = length(weights);
    let ring = maglev::build(&here, slots, seed);
    let other = maglev::build(&there, slots, seed);
    ring.len() == other.len() && ring.iter().zip(&other).all(|(a, b)| a + 1000 == *b)
}

/// Measures and prints; fails where a bar does not hold.
pub fn run(json: bool) -> Result<ExitCode> {
    let figures = measure(1);
    if json {
        console::say(json!({ "figures": figures, "held": figures.held() }));
    } else {
        let rows: Vec<Vec<String>> = figures
            .shares
            .iter()
            .map(|it| {
                vec![
                    it.what.clone(),
                    it.slots.to_string(),
                    format!("{:.4} %", it.error_percent),
                    format!("{:.2}", it.error_slots),
                    format!("{:.2} %", it.relative_percent),
                ]
            })
            .collect();
        let header = [
            "backends",
            "slots",
            "share error, of the ring",
            "in slots",
            "of the share",
        ];
        console::say(console::table(&header, &rows));
        let rows: Vec<Vec<String>> = figures
            .disruptions
            .iter()
            .map(|it| {
                vec![
                    it.what.clone(),
                    it.slots.to_string(),
                    it.moved.to_string(),
                    it.ideal.to_string(),
                    format!("{:.2}", it.ratio),
                    it.reference_ratio
                        .map_or_else(String::new, |ratio| format!("{ratio:.2}")),
                    format!("{:.2}", it.beyond_slots),
                    if it.small { "small" } else { "" }.to_owned(),
                    if it.held() { "held" } else { "FAILED" }.to_owned(),
                ]
            })
            .collect();
        let header = [
            "change",
            "slots",
            "moved",
            "at least",
            "ratio",
            "in 65537 slots",
            "beyond 1.6, a backend",
            "",
            "",
        ];
        console::say(console::table(&header, &rows));
        let rows: Vec<Vec<String>> = figures
            .longer
            .iter()
            .map(|it| {
                vec![
                    format!("{} to {}", it.backends, it.backends + 1),
                    it.slots.0.to_string(),
                    it.slots.1.to_string(),
                    format!("{:.0} %", it.moved_percent),
                ]
            })
            .collect();
        let header = ["longer rings", "slots", "then", "new clients elsewhere"];
        console::say(console::table(&header, &rows));
    }
    let row = |what: &str, measured: String, most: String, held: bool| {
        let verdict = if held { "held" } else { "FAILED" };
        vec![what.to_owned(), measured, most, verdict.to_owned()]
    };
    let bar = |what: &str, measured: f64, most: f64| {
        row(
            what,
            format!("{measured:.4}"),
            most.to_string(),
            measured <= most,
        )
    };
    console::note(console::table(
        &["bar", "measured", "at most", ""],
        &[
            bar(
                "share error, % of the ring",
                figures.worst_share(),
                SHARE_ERROR_PERCENT,
            ),
            bar(
                "share error, slots",
                figures.worst_slots(),
                SHARE_ERROR_SLOTS,
            ),
            bar(
                "slots moved / least, 65537 slots",
                figures.worst_reference(),
                DISRUPTION,
            ),
            bar(
                "slots moved / least, one backend",
                figures.worst_disruption(),
                DISRUPTION,
            ),
            bar(
                "slots moved / least, several at once",
                figures.worst_of_many(),
                DISRUPTION_OF_MANY,
            ),
            bar(
                "beyond that, small changes, slots a backend",
                figures.worst_beyond(),
                BEYOND_SLOTS,
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
