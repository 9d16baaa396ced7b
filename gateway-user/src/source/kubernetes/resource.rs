//! What is listed and watched, and where.

use crate::{
    manifest::{ClusterId, Key, NamespacedName},
    problem::ObjectRef,
};

/// Label of a Secret that holds the kubeconfig of a member cluster; its value is the cluster's ID.
pub const CLUSTER_LABEL: &str = "fleetgate.io/cluster";

/// One followed list.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Resource {
    AlbConfigs,
    IngressClasses,
    Ingresses,
    /// Secrets of the fleet that hold certificates.
    Certificates,
    /// Secrets of the fleet that hold kubeconfigs.
    ClusterSecrets,
    Services,
    EndpointSlices,
}

impl Resource {
    /// Without these there is nothing to serve.
    pub(super) const FLEET: [Self; 3] = [Self::AlbConfigs, Self::IngressClasses, Self::Ingresses];
    /// All that is followed of a member.
    pub(super) const MEMBER: [Self; 2] = [Self::Services, Self::EndpointSlices];

    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::AlbConfigs => "AlbConfig",
            Self::IngressClasses => "IngressClass",
            Self::Ingresses => "Ingress",
            Self::Certificates | Self::ClusterSecrets => "Secret",
            Self::Services => "Service",
            Self::EndpointSlices => "EndpointSlice",
        }
    }

    /// The name by which RBAC rules and people know it.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::AlbConfigs => "albconfigs",
            Self::IngressClasses => "ingressclasses",
            Self::Ingresses => "ingresses",
            Self::Certificates | Self::ClusterSecrets => "secrets",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
        }
    }

    /// Path and selector of the list, without what differs between list and watch. Ends in `?` or `&`.
    pub(super) fn path(self, namespace: &str) -> String {
        match self {
            Self::AlbConfigs => "/apis/alibabacloud.com/v1/albconfigs?".to_owned(),
            Self::IngressClasses => "/apis/networking.k8s.io/v1/ingressclasses?".to_owned(),
            Self::Ingresses => "/apis/networking.k8s.io/v1/ingresses?".to_owned(),
            Self::Certificates => {
                "/api/v1/secrets?fieldSelector=type%3Dkubernetes.io%2Ftls&".to_owned()
            }
            Self::ClusterSecrets => format!(
                "/api/v1/namespaces/{}/secrets?labelSelector={}&",
                escaped(namespace),
                escaped(CLUSTER_LABEL)
            ),
            Self::Services => "/api/v1/services?".to_owned(),
            Self::EndpointSlices => "/apis/discovery.k8s.io/v1/endpointslices?".to_owned(),
        }
    }

    /// `None` for what is not an object of the snapshot.
    pub(super) fn key(self, cluster: Option<&ClusterId>, name: &NamespacedName) -> Option<Key> {
        Some(match self {
            Self::AlbConfigs => Key::AlbConfig(name.name.clone()),
            Self::IngressClasses => Key::IngressClass(name.name.clone()),
            Self::Ingresses => Key::Ingress(name.clone()),
            Self::Certificates => Key::Secret(name.clone()),
            Self::ClusterSecrets => return None,
            Self::Services => Key::Service(cluster?.clone(), name.clone()),
            Self::EndpointSlices => Key::EndpointSlice(cluster?.clone(), name.clone()),
        })
    }

    pub(super) fn object(self, cluster: Option<&ClusterId>, name: &NamespacedName) -> ObjectRef {
        ObjectRef {
            cluster: cluster.map(ToString::to_string),
            kind: self.kind().to_owned(),
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        }
    }
}

/// Text inside a query or path of a URL (RFC 3986, section 2.3: unreserved characters stay).
pub(super) fn escaped(text: &str) -> String {
    let mut url = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_a_url_cannot_leave_its_place() {
        assert_eq!(
            escaped("a-b.c/d?e&f#g\u{fc}"),
            "a-b.c%2Fd%3Fe%26f%23g%C3%BC"
        );
        assert_eq!(
            Resource::ClusterSecrets.path("a/b"),
            "/api/v1/namespaces/a%2Fb/secrets?labelSelector=fleetgate.io%2Fcluster&"
        );
    }
}
