//! Everything changes at once, for a short while; `cargo xtask chaos` goes on for minutes.

use std::time::Duration;

use anyhow::Result;
use fleetgate_tests::chaos::{self, Options};

#[test]
fn nothing_is_reset_and_nothing_misrouted_while_everything_changes() -> Result<()> {
    let report = chaos::run(Options {
        lasting: Duration::from_secs(20),
        seed: 1,
    })?;
    assert!(report.clean(), "{report:#?}");
    assert!(
        report.held_requests > 500 && report.short_connections > 500,
        "{report:?}"
    );
    assert!(report.transferred_bytes > 50 << 20, "{report:?}");
    let restarts = report
        .events
        .iter()
        .filter(|(kind, _)| kind.starts_with("agent"));
    let restarts: u64 = restarts.map(|(_, count)| count).sum();
    assert_eq!(report.programs_replaced, restarts, "{report:?}");
    assert!(report.events.len() >= 4, "{report:?}");
    Ok(())
}
