//! What rules and policies say, seen from both ends: filters, targets, and how the pods of a group are treated.

#[path = "rules/answers.rs"]
mod answers;
#[path = "rules/changes.rs"]
mod changes;
#[path = "rules/choosing.rs"]
mod choosing;
#[path = "rules/cors.rs"]
mod cors;
#[path = "rules/failing.rs"]
mod failing;
#[path = "rules/grpc.rs"]
mod grpc;
#[path = "rules/gzip.rs"]
mod gzip;
#[path = "rules/h2pod.rs"]
mod h2pod;
#[path = "rules/https.rs"]
mod https;
#[path = "rules/limits.rs"]
mod limits;
#[path = "rules/log.rs"]
pub(crate) mod log;
#[path = "rules/many.rs"]
mod many;
#[path = "rules/mirror.rs"]
mod mirror;
#[path = "rules/responses.rs"]
mod responses;
#[path = "rules/sessions.rs"]
mod sessions;

use std::sync::Arc;

use gateway_user::ir::{Filter, Group, InsertHeader, InsertedValue, Policy};

use super::support::{Origin, backend, group, ok, treated};

/// A group whose only pod is this one.
fn one(origin: &Origin) -> Arc<Group> {
    group("web", vec![backend("c1", origin.address, 1)])
}

/// Pods that say their own number, in the order of their addresses as a group has them.
fn numbered(count: usize) -> Vec<Origin> {
    let pods = (0..count).map(|index| Origin::fixed(ok(&index.to_string())));
    pods.collect()
}

/// A group of these pods, of equal weight, treated so.
fn pods(origins: &[Origin], policy: Policy) -> Arc<Group> {
    let mut backends: Vec<_> = origins
        .iter()
        .map(|origin| backend("c1", origin.address, 1))
        .collect();
    backends.sort();
    treated("web", backends, policy)
}

fn hits(origins: &[Origin]) -> Vec<usize> {
    origins.iter().map(|origin| origin.seen().len()).collect()
}

fn insert(name: &str, value: InsertedValue, overwrite: bool) -> Filter {
    let name = name.to_owned();
    Filter::InsertHeader(InsertHeader {
        name,
        value,
        overwrite,
    })
}

fn literal(name: &str, value: &str, overwrite: bool) -> Filter {
    insert(name, InsertedValue::Literal(value.to_owned()), overwrite)
}
