//! Collects what is wrong with one object.

use crate::problem::{ObjectRef, Problem, Severity};

/// Prefix of the ALB annotations.
pub(super) const ALB: &str = "alb.ingress.kubernetes.io/";
/// `auto`, `connection` or `request`, on an Ingress or AlbConfig.
pub(super) const STEERING: &str = "fleetgate.io/steering";
/// Comma-separated addresses of an AlbConfig's listeners.
pub(super) const ADDRESSES: &str = "fleetgate.io/addresses";

/// Field of an annotation by its whole key.
pub(super) fn annotation(key: &str) -> String {
    format!(
        "metadata.annotations[{}]",
        key.chars().take(120).collect::<String>()
    )
}

/// Field of an ALB annotation.
pub(super) fn alb(key: &str) -> String {
    annotation(&format!("{ALB}{key}"))
}

/// Problems of one object.
#[derive(Clone, Debug)]
pub(super) struct Notes {
    pub(super) object: ObjectRef,
    pub(super) problems: Vec<Problem>,
}

impl Notes {
    pub(super) fn on(kind: &str, namespace: &str, name: &str) -> Self {
        let object = ObjectRef {
            cluster: None,
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        Self {
            object,
            problems: Vec::new(),
        }
    }

    pub(super) fn error(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems
            .push(Problem::error(&self.object, field, message, remedy));
    }

    pub(super) fn warning(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems
            .push(Problem::warning(&self.object, field, message, remedy));
    }

    pub(super) fn errors(&self) -> usize {
        self.problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .count()
    }
}
