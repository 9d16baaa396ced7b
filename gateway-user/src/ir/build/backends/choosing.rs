//! Which of a group's pods take traffic, and how much each.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use super::Pods;
use crate::{
    ir::model::{Backend, Failing, ProbeFailure, WEIGHT_UNIT},
    manifest::ClusterId,
};

/// Pods of one cluster, and the weight of that cluster; `None`: its pods count alike.
pub(super) struct Clustered<'a> {
    pub(super) id: &'a ClusterId,
    pub(super) share: Option<u8>,
    pub(super) pods: Pods,
}

/// Pods by what they get.
#[derive(Default)]
pub(super) struct Choice {
    pub(super) backends: Vec<Backend>,
    pub(super) idle: Vec<Backend>,
    pub(super) failing: Vec<Failing>,
}

/// Chooses, over all clusters that have a weight:
///
/// 1. ready pods; where there is none, those that terminate and still serve, as kube-proxy does (KEP-1669);
/// 2. of these the ones that do not fail; where all fail, all ("if all servers of a group are unhealthy the gateway fails
///    open"), so a cluster whose pods fail is left before any failing pod is used (contract section 10.3).
///
/// The share of a cluster is split among the chosen pods there.
pub(super) fn choose(
    clustered: Vec<Clustered<'_>>,
    fails: impl Fn(SocketAddr) -> Option<ProbeFailure>,
) -> Choice {
    let ready = clustered
        .iter()
        .any(|it| it.share != Some(0) && !it.pods.ready.is_empty());
    let mut choice = Choice::default();
    let mut candidates = Vec::new();
    for Clustered { id, share, pods } in clustered {
        let Pods {
            ready: is_ready,
            leaving,
            idle,
        } = pods;
        let (wanted, rest) = if share == Some(0) {
            (None, [is_ready, leaving])
        } else if ready {
            (Some(is_ready), [leaving, Default::default()])
        } else {
            (Some(leaving), [is_ready, Default::default()])
        };
        let rest: BTreeMap<_, _> = rest.into_iter().chain([idle]).flatten().collect();
        let rest = rest.into_iter();
        choice.idle.extend(rest.map(|pod| backend(id, pod, 0)));
        let wanted = wanted.into_iter().flatten();
        let wanted: Vec<_> = wanted.map(|pod| (fails(pod.0), pod)).collect();
        for (why, pod) in &wanted {
            choice.failing.extend(why.map(|why| Failing {
                backend: backend(id, pod.clone(), 0),
                why,
            }));
        }
        candidates.push((id, share, wanted));
    }
    let passes = |(why, _): &(Option<ProbeFailure>, _)| why.is_none();
    let open = !candidates
        .iter()
        .any(|(_, _, pods)| pods.iter().any(passes));
    for (id, share, pods) in candidates {
        let used: Vec<_> = pods.into_iter().filter(|it| open || passes(it)).collect();
        let count = u32::try_from(used.len()).unwrap_or(u32::MAX).max(1);
        let weight = match share {
            None => WEIGHT_UNIT,
            Some(share) => (u32::from(share) * WEIGHT_UNIT / count).max(1),
        };
        let used = used.into_iter();
        choice
            .backends
            .extend(used.map(|(_, pod)| backend(id, pod, weight)));
    }
    choice
}

fn backend(id: &ClusterId, (address, pod): (SocketAddr, Arc<str>), weight: u32) -> Backend {
    Backend {
        cluster: id.clone(),
        address,
        pod,
        weight,
    }
}
