//! Every packet of the fixture table that is sent, cut at every byte, on slices and in the kernel.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use fleetgate_tests::{
    fixtures,
    kernel::{self, Kernel},
    lockstep::{Lockstep, Tally},
    row::Row,
    world::Hook,
};
use gateway_common::verdict::Action;

#[test]
fn every_packet_that_xdp_sends_is_sent_or_untouched_when_cut_anywhere() {
    cut_all(Hook::Xdp);
}

#[test]
fn every_packet_that_tc_sends_is_sent_or_untouched_when_cut_anywhere() {
    cut_all(Hook::Tc);
}

fn cut_all(hook: Hook) {
    let began = Instant::now();
    kernel::own_network().unwrap();
    let mut kernel = Kernel::load().unwrap();
    let mut all = Tally::default();
    let (mut rows, mut broken) = (0, Vec::new());
    let mut known = HashSet::new();
    for row in fixtures::table() {
        if !row.runs_at(hook) {
            continue;
        }
        rows += 1;
        match catch_unwind(AssertUnwindSafe(|| {
            cut_row(&mut kernel, &mut known, &row, hook)
        })) {
            Ok(tally) => {
                all.runs += tally.runs;
                all.short += tally.short;
                all.packets += tally.packets;
                all.sent += tally.sent;
            }
            Err(_) => broken.push(row.name),
        }
    }
    eprintln!(
        "{hook:?}: {rows} rows, {} packets cut, {} runs in the kernel and on slices ({} sent), {} too short for the \
         kernel, {:.1} s",
        all.packets,
        all.runs,
        all.sent,
        all.short,
        began.elapsed().as_secs_f64()
    );
    assert!(broken.is_empty(), "broken rows, told above: {broken:#?}");
    assert!(all.packets > 100 && all.runs > 20 * all.packets, "{all:?}");
}

/// Runs a row, each packet that will be sent first in pieces. Many rows begin alike: the same packet in the same state
/// is cut in the first of them.
fn cut_row(
    kernel: &mut Kernel,
    known: &mut HashSet<(String, Vec<u8>)>,
    row: &Row,
    hook: Hook,
) -> Tally {
    let mut both = Lockstep::new(kernel, &row.world, hook).unwrap();
    for (at, step) in row.steps.iter().enumerate() {
        let place = format!("row \"{}\", step {}, {hook:?}", row.name, at + 1);
        if let Some(change) = step.change {
            both.change(change).unwrap();
        }
        both.wait(step.wait).unwrap();
        if both.would(&step.frame, step.segmented).action() == Action::Forward
            && known.insert((both.state(), step.frame.clone()))
        {
            both.cuts(&place, &step.frame, step.segmented).unwrap();
        }
        both.run(&place, &step.frame, step.segmented).unwrap();
    }
    both.tally
}
