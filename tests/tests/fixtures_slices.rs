//! The fixture table on slices and hash tables.

use std::{collections::BTreeSet, panic::catch_unwind};

use fleetgate_tests::{
    fixtures,
    packets::{self, flags},
    row::Expect,
    slices::{self, Slices},
    world::{self, CLIENT, Hook, VIP},
};
use gateway_common::{
    flow::state,
    verdict::{Action, Reason},
};

#[test]
fn every_row_holds_at_tc_on_slices() {
    run_all(Hook::Tc);
}

#[test]
fn every_row_holds_at_xdp_on_slices() {
    run_all(Hook::Xdp);
}

/// Runs every row, so that one broken row does not hide another.
fn run_all(hook: Hook) {
    let mut broken = Vec::new();
    for row in fixtures::table() {
        if row.runs_at(hook) && catch_unwind(|| slices::run_row(&row, hook)).is_err() {
            broken.push(row.name);
        }
    }
    assert!(broken.is_empty(), "broken rows, told above: {broken:#?}");
}

#[test]
fn the_table_has_many_rows_and_no_name_twice() {
    let rows = fixtures::table();
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names.len(), rows.len());
    let frames: usize = rows.iter().map(|row| row.steps.len()).sum();
    eprintln!("{} rows, {frames} frames", rows.len());
    assert!(rows.len() >= 150, "{} rows", rows.len());
    assert!(rows.iter().all(|row| !row.steps.is_empty()));
}

/// Reasons that no packet on slices can meet, and why.
const UNMET: [(Reason, &str); 5] = [
    (
        Reason::NoRoute,
        "told by the kernel's route lookup; in the kernel, rows whose hop is 0 meet it",
    ),
    (
        Reason::Rewrite,
        "a buffer of the kernel that cannot be written; a frame on slices always can",
    ),
    (
        Reason::Flipped,
        "another CPU replaces the service while this one reads it",
    ),
    (
        Reason::HighWater,
        "the table of a row is not nearly full; `gc_kernel` fills one",
    ),
    (
        Reason::AnswerRate,
        "frames of a row come in a tick of their own each, and every tick has answers left",
    ),
];

#[test]
fn every_reason_is_met_by_a_row_or_cannot_be() {
    let met: BTreeSet<u32> = fixtures::table()
        .iter()
        .flat_map(|row| &row.steps)
        .flat_map(|step| [step.tc, step.xdp])
        .filter_map(|expect| match expect {
            Expect::Pass(reason)
            | Expect::Drop(reason)
            | Expect::Noted(_, reason)
            | Expect::Answer(reason) => Some(reason as u32),
            _ => None,
        })
        .collect();
    for reason in Reason::ALL {
        let unmet = UNMET.iter().find(|(unmet, _)| *unmet == reason);
        match (met.contains(&(reason as u32)), unmet) {
            (false, None) => panic!("{reason:?}: no row meets it; add one, or say why none can"),
            (true, Some((_, why))) => panic!("{reason:?} is met, and should not be: {why}"),
            _ => {}
        }
    }
}

#[test]
fn a_flow_lives_to_the_last_tick_of_its_timeout_and_not_one_longer() {
    let world = world::world();
    let timeout = world.config.timeout_ticks[usize::from(state::TCP_OPENING)];
    for (ticks, action) in [(timeout, Action::Forward), (timeout + 1, Action::Pass)] {
        let mut slices = Slices::new(Hook::Tc, &world);
        let segment = |flags| packets::tcp(CLIENT, VIP, flags).bytes();
        slices.run(&segment(flags::SYN), false);
        slices.wait(ticks);
        let (verdict, _) = slices.run(&segment(flags::ACK), false);
        assert_eq!(verdict.action(), action, "after {ticks} ticks");
    }
}
