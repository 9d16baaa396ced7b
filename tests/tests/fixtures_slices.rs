//! The fixture table on slices and hash tables.

use std::{collections::BTreeSet, panic::catch_unwind};

use fleetgate_tests::{fixtures, slices, world::Hook};

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
