//! A short run of the fuzzing of the proxy; `cargo xtask fuzz-proxy` runs it for longer.

use std::time::Duration;

use fleetgate_tests::fuzz_proxy::{Options, run};

#[test]
fn proxy_and_judge_agree_on_mutated_requests() {
    let options = Options {
        lasting: Duration::from_secs(5),
        seed: 1,
        case: None,
    };
    let report = run(options).expect("the stage holds");
    for found in &report.disagreements {
        eprintln!("case {}: {}\n    {}", found.case, found.what, found.hex);
    }
    assert!(report.disagreements.is_empty(), "see above");
    // Both sides of the law were met.
    assert!(report.served > 0 && report.refused > 0, "{report:?}");
}
