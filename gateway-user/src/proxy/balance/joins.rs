//! When pods joined their groups, as the agent saw it: what starts slowly does for all workers alike, also for those that
//! have not met the group before. Pure but for one lock when a table is swapped or a worker meets a group.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::ir::{Group, GroupName};

/// The pods of one group; without a time those that were there when the group was first seen.
type Pods = HashMap<SocketAddr, Option<Instant>>;

/// The groups whose pods start slowly.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Joins(Mutex<HashMap<GroupName, Pods>>);

impl Joins {
    /// Notes which pods are new. `groups` are all there are: others are forgotten.
    pub(in crate::proxy) fn update<'a>(
        &self,
        groups: impl Iterator<Item = &'a Group>,
        now: Instant,
    ) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slow = groups.filter(|it| it.policy.slow_start.is_some());
        let next = slow.map(|group| {
            let before = known.get(&group.name);
            let since = |pod: SocketAddr| match before {
                Some(before) => before.get(&pod).copied().unwrap_or(Some(now)),
                None => None,
            };
            let pods = group.backends.iter().map(|it| it.address);
            (
                group.name.clone(),
                pods.map(|pod| (pod, since(pod))).collect(),
            )
        });
        *known = next.collect();
    }

    /// Those pods of a group that joined it later, by their places, and when.
    pub(super) fn of(&self, group: &Group) -> Vec<(usize, Instant)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pods) = known.get(&group.name) else {
            return Vec::new();
        };
        let all = group.backends.iter().zip(0..);
        all.filter_map(|(pod, at)| Some((at, (*pods.get(&pod.address)?)?)))
            .collect()
    }
}
