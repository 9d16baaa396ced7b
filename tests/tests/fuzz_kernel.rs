//! The fixture table tampered with: the kernel and the slices do the same.
//!
//! `FLEETGATE_FUZZ_SECONDS=600` makes each property run for that long.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "common/fuzz.rs"]
mod fuzz;
#[path = "common/mutants.rs"]
mod mutants;

use std::cell::{Cell, RefCell};

use fleetgate_tests::{
    fixtures,
    kernel::{self, Kernel},
    lockstep::Lockstep,
    packets::{self, flags},
    world::{CLIENT, Hook, VIP, world},
};
use fuzz::fuzz;
use mutants::mutant;

#[test]
fn rows_that_are_tampered_with_do_in_the_kernel_what_they_do_on_slices() {
    kernel::own_network().unwrap();
    let table = fixtures::table();
    // One kernel for all: the property is given it only shared.
    let kernel = RefCell::new(Kernel::load().unwrap());
    let (runs, sent) = (Cell::new(0), Cell::new(0));
    fuzz("mutants", 400, &mutant(), |mutant| {
        let row = mutant.base(&table);
        // A table that must be filled first is run by the fixtures themselves; here it would be most of the time.
        let mut start = row.world.clone();
        start.max_flows = kernel::FLOWS as usize;
        let mut kernel = kernel.borrow_mut();
        let mut both = Lockstep::new(&mut kernel, &start, mutant.hook).unwrap();
        for (at, step) in mutant.steps(row).into_iter().enumerate() {
            if let Some(change) = step.change {
                both.change(change).unwrap();
            }
            both.wait(step.wait).unwrap();
            let place = format!("row \"{}\", step {}, {:?}", row.name, at + 1, mutant.hook);
            both.run(&place, &step.frame, step.segmented).unwrap();
        }
        runs.set(runs.get() + both.tally.runs);
        sent.set(sent.get() + both.tally.sent);
        Ok(())
    });
    eprintln!("{} runs in both, {} frames sent", runs.get(), sent.get());
    assert!(sent.get() > 400, "tampering leaves too little to test");
}

#[test]
fn the_kernel_takes_every_frame_but_those_that_no_wire_carries() {
    kernel::own_network().unwrap();
    let mut kernel = Kernel::load().unwrap();
    kernel.reset(&world()).unwrap();
    let ipv4 = packets::tcp(CLIENT, VIP, flags::SYN).bytes();
    let mut ipv6 = packets::foreign([2, 0, 0, 0, 0, 1], 0x86dd, &[0x60; 60]);
    ipv6[..6].fill(0);
    let arp = packets::foreign([2, 0, 0, 0, 0, 1], 0x0806, &[0; 46]);
    for (what, frame) in [("IPv4", ipv4), ("IPv6", ipv6), ("ARP", arp)] {
        for hook in [Hook::Xdp, Hook::Tc] {
            let taken = (0..frame.len()).find(|len| {
                let ran = kernel.run(hook, &frame[..*len], false).unwrap();
                ran.is_some()
            });
            eprintln!("{what} at {hook:?}: from {taken:?} bytes on");
            let shortest = kernel::shortest(hook, &frame);
            assert!(
                taken.is_some_and(|taken| taken <= shortest),
                "{what}, {hook:?}"
            );
        }
    }
}
