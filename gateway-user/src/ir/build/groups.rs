//! Groups: what each is made of, and its pods.

use std::{collections::BTreeMap, sync::Arc};

use super::{Compiler, Subject, Touched, backends, notes::Notes};
use crate::{
    ir::model::{GroupName, Policy, ServiceName},
    manifest::{ClusterId, NamespacedName, Snapshot},
};

/// What a group is made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Want {
    /// AlbConfig, whose clusters serve.
    pub(super) gateway: String,
    pub(super) service: ServiceName,
    pub(super) weights: Arc<BTreeMap<ClusterId, u8>>,
    pub(super) policy: Arc<Policy>,
    /// Field of the Ingress that first names it.
    pub(super) place: String,
    /// Of the last good version of an Ingress: nothing new is told of it.
    pub(super) stale: bool,
}

impl Want {
    /// Whether both serve the same pods in the same way.
    pub(super) fn alike(&self, other: &Self) -> bool {
        self.gateway == other.gateway
            && self.service == other.service
            && self.weights == other.weights
            && self.policy == other.policy
    }

    fn service(&self) -> NamespacedName {
        NamespacedName {
            namespace: self.service.namespace.clone(),
            name: self.service.name.clone(),
        }
    }
}

impl Compiler {
    /// Notes what a group is made of now; `None` takes it away.
    pub(super) fn want(&mut self, name: &GroupName, want: Option<Want>) {
        if let Some(had) = self.wants.remove(name) {
            let service = had.service();
            if let Some(users) = self.users.get_mut(&service) {
                users.remove(name);
                if users.is_empty() {
                    self.users.remove(&service);
                }
            }
        }
        if let Some(want) = want {
            let users = self.users.entry(want.service()).or_default();
            users.insert(name.clone());
            self.wants.insert(name.clone(), want);
        }
    }

    /// Looks the pods of a group up again.
    pub(super) fn regroup(&mut self, name: &GroupName, snapshot: &Snapshot, touched: &mut Touched) {
        let subject = Subject::Group(name.clone());
        let Some(want) = self.wants.get(name) else {
            if self.ir.groups.remove(name).is_some() {
                touched.groups.insert(name.clone());
                self.probed.follow(name, None);
            }
            self.note(subject, None, touched);
            return;
        };
        let mut notes = Notes::on("Ingress", &name.namespace, &name.ingress);
        let none = Default::default();
        let gateway = self.gateways.get(&want.gateway);
        let clusters = gateway.map_or(&none, |gateway| &gateway.clusters);
        let members = backends::Members {
            snapshot,
            remembered: &self.remembered,
            verdicts: &self.verdicts,
        };
        let group = members.group(name, want, clusters, &mut notes);
        let notes = (!want.stale).then_some(notes);
        if self.ir.groups.get(name).is_none_or(|had| **had != group) {
            self.probed.follow(name, Some(&group));
            self.ir.groups.insert(name.clone(), Arc::new(group));
            touched.groups.insert(name.clone());
        }
        self.note(subject, notes, touched);
    }
}
