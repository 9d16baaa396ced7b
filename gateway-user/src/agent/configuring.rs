//! What the source says, compiled, and handed to proxy, planner and status.

use tracing::{info, warn};

use super::gateway::{Gateway, now};
use crate::{
    dataplane::record::{ClusterRecord, Part},
    ir::{ClusterId, Touched},
    manifest::{Changes, ClusterObjects, Edit, Reach},
};

/// Problems logged by one configuration; all of them are in `fleetgate status`.
const LOGGED_PROBLEMS: usize = 20;

impl Gateway {
    /// Goes on with what the last agent served, as long as the source says nothing.
    pub(super) async fn carry_on(&mut self) {
        if self.record.ir.listeners.is_empty() {
            warn!(source = %self.options.source, "nothing is known of the configuration yet");
            return;
        }
        // The last agent followed them; this one does not yet.
        for cluster in &mut self.record.clusters {
            if cluster.is_known() {
                cluster.reach = ClusterRecord::LOST.to_owned();
            }
        }
        let all = Touched::all(&self.record.ir);
        self.route(&all);
        self.find_paths().await;
        // Also completes what the last agent may have left half done.
        self.reconcile(None);
    }

    /// Takes in what changed in the manifests.
    pub(super) async fn configure(&mut self, edits: Vec<Edit>) {
        self.published = true;
        let mut changes = Changes::default();
        for edit in edits {
            self.snapshot.apply(edit, &mut changes);
        }
        if self.withheld().is_some() {
            let problems = self.snapshot.problems.values().flatten();
            self.record.problems = problems.cloned().collect();
            self.unsaved.insert(Part::Problems);
            return self.carry_on().await;
        }
        let mut touched = Touched::default();
        if !self.configured {
            self.configured = true;
            changes = Changes::all(&self.snapshot);
            // What only the last agent knew goes.
            touched = Touched::all(&self.record.ir);
        }
        if changes.is_empty() {
            return;
        }
        let new = self.compiler.update(&self.snapshot, &changes);
        self.follow_probes();
        touched.listeners.extend(new.listeners);
        touched.groups.extend(new.groups);
        self.record.ir.follow(self.compiler.ir(), &touched);
        self.unsaved.extend(Part::of_model(&touched));
        if changes.clusters {
            let before = std::mem::take(&mut self.record.clusters);
            let clusters = self.snapshot.clusters.iter();
            let clusters = clusters.map(|(id, it)| cluster(id, it, &before));
            self.record.clusters = clusters.collect();
        }
        self.record.generation += 1;
        // The proxy first: it may be handed a listener that the kernel had.
        self.route(&touched);
        let lapsed = self.lapse();
        if new.problems || lapsed {
            self.tell_problems();
        }
        if self.planned {
            self.find_new_paths(&touched).await;
        } else {
            self.find_paths().await;
        }
        self.reconcile(Some(&touched.listeners));
        if new.problems
            || lapsed
            || !touched.listeners.is_empty()
            || changes.clusters
            || says(&changes)
        {
            self.publish();
        }
        self.tell_ready();
        info!(
            generation = self.record.generation,
            listeners = touched.listeners.len(),
            groups = touched.groups.len(),
            problems = self.record.problems.len(),
            "configuration applied"
        );
    }

    pub(super) fn route(&mut self, touched: &Touched) {
        if touched.is_empty() && self.router.is_used() {
            return;
        }
        let (ir, vips) = (&self.record.ir, &self.record.vips);
        let secrets = &self.snapshot.secrets;
        self.tls.update(ir, &touched.listeners, secrets);
        let table = self.router.update(ir, touched, vips, &self.tls);
        self.proxy.update(table);
    }

    /// Takes in what time made of certificates. Whether that is another thing than was told.
    fn lapse(&mut self) -> bool {
        let now = i64::try_from(now()).unwrap_or(i64::MAX);
        let lapsed = self.tls.problems(now);
        let differs = lapsed != self.lapsed;
        self.lapsed = lapsed;
        differs
    }

    /// Tells of certificates that ran out while nothing else changed.
    pub(super) fn look_at_certificates(&mut self) {
        if self.configured && self.lapse() {
            self.tell_problems();
            let _ = self.save();
            self.publish();
        }
    }

    fn tell_problems(&mut self) {
        let mut problems = self.compiler.problems();
        problems.extend(self.snapshot.problems.values().flatten().cloned());
        problems.extend(self.lapsed.iter().cloned());
        problems.sort();
        problems.dedup();
        let new = problems
            .iter()
            .filter(|p| self.record.problems.binary_search(p).is_err());
        for problem in new.take(LOGGED_PROBLEMS) {
            warn!(object = %problem.object, field = %problem.field, "{}; {}", problem.message, problem.remedy);
        }
        self.record.problems = problems;
        self.unsaved.insert(Part::Problems);
    }

    /// Why the manifests of a start are not taken at their word: an earlier agent knew listeners,
    /// and these hold nothing, or could not be read whole.
    pub(super) fn withheld(&self) -> Option<String> {
        let known = self.record.ir.listeners.len();
        if self.configured || known == 0 {
            return None;
        }
        let snapshot = &self.snapshot;
        let empty = snapshot.gateways.is_empty() && snapshot.ingresses.is_empty();
        let cut = !snapshot.whole;
        (empty || cut).then(|| {
            let what = match (self.published, cut) {
                (false, _) => "was not read yet",
                (true, true) => "cannot be read whole",
                (true, false) => "holds no gateway and no Ingress",
            };
            format!(
                "{} {what}: until that changes, the {known} listeners of the last agent go on; `fleetgate \
                 unload` ends them",
                self.options.source
            )
        })
    }
}

/// Whether objects that have a status changed.
fn says(changes: &Changes) -> bool {
    !(changes.gateways.is_empty() && changes.ingresses.is_empty() && changes.classes.is_empty())
}

/// What is known of a cluster, given what was known before.
fn cluster(id: &ClusterId, it: &ClusterObjects, before: &[ClusterRecord]) -> ClusterRecord {
    let known = |had: &ClusterRecord| *had.id == *id.0 && had.is_known();
    let reach = match it.reach {
        Reach::Connected => "connected",
        Reach::Lost => ClusterRecord::LOST,
        // An earlier agent listed it: what it said last serves on.
        Reach::Unknown if before.iter().any(known) => ClusterRecord::LOST,
        Reach::Unknown => ClusterRecord::UNKNOWN,
    };
    ClusterRecord {
        id: id.to_string(),
        reach: reach.to_owned(),
    }
}
