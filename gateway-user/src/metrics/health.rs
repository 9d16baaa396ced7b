//! Health checks: what probes met, and how the pods stand.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use prometheus_client::encoding::DescriptorEncoder;

use super::{Kind, family};
use crate::{health::Counters, ir::Ir};

/// What a scrape shows of health checks.
#[derive(Clone, Debug, Default)]
pub struct HealthCounters {
    /// What probes met; `None` where none are sent.
    pub probes: Option<Arc<Counters>>,
    /// Groups whose pods are probed.
    pub groups: Vec<GroupHealth>,
}

/// How the pods of one group stand.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupHealth {
    ingress: String,
    service: String,
    passing: u64,
    failing: u64,
    open: bool,
}

impl GroupHealth {
    /// All of a routing model that are probed.
    pub fn of(ir: &Ir) -> Vec<Self> {
        let checked = |policy: &crate::ir::Policy| {
            let check = policy.health.as_ref();
            check.is_some_and(|check| check.executed())
        };
        let groups = ir.groups.values().filter(|group| checked(&group.policy));
        groups
            .map(|group| {
                let (failing, open) = (group.failing.len() as u64, group.is_open());
                Self {
                    ingress: format!("{}/{}", group.name.namespace, group.name.ingress),
                    service: group.service.to_string(),
                    passing: if open { 0 } else { group.backends.len() as u64 },
                    failing,
                    open,
                }
            })
            .collect()
    }
}

impl HealthCounters {
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(probes) = &self.probes else {
            return Ok(());
        };
        let outcomes = [
            ([("outcome", "passed")], probes.passed.load(Relaxed)),
            ([("outcome", "failed")], probes.failed.load(Relaxed)),
            ([("outcome", "unsent")], probes.unsent.load(Relaxed)),
        ];
        let help = "Probes of pods; unsent: this node could not, which says nothing of the pod";
        family(encoder, Kind::Counter, ("health_probes", help), outcomes)?;
        let help = "Probes that began over a second late: more targets than the budget allows";
        let late = [([], probes.late.load(Relaxed))];
        family(encoder, Kind::Counter, ("health_probes_late", help), late)?;
        let changes = [
            ([("to", "failing")], probes.fell.load(Relaxed)),
            ([("to", "passing")], probes.rose.load(Relaxed)),
        ];
        let help = "Pods that began to fail their health checks, or stopped failing";
        family(encoder, Kind::Counter, ("health_changes", help), changes)?;
        let targets = [([], probes.targets.load(Relaxed))];
        let help = "Addresses that are probed";
        family(encoder, Kind::Gauge, ("health_targets", help), targets)?;
        let pods = self.groups.iter().flat_map(|it| {
            [("passing", it.passing), ("failing", it.failing)].map(|(state, count)| {
                let (ingress, service) = (it.ingress.as_str(), it.service.as_str());
                let labels = [("ingress", ingress), ("service", service), ("state", state)];
                (labels, count)
            })
        });
        let help = "Pods that are probed, by how they stand";
        family(encoder, Kind::Gauge, ("health_pods", help), pods)?;
        let open = self.groups.iter().map(|it| {
            let labels = [
                ("ingress", it.ingress.as_str()),
                ("service", it.service.as_str()),
            ];
            (labels, u64::from(it.open))
        });
        let help = "1 while no pod passes, so that all of them serve";
        family(encoder, Kind::Gauge, ("health_open", help), open)
    }
}
