//! Which Ingress is ours, and on which AlbConfig (contract section 3).

use super::notes::{ALB, Notes, alb, annotation};
use crate::{
    manifest::{Ingress, IngressClass, Snapshot},
    problem::shown,
};

const CONTROLLER: &str = "ingress.k8s.alibabacloud/alb";
const LEGACY_CLASS: &str = "kubernetes.io/ingress.class";

/// Whose an Ingress is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Linkage {
    /// Another controller's.
    NotOurs,
    /// Served by this AlbConfig.
    Gateway(String),
    /// Ours, but the way to its AlbConfig is broken.
    Broken,
}

pub(super) fn link(ingress: &Ingress, snapshot: &Snapshot, notes: &mut Notes) -> Linkage {
    let annotations = &ingress.metadata.annotations;
    let ours = |class: &&IngressClass| class.spec.controller == CONTROLLER;
    let class = |name: &str| snapshot.classes.get(name).map(|class| &**class);
    let meant_for_us = annotations
        .keys()
        .any(|key| key.starts_with(ALB) || key.starts_with("fleetgate.io/"));

    let class = if let Some(name) = &ingress.spec.ingress_class_name {
        let Some(class) = class(name) else {
            if meant_for_us || name == "alb" {
                notes.warning(
                    "spec.ingressClassName",
                    format!(
                        "IngressClass {} does not exist, so the Ingress is not served",
                        shown(name)
                    ),
                    format!(
                        "create the IngressClass with controller {CONTROLLER}, or correct the name"
                    ),
                );
            }
            return Linkage::NotOurs;
        };
        if !ours(&class) {
            return Linkage::NotOurs;
        }
        Some(class)
    } else if let Some(name) = annotations.get(LEGACY_CLASS) {
        match class(name) {
            Some(class) if ours(&class) => Some(class),
            _ if name == "alb" => None,
            _ => return Linkage::NotOurs,
        }
    } else {
        if meant_for_us {
            notes.warning(
                "spec.ingressClassName",
                "is missing, so the Ingress belongs to no gateway and is not served",
                format!("name an IngressClass with controller {CONTROLLER}"),
            );
        }
        return Linkage::NotOurs;
    };
    named(ingress, class, snapshot, notes)
}

/// "annotation `albconfig.name` wins; else IngressClass `spec.parameters.name`; class without `parameters` -> error;
/// class object missing -> name `default`."
fn named(
    ingress: &Ingress,
    class: Option<&IngressClass>,
    snapshot: &Snapshot,
    notes: &mut Notes,
) -> Linkage {
    let (field, name) = match (
        ingress
            .metadata
            .annotations
            .get(&format!("{ALB}albconfig.name")),
        class,
    ) {
        (Some(name), _) => (alb("albconfig.name"), name.clone()),
        (None, None) => (annotation(LEGACY_CLASS), "default".to_owned()),
        (None, Some(class)) => match &class.spec.parameters {
            Some(parameters) if parameters.kind == "AlbConfig" && !parameters.name.is_empty() => {
                ("spec.ingressClassName".to_owned(), parameters.name.clone())
            }
            _ => {
                notes.error(
                    "spec.ingressClassName",
                    format!("IngressClass {} has no parameters that name an AlbConfig", class.metadata.name),
                    "set spec.parameters of the IngressClass to apiGroup alibabacloud.com, kind AlbConfig and its name",
                );
                return Linkage::Broken;
            }
        },
    };
    if !snapshot.gateways.contains_key(&name) {
        notes.error(
            field,
            format!("AlbConfig {} does not exist", shown(&name)),
            "create the AlbConfig, or correct its name",
        );
        return Linkage::Broken;
    }
    Linkage::Gateway(name)
}
