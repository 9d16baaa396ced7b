//! What is wrong with somebody's object, said so that they can mend it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names one Kubernetes object, or the file that should have held one.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Member cluster that holds the object; `None` for the fleet.
    pub cluster: Option<String>,
    /// Kubernetes kind (`Ingress`, `Service` ...), or `File` for what could not be read as objects.
    pub kind: String,
    /// Empty for objects without a namespace.
    pub namespace: String,
    /// `metadata.name`, or the path of the file relative to the manifest directory.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}", self.name)?;
        match &self.cluster {
            Some(cluster) => write!(f, " (cluster {cluster})"),
            None => Ok(()),
        }
    }
}

/// How much a problem costs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object serves, but not all of what it says.
    Warning,
    /// The object as written is not served; its last good version is, if there was one and it would not serve more than
    /// the object says now.
    Error,
}

/// A user's mistake: a value that is collected and shown, never an error that stops the others.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Problem {
    /// The object to mend.
    pub object: ObjectRef,
    /// Path of the field inside the object, e.g. `metadata.annotations[alb.ingress.kubernetes.io/order]`.
    pub field: String,
    /// What is wrong, with the offending value, bounded in length.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// How much it costs.
    pub severity: Severity,
}

impl Problem {
    /// A problem that keeps the object, or the part of it that `field` names, from being served as written.
    pub fn error(
        object: &ObjectRef,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            object: object.clone(),
            field: field.into(),
            message: message.into(),
            remedy: remedy.into(),
            severity: Severity::Error,
        }
    }

    /// A problem beside which the object serves.
    pub fn warning(
        object: &ObjectRef,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(object, field, message, remedy)
        }
    }
}

/// Longest part of somebody's text that a message repeats, in characters.
const SHOWN_CHARS: usize = 80;

/// Somebody's text between backticks, with control characters escaped and cut to a length that fits a log line.
pub fn shown(text: &str) -> String {
    let mut short = String::from("`");
    for letter in text.chars().take(SHOWN_CHARS) {
        if letter.is_control() {
            short.extend(letter.escape_default());
        } else {
            short.push(letter);
        }
    }
    short.push('`');
    if text.chars().nth(SHOWN_CHARS).is_some() {
        short.push_str("...");
    }
    short
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {}; {}",
            self.object, self.field, self.message, self.remedy
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_text_is_one_bounded_line() {
        assert_eq!(shown("a\n\u{1b}[31m\"b\""), r#"`a\n\u{1b}[31m"b"`"#);
        assert_eq!(
            shown(&"\u{fc}".repeat(100)).chars().count(),
            SHOWN_CHARS + 5
        );
    }
}
