//! The kinds of object this server has, and the paths they live at.

use serde_json::Value;

/// A kind of object that the server stores.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Resource {
    /// `alibabacloud.com/v1`, whole cluster; a custom resource with a status subresource.
    AlbConfigs,
    /// `networking.k8s.io/v1`, whole cluster.
    IngressClasses,
    /// `networking.k8s.io/v1`, in a namespace, with a status subresource.
    Ingresses,
    /// `v1`, in a namespace.
    Secrets,
    /// `v1`, in a namespace.
    Services,
    /// `discovery.k8s.io/v1`, in a namespace.
    EndpointSlices,
    /// `events.k8s.io/v1`, in a namespace.
    Events,
    /// `coordination.k8s.io/v1`, in a namespace.
    Leases,
}

/// What the server needs to know of a [`Resource`].
#[derive(Debug)]
pub(super) struct Traits {
    /// API group; empty for the core group.
    pub(super) group: &'static str,
    /// Name in a path, and in discovery.
    pub(super) plural: &'static str,
    pub(super) singular: &'static str,
    pub(super) kind: &'static str,
    pub(super) short: &'static [&'static str],
    pub(super) namespaced: bool,
    /// Has a status subresource: other writes do not touch `status`.
    pub(super) status: bool,
    /// Counts changes of what is wished for in `metadata.generation`.
    pub(super) generation: bool,
    /// A PUT of an object that does not exist creates it.
    pub(super) create_on_update: bool,
    /// A PUT without `resourceVersion` overwrites whatever is there.
    pub(super) unconditional_update: bool,
    /// Compiled into the real server, so that items of a list have neither `kind` nor `apiVersion`.
    pub(super) built_in: bool,
}

/// A resource whose writes are the plain ones.
const PLAIN: Traits = Traits {
    group: "",
    plural: "",
    singular: "",
    kind: "",
    short: &[],
    namespaced: true,
    status: false,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    built_in: true,
};

static TRAITS: [Traits; Resource::COUNT] = [
    Traits {
        group: "alibabacloud.com",
        plural: "albconfigs",
        singular: "albconfig",
        kind: "AlbConfig",
        namespaced: false,
        status: true,
        generation: true,
        unconditional_update: false,
        built_in: false,
        ..PLAIN
    },
    Traits {
        group: "networking.k8s.io",
        plural: "ingressclasses",
        singular: "ingressclass",
        kind: "IngressClass",
        namespaced: false,
        generation: true,
        ..PLAIN
    },
    Traits {
        group: "networking.k8s.io",
        plural: "ingresses",
        singular: "ingress",
        kind: "Ingress",
        short: &["ing"],
        status: true,
        generation: true,
        ..PLAIN
    },
    Traits {
        plural: "secrets",
        singular: "secret",
        kind: "Secret",
        ..PLAIN
    },
    Traits {
        plural: "services",
        singular: "service",
        kind: "Service",
        short: &["svc"],
        create_on_update: true,
        ..PLAIN
    },
    Traits {
        group: "discovery.k8s.io",
        plural: "endpointslices",
        singular: "endpointslice",
        kind: "EndpointSlice",
        generation: true,
        ..PLAIN
    },
    Traits {
        group: "events.k8s.io",
        plural: "events",
        singular: "event",
        kind: "Event",
        short: &["ev"],
        create_on_update: true,
        ..PLAIN
    },
    Traits {
        group: "coordination.k8s.io",
        plural: "leases",
        singular: "lease",
        kind: "Lease",
        create_on_update: true,
        unconditional_update: false,
        ..PLAIN
    },
];

impl Resource {
    /// How many there are.
    pub const COUNT: usize = 8;

    /// Every resource, in the order of their declaration.
    pub const ALL: [Self; Self::COUNT] = [
        Self::AlbConfigs,
        Self::IngressClasses,
        Self::Ingresses,
        Self::Secrets,
        Self::Services,
        Self::EndpointSlices,
        Self::Events,
        Self::Leases,
    ];

    /// Its place in tables with one entry for each resource.
    pub(super) fn index(self) -> usize {
        self as usize
    }

    pub(super) fn traits(self) -> &'static Traits {
        &TRAITS[self.index()]
    }

    /// Its name in paths: `endpointslices`.
    pub fn plural(self) -> &'static str {
        self.traits().plural
    }

    /// Its name in objects: `EndpointSlice`.
    pub fn kind(self) -> &'static str {
        self.traits().kind
    }

    /// Group and version as objects write them: `v1`, `networking.k8s.io/v1`.
    pub fn api_version(self) -> String {
        match self.traits().group {
            "" => "v1".to_owned(),
            group => format!("{group}/v1"),
        }
    }

    /// The resource that an object belongs to by its `apiVersion` and `kind`; none for anything else.
    pub fn of(object: &Value) -> Option<Self> {
        let kind = object.get("kind")?.as_str()?;
        let api_version = object.get("apiVersion")?.as_str()?;
        Self::ALL
            .into_iter()
            .find(|resource| resource.kind() == kind && resource.api_version() == api_version)
    }

    /// `ingresses.networking.k8s.io`, as messages name a resource; `secrets` in the core group.
    pub(super) fn qualified(self) -> String {
        match self.traits().group {
            "" => self.plural().to_owned(),
            group => format!("{}.{group}", self.plural()),
        }
    }
}

/// What a path of the API names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Target {
    pub(super) resource: Resource,
    /// None for the whole cluster.
    pub(super) namespace: Option<String>,
    /// None for the collection.
    pub(super) name: Option<String>,
    /// The status subresource.
    pub(super) status: bool,
}

impl Target {
    /// The target of `/api/v1/...` or `/apis/GROUP/v1/...`; none if the server has no such thing.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, rest) = match parts.as_slice() {
            ["api", "v1", rest @ ..] => ("", rest),
            ["apis", group, "v1", rest @ ..] => (*group, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let (plural, name, status) = match rest {
            [plural] => (*plural, None, false),
            [plural, name] => (*plural, Some(*name), false),
            [plural, name, "status"] => (*plural, Some(*name), true),
            _ => return None,
        };
        let resource = Resource::ALL
            .into_iter()
            .find(|resource| resource.plural() == plural && resource.traits().group == group)?;
        let traits = resource.traits();
        let scoped = match (traits.namespaced, namespace) {
            (true, None) => name.is_none(),
            (false, Some(_)) => false,
            _ => true,
        };
        if !scoped || (status && !traits.status) {
            return None;
        }
        Some(Self {
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            status,
        })
    }
}
