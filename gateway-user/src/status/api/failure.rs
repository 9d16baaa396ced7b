//! How requests fail, and what that says about trying again.

use std::fmt;

use super::Outcome;
use crate::problem::shown;

/// Why a request was not carried out, as far as we know.
#[derive(Debug)]
pub(in crate::status) enum Failure {
    /// Other managers have these fields of `status.loadBalancer` (field, manager).
    Taken(Vec<(String, String)>),
    /// There is one of that name.
    Exists,
    /// It has changed since it was read.
    Changed,
    /// There is no such object.
    Gone,
    /// RBAC does not allow it.
    Forbidden(String),
    /// The API server will never take this.
    Refused(String),
    /// The API server cannot be reached, or cannot do it now.
    Unavailable(String),
    /// No answer in time; it may have been carried out all the same.
    TimedOut,
}

impl Failure {
    pub(super) fn of(error: kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::Unavailable(error.to_string());
        };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let mut taken = causes
            .filter(|cause| cause.reason == "FieldManagerConflict")
            .map(|cause| (field_of(&cause.field), manager_of(&cause.message)))
            .peekable();
        match status.code {
            409 if taken.peek().is_some() => {
                Self::Taken(taken.filter_map(|(field, by)| Some((field?, by))).collect())
            }
            409 if status.is_already_exists() => Self::Exists,
            409 => Self::Changed,
            404 => Self::Gone,
            403 => Self::Forbidden(status.message),
            // Being told to come back later, or to log in again (tokens are renewed), is not about the content.
            401 | 408 | 429 => Self::Unavailable(status.message),
            code if (400..500).contains(&code) => Self::Refused(status.message),
            _ => Self::Unavailable(status.message),
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Taken(_) | Self::Changed => Outcome::Conflict,
            Self::Exists => Outcome::Known,
            Self::Gone => Outcome::Gone,
            Self::Forbidden(_) => Outcome::Forbidden,
            Self::Refused(_) => Outcome::Refused,
            Self::Unavailable(_) => Outcome::Unavailable,
            Self::TimedOut => Outcome::TimedOut,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(_) => f.write_str("another manager has the fields"),
            Self::Exists => f.write_str("it exists"),
            Self::Changed => f.write_str("it was changed by somebody else meanwhile"),
            Self::Gone => f.write_str("there is no such object"),
            Self::Forbidden(why) | Self::Refused(why) | Self::Unavailable(why) => {
                f.write_str(&shown(why))
            }
            Self::TimedOut => f.write_str("no answer in time"),
        }
    }
}

/// `.status.loadBalancer.dnsname` and what is below it are the field `dnsname`.
fn field_of(path: &str) -> Option<String> {
    let rest = path.strip_prefix(".status.loadBalancer.")?;
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    (end > 0).then(|| rest[..end].to_owned())
}

/// `conflict with "kubectl" using v1` names `kubectl`.
fn manager_of(message: &str) -> String {
    shown(message.split('"').nth(1).unwrap_or("somebody else"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_names_the_field_and_who_has_it() {
        assert_eq!(
            field_of(".status.loadBalancer.ingress"),
            Some("ingress".into())
        );
        assert_eq!(
            field_of(".status.loadBalancer.listeners[0].certificates"),
            Some("listeners".into())
        );
        for path in [
            "",
            ".status",
            ".status.loadBalancer",
            ".status.loadBalancer.",
        ] {
            assert_eq!(field_of(path), None);
        }
        let message = "conflict with \"nginx\" with subresource \"status\" using v1";
        assert_eq!(manager_of(message), "`nginx`");
        assert_eq!(manager_of("?"), "`somebody else`");
    }
}
