//! Which clusters are members, by Secrets of the fleet. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::ByteString;
use serde_json::Value;

use super::{
    access::{Access, Fault, cluster_id},
    lineage::Change,
    resource::{CLUSTER_LABEL, Resource},
};
use crate::{
    manifest::{ClusterId, NamespacedName},
    problem::{ObjectRef, Problem, shown},
};

/// Most members that Secrets may name.
const MEMBERS: usize = 256;

/// Names under which a Secret may hold a kubeconfig, in order.
const FIELDS: [&str; 2] = ["kubeconfig", "value"];

/// A Secret as read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Read {
    label: Option<String>,
    kubeconfig: Result<Arc<[u8]>, Fault>,
}

/// What is to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Follow the cluster by this kubeconfig; if it is followed already, by this one from now on.
    Follow(ClusterId, Arc<[u8]>),
    /// The cluster is associated, and cannot be followed.
    Associate(ClusterId),
    /// The cluster is no longer associated.
    Release(ClusterId),
    /// All that is wrong with a Secret.
    Say(ObjectRef, Vec<Problem>),
}

/// Members by Secrets.
#[derive(Debug, Default)]
pub(super) struct Membership {
    flags: BTreeSet<ClusterId>,
    secrets: BTreeMap<NamespacedName, Read>,
    members: BTreeMap<ClusterId, Member>,
    said: BTreeMap<ObjectRef, Vec<Problem>>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Member {
    by: NamespacedName,
    /// The last that could be used.
    kubeconfig: Option<Arc<[u8]>>,
}

impl Read {
    pub(super) fn of(secret: &Value) -> Self {
        let label = secret
            .get("metadata")
            .and_then(|meta| meta.get("labels")?.get(CLUSTER_LABEL));
        let data = secret.get("data");
        let found = FIELDS
            .iter()
            .find_map(|field| Some((*field, data?.get(*field)?)));
        let fault = |field: String, message: &str| Fault {
            field,
            message: message.to_owned(),
            remedy: "store the kubeconfig of the cluster, base64 encoded, under `kubeconfig`",
        };
        let kubeconfig = match found {
            None => Err(fault(
                "data".to_owned(),
                "holds neither `kubeconfig` nor `value`",
            )),
            Some((field, value)) => match serde_json::from_value::<ByteString>(value.clone()) {
                Err(_) => Err(fault(format!("data.{field}"), "is not base64")),
                Ok(ByteString(bytes)) => {
                    let bytes: Arc<[u8]> = bytes.into();
                    let load = Access::Bytes(bytes.clone()).load();
                    load.map(|_| bytes).map_err(|fault| Fault {
                        field: format!("data.{field}: {}", fault.field),
                        ..fault
                    })
                }
            },
        };
        Self {
            label: label.and_then(Value::as_str).map(str::to_owned),
            kubeconfig,
        }
    }
}

impl Membership {
    /// Members by flags, which Secrets cannot change.
    pub(super) fn new(flags: impl IntoIterator<Item = ClusterId>) -> Self {
        Self {
            flags: flags.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Secrets changed.
    pub(super) fn take(&mut self, changes: Vec<Change<Read>>) -> Vec<Step> {
        for change in changes {
            match change {
                Change::Put(name, read) => drop(self.secrets.insert(name, read)),
                Change::Remove(name) => drop(self.secrets.remove(&name)),
            }
        }
        let mut said = BTreeMap::<ObjectRef, Vec<Problem>>::new();
        let members = self.wanted(&mut said);
        let mut steps = Vec::new();
        for id in self.members.keys().filter(|id| !members.contains_key(*id)) {
            steps.push(Step::Release(id.clone()));
        }
        for (id, member) in &members {
            let had = self.members.get(id);
            match &member.kubeconfig {
                Some(kubeconfig)
                    if had.is_none_or(|had| had.kubeconfig.as_ref() != Some(kubeconfig)) =>
                {
                    steps.push(Step::Follow(id.clone(), kubeconfig.clone()));
                }
                None if had.is_none() => steps.push(Step::Associate(id.clone())),
                _ => {}
            }
        }
        for about in self.said.keys().filter(|about| !said.contains_key(*about)) {
            steps.push(Step::Say(about.clone(), Vec::new()));
        }
        for (about, problems) in &said {
            if self.said.get(about) != Some(problems) {
                steps.push(Step::Say(about.clone(), problems.clone()));
            }
        }
        self.members = members;
        self.said = said;
        steps
    }

    /// The members that the Secrets make, and what is wrong with the Secrets.
    fn wanted(&self, said: &mut BTreeMap<ObjectRef, Vec<Problem>>) -> BTreeMap<ClusterId, Member> {
        let mut say = |name: &NamespacedName, field: &str, message: String, remedy: &str| {
            let about = Resource::ClusterSecrets.object(None, name);
            let problem = Problem::error(&about, field, message, remedy);
            said.entry(about).or_default().push(problem);
        };
        let field = format!("metadata.labels[{CLUSTER_LABEL}]");
        let mut members = BTreeMap::<ClusterId, Member>::new();
        // A Secret that serves a cluster goes before others that name the same one, then the first by name.
        let serves = |name: &NamespacedName| self.members.values().any(|member| member.by == *name);
        let (first, then): (Vec<_>, Vec<_>) =
            self.secrets.iter().partition(|(name, _)| serves(name));
        for (name, read) in first.into_iter().chain(then) {
            let text = read
                .label
                .as_deref()
                .filter(|label| !label.is_empty())
                .unwrap_or(&name.name);
            let Some(id) = cluster_id(text) else {
                let message = format!("{} cannot be a cluster ID", shown(text));
                say(
                    name,
                    &field,
                    message,
                    "label the Secret with 1 to 63 letters, digits, `-`, `_` and `.`, other than `fleet`",
                );
                continue;
            };
            if self.flags.contains(&id) {
                let message =
                    format!("cluster {id} is given by the flag `--cluster`, which goes before");
                say(name, &field, message, "remove the flag or the Secret");
                continue;
            }
            if let Some(other) = members.get(&id) {
                let message = format!("cluster {id} is given by Secret {} already", other.by);
                say(
                    name,
                    &field,
                    message,
                    "remove one of the Secrets, or label it with another ID",
                );
                continue;
            }
            if members.len() == MEMBERS {
                let message = format!("more than {MEMBERS} clusters are given by Secrets");
                say(
                    name,
                    &field,
                    message,
                    "remove Secrets of clusters that are not used",
                );
                continue;
            }
            let kubeconfig = match &read.kubeconfig {
                Ok(kubeconfig) => Some(kubeconfig.clone()),
                Err(fault) => {
                    say(name, &fault.field, fault.message.clone(), fault.remedy);
                    self.members.get(&id).and_then(|had| had.kubeconfig.clone())
                }
            };
            let by = name.clone();
            members.insert(id, Member { by, kubeconfig });
        }
        members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> NamespacedName {
        NamespacedName {
            namespace: "fleetgate".into(),
            name: name.into(),
        }
    }

    fn id(id: &str) -> ClusterId {
        ClusterId(id.into())
    }

    fn good(label: Option<&str>, kubeconfig: &[u8]) -> Read {
        Read {
            label: label.map(str::to_owned),
            kubeconfig: Ok(kubeconfig.into()),
        }
    }

    fn bad() -> Read {
        Read {
            label: Some("c1".into()),
            kubeconfig: Err(Fault {
                field: "data".into(),
                message: "bad".into(),
                remedy: "mend it",
            }),
        }
    }

    fn put(of: &str, read: Read) -> Vec<Change<Read>> {
        vec![Change::Put(name(of), read)]
    }

    fn follow(of: &str, kubeconfig: &[u8]) -> Step {
        Step::Follow(id(of), kubeconfig.into())
    }

    /// What was said, by the Secret it was said of.
    fn said(steps: &[Step]) -> Vec<(&str, usize)> {
        let mut said = Vec::new();
        for step in steps {
            if let Step::Say(about, problems) = step {
                said.push((about.name.as_str(), problems.len()));
            }
        }
        said
    }

    #[test]
    fn members_come_change_and_go_with_their_secrets() {
        let mut members = Membership::new([]);
        assert_eq!(
            members.take(put("s", good(Some("c1"), b"one"))),
            [follow("c1", b"one")]
        );
        assert_eq!(members.take(put("s", good(Some("c1"), b"one"))), []);
        assert_eq!(
            members.take(put("s", good(Some("c1"), b"two"))),
            [follow("c1", b"two")]
        );
        assert_eq!(
            members.take(vec![Change::Remove(name("s"))]),
            [Step::Release(id("c1"))]
        );
    }

    #[test]
    fn a_secret_without_an_id_in_its_label_gives_its_name() {
        let mut members = Membership::new([]);
        assert_eq!(
            members.take(put("s1", good(None, b"k"))),
            [follow("s1", b"k")]
        );
        assert_eq!(
            members.take(put("s2", good(Some(""), b"k"))),
            [follow("s2", b"k")]
        );
        assert_eq!(
            said(&members.take(put(&"x".repeat(64), good(None, b"k")))).len(),
            1
        );
        assert_eq!(
            said(&members.take(put("fleet", good(None, b"k")))),
            [("fleet", 1)]
        );
    }

    #[test]
    fn a_relabelled_secret_moves_from_one_cluster_to_another() {
        let mut members = Membership::new([]);
        members.take(put("s", good(Some("c1"), b"k")));
        assert_eq!(
            members.take(put("s", good(Some("c2"), b"k"))),
            [Step::Release(id("c1")), follow("c2", b"k")]
        );
    }

    #[test]
    fn a_flag_goes_before_a_secret() {
        let mut members = Membership::new([id("c1")]);
        let steps = members.take(put("s", good(Some("c1"), b"k")));
        assert_eq!((steps.len(), said(&steps)), (1, vec![("s", 1)]));
        assert_eq!(
            said(&members.take(vec![Change::Remove(name("s"))])),
            [("s", 0)]
        );
    }

    #[test]
    fn a_bad_kubeconfig_leaves_the_cluster_with_what_it_last_had() {
        let mut members = Membership::new([]);
        let steps = members.take(put("s", bad()));
        assert_eq!(steps[0], Step::Associate(id("c1")));
        assert_eq!(said(&steps), [("s", 1)]);
        let steps = members.take(put("s", good(Some("c1"), b"k")));
        assert_eq!(
            (steps[0].clone(), said(&steps)),
            (follow("c1", b"k"), vec![("s", 0)])
        );
        let steps = members.take(put("s", bad()));
        assert_eq!((steps.len(), said(&steps)), (1, vec![("s", 1)]));
        let steps = members.take(put("s", good(Some("c1"), b"k")));
        assert_eq!((steps.len(), said(&steps)), (1, vec![("s", 0)]));
    }

    #[test]
    fn of_two_secrets_for_one_cluster_the_one_that_serves_goes_on() {
        let mut members = Membership::new([]);
        members.take(put("b", good(Some("c1"), b"b")));
        let steps = members.take(put("a", good(Some("c1"), b"a")));
        assert_eq!((steps.len(), said(&steps)), (1, vec![("a", 1)]));
        let steps = members.take(vec![Change::Remove(name("b"))]);
        assert_eq!(
            (steps[0].clone(), said(&steps)),
            (follow("c1", b"a"), vec![("a", 0)])
        );
    }

    #[test]
    fn what_a_secret_holds_is_read_or_said_to_be_wrong() {
        let read = |data: Value| {
            Read::of(
                &serde_json::json!({"metadata": {"labels": {CLUSTER_LABEL: "c1"}}, "data": data}),
            )
        };
        let field = |data: Value| read(data).kubeconfig.unwrap_err().field;
        assert_eq!(field(serde_json::json!({})), "data");
        assert_eq!(field(serde_json::json!({"value": "%%"})), "data.value");
        assert_eq!(
            field(serde_json::json!({"kubeconfig": "W10="})),
            "data.kubeconfig: kubeconfig"
        );
        let text = b"{current-context: a, contexts: [{name: a, context: {cluster: a}}], clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}]}";
        let encoded = serde_json::to_value(ByteString(text.to_vec())).unwrap();
        let read = read(serde_json::json!({"value": encoded}));
        assert_eq!(read.label.as_deref(), Some("c1"));
        assert_eq!(read.kubeconfig.as_deref(), Ok(&text[..]));
    }
}
