//! What the programs cost the verifier: as `cargo xtask verify`, which prints the figures.

use std::collections::BTreeSet;

use fleetgate_tests::{
    costs::{self, BUDGETS},
    kernel,
};

#[test]
fn every_program_stays_far_below_the_verifiers_limit() {
    let costs = costs::measure(&kernel::object().unwrap()).unwrap();
    for cost in &costs {
        let name = &cost.name;
        match cost.verified {
            Some(count) => eprintln!(
                "{name}: {count} instructions verified, budget {:?}, {:.1} ms",
                cost.budget,
                cost.took.as_secs_f64() * 1e3
            ),
            // Kernels before 5.16 do not tell.
            None => eprintln!("{name}: this kernel does not tell how many it verified"),
        }
        assert!(!cost.over(), "{name} is over its budget: {cost:?}");
    }
    let names: BTreeSet<&str> = costs.iter().map(|cost| cost.name.as_str()).collect();
    let budgets: BTreeSet<&str> = BUDGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names, budgets,
        "every program has a budget and none is of a program that is gone"
    );
}
