//! Random sequences of frames do in the kernel what they do on slices.

#[path = "common/events.rs"]
mod events;

use events::{Event, bytes, crowded, event};
use fleetgate_tests::{
    kernel::{self, Kernel, code},
    row::INGRESS,
    slices::Slices,
    world::{AGE_STEP, Hook},
};
use gateway_common::verdict::Action;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

#[test]
fn any_sequence_of_frames_does_in_the_kernel_what_it_does_on_slices() {
    kernel::own_network().unwrap();
    let mut kernel = Kernel::load().unwrap();
    let mut runner = TestRunner::new(Config {
        cases: 200,
        failure_persistence: None,
        ..Config::default()
    });
    let mut world = crowded();
    // The room of the kernel's table, which need not be filled for each sequence then.
    world.max_flows = kernel::FLOWS as usize;
    let sequences = (
        prop::collection::vec(event(), 1..50),
        prop::sample::select(vec![Hook::Xdp, Hook::Tc]),
    );
    let mut sent = 0;
    // One kernel for all sequences: `run` lends it only shared.
    let shared = std::cell::RefCell::new((&mut kernel, &mut sent));
    runner
        .run(&sequences, |(events, hook)| {
            let (kernel, sent) = &mut *shared.borrow_mut();
            let mut slices = Slices::new(hook, &world);
            kernel.reset(&world).unwrap();
            for event in events {
                let frame = match event {
                    Event::Wait(steps) => {
                        slices.wait(steps * AGE_STEP);
                        kernel.wait(steps * AGE_STEP).unwrap();
                        continue;
                    }
                    Event::Frame(frame, changes, cut) => {
                        let mut frame = bytes(&frame, &changes, cut);
                        // Frames for other stations are TC's own business, not the pipeline's.
                        frame.iter_mut().take(6).for_each(|byte| *byte = 0);
                        frame
                    }
                };
                let Some(ran) = kernel.run(hook, &frame, false).unwrap() else {
                    continue;
                };
                let (verdict, out) = slices.run(&frame, false);
                let mut action = verdict.action();
                let mut same_interface = false;
                if action == Action::Forward {
                    **sent += 1;
                    match world.hops.get(&verdict.hop()) {
                        Some(hop) => same_interface = hop.ifindex == INGRESS,
                        // No hop: TC finds no route in this namespace.
                        None => action = Action::Drop,
                    }
                }
                prop_assert_eq!(ran.code, code(hook, action, same_interface));
                prop_assert_eq!(ran.frame, out);
                prop_assert_eq!(kernel.flows().unwrap(), slices.flows());
            }
            Ok(())
        })
        .unwrap();
    eprintln!("{sent} frames sent alike");
    assert!(sent > 300, "{sent} frames sent: the sequences test nothing");
}
