//! The fixture table on slices and hash tables.

use std::{collections::BTreeSet, panic::catch_unwind};

use fleetgate_tests::{
    fixtures,
    packets::{self, flags},
    slices::{self, Slices},
    world::{self, CLIENT, Hook, VIP},
};
use gateway_common::{flow::state, verdict::Action};

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
    assert!(rows.len() >= 100, "{} rows", rows.len());
    assert!(rows.iter().all(|row| !row.steps.is_empty()));
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
