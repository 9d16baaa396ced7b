//! Requests of every kind while everything changes that the proxy serves by, for a short while; `cargo xtask mixed` goes
//! on for a minute.

use std::time::Duration;

use anyhow::Result;
use fleetgate_tests::mixed::{self, Options};

#[test]
fn no_request_fails_while_rules_certificates_and_pods_change_and_a_new_version_takes_over()
-> Result<()> {
    let report = mixed::run(Options {
        lasting: Duration::from_secs(8),
        changes: 20,
        seed: 1,
    })?;
    assert!(report.clean(), "{report:#?}");
    assert_eq!(report.kinds.len(), 9, "{report:#?}");
    for (kind, met) in &report.kinds {
        assert!(met.answered > 50, "{kind}: {report:#?}");
    }
    let upgrade = report.upgrade.expect("planned");
    assert!(upgrade.other_layout, "{upgrade:?}");
    let count = |event: &str| report.events.get(event).copied().unwrap_or(0);
    assert_eq!(count("upgrade"), 1, "{report:#?}");
    assert!(count("certificate swapped") > 2, "{report:#?}");
    assert!(count("pod ended") > 1, "{report:#?}");
    Ok(())
}
