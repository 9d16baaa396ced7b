//! What the programs cost the verifier.

use fleetgate_tests::kernel::Kernel;

/// Instructions the verifier may walk through for one program. The kernel's limit is a million; a
/// program that comes near it on one kernel is refused by another.
const BUDGET: u32 = 400_000;

#[test]
fn every_program_stays_far_below_the_verifiers_limit() {
    let mut kernel = Kernel::load().unwrap();
    for name in ["fleetgate_xdp", "fleetgate_tc"] {
        // Kernels before 5.16 do not tell.
        let Some(count) = kernel.verified_instructions(name).unwrap() else {
            eprintln!("{name}: this kernel does not tell how many instructions it verified");
            continue;
        };
        eprintln!("{name}: {count} instructions verified, budget {BUDGET}");
        assert!(count <= BUDGET, "{name}: {count} instructions verified");
    }
}
