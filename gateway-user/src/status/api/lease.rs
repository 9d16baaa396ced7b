//! Reads and writes the Lease.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};

use super::{Failure, Fleet, MANAGER, Written, bounded};
use crate::status::election::Record;

impl Fleet {
    /// The Lease, and its version.
    pub(in crate::status) async fn read_lease(
        &self,
        (namespace, name): (&str, &str),
        until: Instant,
    ) -> Result<Option<(Record, String)>, Failure> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        let lease = bounded(until, api.get_opt(name)).await;
        let lease = lease.inspect_err(|failure| self.note("get", "leases", failure))?;
        Ok(lease.map(read))
    }

    /// Makes the Lease, or replaces it if it still has this version. What the server then has.
    pub(in crate::status) async fn write_lease(
        &self,
        (namespace, name): (&str, &str),
        record: Record,
        version: Option<String>,
        until: Instant,
    ) -> Result<(Record, String), Failure> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let verb = if version.is_some() {
            "update"
        } else {
            "create"
        };
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                resource_version: version.clone(),
                ..ObjectMeta::default()
            },
            spec: Some(spec(record)),
        };
        let written = match version {
            Some(_) => bounded(until, api.replace(name, &params, &lease)).await,
            None => bounded(until, api.create(&params, &lease)).await,
        };
        self.count(Written::Lease, &written);
        written
            .inspect_err(|failure| self.note(verb, "leases", failure))
            .map(read)
    }
}

fn read(lease: Lease) -> (Record, String) {
    let version = lease.metadata.resource_version.unwrap_or_default();
    let spec = lease.spec.unwrap_or_default();
    let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
    let record = Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(seconds),
        acquired: spec.acquire_time.map(|time| time.0),
        renewed: spec.renew_time.map(|time| time.0),
        transitions: spec.lease_transitions.unwrap_or(0),
    };
    (record, version)
}

fn spec(record: Record) -> LeaseSpec {
    let seconds = record.duration.as_millis().div_ceil(1000).max(1);
    LeaseSpec {
        holder_identity: Some(record.holder),
        lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
        acquire_time: record.acquired.map(MicroTime),
        renew_time: record.renewed.map(MicroTime),
        lease_transitions: Some(record.transitions),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_lease_lasts_a_second_for_others() {
        let record = Record {
            duration: Duration::from_millis(300),
            ..Record::default()
        };
        assert_eq!(spec(record).lease_duration_seconds, Some(1));
    }
}
