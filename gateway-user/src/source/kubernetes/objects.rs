//! Objects of an API server -> edits.

use std::rc::Rc;

use serde_json::Value;

use super::{following::Sink, lineage::Change, resource::Resource, server::Server};
use crate::{
    manifest::{self, Edit, Object},
    problem::Problem,
};

/// Objects of one kind.
pub(super) struct Objects {
    pub(super) server: Rc<Server>,
    pub(super) resource: Resource,
}

impl Sink for Objects {
    type Item = Result<Object, Box<Problem>>;

    fn read(&self, object: Value) -> Self::Item {
        manifest::object_of(self.resource.kind(), self.server.cluster.as_ref(), object)
    }

    fn take(&mut self, changes: Vec<Change<Self::Item>>) -> Vec<Edit> {
        let cluster = self.server.cluster.as_ref();
        let mut edits = Vec::with_capacity(changes.len());
        for change in changes {
            let (name, item) = match change {
                Change::Put(name, item) => (name, Some(item)),
                Change::Remove(name) => (name, None),
            };
            let object = self.resource.object(cluster, &name);
            let Some(key) = self.resource.key(cluster, &name) else {
                continue;
            };
            match item {
                Some(Ok(item)) => {
                    edits.push(Edit::Put(key, item));
                    edits.extend(self.server.broken(object, None));
                }
                // What it said when it could last be read stands.
                Some(Err(problem)) => {
                    let problem = Problem {
                        object: object.clone(),
                        ..*problem
                    };
                    edits.extend(self.server.broken(object, Some(problem)));
                }
                None => {
                    edits.push(Edit::Remove(key));
                    edits.extend(self.server.broken(object, None));
                }
            }
        }
        edits
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{
            Access, Timing,
            gate::Gate,
            health::Board,
            lineage::{Happened, Lineage},
            wire::Meta,
        },
        *,
    };
    use crate::{
        manifest::{Changes, ClusterId, Reach, Snapshot},
        source::feed,
    };

    fn objects() -> Objects {
        let (writer, _) = feed();
        let timing = Timing::default();
        let gate = Rc::new(Gate::new(writer, &[], timing.initial_wait));
        let cluster = Some(ClusterId("c1".into()));
        Objects {
            server: Server::new(
                cluster,
                Access::InCluster,
                &[],
                &timing,
                &gate,
                &Board::default(),
            ),
            resource: Resource::Services,
        }
    }

    fn service(name: &str, version: &str, port: Value) -> Value {
        json!({"metadata": {"name": name, "namespace": "n", "resourceVersion": version},
            "spec": {"ports": [{"name": "http", "port": port}]}})
    }

    #[test]
    fn an_object_that_cannot_be_decoded_keeps_its_last_good_version_and_stops_no_other() {
        let mut sink = objects();
        let mut lineage = Lineage::default();
        let mut snapshot = Snapshot::default();
        let mut apply = |edits: Vec<Edit>| {
            snapshot.apply(
                Edit::Cluster(ClusterId("c1".into()), Reach::Connected),
                &mut Changes::default(),
            );
            for edit in edits {
                snapshot.apply(edit, &mut Changes::default());
            }
            let has = snapshot.clusters.values().next().unwrap();
            let ports: Vec<_> = has
                .services
                .values()
                .map(|it| it.spec.ports[0].port)
                .collect();
            (ports, snapshot.problems.len())
        };
        let list = |sink: &Objects, values: &[Value]| -> Vec<_> {
            values
                .iter()
                .map(|value| (Meta::of(value), sink.read(value.clone())))
                .collect()
        };
        let items = list(
            &sink,
            &[service("a", "1", json!(80)), service("b", "2", json!(81))],
        );
        let edits = sink.take(lineage.listed("5".into(), items));
        let (good, problems) = apply(edits);
        assert_eq!((good.len(), problems), (2, 0));

        let bad = service("a", "6", json!({"port": "x"}));
        let change = lineage.event(Happened::Stands, &Meta::of(&bad), || sink.read(bad.clone()));
        let edits = sink.take(change.into_iter().collect());
        assert_eq!(apply(edits), (good.clone(), 1));

        let items = list(&sink, &[bad, service("b", "2", json!(81))]);
        let edits = sink.take(lineage.listed("9".into(), items));
        assert_eq!(apply(edits), (good, 1), "also after a list");

        let mended = service("a", "10", json!(90));
        let change = lineage.event(Happened::Stands, &Meta::of(&mended), || {
            sink.read(mended.clone())
        });
        let edits = sink.take(change.into_iter().collect());
        let (ports, problems) = apply(edits);
        assert_eq!((ports.len(), problems), (2, 0));

        let edits = sink.take(lineage.listed("11".into(), vec![]));
        assert_eq!(apply(edits), (vec![], 0));
    }
}
