//! The answer to a request that is not carried out: a `Status` object, as the real server words it.

use serde_json::{Value, json};

use super::resource::Resource;

/// Why a request is refused.
///
/// The words and codes are those of `k8s.io/apimachinery/pkg/api/errors`.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// `Status.reason`: `NotFound`, `Conflict` ...
    pub reason: &'static str,
    /// One sentence for people.
    pub message: String,
    /// `Status.details`, null for none.
    pub details: Value,
    /// `Retry-After`, seconds.
    pub retry_after: Option<u32>,
    /// `Status.metadata.continue`, for a listing that may go on from another snapshot.
    pub(super) resume: Option<String>,
}

impl Refusal {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Value::Null,
            retry_after: None,
            resume: None,
        }
    }

    fn about(mut self, resource: Resource, name: &str) -> Self {
        self.details =
            json!({"name": name, "group": resource.traits().group, "kind": resource.plural()});
        self
    }

    pub(super) fn not_found(resource: Resource, name: &str) -> Self {
        Self::new(
            404,
            "NotFound",
            format!("{} \"{name}\" not found", resource.qualified()),
        )
        .about(resource, name)
    }

    pub(super) fn no_such_path() -> Self {
        Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    }

    pub(super) fn already_exists(resource: Resource, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{} \"{name}\" already exists", resource.qualified()),
        )
        .about(resource, name)
    }

    pub(super) fn conflict(resource: Resource, name: &str, why: &str) -> Self {
        Self::new(
            409,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {} \"{name}\": {why}",
                resource.qualified()
            ),
        )
        .about(resource, name)
    }

    /// The object was written since the version that the writer saw.
    pub(super) fn modified(resource: Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// `causes`: field and what is wrong with it.
    pub(super) fn invalid(kind: &str, name: &str, causes: &[(String, String)]) -> Self {
        let list: Vec<String> = causes
            .iter()
            .map(|(field, wrong)| format!("{field}: {wrong}"))
            .collect();
        let what = match list.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut refusal = Self::new(
            422,
            "Invalid",
            format!("{kind} \"{name}\" is invalid: {what}"),
        );
        let causes: Vec<Value> = causes
            .iter()
            .map(|(field, wrong)| {
                json!({"reason": "FieldValueInvalid", "message": wrong, "field": field})
            })
            .collect();
        refusal.details = json!({"name": name, "kind": kind, "causes": causes});
        refusal
    }

    /// The version asked for is older than the history that is kept.
    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// The version asked for lies in the future of this server.
    pub(super) fn too_large(asked: u64, current: u64) -> Self {
        let mut refusal = Self::new(
            504,
            "Timeout",
            format!("Timeout: Too large resource version: {asked}, current: {current}"),
        );
        refusal.retry_after = Some(1);
        refusal.details = json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        });
        refusal
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// The `Status` object of this refusal.
    pub fn status(&self) -> Value {
        let mut metadata = json!({});
        if let Some(token) = &self.resume {
            metadata["continue"] = json!(token);
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        if let Some(seconds) = self.retry_after
            && self.details.is_null()
        {
            status["details"] = json!({"retryAfterSeconds": seconds});
        }
        status
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.code, self.reason, self.message)
    }
}

impl std::error::Error for Refusal {}
