//! From the routing model to the maps, with the record before and after.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::gateway::{Gateway, now};
use crate::{
    dataplane::{apply, record::Part},
    ir::ListenerName,
    plan::{self, BackendState, Inputs, Plan, Planner, Step},
};

/// A record with fewer groups and backends is shown after each change.
const SMALL: usize = 2_000;
/// A larger one at most this often: a copy takes milliseconds.
pub(super) const SHOW: Duration = Duration::from_secs(1);

impl Gateway {
    /// Plans for these listeners (all with `None`), and brings the maps to the plan.
    pub(super) fn reconcile(&mut self, listeners: Option<&BTreeSet<ListenerName>>) {
        let inputs = Inputs {
            vips: &self.record.vips,
            pool: &self.options.snat,
            routes: &self.routes,
            node_ports: self.record.node_ports,
            // Before the first sweep every backend may have flows.
            busy: self.busy.as_ref(),
        };
        let listeners = listeners.filter(|_| self.planned && !self.rewrite);
        let delta = self
            .planner
            .update(&self.record.ir, listeners, &inputs, &self.record.plan);
        self.planned = true;
        if listeners.is_none() {
            self.told = self.unreachable();
        }
        let mut warnings = self.planner.left_out();
        warnings.extend(self.told.iter().cloned());
        warnings.extend(self.withheld());
        if self.record.warnings != warnings {
            warnings.iter().for_each(|warning| warn!("{warning}"));
            self.record.warnings = warnings;
        }
        self.record.applied_at = now();
        let mut steps = plan::steps(&self.record.plan, &delta);
        if steps.is_empty() && !self.rewrite {
            self.planner.commit();
            let _ = self.save();
            return;
        }
        let mut replaced = self.record.plan.apply(&delta);
        if self.rewrite {
            steps = plan::diff(&Plan::default(), &self.record.plan);
            // What the interrupted change replaced is not free before everything is written.
            replaced.regions.append(&mut self.record.plan.reserved);
            replaced.lists.append(&mut self.record.plan.reserved_lists);
        }
        self.record.applying = Some(replaced);
        // With the model that the plan was made from: the next agent starts from both, and a pod that failed its checks
        // would be trusted again if the plan alone were there.
        self.unsaved.extend(Part::of_delta(&delta));
        if !self.write() {
            // A crash in the middle would leave the next agent without a trace of this plan.
            warn!("the plan is not applied before it is on record; trying again");
            return self.interrupted();
        }
        self.changed = Instant::now();
        self.busy = None;
        let context = apply::Context {
            want: &self.record.plan,
            ticks_per_second: self.ticks_per_second,
            ring_seed: plan::ring_seed(&self.options.ring_secret),
            hops: self.hops.by_backend(),
        };
        match apply::apply(&mut self.tables, &steps, context) {
            Ok(()) => {
                if self.rewrite {
                    let plan = &self.record.plan;
                    let removed = apply::remove_unknown_services(&mut self.tables, plan);
                    apply::remove_unknown_lists(&mut self.tables, plan);
                    info!(removed, "wrote everything again");
                    self.rewrite = false;
                }
                self.planner.commit();
                self.record.applying = None;
                self.record.rings = plan::ring_stamp(plan::ring_seed(&self.options.ring_secret));
                let _ = self.save();
                let down = |step: &Step| matches!(step, Step::Backend { backend, .. } if backend.state == BackendState::Down);
                if steps.iter().any(down) {
                    self.purge();
                }
            }
            Err(error) => {
                warn!(%error, "the plan is in the kernel only in part; trying again");
                self.interrupted();
            }
        }
    }

    /// What the maps hold is a mix: everything is written again, and nothing where packets may still look.
    fn interrupted(&mut self) {
        if let Some(replaced) = &self.record.applying {
            self.record.plan.interrupted(replaced);
        }
        self.planner = Planner::new(&self.record.plan);
        self.planned = false;
        self.rewrite = true;
        self.unsaved.extend(self.record.parts());
    }

    /// Writes what of the record is newer than the map, and shows it; false if the map holds an older one.
    pub(super) fn save(&mut self) -> bool {
        let saved = self.write();
        self.show();
        saved
    }

    fn write(&mut self) -> bool {
        let mut parts = std::mem::take(&mut self.unsaved);
        parts.insert(Part::Head);
        let saved = self.recorder.save(&mut self.tables, &self.record, &parts);
        if let Err(error) = &saved {
            warn!(%error, "the CLI shows an older state");
            self.unsaved.extend(parts);
        }
        saved.is_ok()
    }

    /// Shows the record to the admin server: at once while it is small, at most once a second when it is large.
    pub(super) fn show(&mut self) {
        let entries = self.record.ir.groups.len() + self.record.plan.backends.len();
        if entries > SMALL && self.shown.elapsed() < SHOW {
            self.shared.stale.store(true, Ordering::Release);
            return;
        }
        self.shown = Instant::now();
        self.shared.stale.store(false, Ordering::Release);
        self.shared.record.store(Arc::new(self.record.clone()));
    }

    /// Shows the record if it is newer than what is shown.
    pub(super) fn show_again(&mut self) {
        if self.shared.stale.load(Ordering::Acquire) {
            self.show();
        }
    }
}
