//! The fixture table in the kernel, compared with the run on slices byte for byte.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use fleetgate_tests::{
    fixtures,
    kernel::{self, Kernel, code},
    row::{Expect, INGRESS, Row, Seen},
    slices,
    world::Hook,
};
use gateway_common::{
    stats::Count,
    verdict::{Action, Reason},
};

#[test]
fn every_row_does_in_the_kernel_at_xdp_what_it_does_on_slices() {
    run_all(Hook::Xdp);
}

#[test]
fn every_row_does_in_the_kernel_at_tc_what_it_does_on_slices() {
    run_all(Hook::Tc);
}

fn run_all(hook: Hook) {
    kernel::own_network().unwrap();
    let mut kernel = Kernel::load().unwrap();
    let (mut rows, mut frames, mut refused) = (0, 0, 0);
    let mut broken = Vec::new();
    for row in fixtures::table() {
        if !row.runs_at(hook) {
            continue;
        }
        let wanted = slices::run_row(&row, hook);
        let run = AssertUnwindSafe(|| run_row(&mut kernel, &row, hook, wanted));
        match catch_unwind(run) {
            Ok(short) => refused += short,
            Err(_) => broken.push(row.name),
        }
        rows += 1;
        frames += row.steps.len();
    }
    eprintln!("{hook:?}: {rows} rows, {frames} frames, {refused} too short for the kernel");
    assert!(broken.is_empty(), "broken rows, told above: {broken:#?}");
    assert!(frames > 4 * refused, "most frames must run");
}

/// Runs a row; returns how many frames the kernel would not take.
fn run_row(kernel: &mut Kernel, row: &Row, hook: Hook, wanted: Vec<Seen>) -> usize {
    let mut world = row.world.clone();
    let mut refused = 0;
    kernel.reset(&world).unwrap();
    let mut no_route = Count::default();
    for (at, (step, mut wanted)) in row.steps.iter().zip(wanted).enumerate() {
        let place = format!("row \"{}\", step {}, {hook:?}", row.name, at + 1);
        if let Some(change) = step.change {
            change(&mut world);
            kernel.apply(&world).unwrap();
        }
        kernel
            .wait(step.wait * fleetgate_tests::world::AGE_STEP)
            .unwrap();
        let Some(ran) = kernel.run_cut(hook, &step.frame, step.segment()).unwrap() else {
            refused += 1;
            continue;
        };
        let mut same_interface = false;
        if let Expect::Forward(hop, ..) | Expect::Sent(hop) | Expect::Noted(hop, _) =
            step.expect(hook)
        {
            let out = world.hops.get(&hop).map_or(0, |hop| hop.ifindex);
            same_interface = out == INGRESS;
            if hop == 0 {
                // TC asks the kernel's routes, and in this namespace there is none.
                wanted.action = Action::Drop;
                no_route.packets += 1;
                no_route.bytes += step.frame.len() as u64;
            }
        }
        if no_route.packets != 0 {
            let reasons = &mut wanted.counters.reasons;
            reasons.insert(Reason::NoRoute as u32, no_route);
        }
        assert_eq!(
            ran.code,
            code(hook, wanted.action, same_interface),
            "{place}: return code for {:?}",
            wanted.action
        );
        assert_eq!(ran.frame, wanted.frame, "{place}: frame");
        assert_eq!(
            kernel.flows().unwrap(),
            wanted.flows,
            "{place}: flow entries"
        );
        assert_eq!(
            kernel.counters().unwrap(),
            wanted.counters,
            "{place}: counters"
        );
    }
    refused
}
