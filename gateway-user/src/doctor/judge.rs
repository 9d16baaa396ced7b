//! What a reading means. Pure.

use super::{Finding, Reading, kernel, network};

/// Every check, in the order in which they should be mended.
pub fn judge(reading: &Reading) -> Vec<Finding> {
    let mut findings = kernel::judge(reading);
    findings.extend(network::judge(reading));
    findings
}

/// At most this many names are told.
const TOLD: usize = 5;

/// `a, b, c and 4 more`.
pub(super) fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = all.collect();
    let told = all
        .iter()
        .take(TOLD)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match all.len().saturating_sub(TOLD) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}
