//! Health checks: what is probed, and what becomes of verdicts.

use std::time::Instant;

use tracing::{info, warn};

use super::gateway::Gateway;
use crate::{
    dataplane::record::Part,
    ir::{Probe, ProbeFailure},
};

/// Lines about pods that fail, or do not any more: so many per second, whatever flaps; the rest are counted.
const LINES_PER_SECOND: u32 = 10;

/// What was said in this second.
#[derive(Debug)]
pub(super) struct Said {
    since: Instant,
    lines: u32,
    more: u64,
}

impl Said {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            lines: 0,
            more: 0,
        }
    }

    /// Whether one more line may be written; and how many were not, once that is over.
    fn one_more(&mut self, now: Instant) -> (bool, u64) {
        let mut unsaid = 0;
        if now.saturating_duration_since(self.since).as_secs() >= 1 {
            unsaid = self.more;
            *self = Self::new(now);
        }
        let may = self.lines < LINES_PER_SECOND;
        if may {
            self.lines += 1;
        } else {
            self.more += 1;
        }
        (may, unsaid)
    }
}

impl Gateway {
    /// Takes in who fails now, or does not any more. Costs what a changed pod costs.
    pub(super) async fn judge(&mut self, verdicts: Vec<(Probe, Option<ProbeFailure>)>) {
        // Before the source said anything nothing is probed.
        if !self.configured {
            return;
        }
        for (probe, why) in &verdicts {
            self.say(probe, *why);
        }
        let touched = self.compiler.judge(&self.snapshot, verdicts);
        self.follow_probes();
        if touched.is_empty() {
            return;
        }
        self.record.ir.follow(self.compiler.ir(), &touched);
        self.unsaved.extend(Part::of_model(&touched));
        self.route(&touched);
        self.find_new_paths(&touched).await;
        self.reconcile(Some(&touched.listeners));
    }

    /// Has the pods of the groups probed as they are now.
    pub(super) fn follow_probes(&mut self) {
        self.prober.follow(self.compiler.probe_changes());
    }

    fn say(&mut self, probe: &Probe, why: Option<ProbeFailure>) {
        let (may, unsaid) = self.said.one_more(Instant::now());
        if unsaid > 0 {
            warn!(pods = unsaid, "more health checks changed in that time");
        }
        if !may {
            return;
        }
        match why {
            Some(why) => warn!(address = %probe.address, "fails its health check: it {why}"),
            None => info!(address = %probe.address, "passes its health check again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_are_bounded_and_what_was_not_said_is_counted() {
        let start = Instant::now();
        let mut said = Said::new(start);
        let flaps = (0..1_000).map(|at| said.one_more(start + Duration::from_millis(at)));
        let lines = flaps.filter(|(may, unsaid)| *may && *unsaid == 0).count();
        assert_eq!(lines, 10);
        assert_eq!(said.one_more(start + Duration::from_secs(1)), (true, 990));
    }
}
