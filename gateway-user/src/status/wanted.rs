//! What the fleet should say of us: a status for each object, and what to tell about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::{Map, Value, json};

use super::{
    notice::{Notice, Reason, api_version},
    view::{GatewayView, IngressView, View},
};
use crate::problem::{ObjectRef, Problem, Severity};

/// Kinds of the fleet that have a status of ours.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// `alibabacloud.com/v1`, cluster-scoped.
    AlbConfig,
    /// `networking.k8s.io/v1`.
    Ingress,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::AlbConfig, Self::Ingress];

    /// As in the objects.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AlbConfig => "AlbConfig",
            Self::Ingress => "Ingress",
        }
    }
}

/// One object of the fleet that has a status of ours.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Target {
    /// Kind.
    pub kind: Kind,
    /// Empty for an AlbConfig.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Target {
    /// The same object as problems name it.
    pub fn object(&self) -> ObjectRef {
        ObjectRef {
            cluster: None,
            kind: self.kind.name().to_owned(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// The target that is this object, if it can have a status of ours.
    pub fn of(object: &ObjectRef) -> Option<Self> {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == object.kind)?;
        object.cluster.is_none().then(|| Self {
            kind,
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.object().fmt(f)
    }
}

/// Fields of `status.loadBalancer`, all of them ours.
pub type Fields = Map<String, Value>;

/// The status one object should have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Document {
    /// Of the object this is meant for; `None` takes whichever has the name.
    pub uid: Option<String>,
    /// `status.loadBalancer`; empty releases what was ours.
    pub fields: Fields,
}

/// Everything the fleet should say of us. Equal views give equal values.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    /// Objects that are not named here are not ours, and what we wrote to them is released.
    pub whole: bool,
    /// Statuses.
    pub documents: BTreeMap<Target, Document>,
    /// What to tell, at most one of a reason for each object.
    pub notices: BTreeMap<(ObjectRef, Reason), Notice>,
}

/// Makes the wanted statuses and notices.
pub fn wanted(view: &View<'_>) -> Wanted {
    let gateways: BTreeMap<&str, &GatewayView> = view
        .gateways
        .iter()
        .map(|gateway| (gateway.name.as_str(), gateway))
        .collect();
    let mut wanted = Wanted {
        whole: view.whole,
        ..Wanted::default()
    };
    let broken = tell_problems(view.problems, &mut wanted);
    for gateway in view.gateways {
        let target = Target {
            kind: Kind::AlbConfig,
            namespace: String::new(),
            name: gateway.name.clone(),
        };
        let ports = gateway.listeners.iter().filter(|it| it.served).count();
        let note = format!(
            "{ports} of {} listeners are served",
            gateway.listeners.len()
        );
        tell_success(&target, gateway.revision, note, &broken, &mut wanted);
        let document = Document {
            uid: gateway.uid.clone(),
            fields: gateway_fields(view, gateway),
        };
        wanted.documents.insert(target, document);
    }
    for ingress in view.ingresses {
        let target = Target {
            kind: Kind::Ingress,
            namespace: ingress.namespace.clone(),
            name: ingress.name.clone(),
        };
        let gateway = gateways.get(ingress.gateway.as_str()).copied();
        if ingress.served {
            let note = format!("served by AlbConfig {}", ingress.gateway);
            tell_success(&target, ingress.revision, note, &broken, &mut wanted);
        }
        let document = Document {
            uid: ingress.uid.clone(),
            fields: ingress_fields(view, ingress, gateway),
        };
        wanted.documents.insert(target, document);
    }
    wanted
}

/// `<name>.<suffix>`, if names are given to gateways at all.
fn host_name(view: &View<'_>, gateway: &str) -> Option<String> {
    let suffix = view.dns_suffix?.trim_matches('.');
    (!suffix.is_empty()).then(|| format!("{gateway}.{suffix}"))
}

fn gateway_fields(view: &View<'_>, gateway: &GatewayView) -> Fields {
    let mut fields = Fields::new();
    let id = format!("{}-{}", view.instance, gateway.name);
    fields.insert("id".into(), id.into());
    let dns_name =
        host_name(view, &gateway.name).or_else(|| Some(gateway.addresses.first()?.to_string()));
    if let Some(dns_name) = dns_name {
        fields.insert("dnsname".into(), dns_name.into());
    }
    // The reference lists HTTPS listeners only, which is what the column PORT&PROTOCOL shows.
    let listeners: Vec<Value> = gateway
        .listeners
        .iter()
        .filter(|listener| listener.served && listener.protocol == "HTTPS")
        .map(|listener| {
            let certificates: Vec<Value> = listener
                .certificates
                .iter()
                .map(|it| json!({"certificateId": it.secret, "isDefault": it.is_default}))
                .collect();
            json!({
                "portAndProtocol": format!("{}/{}", listener.port, listener.protocol),
                "certificates": certificates,
            })
        })
        .collect();
    fields.insert("listeners".into(), listeners.into());
    fields.insert("subClusters".into(), json!(gateway.clusters));
    fields
}

fn ingress_fields(view: &View<'_>, ingress: &IngressView, gateway: Option<&GatewayView>) -> Fields {
    let mut fields = Fields::new();
    let Some(gateway) = gateway.filter(|_| ingress.served) else {
        return fields;
    };
    let points: Vec<Value> = match host_name(view, &gateway.name) {
        Some(host) => vec![json!({ "hostname": host })],
        None => {
            let addresses = gateway.addresses.iter();
            addresses.map(|ip| json!({"ip": ip.to_string()})).collect()
        }
    };
    // An empty list would not be kept by the API server: having no address is having no field.
    if !points.is_empty() {
        fields.insert("ingress".into(), points.into());
    }
    fields
}

/// One notice of a severity for each object of the fleet. Returns the objects that have errors.
fn tell_problems(problems: &[Problem], wanted: &mut Wanted) -> BTreeSet<ObjectRef> {
    let mut by_object: BTreeMap<(&ObjectRef, Severity), Vec<&Problem>> = BTreeMap::new();
    for problem in problems {
        // A member's API is only read, and a file is not an object.
        if problem.object.cluster.is_none() && api_version(&problem.object.kind).is_some() {
            let key = (&problem.object, problem.severity);
            by_object.entry(key).or_default().push(problem);
        }
    }
    let mut broken = BTreeSet::new();
    for ((object, severity), mut problems) in by_object {
        problems.sort();
        problems.dedup();
        let reason = match severity {
            Severity::Error => Reason::FailedBuildModel,
            Severity::Warning => Reason::IgnoredConfig,
        };
        if severity == Severity::Error {
            broken.insert(object.clone());
        }
        wanted.tell(Notice::of_problems(object, reason, &problems));
    }
    broken
}

fn tell_success(
    target: &Target,
    revision: u64,
    note: String,
    broken: &BTreeSet<ObjectRef>,
    wanted: &mut Wanted,
) {
    let object = target.object();
    if !broken.contains(&object) {
        wanted.tell(Notice::success(object, revision, note));
    }
}

impl Wanted {
    fn tell(&mut self, notice: Notice) {
        let key = (notice.object.clone(), notice.reason);
        self.notices.insert(key, notice);
    }
}

#[cfg(test)]
mod tests;
